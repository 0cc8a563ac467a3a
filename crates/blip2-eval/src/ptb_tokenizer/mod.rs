//! The tokenizer that COCO scores are defined on: Stanford CoreNLP 3.4.1's
//! `PTBTokenizer -preserveLines -lowerCase`, and COCO's list of punctuation that it drops.
//!
//! At each place, all rules are tried and the longest match wins, the first of equal ones. The rules
//! are this crate's own; what the original does was established by running it on millions of strings.
//! `tests/reference/eval_check.py` compares anew. A known difference is the case of some Greek final
//! sigmas beside signs and digits.

mod abbreviations;
mod addresses;
mod case;
mod classes;
mod lexer;
mod marks;
mod numbers;
mod text;
mod words;

use text::Text;

/// The tokens that COCO drops. Its list names brackets in capitals, which the lower-cased tokens
/// `-lrb-` and `-rrb-` never equal: they stay.
const PUNCTUATION: [&str; 13] = [
    "''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";",
];

/// Splits a caption into lower-case tokens and drops punctuation.
///
/// Line feeds count as spaces, and so do other line ends, at which pycocoevalcap itself loses step
/// with its captions. A token can hold white space other than ASCII's, for example a no-break space
/// in `1 1/2` and in telephone numbers: BLEU and CIDEr take it for two words, ROUGE-L for one.
///
/// In one case the original looks at the next caption: it keeps the full stop of a single letter at
/// the end (`vitamin B.`) unless a sentence begins behind it, as most captions do with `A` or `The`.
/// Here a caption never depends on its neighbours; the next one is taken to begin with `A`.
pub fn tokenize(caption: &str) -> Vec<String> {
    let caption = caption.replace('\n', " ");
    let limit = caption.encode_utf16().count();
    let text = Text::new(&(caption + "\nA "));
    let mut tokens = Vec::new();
    lexer::tokens(&text, limit, |token| tokens.push(case::lower_case(token)));
    // The COCO tools strip the end of each line before they look at its tokens.
    while let Some(last) = tokens.last_mut() {
        last.truncate(last.trim_end_matches(is_space).len());
        if !last.is_empty() {
            break;
        }
        tokens.pop();
    }
    tokens.retain(|token| !PUNCTUATION.contains(&token.as_str()));
    tokens
}

/// Whether Python takes `letter` for white space.
pub(crate) fn is_space(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '\u{1c}'..='\u{1f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn captions_become_lower_case_words_without_punctuation() {
        for (caption, expected) in [
            ("A man, riding a horse.", "a man riding a horse"),
            ("The dog's ball isn't red", "the dog 's ball is n't red"),
            ("they cannot sleep", "they can not sleep"),
            ("3,000 people at 5:30 p.m.", "3,000 people at 5:30 p.m."),
            ("Mr. Smith -- \"hello\"...", "mr. smith hello"),
            (
                "a sign (red)\nthat says STOP!",
                "a sign -lrb- red -rrb- that says stop",
            ),
            ("1 1/2 cups for €5 😀", "1\u{a0}1/2 cups for $ 5"),
            ("plan B.", "plan b"),
            // Only ASCII digits make a telephone number.
            (
                "12 555-1234 １２ 555-1234",
                "12\u{a0}555-1234 １２ 555-1234",
            ),
            ("", ""),
        ] {
            assert_eq!(tokenize(caption).join(" "), expected);
        }
    }

    /// Pieces that rules look for, next to each other in all ways.
    const PIECES: [&str; 40] = [
        "n't",
        "'s",
        "'",
        "’",
        "`",
        "&apos;",
        "&amp;",
        "&",
        "<a b='c'>",
        "<",
        ">",
        "http://",
        "www.",
        ".com",
        "@",
        "#",
        "x",
        "A",
        "é",
        "日",
        "😀",
        "\u{ad}",
        "\u{301}",
        "\u{a0}",
        " ",
        "\r",
        "\u{85}",
        ".",
        ",",
        "-",
        "--",
        "/",
        "\\",
        "1",
        "½",
        "(",
        ")",
        "$",
        "_",
        "\0",
    ];

    proptest! {
        #[test]
        fn arbitrary_text_neither_panics_nor_gives_empty_or_upper_case_tokens(text in any::<String>()) {
            for token in tokenize(&text) {
                prop_assert!(!token.is_empty() && !token.contains([' ', '\n']));
                prop_assert!(!token.contains(|letter: char| letter.is_ascii_uppercase()));
            }
        }

        #[test]
        fn difficult_pieces_neither_panic_nor_give_empty_tokens(
            pieces in proptest::collection::vec(proptest::sample::select(&PIECES), 0..24)
        ) {
            let text = pieces.concat();
            prop_assert!(tokenize(&text).iter().all(|token| !token.is_empty()));
        }
    }
}
