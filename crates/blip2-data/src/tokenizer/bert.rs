//! The Q-Former's tokenizer: BERT's WordPiece with LAVIS's token that begins a caption.

use std::path::{Path, PathBuf};

use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, PostProcessorWrapper, Tokenizer, TokenizerBuilder};

use super::hugging_face::{TOKENIZER, read_file};
use super::missing;
use crate::DataError;

const VOCABULARY: &str = "vocab.txt";
const CONFIG: &str = "tokenizer_config.json";
const PAD: &str = "[PAD]";
const UNKNOWN: &str = "[UNK]";
const CLS: &str = "[CLS]";
const SEP: &str = "[SEP]";
const DEC: &str = "[DEC]";
const SPECIAL: [&str; 6] = [PAD, UNKNOWN, CLS, SEP, "[MASK]", DEC];

/// A tokenizer with the ids that a Q-Former's text side needs.
///
/// Reference: LAVIS `Blip2Base.init_tokenizer`: `bert-base-uncased` and one more token, `[DEC]`, with
/// the id after the last.
#[derive(Debug, Clone)]
pub struct BertTokenizer {
    tokenizer: Tokenizer,
    path: PathBuf,
    pad_id: u32,
    cls_id: u32,
    sep_id: u32,
    dec_id: u32,
    largest_id: u32,
}

impl BertTokenizer {
    /// Reads a tokenizer from its folder (`tokenizer.json`, or `vocab.txt` with or without
    /// `tokenizer_config.json`) or by the path of either file. `[DEC]` is added if it is not there.
    ///
    /// # Errors
    ///
    /// A missing or broken file, or one without BERT's special tokens.
    pub fn from_file(path: &Path) -> Result<Self, DataError> {
        let file = match path.is_dir() {
            true if path.join(TOKENIZER).is_file() => path.join(TOKENIZER),
            true => path.join(VOCABULARY),
            false => path.to_path_buf(),
        };
        let tokenizer = match file.extension().is_some_and(|extension| extension == "txt") {
            true => read_vocabulary(&file)?,
            false if file.is_file() => read_file(&file)?,
            false => {
                return Err(missing(path, &format!("{TOKENIZER} or {VOCABULARY}")));
            }
        };
        Self::new(tokenizer, file)
    }

    /// Whether `folder` holds a tokenizer: `tokenizer.json` or `vocab.txt`.
    pub fn is_in(folder: &Path) -> bool {
        [TOKENIZER, VOCABULARY]
            .iter()
            .any(|name| folder.join(name).is_file())
    }

    fn new(mut tokenizer: Tokenizer, path: PathBuf) -> Result<Self, DataError> {
        if tokenizer.token_to_id(DEC).is_none() {
            tokenizer.add_special_tokens(&[AddedToken::from(DEC, true)]);
        }
        let special = |token: &str| {
            tokenizer.token_to_id(token).ok_or_else(|| {
                missing(
                    &path,
                    &format!("token {token:?}, which BERT's tokenizers have"),
                )
            })
        };
        let [pad_id, cls_id, sep_id, dec_id] =
            [special(PAD)?, special(CLS)?, special(SEP)?, special(DEC)?];
        let largest_id = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        // Here ids are put together one by one; others who read the saved file need to be told.
        if tokenizer.get_post_processor().is_none() {
            let template = TemplateProcessing::builder()
                .try_single(vec![CLS, "$A", SEP])
                .map_err(|reason| DataError::Tokenizer {
                    path: path.clone(),
                    reason,
                })?
                .special_tokens(vec![(CLS, cls_id), (SEP, sep_id)])
                .build()
                .map_err(|error| DataError::Tokenizer {
                    path: path.clone(),
                    reason: error.to_string(),
                })?;
            tokenizer.with_post_processor(Some(template));
        }
        Ok(Self {
            tokenizer,
            path,
            pad_id,
            cls_id,
            sep_id,
            dec_id,
            largest_id,
        })
    }

