//! The language model: `blip2_lm::Opt`.

use blip2_lm::OptConfig;
use blip2_lm::opt::Activation;

use super::Tower;
use crate::plan::dry_run::{Tape, Tensor};
use crate::plan::work::After;

impl Tower<'_> {
    /// The embeddings of `rows` tokens.
    pub fn embed(&mut self, config: &OptConfig, rows: usize) -> Tensor {
        self.begin();
        let (vocabulary, width) = (config.vocab_size, config.word_embed_proj_dim);
        self.parameters
            .embedding(self.part, EMBEDDING, vocabulary * width, self.keeping);
        self.tape
            .lookup(EMBEDDING, rows, width, vocabulary, self.keeping.learns)
    }

    /// What stands before the first layer.
    pub fn enter(&mut self, config: &OptConfig, x: Tensor) -> Tensor {
        self.begin();
        // OPT has two positions before the first.
        let positions = (config.max_position_embeddings + 2) * config.hidden_size;
        let name = "decoder.embed_positions";
        self.parameters
            .embedding(self.part, name, positions, self.keeping);
        let rows = config.max_position_embeddings + 2;
        let positions =
            self.tape
                .lookup(name, x.rows, config.hidden_size, rows, self.keeping.learns);
        let x = match config.word_embed_proj_dim == config.hidden_size {
            true => x,
            false => self.layer(
                "decoder.project_in",
                x,
                config.hidden_size,
                true,
                After::Bias,
            ),
        };
        self.tape.add(x, positions)
    }

    /// All layers, without cache.
    pub fn decoder_layers(&mut self, config: &OptConfig, hidden: Tensor, batch: usize) -> Tensor {
        (0..config.num_hidden_layers).fold(hidden, |hidden, index| {
            let config = config.clone();
            self.block(hidden, move |tower, x| {
                tower.decoder_layer(&config, index, x, batch, &mut |_, keys| keys)
            })
        })
    }

    /// One layer; `cache` gives keys and values of all tokens for those of the new ones.
    pub fn decoder_layer(
        &mut self,
        config: &OptConfig,
        index: usize,
        hidden: Tensor,
        batch: usize,
        cache: &mut dyn FnMut(&mut Tape, [Tensor; 2]) -> [Tensor; 2],
    ) -> Tensor {
        self.begin();
        let name = |layer: &str| format!("language_model.model.decoder.layers.{index}.{layer}");
        let (width, bare) = (config.hidden_size, !config.enable_bias);
        let norm = name("self_attn_layer_norm");
        let hidden = self.around(config, hidden, &norm, |this, x| {
            let [query, key, value] = ["q_proj", "k_proj", "v_proj"].map(|layer| {
                this.layer(
                    &name(&format!("self_attn.{layer}")),
                    x.clone(),
                    width,
                    bare,
                    After::Bias,
                )
            });
            drop(x);
            let [key, value] = cache(this.tape, [key, value]);
            let heads = config.num_attention_heads;
            let context = this
                .tape
                .attention([query, key, value], batch, heads, false);
            this.layer(
                &name("self_attn.out_proj"),
                context,
                width,
                bare,
                After::Bias,
            )
        });
        self.around(config, hidden, &name("final_layer_norm"), |this, x| {
            let after = match config.activation_function {
                Activation::Relu => After::Relu,
                Activation::Gelu => After::Gelu,
            };
            let inner = this.layer(&name("fc1"), x, config.ffn_dim, bare, after);
            this.layer(&name("fc2"), inner, width, bare, After::Bias)
        })
    }

    fn around(
        &mut self,
        config: &OptConfig,
        hidden: Tensor,
        norm: &str,
        part: impl FnOnce(&mut Self, Tensor) -> Tensor,
    ) -> Tensor {
        let drops = config.dropout > 0.0 && self.keeping.learns;
        let x = match config.do_layer_norm_before {
            true => self.norm(norm, hidden.clone()),
            false => hidden.clone(),
        };
        let x = part(self, x);
        let x = self.tape.dropout(x, drops);
        let sum = self.tape.add(hidden, x);
        match config.do_layer_norm_before {
            true => sum,
            false => self.norm(norm, sum),
        }
    }

    /// What stands behind the last layer.
    pub fn leave(&mut self, config: &OptConfig, hidden: Tensor) -> Tensor {
        self.begin();
        let hidden = match config.do_layer_norm_before {
            true => self.norm("decoder.final_layer_norm", hidden),
            false => hidden,
        };
        match config.word_embed_proj_dim == config.hidden_size {
            true => hidden,
            false => self.layer(
                "decoder.project_out",
                hidden,
                config.word_embed_proj_dim,
                true,
                After::Bias,
            ),
        }
    }
}

/// The token embedding's name, which the output layer shares.
pub const EMBEDDING: &str = "decoder.embed_tokens";
