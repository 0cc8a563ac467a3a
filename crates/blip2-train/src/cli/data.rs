//! `blip2 data`.

use std::path::PathBuf;

use blip2_data::emoji_scenes::EmojiScenesConfig;

use super::result_line;
use crate::RunError;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Scenes of drawings with captions: train, val, test (unseen pairs and relations), test_seen.
    EmojiScenes {
        /// The folder to make; it must not exist, unless it holds this data set.
        #[arg(long, value_name = "DIR", default_value = "datasets/emoji-scenes")]
        out: PathBuf,
        /// Another seed makes other scenes.
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
    },
}

pub(super) fn run(command: Command) -> Result<(), RunError> {
    let Command::EmojiScenes { out, seed } = command;
    let defaults = EmojiScenesConfig::default();
    let config = EmojiScenesConfig {
        seed: seed.unwrap_or(defaults.seed),
        ..defaults
    };
    crate::data::make_emoji_scenes(&out, &config)?;
    result_line(&out.display().to_string())
}
