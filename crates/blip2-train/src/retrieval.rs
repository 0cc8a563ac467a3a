//! Text→image and image→text retrieval: contrast finds candidates, matching puts them in order.

use std::collections::HashMap;
use std::sync::Arc;

use blip2::stage1::Blip2Qformer;
use blip2_data::batch::{CaptionBatch, CaptionChoice};
use blip2_data::images::ImageSource;
use blip2_data::loader::PrefetchLoader;
use blip2_data::sample::Sample;
use blip2_eval::RetrievalScores;
use burn::data::dataloader::DataLoader;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::RunError;
use crate::data::eval_loader;
use crate::evaluate::EvalSettings;

/// Pairs that are matched at once: each has the keys and values of its image in every layer that
/// crosses.
const PAIRS_AT_ONCE: usize = 32;

/// A split whose captions and images are looked for among each other.
pub struct Retrieval<'a> {
    /// The model.
    pub model: &'a Blip2Qformer,
    /// Images with all their captions.
    pub samples: &'a Arc<Vec<Sample>>,
    /// Where the images come from.
    pub images: &'a Arc<dyn ImageSource>,
    /// The candidates of each query that matching puts in order; 0 leaves them in the order of
    /// contrast. 128 in the paper.
    pub rerank: usize,
    /// How images are read.
    pub settings: &'a EvalSettings,
}

/// A candidate and how good it is.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    index: usize,
    score: f32,
}

/// The best candidates of one query, best first.
#[derive(Debug, Clone, Default)]
struct Best(Vec<Candidate>);

impl Best {
    /// Puts `candidate` at its place among the first `most`; of equals the earlier stays before.
    fn offer(&mut self, candidate: Candidate, most: usize) {
        let place = self
            .0
            .partition_point(|other| other.score.total_cmp(&candidate.score).is_ge());
        if place < most {
            self.0.insert(place, candidate);
            self.0.truncate(most);
        }
    }

    fn rank(&self, right: impl Fn(usize) -> bool) -> Option<usize> {
        self.0.iter().position(|candidate| right(candidate.index))
    }

    /// Adds what matching says to the similarity, as LAVIS does, and sorts anew.
    fn reorder(&mut self, matching: impl Fn(usize) -> Option<f32>) {
        for candidate in &mut self.0 {
            candidate.score += matching(candidate.index).unwrap_or(0.0);
        }
        self.0.sort_by(|a, b| b.score.total_cmp(&a.score));
    }
}

/// Recalls of contrast, and of contrast re-ranked by matching.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Found {
    /// By similarity alone.
    pub itc: RetrievalScores,
    /// With the best candidates re-ranked by matching; the same as `itc` without re-ranking.
    pub itm: RetrievalScores,
}

