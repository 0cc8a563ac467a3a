//! The towers on a [`Tape`]: each function calls the operations that the module of its name calls.

use blip2::lora::Targets;
use blip2_lm::OptConfig;
use blip2_qformer::{QFormerConfig, QFormerTextConfig};
use blip2_vision::VisionConfig;

use super::dry_run::{Matrix, Tape, Tensor};
use super::parameters::Parameters;
use super::work::{After, Part, Precision};

/// Low-rank adapters on layers of a tower.
#[derive(Debug, Clone)]
pub struct Adapters {
    /// The layers.
    pub targets: Targets,
    /// The rank.
    pub rank: usize,
}

/// How a tower is kept, and whether it learns.
#[derive(Debug, Clone)]
pub struct Keeping {
    /// Whether its weights get gradients.
    pub learns: bool,
    /// Bits of a number of its matrices.
    pub bits: usize,
    /// Whether linear layers are kept in eight bits, whatever `bits` says.
    pub int8: bool,
    /// Of its products.
    pub precision: Precision,
    /// LoRA.
    pub adapters: Option<Adapters>,
}

impl Keeping {
    /// All weights in f32, with gradients.
    pub fn trained() -> Self {
        Self {
            learns: true,
            bits: 32,
            int8: false,
            precision: Precision::F32,
            adapters: None,
        }
    }

    /// All weights in f32, constant.
    pub fn frozen() -> Self {
        Self {
            learns: false,
            ..Self::trained()
        }
    }

    fn adapts(&self, name: &str) -> Option<usize> {
        let adapters = self.adapters.as_ref()?;
        // What can't be matched was refused before.
        let matches = adapters.targets.matcher().ok()?;
        matches(name).then_some(adapters.rank)
    }
}

/// A tower under way: a tape, whose weights are counted.
#[derive(Debug)]
pub struct Tower<'a> {
    /// What is done.
    pub tape: &'a mut Tape,
    /// What weights there are.
    pub parameters: &'a mut Parameters,
    /// The tower.
    pub part: Part,
    /// How it is kept.
    pub keeping: &'a Keeping,
}

