//! The longest match among all rules, and what becomes of it.

use super::text::{Text, is_line_end, is_space};
use super::{abbreviations, addresses, marks, numbers, words};

/// How the text of a match becomes a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// As it stands.
    Plain,
    /// Without soft hyphens, and with `&` for `&amp;`.
    Word,
    /// What is split off a word, with a plain apostrophe.
    Clitic,
    /// With no-break spaces for spaces.
    Spaced,
    /// With no-break spaces for spaces and names for round brackets.
    Brackets,
    /// Quotes in ASCII.
    Quotes,
    /// This; nothing if it is empty.
    Fixed(&'static str),
}

/// The best match so far.
#[derive(Debug)]
pub(super) struct Match {
    /// The end of all that was looked at.
    total: usize,
    /// The end of the token.
    end: usize,
    shape: Shape,
}

impl Match {
    /// Takes a match if it looked at more than all before: the first of equals wins.
    pub fn offer(&mut self, total: usize, end: usize, shape: Shape) {
        if total > self.total {
            *self = Self { total, end, shape };
        }
    }
}

/// Calls `token` with each token of `text` that begins before `limit`.
pub(super) fn tokens(text: &Text, limit: usize, mut token: impl FnMut(String)) {
    let mut start = 0;
    while start < limit {
        let unit = text.at(start);
        if is_space(unit) || is_line_end(unit) {
            // Addresses may hold any white space but ASCII's.
            let spaces = text.run(start, is_space).max(start + 1);
            let address = addresses::likely_url(text, start).filter(|&end| end > spaces);
            if let Some(end) = address {
                token(text.slice(start, end));
            }
            start = address.unwrap_or(spaces);
            continue;
        }
        if let Some(end) = words::plain(text, start) {
            token(text.slice(start, end));
            start = end;
            continue;
        }
        let mut best = Match {
            total: start,
            end: start + 1,
            shape: Shape::Fixed(""),
        };
        words::matches(text, start, &mut best);
        addresses::matches(text, start, &mut best);
        numbers::matches(text, start, &mut best);
        abbreviations::matches(text, start, &mut best);
        words::dotted_and_joined(text, start, &mut best);
        addresses::file_name(text, start, &mut best);
        marks::matches(text, start, &mut best);
        let shaped = shape(text.slice(start, best.end), best.shape);
        if !shaped.is_empty() {
            token(shaped);
        }
        start = best.end;
    }
}

fn shape(text: String, shape: Shape) -> String {
    match shape {
        Shape::Plain => text,
        Shape::Fixed(value) => value.to_string(),
        Shape::Word if text.is_ascii() && !text.contains('&') => text,
        Shape::Word => {
            let visible = text.replace('\u{ad}', "").replace("&amp;", "&");
            if visible.is_empty() {
                "-".into()
            } else {
                visible
            }
        }
        Shape::Clitic => text
            .replace("&apos;", "'")
            .replace(['\u{92}', '\u{2019}'], "'")
            .replace(['\u{91}', '\u{2018}', '\u{201b}'], "`"),
        Shape::Spaced => text.replace(' ', "\u{a0}"),
        Shape::Brackets => {
            let spaced = text.replace(' ', "\u{a0}");
            spaced.replace('(', "-lrb-").replace(')', "-rrb-")
        }
        Shape::Quotes => text
            .replace("&apos;", "'")
            .replace(['\u{91}', '\u{2018}', '\u{201b}', '\u{2039}'], "`")
            .replace(['\u{92}', '\u{2019}', '\u{203a}'], "'")
            .replace(['\u{93}', '\u{201c}', '\u{ab}'], "``")
            .replace(['\u{94}', '\u{201d}', '\u{bb}'], "''"),
    }
}
