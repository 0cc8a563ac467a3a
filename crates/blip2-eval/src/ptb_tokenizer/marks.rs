//! Punctuation, quotes, brackets, currencies, smileys and other signs.

use super::classes::{Class, class};
use super::lexer::{Match, Shape};
use super::text::Text;

/// All rules for signs.
pub(super) fn matches(text: &Text, start: usize, best: &mut Match) {
    if let Some(end) = smiley(text, start) {
        best.offer(end + 1, end, Shape::Brackets);
    }
    if let Some(end) = asian_smiley(text, start) {
        best.offer(end, end, Shape::Brackets);
    }
    dollars(text, start, best);
    quotes(text, start, best);
    entities(text, start, best);
    let same = |unit| text.run(start, |other| other == unit);
    let one = start + 1;
    let unit = text.at(start);
    match unit {
        0x28 => best.offer(one, one, Shape::Fixed("-lrb-")),
        0x29 => best.offer(one, one, Shape::Fixed("-rrb-")),
        0x5b => best.offer(one, one, Shape::Fixed("-lsb-")),
        0x5d => best.offer(one, one, Shape::Fixed("-rsb-")),
        0x7b => best.offer(one, one, Shape::Fixed("-lcb-")),
        0x7d => best.offer(one, one, Shape::Fixed("-rcb-")),
        0x80 | 0xa4 | 0x20a0 | 0x20ac => best.offer(one, one, Shape::Fixed("$")),
        0xa2 => best.offer(one, one, Shape::Fixed("cents")),
        0xa3 => best.offer(one, one, Shape::Fixed("#")),
        0x96 | 0x97 | 0x2013..=0x2015 => best.offer(one, one, Shape::Fixed("--")),
        0x2026 => best.offer(one, one, Shape::Fixed("...")),
        // Footnote marks.
        0x23 | 0x2a | 0x40 | 0x5f => {
            let end = same(unit);
            best.offer(end, end, Shape::Plain);
        }
        0x21 | 0x3f => {
            let end = text.run(start, |other| matches!(other, 0x21 | 0x3f));
            best.offer(end, end, Shape::Plain);
        }
        0x2d => {
            let end = same(unit);
            let shape = if matches!(end - start, 3 | 4) {
                Shape::Fixed("--")
            } else {
                Shape::Plain
            };
            best.offer(end, end, shape);
        }
        0x2e => {
            let end = same(unit).min(start + 5);
            if end >= start + 3 {
                best.offer(end, end, Shape::Fixed("..."));
            }
            let mut spaced = start;
            let mut pairs = 0;
            while pairs < 4
                && text.ascii(spaced) == b'.'
                && matches!(text.at(spaced + 1), 0x20 | 0xa0)
            {
                spaced += 2;
                pairs += 1;
                if pairs >= 2 && text.ascii(spaced) == b'.' {
                    best.offer(spaced + 1, spaced + 1, Shape::Fixed("..."));
                }
            }
            best.offer(one, one, Shape::Plain);
        }
        0x3c | 0x3e => {
            let end = same(unit).min(start + 2);
            best.offer(end, end, Shape::Plain);
        }
        0x5c if text.ascii(one) == b'*' => {
            let mut end = start;
            while end < start + 6 && text.ascii(end) == b'\\' && text.ascii(end + 1) == b'*' {
                end += 2;
            }
            best.offer(end, end, Shape::Plain);
        }
        0x2b | 0x2c | 0x2f | 0x3a | 0x25 | 0x2044 => best.offer(one, one, Shape::Plain),
        _ if class(unit) == Class::Symbol => best.offer(one, one, Shape::Plain),
        _ => {}
    }
}

/// Capitals before a dollar sign: `US$`.
fn dollars(text: &Text, start: usize, best: &mut Match) {
    let end = text.ascii_run(start, |byte| byte.is_ascii_uppercase());
    if text.ascii(end) == b'$' {
        best.offer(end + 1, end + 1, Shape::Plain);
    }
}

