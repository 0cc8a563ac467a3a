//! The built-in data set `emoji-scenes`: drawings composed to scenes, with captions.
//!
//! One to three drawings (Twemoji, CC-BY 4.0) stand on a plain or textured background. Captions say
//! what they are, how big, where, and on what. The split `test` holds pairs of objects, and
//! relations between pairs, that no other split shows: a captioner must compose what it learned.
//! `test_seen` has the same distribution as `train`.

mod annotate;
mod describe;
mod held_out;
mod render;
mod scene;
mod write;

pub use held_out::HeldOut;
pub use scene::{Axis, Background, CATEGORIES, Object, Scene, Size, Split};
pub use write::{Summary, is_complete, write};

use serde::{Deserialize, Serialize};

/// Changes whenever the same config gives other bytes.
const GENERATOR_VERSION: u32 = 1;

/// Which scenes are made. The same config gives the same bytes on any machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmojiScenesConfig {
    /// Another seed makes other scenes.
    pub seed: u64,
    /// Images of the train split.
    pub train: usize,
    /// Images of the validation split.
    pub val: usize,
    /// Images of the compositional test split.
    pub test: usize,
    /// Images of the test split with the distribution of train.
    pub test_seen: usize,
}

impl Default for EmojiScenesConfig {
    fn default() -> Self {
        Self {
            seed: 2301,
            train: 6000,
            val: 400,
            test: 500,
            test_seen: 500,
        }
    }
}

impl EmojiScenesConfig {
    /// The splits with their sizes.
    pub fn splits(&self) -> [(Split, usize); 4] {
        [
            (Split::Train, self.train),
            (Split::Val, self.val),
            (Split::Test, self.test),
            (Split::TestSeen, self.test_seen),
        ]
    }
}
