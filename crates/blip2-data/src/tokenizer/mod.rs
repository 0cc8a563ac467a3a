//! The language model's tokenizer: byte-level BPE as GPT-2 and OPT have it.

mod bert;
mod hugging_face;

use std::path::{Path, PathBuf};

use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer, TokenizerBuilder};

pub use self::bert::BertTokenizer;
use self::hugging_face::TOKENIZER;
use crate::DataError;

/// OPT's special tokens, with ids from 0; `</s>` is also what every text begins with.
const SPECIAL: [&str; 4] = ["<s>", "<pad>", "</s>", "<unk>"];
const BOS: &str = "</s>";
const PAD: &str = "<pad>";
const UNKNOWN: &str = "<unk>";
const END_OF_CAPTION: &str = "\n";

/// A tokenizer with the ids that captioning needs.
#[derive(Debug, Clone)]
pub struct CaptionTokenizer {
    tokenizer: Tokenizer,
    path: PathBuf,
    bos_id: u32,
    pad_id: u32,
    eos_id: u32,
    largest_id: u32,
}

impl CaptionTokenizer {
    /// Reads a tokenizer from its folder (`tokenizer.json`, or `vocab.json` and `merges.txt`) or by
    /// the path of its `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// A missing or broken file, or one without the special tokens of OPT.
    pub fn from_file(path: &Path) -> Result<Self, DataError> {
        let (tokenizer, path) = read(path)?;
        let special = |token: &str| {
            tokenizer
                .token_to_id(token)
                .ok_or_else(|| missing(&path, &format!("token {token:?}")))
        };
        let (bos_id, pad_id) = (special(BOS)?, special(PAD)?);
        Self::new(tokenizer, path, bos_id, pad_id)
    }

    /// As [`from_file`](Self::from_file), with the special tokens that a language model's config
    /// names.
    ///
    /// # Errors
    ///
    /// A missing or broken file, or one without these ids.
    pub fn with_ids(path: &Path, bos_id: u32, pad_id: u32) -> Result<Self, DataError> {
        let (tokenizer, path) = read(path)?;
        for id in [bos_id, pad_id] {
            if tokenizer.id_to_token(id).is_none() {
                return Err(missing(
                    &path,
                    &format!("token with the id {id}, which the config names"),
                ));
            }
        }
        Self::new(tokenizer, path, bos_id, pad_id)
    }

    fn new(
        tokenizer: Tokenizer,
        path: PathBuf,
        bos_id: u32,
        pad_id: u32,
    ) -> Result<Self, DataError> {
        let line_break = tokenizer
            .encode(END_OF_CAPTION, false)
            .ok()
            .and_then(|encoding| encoding.get_ids().first().copied());
        let eos_id =
            line_break.ok_or_else(|| missing(&path, &format!("token {END_OF_CAPTION:?}")))?;
        let largest_id = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        Ok(Self {
            tokenizer,
            path,
            bos_id,
            pad_id,
            eos_id,
            largest_id,
        })
    }

    /// Writes `folder/tokenizer.json`.
    ///
    /// # Errors
    ///
    /// If it can't be written.
    pub fn save(&self, folder: &Path) -> Result<(), DataError> {
        std::fs::create_dir_all(folder).map_err(DataError::io(folder))?;
        let path = folder.join(TOKENIZER);
        self.tokenizer
            .save(&path, false)
            .map_err(|error| DataError::Tokenizer {
                path,
                reason: error.to_string(),
            })
    }