impl Tower<'_> {
    fn begin(&mut self) {
        self.tape.part = self.part;
        self.tape.precision = self.keeping.precision;
    }

    /// A linear layer by its name in transformers, with its bias unless `bare`.
    fn layer(&mut self, name: &str, x: Tensor, outputs: usize, bare: bool, after: After) -> Tensor {
        let (keeping, inputs) = (self.keeping, x.width);
        let bits = self.parameters.matrix(self.part, name, [inputs, outputs], keeping);
        if !bare {
            self.parameters.vector(self.part, &format!("{name}.bias"), outputs, keeping);
        }
        let matrix = Matrix {
            name: name.to_string(),
            inputs,
            outputs,
            bits,
            learns: keeping.learns,
        };
        let Some(rank) = keeping.adapts(name) else {
            return self.tape.linear(x, &matrix, after);
        };
        let factor = |part: &str, inputs, outputs| Matrix {
            name: format!("{name}.lora_{part}"),
            inputs,
            outputs,
            bits: 32,
            learns: true,
        };
        let (a, b) = (factor("A", inputs, rank), factor("B", rank, outputs));
        for factor in [&a, &b] {
            self.parameters.factor(self.part, &factor.name, factor.inputs * factor.outputs);
        }
        let precision = std::mem::replace(&mut self.tape.precision, Precision::F32);
        let down = self.tape.linear(x.clone(), &a, After::Nothing);
        let delta = self.tape.linear(down, &b, After::Nothing);
        self.tape.precision = precision;
        let base = self.tape.linear(x, &matrix, After::Bias);
        let sum = self.tape.add(base, delta);
        match after {
            After::Gelu | After::Relu => self.tape.activation(sum),
            After::Nothing | After::Bias => sum,
        }
    }

    fn linear(&mut self, name: &str, x: Tensor, outputs: usize) -> Tensor {
        self.layer(name, x, outputs, false, After::Bias)
    }

    fn norm(&mut self, name: &str, x: Tensor) -> Tensor {
        self.parameters.vector(self.part, name, 2 * x.width, self.keeping);
        self.tape.norm(x, name, self.keeping.learns)
    }

    fn rows(&mut self, name: &str, rows: usize, width: usize) -> Tensor {
        self.parameters.vector(self.part, name, rows * width, self.keeping);
        self.tape.parameter(name, rows, width, self.keeping.learns)
    }

    /// The image encoder; gives `[batch · tokens, hidden_size]`.
    pub fn vision(&mut self, config: &VisionConfig, batch: usize) -> Tensor {
        self.begin();
        let (width, patches) = (config.hidden_size, config.num_patches());
        let pixels = config.num_channels * config.patch_size * config.patch_size;
        let x = self.tape.constant(batch * patches, pixels);
        let patches = self.layer("patch_embed", x, width, !config.patch_bias, After::Bias);
        let class = self.rows("class_token", 1, width);
        let positions = self.rows("position_embedding", config.num_tokens(), width);
        let rows = batch * config.num_tokens();
        let hidden = self.tape.copied(&[&class, &patches], rows, width);
        drop(patches);
        let mut hidden = self.tape.add(hidden, positions);
        if config.pre_layernorm {
            hidden = self.norm("pre_layernorm", hidden);
        }
        for index in 0..config.num_hidden_layers {
            hidden = self.vision_block(config, index, hidden, batch);
        }
        hidden
    }

    fn vision_block(
        &mut self,
        config: &VisionConfig,
        index: usize,
        hidden: Tensor,
        batch: usize,
    ) -> Tensor {
        let name = |layer: &str| format!("vision_model.encoder.layers.{index}.{layer}");
        let width = config.hidden_size;
        let normed = self.norm(&name("layer_norm1"), hidden.clone());
        let qkv = name("self_attn.qkv");
        let qkv = self.layer(&qkv, normed, 3 * width, !config.qkv_bias, After::Bias);
        let parts = [0, 1, 2].map(|_| self.tape.channels(&qkv, width));
        let context = self.tape.attention(parts, batch, config.num_attention_heads, false);
        let attended = self.linear(&name("self_attn.projection"), context, width);
        drop(qkv);
        let hidden = self.tape.add(hidden, attended);
        let normed = self.norm(&name("layer_norm2"), hidden.clone());
        let inner = config.intermediate_size;
        let inner = self.layer(&name("mlp.fc1"), normed, inner, false, After::Gelu);
        let transformed = self.linear(&name("mlp.fc2"), inner, width);
        self.tape.add(hidden, transformed)
    }

    /// One norm or one linear layer that is a part of its own.
    pub fn ln_vision(&mut self, x: Tensor) -> Tensor {
        self.begin();
        self.norm("ln_vision", x)
    }

    /// A linear layer of a head.
    pub fn head_layer(&mut self, name: &str, x: Tensor, outputs: usize) -> Tensor {
        self.begin();
        self.linear(name, x, outputs)
    }

    /// What stands between hidden states and `words`: a layer, a norm; the words' biases.
    pub fn word_head(&mut self, x: Tensor, words: usize) -> Tensor {
        self.begin();
        let width = x.width;
        let hidden = self.layer("cls.dense", x, width, false, After::Gelu);
        self.parameters.vector(self.part, "cls.bias", words, self.keeping);
        self.norm("cls.layer_norm", hidden)
    }

    /// From the Q-Former's width to `outputs`.
    pub fn neck(&mut self, x: Tensor, outputs: usize) -> Tensor {
        self.begin();
        self.linear("language_projection", x, outputs)
    }
}

/// Keys and values of the image for each layer that reads it.
pub type ImageKeys = Vec<Option<[Tensor; 2]>>;

