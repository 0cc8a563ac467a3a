//! METEOR's tokenization (`-norm` with punctuation kept), which follows that of Moses.
//!
//! Punctuation stands alone, but for dots and commas in numbers and dots of abbreviations;
//! hyphens between words become spaces; English contractions are split before the apostrophe.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

/// Letters that count as such: Latin and Cyrillic.
const ALPHA: &str = r"A-Za-zŠŽšžŸÀ-ÖØ-öø-žЀ-ӿԀ-ԧꙀ-ꙮ꙾-ꚗᴀ-ᵿ";
const DIGIT: &str = "0-9";
/// What Java's `\s` and `StringTokenizer` take for white space.
const SPACE: &str = r" \t\n\x0B\f\r";
const SPACES: [char; 5] = [' ', '\t', '\n', '\r', '\x0C'];

/// After which words a dot is no full stop.
pub(super) type Prefixes = HashMap<String, Follows>;

/// What must follow such a word and its dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follows {
    Anything,
    Number,
}

/// Reads a list of prefixes: one a line, `#NUMERIC_ONLY#` behind those of numbers.
pub(super) fn read_prefixes(text: &str) -> Prefixes {
    let mut prefixes = Prefixes::new();
    for line in text.lines() {
        let mut parts = words(line);
        let Some(prefix) = parts.next().filter(|prefix| !prefix.starts_with('#')) else {
            continue;
        };
        let follows = match parts.next() {
            Some("#NUMERIC_ONLY#") => Follows::Number,
            _ => Follows::Anything,
        };
        prefixes.insert(prefix.to_string(), follows);
    }
    prefixes
}

/// A pattern and what stands in its place.
struct Rule(Regex, &'static str);

/// What is done to a line, in this order but for the last two.
struct Rules {
    /// Everything but letters, digits and what has a rule of its own stands alone.
    other: Rule,
    dots: Regex,
    last_dots: Regex,
    /// Commas, quotes, dashes, apostrophes.
    punctuation: Vec<Rule>,
    spaces: Regex,
    has_letter: Regex,
}

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    // Every pattern is a constant, and a test runs them all.
    #[allow(clippy::unwrap_used)]
    let regex = |pattern: &str| Regex::new(pattern).unwrap();
    let rule = |pattern: String, replacement| Rule(regex(&pattern), replacement);
    let other = format!("([^{DIGIT}{ALPHA}{SPACE}.'`,‘’-])");
    Rules {
        other: rule(other, " ${1} "),
        dots: regex(r"\.(\.+)"),
        last_dots: regex(r"DOTMULTI\.([^.])"),
        punctuation: vec![
            rule(format!("([^{DIGIT}]),([^{DIGIT}])"), "${1} , ${2}"),
            rule(format!("([{DIGIT}]),([^{DIGIT}])"), "${1} , ${2}"),
            rule(format!("([^{DIGIT}]),([{DIGIT}])"), "${1} , ${2}"),
            rule("[`‘’]".into(), "'"),
            rule("[“”]|''".into(), " \" "),
            rule("–|--".into(), "-"),
            rule(
                format!("([{DIGIT}{ALPHA}.])-([{DIGIT}{ALPHA}])"),
                "${1} ${2}",
            ),
            rule(format!("([^{ALPHA}])'([^{ALPHA}])"), "${1} ' ${2}"),
            rule(format!("([^{ALPHA}{DIGIT}])'([{ALPHA}])"), "${1} ' ${2}"),
            rule(format!("([{ALPHA}])'([^{ALPHA}])"), "${1} ' ${2}"),
            rule(format!("([{ALPHA}])'([{ALPHA}])"), "${1} '${2}"),
            rule(format!("([{DIGIT}])'(s)"), "${1} '${2}"),
        ],
        spaces: regex("[ \u{2000}-\u{200a}\u{202f}\u{205f}\u{3000}\u{a0}]+"),
        has_letter: regex(&format!("[{ALPHA}]")),
    }
});

/// The tokens of a line, in lower case.
pub(super) fn normalize(line: &str, prefixes: &Prefixes) -> Vec<String> {
    // Most captions are words alone, which no rule touches.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b' ';
    if line.bytes().all(is_plain) {
        return words(line).map(str::to_ascii_lowercase).collect();
    }
    let rules = &*RULES;
    let line = rules.other.apply(format!(" {line} "));
    let mut line = escape_dots(line, rules);
    for rule in &rules.punctuation {
        line = rule.apply(line);
    }
    let mut text = split_dots(&line, prefixes, rules);
    while text.contains("DOTDOTMULTI") {
        text = text.replace("DOTDOTMULTI", "DOTMULTI.");
    }
    let text = text.replace("DOTMULTI", ".");
    let text = rules.spaces.replace_all(&text, " ").to_lowercase();
    words(&text).map(str::to_string).collect()
}

/// What stands between spaces, as Java's `StringTokenizer` splits a line.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(SPACES).filter(|word| !word.is_empty())
}

impl Rule {
    fn apply(&self, line: String) -> String {
        match self.0.replace_all(&line, self.1) {
            std::borrow::Cow::Borrowed(_) => line,
            std::borrow::Cow::Owned(changed) => changed,
        }
    }
}

/// Dots in a row become a word of their own that the rules for single dots leave alone.
fn escape_dots(line: String, rules: &Rules) -> String {
    let mut line = rules.dots.replace_all(&line, " DOTMULTI${1}").into_owned();
    while line.contains("DOTMULTI.") {
        line = rules
            .last_dots
            .replace_all(&line, "DOTDOTMULTI ${1}")
            .into_owned();
        line = line.replace("DOTMULTI.", "DOTDOTMULTI");
    }
    line
}

/// Splits the dot from words that it does not belong to.
fn split_dots(line: &str, prefixes: &Prefixes, rules: &Rules) -> String {
    let words: Vec<&str> = words(line).collect();
    let mut text = String::with_capacity(line.len());
    for (index, word) in words.iter().enumerate() {
        let next = words.get(index + 1);
        match word.strip_suffix('.').filter(|stem| !stem.is_empty()) {
            None => text += word,
            Some(stem) if stem.contains('.') && rules.has_letter.is_match(stem) => {
                text += &word.replace('.', "");
            }
            Some(stem) => {
                let starts = |test: fn(&u8) -> bool| {
                    next.is_some_and(|next| next.as_bytes().first().is_some_and(test))
                };
                let follows = prefixes.get(stem);
                let belongs = follows == Some(&Follows::Anything)
                    || starts(u8::is_ascii_lowercase)
                    || (follows == Some(&Follows::Number) && starts(u8::is_ascii_digit));
                text += if belongs { word } else { stem };
                if !belongs {
                    text += " .";
                }
            }
        }
        text.push(' ');
    }
    text
}
