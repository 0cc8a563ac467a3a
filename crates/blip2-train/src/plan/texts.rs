//! How long the texts of a recipe are, in tokens.

use blip2_data::sample::Sample;
use blip2_data::tokenizer::{BertTokenizer, CaptionTokenizer};

use crate::RunError;
use crate::recipe::Recipe;

/// Images whose captions are measured.
const MEASURED: usize = 1000;

/// The lengths of texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Texts {
    /// Of some texts, sorted; what is not known is taken as the longest that the recipe allows.
    lengths: Vec<usize>,
    /// The longest.
    pub longest: usize,
    /// Tokens of a text that are scored, on average.
    pub scored: f64,
    /// BOS and prompt.
    pub prompt: usize,
    /// Whether captions were measured.
    pub measured: bool,
}

/// The tokens of a caption, cut as it is learned; none if it can't be.
type Count<'a> = Box<dyn Fn(&str) -> Option<usize> + 'a>;

/// How a recipe cuts a text into tokens.
struct Cut<'a> {
    count: Count<'a>,
    most: usize,
    prompt: usize,
}

impl Texts {
    /// The texts of `samples`, or without them (or without a tokenizer) the longest possible.
    ///
    /// # Errors
    ///
    /// If a tokenizer is there and can't be read.
    pub fn new(recipe: &Recipe, samples: Option<&[Sample]>) -> Result<Self, RunError> {
        if let Some(config) = &recipe.language_model {
            return Ok(Self::known(
                vec![config.max_length],
                config.max_length,
                1,
                false,
            ));
        }
        let Some(cut) = cut(recipe)? else {
            return Ok(Self::known(vec![1], 1, 1, false));
        };
        let captions = samples.unwrap_or_default().iter().take(MEASURED);
        let captions = captions.flat_map(|sample| &sample.captions);
        let lengths: Vec<usize> = captions
            .filter_map(|caption| Some((cut.count)(caption)?.min(cut.most)))
            .collect();
        let measured = !lengths.is_empty();
        let lengths = if measured { lengths } else { vec![cut.most] };
        Ok(Self::known(lengths, cut.most, cut.prompt, measured))
    }

    fn known(mut lengths: Vec<usize>, most: usize, prompt: usize, measured: bool) -> Self {
        lengths.sort_unstable();
        let scored: usize = lengths
            .iter()
            .map(|length| length.saturating_sub(prompt))
            .sum();
        Self {
            longest: lengths.last().copied().unwrap_or(most),
            scored: scored as f64 / lengths.len().max(1) as f64,
            lengths,
            prompt,
            measured,
        }
    }

    /// The expected length of the longest of `texts` texts, to which a batch is padded.
    pub fn padded(&self, texts: usize) -> f64 {
        let count = self.lengths.len() as f64;
        // All of `texts` draws are among the `index` shortest with this probability.
        let within = |index: usize| (index as f64 / count).powf(texts as f64);
        let lengths = self.lengths.iter().enumerate();
        lengths
            .map(|(index, &length)| length as f64 * (within(index + 1) - within(index)))
            .sum()
    }
}

fn cut(recipe: &Recipe) -> Result<Option<Cut<'_>>, RunError> {
    if let Some(model) = &recipe.model {
        let most = model.max_txt_len;
        // A tokenizer that is not here yet comes with the weights.
        if !model.tokenizer.exists() {
            let words = model.prompt.split_whitespace().count();
            return Ok(Some(Cut {
                count: Box::new(|_| None),
                most,
                prompt: 1 + words,
            }));
        }
        let tokenizer = CaptionTokenizer::from_file(&model.tokenizer)?;
        let prompt = model.prompt.trim();
        let before = 1 + tokenizer.encode(prompt)?.len();
        let count = move |caption: &str| {
            let text = format!("{prompt} {}\n", caption.trim());
            Some(1 + tokenizer.encode(text.trim_start_matches(' ')).ok()?.len())
        };
        return Ok(Some(Cut {
            count: Box::new(count),
            most,
            prompt: before,
        }));
    }
    let Some(model) = &recipe.stage1 else {
        return Ok(None);
    };
    let most = model.max_txt_len;
    if !model.tokenizer.exists() {
        return Ok(Some(Cut {
            count: Box::new(|_| None),
            most,
            prompt: 1,
        }));
    }
    let tokenizer = BertTokenizer::from_file(&model.tokenizer)?;
    Ok(Some(Cut {
        count: Box::new(move |caption| Some(tokenizer.encode(caption.trim(), most).ok()?.len())),
        most,
        prompt: 1,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_padded_to_its_longest_text() {
        let texts = Texts::known(vec![4, 8], 10, 1, true);
        assert_eq!(texts.padded(1), 6.0);
        // Three of four pairs have the long one.
        assert_eq!(texts.padded(2), 7.0);
        assert!((texts.padded(1000) - 8.0).abs() < 1e-9);
        assert_eq!((texts.longest, texts.scored), (8, 5.0));
    }
}
