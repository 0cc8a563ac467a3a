//! A tokenizer's files as Hugging Face keeps them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

use super::{BOS, CaptionTokenizer, PAD, SPECIAL, UNKNOWN};
use crate::DataError;

pub(super) const TOKENIZER: &str = "tokenizer.json";
const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const ADDED: &str = "added_tokens.json";

/// What stands for an image in transformers' prompts.
const IMAGE: &str = "<image>";

impl CaptionTokenizer {
    /// Whether `folder` holds a tokenizer: `tokenizer.json`, or `vocab.json` and `merges.txt`.
    pub fn is_in(folder: &Path) -> bool {
        let has = |name: &str| folder.join(name).is_file();
        has(TOKENIZER) || has(VOCABULARY) && has(MERGES)
    }

    /// Writes `tokenizer.json` and what transformers wants beside it. There the tokenizer puts BOS
    /// before every text by itself, and knows a token for the image.
    ///
    /// The image's token is the one with `image_token_id`, or a new `<image>` if the `rows` of the
    /// embedding leave room for it. Else `<unk>`, which byte-level BPE never makes, is renamed to
    /// `<image>`. Returns its id.
    ///
    /// # Errors
    ///
    /// If a file can't be written.
    pub fn save_hugging_face(
        &self,
        folder: &Path,
        image_token_id: Option<u32>,
        rows: usize,
    ) -> Result<Option<u32>, DataError> {
        let mut tokenizer = self.tokenizer.clone();
        let known = image_token_id.filter(|&id| tokenizer.id_to_token(id).is_some());
        let image_token_id = match known.or_else(|| tokenizer.token_to_id(IMAGE)) {
            Some(id) => Some(id),
            None if (self.largest_id as usize) + 1 < rows => {
                tokenizer.add_special_tokens(&[AddedToken::from(IMAGE, true)]);
                tokenizer.token_to_id(IMAGE)
            }
            None => {
                tokenizer =
                    renamed(&tokenizer, UNKNOWN, IMAGE).map_err(|error| self.error(&error))?;
                tokenizer.token_to_id(IMAGE)
            }
        };
        let bos = tokenizer.id_to_token(self.bos_id).unwrap_or(BOS.into());
        let empty = tokenizer
            .encode("", true)
            .map_err(|error| self.error(&error))?;
        if empty.get_ids().first() != Some(&self.bos_id) {
            let template = TemplateProcessing::builder()
                .try_single(vec![bos.clone(), "$A".to_string()])
                .map_err(|error| self.error(&error))?
                .special_tokens(vec![(bos.clone(), self.bos_id)])
                .build()
                .map_err(|error| self.error(&error))?;
            tokenizer.with_post_processor(Some(template));
        }
        std::fs::create_dir_all(folder).map_err(DataError::io(folder))?;
        tokenizer
            .save(folder.join(TOKENIZER), false)
            .map_err(|error| self.error(&error))?;
        let pad = tokenizer.id_to_token(self.pad_id).unwrap_or(PAD.into());
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": bos,
            "eos_token": bos,
            "unk_token": bos,
            "pad_token": pad,
            "clean_up_tokenization_spaces": false,
        });
        let path = folder.join("tokenizer_config.json");
        std::fs::write(&path, format!("{config:#}\n")).map_err(DataError::io(&path))?;
        Ok(image_token_id)
    }
}

/// The same tokenizer with another name for one of its tokens.
fn renamed(tokenizer: &Tokenizer, from: &str, to: &str) -> Result<Tokenizer, tokenizers::Error> {
    let mut value: Value = serde_json::from_str(&tokenizer.to_string(false)?)?;
    if let Some(vocabulary) = value["model"]["vocab"].as_object_mut()
        && let Some(id) = vocabulary.remove(from)
    {
        vocabulary.insert(to.to_string(), id);
    }
    for added in value["added_tokens"].as_array_mut().into_iter().flatten() {
        if added["content"] == from {
            added["content"] = to.into();
        }
    }
    Tokenizer::from_bytes(value.to_string().as_bytes())
}

