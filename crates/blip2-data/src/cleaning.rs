//! Caption cleaning before training, as the references do it.

use serde::{Deserialize, Serialize};

/// How captions are cleaned before the tokenizer sees them. References that score captions are
/// never cleaned: the metrics bring their own tokenizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum CaptionCleaning {
    /// LAVIS's `blip_caption`: lower case, a space for each of `.!"()*#:;~`, at most `max_words`.
    BlipCaption {
        /// Words a caption is cut to; 50 in LAVIS.
        max_words: usize,
    },
    /// mmpretrain's `CleanCaption`: lower case, without any ASCII punctuation.
    CleanCaption,
}

impl CaptionCleaning {
    /// The caption as it is learned. Nothing may be left of it.
    pub fn clean(&self, caption: &str) -> String {
        match self {
            Self::BlipCaption { max_words } => {
                let spaced: String = caption
                    .to_lowercase()
                    .chars()
                    .map(|letter| {
                        if ".!\"()*#:;~".contains(letter) {
                            ' '
                        } else {
                            letter
                        }
                    })
                    .collect();
                let collapsed = collapse(&spaced);
                let trimmed = collapsed.trim_end_matches('\n').trim_matches(' ');
                let words: Vec<&str> = trimmed.split(' ').take(*max_words).collect();
                words.join(" ")
            }
            Self::CleanCaption => {
                let letters: String = caption
                    .trim_matches(is_space)
                    .chars()
                    .filter(|letter| !letter.is_ascii_punctuation())
                    .collect();
                collapse(&letters).to_lowercase()
            }
        }
    }
}

/// One space for each run of two or more; a single tab stays a tab, as in the references.
fn collapse(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut run: Option<(char, usize)> = None;
    let end_run = |run: &mut Option<(char, usize)>, result: &mut String| match run.take() {
        Some((first, 1)) => result.push(first),
        Some(_) => result.push(' '),
        None => {}
    };
    for letter in text.chars() {
        if is_space(letter) {
            run = run.map_or(Some((letter, 1)), |(first, count)| Some((first, count + 1)));
        } else {
            end_run(&mut run, &mut result);
            result.push(letter);
        }
    }
    end_run(&mut run, &mut result);
    result
}

/// What `\s` matches in Python: four control characters beyond Unicode's white space.
fn is_space(letter: char) -> bool {
    letter.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `BlipCaptionProcessor().pre_caption` and mmpretrain's `CleanCaption()._clean` return.
    const CASES: [(&str, &str, &str); 6] = [
        ("A man, riding.  ", "a man, riding", "a man riding"),
        (
            "Two \"red\" (big) dogs!",
            "two red big dogs",
            "two red big dogs",
        ),
        ("it's 5:30~6;00 #1", "it's 5 30 6 00 1", "its 530600 1"),
        (
            "a\tcat \n on\u{1c}\u{1d}mats\n",
            "a\tcat on mats",
            "a\tcat on mats",
        ),
        ("...", "", ""),
        ("ÉTÉ — hot", "été — hot", "été — hot"),
    ];

    #[test]
    fn captions_are_those_of_the_references() {
        for (caption, lavis, mmpretrain) in CASES {
            let cleaned = CaptionCleaning::BlipCaption { max_words: 50 }.clean(caption);
            assert_eq!(cleaned, lavis, "{caption:?}");
            assert_eq!(
                CaptionCleaning::CleanCaption.clean(caption),
                mmpretrain,
                "{caption:?}"
            );
        }
    }

    #[test]
    fn long_captions_are_cut_at_a_word() {
        let cleaning = CaptionCleaning::BlipCaption { max_words: 3 };
        assert_eq!(cleaning.clean("one two. three four"), "one two three");
    }
}
