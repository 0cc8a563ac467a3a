//! The Q-Former with its queries and its text side: `blip2_qformer::QFormer`.

use blip2_qformer::{QFormerConfig, QFormerTextConfig};

use super::Tower;
use crate::plan::dry_run::Tensor;
use crate::plan::work::After;

/// Keys and values of the image for each layer that reads it.
pub type ImageKeys = Vec<Option<[Tensor; 2]>>;

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
        self.parameters.embedding(
            self.part,
            "embeddings.position_embeddings",
            positions * width,
            self.keeping,
        );
        self.parameters.embedding(
            self.part,
            "embeddings.word_embeddings",
            text.vocab_size * width,
            self.keeping,
        );
        let learns = self.keeping.learns;
        // The embedding's gradient is as large as it is.
        let words = self.tape.lookup(
            "embeddings.word_embeddings",
            rows,
            width,
            text.vocab_size,
            learns,
        );
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
            let cross =
                |layer: &str| format!("{}.crossattention.attention.{layer}", layer_name(index));
            ["key", "value"]
                .map(|layer| self.linear(&cross(layer), image.clone(), config.hidden_size))
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
            let text =
                (text_rows > 0).then(|| self.tape.copied(&[&hidden], text_rows, hidden.width));
            let mut queries = match &text {
                None => hidden,
                Some(_) => self
                    .tape
                    .copied(&[&hidden], hidden.rows - text_rows, hidden.width),
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
                    self.tape
                        .copied(&[&before[index], &hidden], rows, hidden.width)
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
            self.linear(
                &format!("{name}.attention.{layer}"),
                seen.clone(),
                config.hidden_size,
            )
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
        let (heads, drops) = (
            config.num_attention_heads,
            config.attention_probs_dropout_prob > 0.0,
        );
        let attended = self
            .tape
            .attention([query, key, value], batch, heads, drops);
        self.residual(config, &format!("{name}.output"), attended, hidden)
    }

    fn feed_forward(
        &mut self,
        config: &QFormerConfig,
        index: usize,
        whose: &str,
        hidden: Tensor,
    ) -> Tensor {
        let name = |layer: &str| format!("{}.{layer}{whose}", layer_name(index));
        let inner = format!("{}.dense", name("intermediate"));
        let inner = self.layer(
            &inner,
            hidden.clone(),
            config.intermediate_size,
            false,
            After::Gelu,
        );
        self.residual(config, &name("output"), inner, hidden)
    }

    fn residual(
        &mut self,
        config: &QFormerConfig,
        name: &str,
        x: Tensor,
        hidden: Tensor,
    ) -> Tensor {
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