/// The Q-Former.
impl Tower<'_> {
    /// The queries of `batch` images, before the first layer.
    pub fn queries(&mut self, config: &QFormerConfig, batch: usize) -> Tensor {
        self.begin();
        let tokens = self.rows("query_tokens", config.num_query_tokens, config.hidden_size);
        let normed = self.norm("qformer.layernorm", tokens);
        let rows = batch * config.num_query_tokens;
        let hidden = self.tape.copied(&[&normed], rows, config.hidden_size);
        self.tape.dropout(hidden, config.hidden_dropout_prob > 0.0)
    }

    /// Words and positions of texts, normed with the queries' norm; after `before`, if there is something.
    pub fn text(
        &mut self,
        config: &QFormerConfig,
        text: &QFormerTextConfig,
        rows: usize,
        queries_of: Option<usize>,
    ) -> Tensor {
        self.begin();
        let width = config.hidden_size;
        let positions = text.max_position_embeddings;
        self.parameters.embedding(self.part, "embeddings.position_embeddings", positions * width, self.keeping);
        self.parameters.embedding(self.part, "embeddings.word_embeddings", text.vocab_size * width, self.keeping);
        let learns = self.keeping.learns;
        // The embedding's gradient is as large as it is.
        let words = self.tape.lookup("embeddings.word_embeddings", rows, width, text.vocab_size, learns);
        let embedded = match queries_of {
            None => words,
            Some(batch) => {
                let tokens = self.rows("query_tokens", config.num_query_tokens, width);
                let rows = rows + batch * config.num_query_tokens;
                self.tape.copied(&[&tokens, &words], rows, width)
            }
        };
        let normed = self.norm("qformer.layernorm", embedded);
        self.tape.dropout(normed, config.hidden_dropout_prob > 0.0)
    }

    /// Keys and values of `image` for all layers.
    pub fn image_keys(&mut self, config: &QFormerConfig, image: &Tensor) -> ImageKeys {
        self.begin();
        (0..config.num_hidden_layers)
            .map(|index| self.keys_of_layer(config, index, image))
            .collect()
    }

    fn keys_of_layer(
        &mut self,
        config: &QFormerConfig,
        index: usize,
        image: &Tensor,
    ) -> Option<[Tensor; 2]> {
        config.has_cross_attention(index).then(|| {
            let cross = |layer: &str| format!("{}.crossattention.attention.{layer}", layer_name(index));
            ["key", "value"].map(|layer| self.linear(&cross(layer), image.clone(), config.hidden_size))
        })
    }

    /// All layers over queries that read an image, and over texts. `shared` keys come from
    /// [`image_keys`](Self::image_keys); of `image` each layer makes its own.
    pub fn read_image(
        &mut self,
        config: &QFormerConfig,
        mut hidden: Tensor,
        batch: usize,
        image: Image<'_>,
        text_rows: usize,
    ) -> (Tensor, Vec<Tensor>) {
        self.begin();
        let mut entered = Vec::new();
        for index in 0..config.num_hidden_layers {
            entered.push(hidden.clone());
            let seen = hidden.clone();
            hidden = self.self_attention(config, index, hidden, seen, batch);
            let text = (text_rows > 0).then(|| self.tape.copied(&[&hidden], text_rows, hidden.width));
            let mut queries = match &text {
                None => hidden,
                Some(_) => self.tape.copied(&[&hidden], hidden.rows - text_rows, hidden.width),
            };
            let keys = match image {
                Image::Embeds(embeds) => self.keys_of_layer(config, index, embeds),
                Image::Keys(keys) => keys[index].clone(),
            };
            if let Some([key, value]) = keys {
                let cross = format!("{}.crossattention", layer_name(index));
                queries = self.attend(config, &cross, queries, [key, value], batch);
            }
            hidden = self.feed_forward(config, index, "_query", queries);
            if let Some(text) = text {
                let text = self.feed_forward(config, index, "", text);
                let rows = hidden.rows + text.rows;
                hidden = self.tape.copied(&[&hidden, &text], rows, hidden.width);
            }
        }
        (hidden, entered)
    }

    /// All layers over texts, which see `before` in each, if given.
    pub fn read_text(
        &mut self,
        config: &QFormerConfig,
        mut hidden: Tensor,
        batch: usize,
        before: Option<&[Tensor]>,
    ) -> Tensor {
        self.begin();
        for index in 0..config.num_hidden_layers {
            let seen = match before {
                None => hidden.clone(),
                Some(before) => {
                    let rows = before[index].rows + hidden.rows;
                    self.tape.copied(&[&before[index], &hidden], rows, hidden.width)
                }
            };
            hidden = self.self_attention(config, index, hidden, seen, batch);
            hidden = self.feed_forward(config, index, "", hidden);
        }
        hidden
    }

    fn self_attention(
        &mut self,
        config: &QFormerConfig,
        index: usize,
        hidden: Tensor,
        seen: Tensor,
        batch: usize,
    ) -> Tensor {
        let name = format!("{}.attention", layer_name(index));
        let [key, value] = ["key", "value"].map(|layer| {
            self.linear(&format!("{name}.attention.{layer}"), seen.clone(), config.hidden_size)
        });
        drop(seen);
        self.attend(config, &name, hidden, [key, value], batch)
    }

    fn attend(
        &mut self,
        config: &QFormerConfig,
        name: &str,
        hidden: Tensor,
        [key, value]: [Tensor; 2],
        batch: usize,
    ) -> Tensor {
        let query = format!("{name}.attention.query");
        let query = self.linear(&query, hidden.clone(), config.hidden_size);
        let (heads, drops) = (config.num_attention_heads, config.attention_probs_dropout_prob > 0.0);
        let attended = self.tape.attention([query, key, value], batch, heads, drops);
        self.residual(config, &format!("{name}.output"), attended, hidden)
    }

    fn feed_forward(&mut self, config: &QFormerConfig, index: usize, whose: &str, hidden: Tensor) -> Tensor {
        let name = |layer: &str| format!("{}.{layer}{whose}", layer_name(index));
        let inner = format!("{}.dense", name("intermediate"));
        let inner = self.layer(&inner, hidden.clone(), config.intermediate_size, false, After::Gelu);
        self.residual(config, &name("output"), inner, hidden)
    }

    fn residual(&mut self, config: &QFormerConfig, name: &str, x: Tensor, hidden: Tensor) -> Tensor {
        let x = self.linear(&format!("{name}.dense"), x, config.hidden_size);
        let x = self.tape.dropout(x, config.hidden_dropout_prob > 0.0);
        let sum = self.tape.add(x, hidden);
        self.norm(&format!("{name}.LayerNorm"), sum)
    }
}