    /// The ids of `text`, without special tokens.
    ///
    /// # Errors
    ///
    /// If the tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        match self.tokenizer.encode(text, false) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(error) => Err(self.error(&error)),
        }
    }

    /// The text of `ids`; special tokens are left out.
    ///
    /// # Errors
    ///
    /// If the tokenizer refuses the ids.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        self.tokenizer
            .decode(ids, true)
            .map_err(|error| self.error(&error))
    }

    fn error(&self, error: &dyn std::fmt::Display) -> DataError {
        DataError::Tokenizer {
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }

    /// What every text begins with: `</s>` for OPT.
    pub fn bos_id(&self) -> u32 {
        self.bos_id
    }

    /// Fills rows up.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// Ends a caption: the first id of a line break, 50118 for OPT's own vocabulary.
    ///
    /// Reference: LAVIS `Blip2OPT.eos_token_id`.
    pub fn eos_id(&self) -> u32 {
        self.eos_id
    }

    /// Tokens, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The largest id that a text can have.
    pub fn largest_id(&self) -> u32 {
        self.largest_id
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn read(path: &Path) -> Result<(Tokenizer, PathBuf), DataError> {
    Ok(match path.is_dir() {
        true => (hugging_face::read_folder(path)?, path.join(TOKENIZER)),
        false => (hugging_face::read_file(path)?, path.to_path_buf()),
    })
}

fn missing(path: &Path, what: &str) -> DataError {
    DataError::Tokenizer {
        path: path.to_path_buf(),
        reason: format!("has no {what}"),
    }
}

/// Trains a byte-level BPE tokenizer with OPT's special tokens on `texts`.
///
/// All 256 bytes are tokens, so every text can be encoded; a line break is one token.
///
/// # Errors
///
/// A vocabulary too small for the bytes and the special tokens.
pub fn train_bpe<'a>(
    texts: impl Iterator<Item = &'a str> + Send,
    vocab_size: usize,
) -> Result<CaptionTokenizer, DataError> {
    let path = PathBuf::from(TOKENIZER);
    let smallest = 256 + SPECIAL.len();
    if vocab_size < smallest {
        return Err(DataError::Tokenizer {
            path,
            reason: format!("a vocabulary of {vocab_size} is too small; it needs {smallest}"),
        });
    }
    let error = |error: tokenizers::Error| DataError::Tokenizer {
        path: PathBuf::from(TOKENIZER),
        reason: error.to_string(),
    };
    let special: Vec<AddedToken> = SPECIAL
        .iter()
        .map(|token| AddedToken::from(*token, true))
        .collect();
    let mut trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(vocab_size)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(special)
        .build();
    let mut tokenizer = TokenizerBuilder::<
        _,
        tokenizers::NormalizerWrapper,
        _,
        tokenizers::PostProcessorWrapper,
        _,
    >::new()
    .with_model(BPE::default())
    .with_pre_tokenizer(Some(ByteLevel::new(false, true, true)))
    .with_decoder(Some(ByteLevelDecoder::default()))
    .build()
    .map_err(error)?;
    tokenizer.train(&mut trainer, texts).map_err(error)?;
    // Through its own file format, so that a trained tokenizer is what a read one is.
    let text = tokenizer.to_string(false).map_err(error)?;
    let tokenizer = Tokenizer::from_bytes(text.as_bytes()).map_err(error)?;
    let special = |token: &str| tokenizer.token_to_id(token).unwrap_or_default();
    let (bos_id, pad_id) = (special(BOS), special(PAD));
    CaptionTokenizer::new(tokenizer, path, bos_id, pad_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 3] = [
        "a dog and a cat",
        "a dog on a blue background",
        "a small cat",
    ];

    #[test]
    fn trained_tokenizers_are_as_opt_expects_and_survive_their_file() {
        let trained = train_bpe(TEXTS.into_iter(), 300).unwrap();
        assert_eq!((trained.bos_id(), trained.pad_id()), (2, 1));
        assert!(trained.vocab_size() <= 300);
        let text = "a dog and a ☂️ on blue\n";
        let ids = trained.encode(text).unwrap();
        assert_eq!(
            ids.last(),
            Some(&trained.eos_id()),
            "a line break is one token"
        );
        assert_eq!(trained.decode(&ids).unwrap(), text);
        assert_eq!(
            trained.decode(&[2, ids[0], 1]).unwrap(),
            "a",
            "special tokens are left out"
        );

        let folder = tempfile::tempdir().unwrap();
        trained.save(folder.path()).unwrap();
        let read = CaptionTokenizer::from_file(folder.path()).unwrap();
        assert_eq!(read.encode(text).unwrap(), ids);
        assert_eq!(read.eos_id(), trained.eos_id());
        let again = train_bpe(TEXTS.into_iter(), 300).unwrap();
        assert_eq!(
            again.encode(text).unwrap(),
            ids,
            "training is deterministic"
        );
    }

    #[test]
    fn bad_files_and_sizes_are_errors() {
        assert!(train_bpe(TEXTS.into_iter(), 100).is_err());
        let folder = tempfile::tempdir().unwrap();
        let error = CaptionTokenizer::from_file(folder.path()).unwrap_err();
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
        std::fs::write(folder.path().join(TOKENIZER), "{}").unwrap();
        assert!(CaptionTokenizer::from_file(folder.path()).is_err());
    }
}
