//! `blip2 data`.

use std::path::{Path, PathBuf};

use blip2_data::annotations::{LoadOptions, OnError, load};
use blip2_data::emoji_scenes::EmojiScenesConfig;
use blip2_data::sample::Sample;
use blip2_data::tokenizer::BertTokenizer;

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
    /// A WordPiece tokenizer for the Q-Former's text side, learned from captions: for languages and
    /// vocabularies that BERT's does not know.
    Tokenizer {
        /// COCO captions JSON, Karpathy JSON or JSONL.
        #[arg(long, value_name = "FILE")]
        annotations: PathBuf,
        /// The folder that the annotations' file names are relative to.
        #[arg(long, value_name = "DIR")]
        images: PathBuf,
        /// The split inside a Karpathy file.
        #[arg(long, value_name = "NAME")]
        split: Option<String>,
        /// Tokens, special ones included.
        #[arg(long, value_name = "N", default_value_t = 30522)]
        vocab_size: usize,
        /// Where tokenizer.json is written.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

pub(super) fn run(command: Command) -> Result<(), RunError> {
    match command {
        Command::EmojiScenes { out, seed } => {
            let defaults = EmojiScenesConfig::default();
            let config = EmojiScenesConfig {
                seed: seed.unwrap_or(defaults.seed),
                ..defaults
            };
            crate::data::make_emoji_scenes(&out, &config)?;
            result_line(&out.display().to_string())
        }
        Command::Tokenizer {
            annotations,
            images,
            split,
            vocab_size,
            out,
        } => {
            let options = LoadOptions {
                format: None,
                split,
                on_error: OnError::Fail,
                require_captions: true,
            };
            let samples = load(&annotations, &images, &options)?.samples;
            tokenizer(&samples, vocab_size, &out)
        }
    }
}

fn tokenizer(samples: &[Sample], vocab_size: usize, out: &Path) -> Result<(), RunError> {
    let captions = samples.iter().flat_map(|sample| &sample.captions);
    let tokenizer = BertTokenizer::train(captions.map(String::as_str), vocab_size)?;
    tokenizer.save(out)?;
    eprintln!("{} tokens", tokenizer.largest_id() + 1);
    result_line(&out.join("tokenizer.json").display().to_string())
}
