//! Stage 1: `blip2::stage1::Blip2Qformer::loss`.

use super::head::cross_entropy;
use super::{Batch, Stage1, Walk, images_of, scored};
use crate::plan::dry_run::{Matrix, Tensor};
use crate::plan::towers::{Image, Keeping};
use crate::plan::work::{After, Direction, Layout, Operation, Part, Precision, Product};

impl Stage1 {
    /// One reading of each image serves all three losses.
    pub(super) fn loss(&self, walk: &mut Walk<'_>, batch: &Batch) -> Tensor {
        let Some(text) = &self.qformer.text else {
            return walk.tape.constant(1, 1);
        };
        let (config, trained) = (&self.qformer, Keeping::trained());
        let (images, tokens) = (batch.images, batch.tokens);
        let embeds = images_of(walk, &self.vision, images, batch.cached);
        let normed = walk.tower(Part::LnVision, &trained).ln_vision(embeds);
        walk.parameters.vector(Part::Head, "temp", 1, &trained);
        let mut qformer = walk.tower(Part::MultimodalBackbone, &trained);
        let keys = qformer.image_keys(config, &normed);
        let queries = qformer.queries(config, images);
        let (queries, states) = qformer.read_image(config, queries, images, Image::Keys(&keys), 0);

        // Contrast.
        let words = qformer.text(config, text, images * tokens, None);
        let read = qformer.read_text(config, words, images, None);
        let image_features = self.projection(walk, "vision_proj", queries);
        let first = walk.tape.copied(&[&read], images, config.hidden_size);
        let text_features = self.projection(walk, "text_proj", first);
        let similar = Operation::Product(Product {
            rows: image_features.rows,
            inner: self.embed_dim,
            columns: images,
            precision: Precision::F32,
            weight_bits: 32,
            layout: Layout::Transposed,
            after: After::Nothing,
        });
        walk.tape.does(Direction::Forward, similar);
        walk.tape.does(Direction::Backward, similar);
        walk.tape.does(Direction::Backward, similar);
        let _similarities = walk.tape.constant(image_features.rows, images);
        let contrast = walk.tape.copied(&[&image_features, &text_features], 1, 1);
        drop((read, image_features, text_features));

        // Matching: right pairs, wrong images, wrong texts.
        let pairs = 3 * images;
        let mut qformer = walk.tower(Part::MultimodalBackbone, &trained);
        let chosen = keys
            .iter()
            .map(|keys| {
                let select = |x: &Tensor| qformer.tape.copied(&[x], 3 * x.rows, x.width);
                keys.as_ref().map(|keys| keys.each_ref().map(select))
            })
            .collect();
        let hidden = qformer.text(config, text, pairs * tokens, Some(pairs));
        let rows = pairs * tokens;
        let (hidden, _) = qformer.read_image(config, hidden, pairs, Image::Keys(&chosen), rows);
        let queries = pairs * config.num_query_tokens;
        let queries = walk.tape.copied(&[&hidden], queries, hidden.width);
        drop((hidden, chosen));
        let matching = walk
            .tower(Part::Head, &trained)
            .head_layer("itm_head", queries, 2);

        // Words.
        let mut qformer = walk.tower(Part::MultimodalBackbone, &trained);
        let words = qformer.text(config, text, images * tokens, None);
        let read = qformer.read_text(config, words, images, Some(&states));
        walk.tape.part = Part::Head;
        let chosen = walk.tape.copied(&[&read], scored(batch), read.width);
        drop((read, states, keys));
        let mut head = walk.tower(Part::Head, &trained);
        let hidden = head.word_head(chosen, text.vocab_size);
        let embedding = Matrix {
            name: "embeddings.word_embeddings".into(),
            inputs: config.hidden_size,
            outputs: text.vocab_size,
            bits: 32,
            learns: true,
        };
        let words = cross_entropy(walk.tape, hidden, &embedding);
        walk.tape.copied(&[&contrast, &matching, &words], 1, 1)
    }

    fn projection(&self, walk: &mut Walk<'_>, name: &str, x: Tensor) -> Tensor {
        let trained = Keeping::trained();
        walk.tower(Part::Head, &trained)
            .head_layer(name, x, self.embed_dim)
    }
}