/// One or two quotes of any kind.
fn quotes(text: &Text, start: usize, best: &mut Match) {
    let quote = |index: usize| {
        matches!(
            text.at(index),
            0x60 | 0x91..=0x94 | 0x2018..=0x201f | 0x2039 | 0x203a | 0xab | 0xbb
        )
    };
    if quote(start) {
        let end = start + 1 + usize::from(quote(start + 1));
        best.offer(end, end, Shape::Quotes);
    } else if let Some(end) = text.apostrophe(start) {
        best.offer(end, end, Shape::Quotes);
        let pair = text.literal(start, "''").unwrap_or(end);
        best.offer(pair, pair, Shape::Quotes);
    }
    let double = match text.ascii(start) {
        b'"' => Some(start + 1),
        _ => text.literal(start, "&quot;"),
    };
    if let Some(end) = double {
        best.offer(end, end, Shape::Fixed("''"));
    }
}

/// Names of signs: `&amp;`.
fn entities(text: &Text, start: usize, best: &mut Match) {
    if text.ascii(start) != b'&' {
        return;
    }
    for (name, value) in [
        ("&amp;", "&"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&nbsp;", ""),
        ("&md;", "--"),
        ("&mdash;", "--"),
        ("&ndash;", "--"),
    ] {
        if let Some(end) = text.literal(start, name) {
            best.offer(end, end, Shape::Fixed(value));
        }
    }
    let punctuation = [
        "ht;", "tl;", "ur;", "lr;", "qc;", "ql;", "qr;", "odq;", "cdq;",
    ];
    if let Some(end) = text.any(start + 1, &punctuation) {
        best.offer(end, end, Shape::Plain);
    }
    if text.ascii(start + 1) == b'#' {
        let end = text.ascii_run(start + 2, |byte| byte.is_ascii_digit());
        if end > start + 2 && text.ascii(end) == b';' {
            best.offer(end + 1, end + 1, Shape::Plain);
        }
    }
}

/// Eyes, a nose or none, a mouth; no letter behind.
fn smiley(text: &Text, start: usize) -> Option<usize> {
    let eyes = start + usize::from(matches!(text.ascii(start), b'<' | b'>'));
    if !matches!(text.ascii(eyes), b':' | b';' | b'=') {
        return None;
    }
    let mouth = |index: usize| {
        let end = index + 1;
        (b"()DPdpO\\{@|[]".contains(&text.ascii(index)) && !text.ascii(end).is_ascii_alphanumeric())
            .then_some(end)
    };
    let nose = matches!(text.ascii(eyes + 1), b'-' | b'o' | b'*' | b'\'');
    let long = if nose { mouth(eyes + 2) } else { None };
    long.or_else(|| mouth(eyes + 1))
}

fn asian_smiley(text: &Text, start: usize) -> Option<usize> {
    let eye = |index: usize| {
        matches!(
            text.ascii(index),
            b'^' | b'x' | b'=' | b'~' | b'<' | b'>' | b'\''
        )
    };
    let wide = |index: usize| eye(index) || text.ascii(index) == b'-';
    let plain = |index: usize| eye(index) && text.ascii(index) != b'\'';
    // A slip in the original: the second eye's alternatives are taken as they are written.
    if plain(start)
        && let Some(end) = text.literal(start + 1, ".[^x=~<>]")
    {
        return Some(end);
    }
    if wide(start) && text.ascii(start + 1) == b'_' && wide(start + 2) {
        return Some(start + 3);
    }
    if text.ascii(start) != b'(' {
        return None;
    }
    if wide(start + 1) {
        let second = start + 2 + usize::from(matches!(text.ascii(start + 2), b'_' | b'.'));
        if wide(second) && text.ascii(second + 1) == b')' {
            return Some(second + 2);
        }
    }
    let pair = eye(start + 1)
        && text.ascii(start + 2) == b'-'
        && (eye(start + 3) || text.ascii(start + 3) == b'`')
        && text.ascii(start + 4) == b')';
    pair.then_some(start + 5)
}