    /// Trains a WordPiece vocabulary of `vocab_size` tokens on `texts`, with BERT's special tokens
    /// and `[DEC]` before them.
    ///
    /// # Errors
    ///
    /// A vocabulary too small for the special tokens and the letters of `texts`.
    pub fn train<'a>(
        texts: impl Iterator<Item = &'a str> + Send,
        vocab_size: usize,
    ) -> Result<Self, DataError> {
        let path = PathBuf::from(TOKENIZER);
        let error = |error: tokenizers::Error| DataError::Tokenizer {
            path: PathBuf::from(TOKENIZER),
            reason: error.to_string(),
        };
        let mut trainer = WordPieceTrainer::builder()
            .show_progress(false)
            .vocab_size(vocab_size)
            .special_tokens(SPECIAL.map(|token| AddedToken::from(token, true)).to_vec())
            .build();
        let mut tokenizer = TokenizerBuilder::<_, _, _, PostProcessorWrapper, _>::new()
            .with_model(WordPiece::default())
            .with_normalizer(Some(BertNormalizer::default()))
            .with_pre_tokenizer(Some(BertPreTokenizer))
            .with_decoder(Some(WordPieceDecoder::default()))
            .build()
            .map_err(error)?;
        tokenizer.train(&mut trainer, texts).map_err(error)?;
        // Through its own file format, so that a trained tokenizer is what a read one is.
        let text = tokenizer.to_string(false).map_err(error)?;
        let tokenizer = Tokenizer::from_bytes(text.as_bytes()).map_err(error)?;
        let size = tokenizer.get_vocab_size(true);
        if size > vocab_size {
            return Err(DataError::Tokenizer {
                path,
                reason: format!(
                    "a vocabulary of {vocab_size} is too small; letters and special tokens take \
                     {size}"
                ),
            });
        }
        Self::new(tokenizer, path)
    }

    /// `[CLS]`, the ids of `text`, `[SEP]`; cut to `max_length` with both kept.
    ///
    /// # Errors
    ///
    /// If the tokenizer refuses the text.
    pub fn encode(&self, text: &str, max_length: usize) -> Result<Vec<u32>, DataError> {
        let encoding = self
            .tokenizer
            .encode(text, false)
            .map_err(|error| self.error(&error))?;
        let room = max_length.saturating_sub(2);
        let words = encoding.get_ids().iter().copied().take(room);
        Ok(std::iter::once(self.cls_id)
            .chain(words)
            .chain([self.sep_id])
            .collect())
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

    /// Writes `folder/tokenizer.json`.
    ///
    /// # Errors
    ///
    /// If it can't be written.
    pub fn save(&self, folder: &Path) -> Result<(), DataError> {
        std::fs::create_dir_all(folder).map_err(DataError::io(folder))?;
        self.tokenizer
            .save(folder.join(TOKENIZER), false)
            .map_err(|error| self.error(&error))
    }

    /// Fills rows up.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// Begins a caption that is generated, in the place of `[CLS]`.
    pub fn dec_id(&self) -> u32 {
        self.dec_id
    }

    /// Ends every text.
    pub fn sep_id(&self) -> u32 {
        self.sep_id
    }

    /// The largest id that a text can have.
    pub fn largest_id(&self) -> u32 {
        self.largest_id
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, error: &dyn std::fmt::Display) -> DataError {
        DataError::Tokenizer {
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }
}

/// A vocabulary of one token a line, as BERT was published.
fn read_vocabulary(path: &Path) -> Result<Tokenizer, DataError> {
    if !path.is_file() {
        return Err(missing(
            path,
            &format!("file of that name, nor {TOKENIZER} beside it"),
        ));
    }
    let model = WordPiece::from_file(&path.to_string_lossy())
        .unk_token(UNKNOWN.into())
        .build()
        .map_err(|error| DataError::Tokenizer {
            path: path.to_path_buf(),
            reason: error.to_string(),
        })?;
    Ok(with_specials(assemble(model, lower_case(path)?)))
}

/// BERT's way from text to words.
fn assemble(model: WordPiece, lower_case: bool) -> Tokenizer {
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, true, None, lower_case)));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_decoder(Some(WordPieceDecoder::default()));
    tokenizer
}