/// Reads the tokenizer of a folder: one file, or GPT-2's two as the OPT repositories have them.
pub(super) fn read_folder(folder: &Path) -> Result<Tokenizer, DataError> {
    let path = folder.join(TOKENIZER);
    if path.is_file() || !folder.join(VOCABULARY).is_file() {
        return read_file(&path);
    }
    let (vocabulary, merges) = (folder.join(VOCABULARY), folder.join(MERGES));
    let error = |error: tokenizers::Error| DataError::Tokenizer {
        path: vocabulary.clone(),
        reason: error.to_string(),
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let model = BPE::from_file(&text(&vocabulary), &text(&merges))
        .build()
        .map_err(error)?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_pre_tokenizer(Some(ByteLevel::new(false, true, true)))
        .with_decoder(Some(ByteLevelDecoder::default()));
    let known: Vec<AddedToken> = SPECIAL
        .iter()
        .filter(|token| tokenizer.token_to_id(token).is_some())
        .map(|token| AddedToken::from(*token, true))
        .collect();
    tokenizer.add_special_tokens(&known);
    let added = folder.join(ADDED);
    if added.is_file() {
        let bytes = std::fs::read(&added).map_err(DataError::io(&added))?;
        let tokens: BTreeMap<String, u32> =
            serde_json::from_slice(&bytes).map_err(|error| DataError::Tokenizer {
                path: added.clone(),
                reason: error.to_string(),
            })?;
        let mut tokens: Vec<(String, u32)> = tokens.into_iter().collect();
        tokens.sort_by_key(|(_, id)| *id);
        for (token, id) in tokens {
            tokenizer.add_special_tokens(&[AddedToken::from(token.clone(), true)]);
            if tokenizer.token_to_id(&token) != Some(id) {
                return Err(DataError::Tokenizer {
                    path: added,
                    reason: format!("gives `{token}` the id {id}, which is not the next one"),
                });
            }
        }
    }
    Ok(tokenizer)
}

pub(super) fn read_file(path: &Path) -> Result<Tokenizer, DataError> {
    let bytes = std::fs::read(path).map_err(DataError::io(path))?;
    Tokenizer::from_bytes(bytes).map_err(|error| DataError::Tokenizer {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::train_bpe;
    use super::*;

    fn trained() -> CaptionTokenizer {
        train_bpe(["a dog on a hill", "a cat"].into_iter(), 280).unwrap()
    }

    #[test]
    fn saved_tokenizers_begin_texts_with_bos_and_know_an_image_token() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = trained();
        let next = tokenizer.largest_id() + 1;
        let id = tokenizer
            .save_hugging_face(folder.path(), None, next as usize + 7)
            .unwrap();
        assert_eq!(id, Some(next));
        let read = CaptionTokenizer::from_file(folder.path()).unwrap();
        assert_eq!(read.largest_id(), next);
        assert_eq!(
            read.encode("a dog").unwrap(),
            tokenizer.encode("a dog").unwrap()
        );
        let with_bos = read.tokenizer.encode("a dog", true).unwrap();
        assert_eq!(with_bos.get_ids()[0], tokenizer.bos_id());
        let again = tempfile::tempdir().unwrap();
        let same = read.save_hugging_face(again.path(), None, 10_000).unwrap();
        assert_eq!(same, id, "no second token");
        let file = |folder: &Path| std::fs::read(folder.join(TOKENIZER)).unwrap();
        assert_eq!(
            file(folder.path()),
            file(again.path()),
            "no second template"
        );
    }

    #[test]
    fn without_room_the_unknown_token_becomes_the_images() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = trained();
        let rows = tokenizer.largest_id() as usize + 1;
        let id = tokenizer
            .save_hugging_face(folder.path(), None, rows)
            .unwrap();
        assert_eq!(id, Some(3));
        let read = CaptionTokenizer::from_file(folder.path()).unwrap();
        assert_eq!(read.tokenizer.token_to_id(IMAGE), Some(3));
        assert_eq!(read.largest_id(), tokenizer.largest_id());
        let text = "a cat on a ☂ hill";
        assert_eq!(read.encode(text).unwrap(), tokenizer.encode(text).unwrap());
    }

    #[test]
    fn gpt2_files_make_the_same_ids() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = trained();
        tokenizer.save(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join(TOKENIZER)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let merges: Vec<String> = value["model"]["merges"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| {
                format!(
                    "{} {}",
                    pair[0].as_str().unwrap(),
                    pair[1].as_str().unwrap()
                )
            })
            .collect();
        let write =
            |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        write(VOCABULARY, value["model"]["vocab"].to_string());
        write(MERGES, format!("#version: 0.2\n{}\n", merges.join("\n")));
        std::fs::remove_file(folder.path().join(TOKENIZER)).unwrap();
        let read = CaptionTokenizer::from_file(folder.path()).unwrap();
        for text in ["a dog on a hill\n", "</s>a zebra ☂"] {
            assert_eq!(read.encode(text).unwrap(), tokenizer.encode(text).unwrap());
            let ids = read.encode(text).unwrap();
            assert_eq!(read.decode(&ids).unwrap(), tokenizer.decode(&ids).unwrap());
        }
        write(ADDED, "{\"<image>\": 9999}".into());
        assert!(CaptionTokenizer::from_file(folder.path()).is_err());
    }
}
