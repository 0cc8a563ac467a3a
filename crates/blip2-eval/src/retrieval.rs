//! Recall of image–text retrieval.

use serde::{Deserialize, Serialize};

/// How often something right is among the first 1, 5 and 10: fractions of the queries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Recalls {
    /// Recall@1.
    #[serde(rename = "R@1")]
    pub r1: f64,
    /// Recall@5.
    #[serde(rename = "R@5")]
    pub r5: f64,
    /// Recall@10.
    #[serde(rename = "R@10")]
    pub r10: f64,
}

impl Recalls {
    /// Of the ranks, from 0, of the best right answer to each query; none where it was not found.
    pub fn of(ranks: &[Option<usize>]) -> Self {
        let within = |most: usize| {
            let found = ranks.iter().flatten().filter(|&&rank| rank < most).count();
            found as f64 / ranks.len().max(1) as f64
        };
        Self {
            r1: within(1),
            r5: within(5),
            r10: within(10),
        }
    }

    /// The mean of the three.
    pub fn mean(&self) -> f64 {
        (self.r1 + self.r5 + self.r10) / 3.0
    }
}

/// Both directions of retrieval on one set of images and texts.
///
/// Reference: LAVIS's retrieval task, whose `txt_r1` is `i2t`'s first and `img_r1` `t2i`'s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct RetrievalScores {
    /// Images.
    pub images: usize,
    /// Texts.
    pub texts: usize,
    /// A text for each image.
    pub i2t: Recalls,
    /// An image for each text.
    pub t2i: Recalls,
    /// The mean of all six recalls.
    pub r_mean: f64,
}

impl RetrievalScores {
    /// Of the ranks of each image's best text, and of each text's image.
    pub fn of(i2t: &[Option<usize>], t2i: &[Option<usize>]) -> Self {
        let (texts_found, images_found) = (Recalls::of(i2t), Recalls::of(t2i));
        Self {
            images: i2t.len(),
            texts: t2i.len(),
            i2t: texts_found,
            t2i: images_found,
            r_mean: (texts_found.mean() + images_found.mean()) / 2.0,
        }
    }

    /// Every recall by its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> {
        [
            ("i2t_R@1", self.i2t.r1),
            ("i2t_R@5", self.i2t.r5),
            ("i2t_R@10", self.i2t.r10),
            ("t2i_R@1", self.t2i.r1),
            ("t2i_R@5", self.t2i.r5),
            ("t2i_R@10", self.t2i.r10),
            ("r_mean", self.r_mean),
        ]
        .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recalls_count_the_queries_that_found_something_right_early() {
        let ranks = [Some(0), Some(4), Some(9), Some(10), None];
        let recalls = Recalls::of(&ranks);
        assert_eq!((recalls.r1, recalls.r5, recalls.r10), (0.2, 0.4, 0.6));
        assert!((recalls.mean() - 0.4).abs() < 1e-12);
        let scores = RetrievalScores::of(&ranks, &[Some(0)]);
        assert_eq!((scores.images, scores.texts, scores.t2i.r1), (5, 1, 1.0));
        assert!((scores.r_mean - 0.7).abs() < 1e-12);
    }
}