fn with_specials(mut tokenizer: Tokenizer) -> Tokenizer {
    let known: Vec<AddedToken> = SPECIAL
        .into_iter()
        .filter(|token| tokenizer.token_to_id(token).is_some())
        .map(|token| AddedToken::from(token, true))
        .collect();
    tokenizer.add_special_tokens(&known);
    tokenizer
}

/// What `tokenizer_config.json` beside the vocabulary says of upper case; BLIP-2's BERT has none.
fn lower_case(vocabulary: &Path) -> Result<bool, DataError> {
    let path = vocabulary.with_file_name(CONFIG);
    if !path.is_file() {
        return Ok(true);
    }
    let text = std::fs::read_to_string(&path).map_err(DataError::io(&path))?;
    let config: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| DataError::Tokenizer {
            path,
            reason: error.to_string(),
        })?;
    Ok(config["do_lower_case"].as_bool().unwrap_or(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids are those of transformers' `BertTokenizer` on the same vocabulary (see the words).
    #[test]
    fn a_published_vocabulary_is_read_as_bert_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\ndog\n##s\nrun\n##ning\n,\ncafe\n";
        std::fs::write(folder.path().join(VOCABULARY), vocabulary).unwrap();
        let tokenizer = BertTokenizer::from_file(folder.path()).unwrap();
        assert_eq!((tokenizer.pad_id(), tokenizer.dec_id()), (0, 12));
        let text = "A  Dogs,\trunning café zebra";
        let ids = tokenizer.encode(text, 32).unwrap();
        assert_eq!(ids, [2, 5, 6, 7, 10, 8, 9, 11, 1, 3]);
        assert_eq!(tokenizer.encode(text, 5).unwrap(), [2, 5, 6, 7, 3]);
        assert_eq!(tokenizer.decode(&ids).unwrap(), "a dogs, running cafe");
        // The same through its own file.
        let saved = folder.path().join("saved");
        tokenizer.save(&saved).unwrap();
        let again = BertTokenizer::from_file(&saved).unwrap();
        assert_eq!(again.encode(text, 32).unwrap(), ids);
        // As others read it.
        let theirs = Tokenizer::from_file(saved.join(TOKENIZER)).unwrap();
        assert_eq!(theirs.encode(text, true).unwrap().get_ids(), ids);
        assert_eq!(again.dec_id(), 12);

        let config = folder.path().join(CONFIG);
        std::fs::write(&config, r#"{"do_lower_case": false}"#).unwrap();
        let cased = BertTokenizer::from_file(folder.path()).unwrap();
        assert_eq!(cased.encode("Dog dog", 32).unwrap(), [2, 1, 6, 3]);
    }

    #[test]
    fn a_small_closed_vocabulary_is_learned_whole() {
        let texts = ["A red dog, left of a cat", "a cat"];
        let tokenizer = BertTokenizer::train(texts.into_iter(), 60).unwrap();
        let ids = tokenizer.encode("a red dog, cat", 32).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), "a red dog, cat");
        assert_eq!(ids.len(), 2 + 5, "whole words: {ids:?}");
        assert_eq!((tokenizer.pad_id(), tokenizer.dec_id()), (0, 5));
        let again = BertTokenizer::train(texts.into_iter(), 60).unwrap();
        assert_eq!(again.encode("a red dog, cat", 32).unwrap(), ids);
        let error = BertTokenizer::train(texts.into_iter(), 8).unwrap_err();
        assert!(error.to_string().contains("too small"), "{error}");
    }

    #[test]
    fn other_files_are_errors_that_say_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let error = BertTokenizer::from_file(folder.path()).unwrap_err();
        assert!(error.to_string().contains("vocab.txt"), "{error}");
        std::fs::write(folder.path().join(VOCABULARY), "a\nb\n").unwrap();
        let error = BertTokenizer::from_file(folder.path()).unwrap_err();
        assert!(error.to_string().contains("[PAD]"), "{error}");
    }
}