impl Retrieval<'_> {
    /// Looks for everything. Memory holds features of texts and, for each query, its candidates;
    /// images are read a second time for matching.
    ///
    /// # Errors
    ///
    /// An unreadable image (unless skipped), a failed tokenization, or a request to stop.
    ///
    /// Reference: BLIP-2, section 4.4; LAVIS `compute_sim_matrix`.
    pub fn run(&self, progress: &dyn Fn(&str, usize, usize)) -> Result<Found, RunError> {
        let (texts, image_of_text) = self.texts();
        let index_of = self.index_of();
        let text_features = self.text_features(&texts)?;
        let most = self.rerank.max(10);
        let mut kept = vec![false; self.samples.len()];
        let mut of_image = vec![Best::default(); self.samples.len()];
        let mut of_text = vec![Best::default(); texts.len()];
        let mut done = 0;
        for batch in self.loader().iter() {
            self.settings.stop.check(None)?;
            let batch = batch.map_err(|error| RunError::Training(error.to_string()))?;
            let rows = rows(&batch, &index_of);
            let features = self.model.image_features(batch.images).features;
            let similarity = Blip2Qformer::similarity(features, text_features.clone());
            let similarity: Vec<f32> = similarity.into_data().iter::<f32>().collect();
            for (image, row) in rows.into_iter().zip(similarity.chunks_exact(texts.len())) {
                kept[image] = true;
                for (text, &score) in row.iter().enumerate() {
                    of_image[image].offer(Candidate { index: text, score }, most);
                    of_text[text].offer(
                        Candidate {
                            index: image,
                            score,
                        },
                        most,
                    );
                }
                done += 1;
            }
            progress("features", done, self.samples.len());
        }
        let score = |of_image: &[Best], of_text: &[Best]| {
            let images = (0..of_image.len()).filter(|&image| kept[image]);
            let i2t: Vec<_> = images
                .map(|image| of_image[image].rank(|text| image_of_text[text] == image))
                .collect();
            let queries = (0..of_text.len()).filter(|&text| kept[image_of_text[text]]);
            let t2i: Vec<_> = queries
                .map(|text| of_text[text].rank(|image| image == image_of_text[text]))
                .collect();
            RetrievalScores::of(&i2t, &t2i)
        };
        let itc = score(&of_image, &of_text);
        if self.rerank == 0 {
            return Ok(Found { itc, itm: itc });
        }
        for best in of_image.iter_mut().chain(&mut of_text) {
            best.0.truncate(self.rerank);
        }
        self.match_candidates(&texts, &mut of_image, &mut of_text, progress)?;
        let itm = score(&of_image, &of_text);
        Ok(Found { itc, itm })
    }

    /// Both directions ask for the score of a pair; it is the same, and computed once.
    fn match_candidates(
        &self,
        texts: &[&str],
        of_image: &mut [Best],
        of_text: &mut [Best],
        progress: &dyn Fn(&str, usize, usize),
    ) -> Result<(), RunError> {
        let mut wanted: Vec<Vec<usize>> = of_image
            .iter()
            .map(|best| best.0.iter().map(|candidate| candidate.index).collect())
            .collect();
        for (text, best) in of_text.iter().enumerate() {
            for candidate in &best.0 {
                wanted[candidate.index].push(text);
            }
        }
        for texts in &mut wanted {
            texts.sort_unstable();
            texts.dedup();
        }
        let total = wanted.iter().map(Vec::len).sum();
        // The logit of yes for each wanted pair, in the same order.
        let mut logits: Vec<Vec<f32>> = vec![Vec::new(); wanted.len()];
        let mut done = 0;
        let index_of = self.index_of();
        for batch in self.loader().iter() {
            self.settings.stop.check(None)?;
            let batch = batch.map_err(|error| RunError::Training(error.to_string()))?;
            let rows = rows(&batch, &index_of);
            let embeds = self.model.normed_embeds(batch.images);
            for (row, image) in rows.into_iter().enumerate() {
                let embeds = embeds.clone().narrow(0, row, 1);
                logits[image] = self.match_texts(&embeds, texts, &wanted[image])?;
                done += wanted[image].len();
                progress("matching", done, total);
            }
        }
        let logit = |image: usize, text: usize| {
            let place = wanted[image].binary_search(&text).ok()?;
            logits[image].get(place).copied()
        };
        for (image, best) in of_image.iter_mut().enumerate() {
            best.reorder(|text| logit(image, text));
        }
        for (text, best) in of_text.iter_mut().enumerate() {
            best.reorder(|image| logit(image, text));
        }
        Ok(())
    }

    fn match_texts(
        &self,
        image_embeds: &Tensor<3>,
        texts: &[&str],
        wanted: &[usize],
    ) -> Result<Vec<f32>, RunError> {
        let mut logits = Vec::with_capacity(wanted.len());
        for wanted in wanted.chunks(PAIRS_AT_ONCE) {
            let texts: Vec<&str> = wanted.iter().map(|&text| texts[text]).collect();
            let pairs: Vec<(usize, usize)> = (0..texts.len()).map(|text| (0, text)).collect();
            let both = self.model.matching(image_embeds, &texts, &pairs)?;
            logits.extend(both.narrow(1, 1, 1).into_data().iter::<f32>());
        }
        Ok(logits)
    }

    /// Every caption, and the image that it belongs to.
    fn texts(&self) -> (Vec<&str>, Vec<usize>) {
        let every = self.samples.iter().enumerate();
        every
            .flat_map(|(image, sample)| {
                sample
                    .captions
                    .iter()
                    .map(move |caption| (caption.as_str(), image))
            })
            .unzip()
    }

    fn text_features(&self, texts: &[&str]) -> Result<Tensor<2>, RunError> {
        let mut features = Vec::new();
        for texts in texts.chunks(PAIRS_AT_ONCE) {
            self.settings.stop.check(None)?;
            features.push(self.model.text_features(texts)?);
        }
        Ok(Tensor::cat(features, 0))
    }

    fn loader(&self) -> PrefetchLoader<blip2_data::batch::CaptionSource> {
        eval_loader(
            self.samples.clone(),
            self.images.clone(),
            CaptionChoice::First,
            self.settings.batch_size,
            self.settings.num_workers,
            &self.settings.device,
        )
    }

    /// Where each image stands in the split: a batch may lack what can't be read.
    fn index_of(&self) -> HashMap<&str, usize> {
        let ids = self.samples.iter().map(|sample| sample.image_id.as_str());
        ids.zip(0..).collect()
    }
}

fn rows(batch: &CaptionBatch, index_of: &HashMap<&str, usize>) -> Vec<usize> {
    let ids = batch.samples.iter().map(|sample| sample.image_id.as_str());
    ids.filter_map(|id| index_of.get(id).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_kept_in_order_and_matching_reorders_them() {
        let mut best = Best::default();
        for (index, score) in [0.1, 0.5, 0.3, 0.5].into_iter().enumerate() {
            best.offer(Candidate { index, score }, 3);
        }
        let order = |best: &Best| best.0.iter().map(|one| one.index).collect::<Vec<_>>();
        assert_eq!(order(&best), [1, 3, 2]);
        assert_eq!(best.rank(|index| index == 2), Some(2));
        assert_eq!(best.rank(|index| index == 0), None);
        best.reorder(|index| Some([0.0, -1.0, 0.4, 0.1][index]));
        assert_eq!(order(&best), [2, 3, 1]);
    }
}