fn layer_name(index: usize) -> String {
    format!("qformer.encoder.layer.{index}")
}

/// The image as the Q-Former's layers read it.
#[derive(Debug, Clone, Copy)]
pub enum Image<'a> {
    /// Its embeddings.
    Embeds(&'a Tensor),
    /// Keys and values that other passes share.
    Keys(&'a ImageKeys),
}

/// The language model.
impl Tower<'_> {
    /// The embeddings of `rows` tokens.
    pub fn embed(&mut self, config: &OptConfig, rows: usize) -> Tensor {
        self.begin();
        let (vocabulary, width) = (config.vocab_size, config.word_embed_proj_dim);
        self.parameters.embedding(self.part, EMBEDDING, vocabulary * width, self.keeping);
        self.tape.lookup(EMBEDDING, rows, width, vocabulary, self.keeping.learns)
    }

    /// What stands before the first layer.
    pub fn enter(&mut self, config: &OptConfig, x: Tensor) -> Tensor {
        self.begin();
        // OPT has two positions before the first.
        let positions = (config.max_position_embeddings + 2) * config.hidden_size;
        let name = "decoder.embed_positions";
        self.parameters.embedding(self.part, name, positions, self.keeping);
        let rows = config.max_position_embeddings + 2;
        let positions =
            self.tape.lookup(name, x.rows, config.hidden_size, rows, self.keeping.learns);
        let x = match config.word_embed_proj_dim == config.hidden_size {
            true => x,
            false => self.layer("decoder.project_in", x, config.hidden_size, true, After::Bias),
        };
        self.tape.add(x, positions)
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
                this.layer(&name(&format!("self_attn.{layer}")), x.clone(), width, bare, After::Bias)
            });
            drop(x);
            let [key, value] = cache(this.tape, [key, value]);
            let heads = config.num_attention_heads;
            let context = this.tape.attention([query, key, value], batch, heads, false);
            this.layer(&name("self_attn.out_proj"), context, width, bare, After::Bias)
        });
        self.around(config, hidden, &name("final_layer_norm"), |this, x| {
            let after = match config.activation_function {
                blip2_lm::opt::Activation::Relu => After::Relu,
                blip2_lm::opt::Activation::Gelu => After::Gelu,
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
            false => self.layer("decoder.project_out", hidden, config.word_embed_proj_dim, true, After::Bias),
        }
    }
}

/// The token embedding's name, which the output layer shares.
pub const EMBEDDING: &str = "decoder.embed_tokens";
