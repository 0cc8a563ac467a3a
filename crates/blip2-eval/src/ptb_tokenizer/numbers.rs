//! Numbers, dates, fractions and telephone numbers.

use super::lexer::{Match, Shape};
use super::text::Text;

/// All rules for numbers.
pub(super) fn matches(text: &Text, start: usize, best: &mut Match) {
    if text.ascii(start).is_ascii_alphabetic() {
        return;
    }
    for (rule, shape) in [
        (date as fn(&Text, usize) -> Option<usize>, Shape::Word),
        (number, Shape::Word),
        (raised_or_lowered, Shape::Plain),
        (fraction, Shape::Spaced),
        (telephone, Shape::Brackets),
    ] {
        if let Some(end) = rule(text, start) {
            best.offer(end, end, shape);
        }
    }
    let vulgar = match text.at(start) {
        0xbc => Some("1/4"),
        0xbd => Some("1/2"),
        0xbe => Some("3/4"),
        0x2153 => Some("1/3"),
        0x2154 => Some("2/3"),
        _ => None,
    };
    if let Some(fraction) = vulgar {
        best.offer(start + 1, start + 1, Shape::Fixed(fraction));
    }
    if let Some(year) = text.apostrophe(start)
        && text.ascii(year).is_ascii_digit()
        && text.ascii(year + 1).is_ascii_digit()
        && text.is_space_or_line_end(year + 2)
    {
        best.offer(year + 3, year + 2, Shape::Plain);
    }
}

/// The end of at most `most` digits, if there are at least `least`.
fn digits(text: &Text, start: usize, least: usize, most: usize) -> Option<usize> {
    let count = (0..most)
        .take_while(|offset| text.is_digit(start + offset))
        .count();
    (count >= least).then_some(start + count)
}

/// As [`digits`], of ASCII digits.
fn plain_digits(text: &Text, start: usize, least: usize, most: usize) -> Option<usize> {
    let end = text
        .ascii_run(start, |byte| byte.is_ascii_digit())
        .min(start + most);
    (end >= start + least).then_some(end)
}

/// The ends of `least` to `most` ASCII digits, the longest first.
fn each(text: &Text, start: usize, least: usize, most: usize) -> impl Iterator<Item = usize> {
    let end = plain_digits(text, start, least, most).unwrap_or(start + least - 1);
    (start + least..=end).rev()
}

fn date(text: &Text, start: usize) -> Option<usize> {
    let dash = |index: usize| matches!(text.ascii(index), b'-' | b'/').then_some(index + 1);
    let month = dash(digits(text, start, 1, 2)?)?;
    let year = dash(digits(text, month, 1, 2)?)?;
    digits(text, year, 2, 4)
}

fn number(text: &Text, start: usize) -> Option<usize> {
    let from = start + usize::from(matches!(text.ascii(start), b'+' | b'-'));
    let mut end = digits(text, from, 0, usize::MAX - from)?;
    while matches!(text.at(end), 0x2e | 0x3a | 0x2c | 0xad | 0x66b | 0x66c)
        && text.is_digit(end + 1)
    {
        end = digits(text, end + 1, 1, usize::MAX - end - 1)?;
    }
    (end > from).then_some(end)
}

/// Superscript and subscript digits.
fn raised_or_lowered(text: &Text, start: usize) -> Option<usize> {
    let from = start + usize::from(matches!(text.at(start), 0x207a | 0x207b | 0x208a | 0x208b));
    let raised = |unit| matches!(unit, 0x2070 | 0xb9 | 0xb2 | 0xb3 | 0x2074..=0x2079);
    let lowered = |unit| matches!(unit, 0x2080..=0x2089);
    let end = text.run(from, raised).max(text.run(from, lowered));
    (end > from).then_some(end)
}

/// `1/2`, `1 1/2`, `1-1/2`.
fn fraction(text: &Text, start: usize) -> Option<usize> {
    let simple = |start: usize| {
        let end = digits(text, start, 1, 4)?;
        let slash = match text.at(end) {
            0x2f | 0x2044 => end + 1,
            0x5c if text.ascii(end + 1) == b'/' => end + 2,
            _ => return None,
        };
        digits(text, slash, 1, 4)
    };
    let whole = digits(text, start, 1, 4)?;
    let mixed = matches!(text.at(whole), 0x2d | 0x20 | 0xa0)
        .then(|| simple(whole + 1))
        .flatten();
    mixed.or_else(|| simple(start))
}

fn telephone(text: &Text, start: usize) -> Option<usize> {
    let plus = text.ascii_run(start, |byte| byte == b'+').min(start + 2);
    let sign = |index: usize| matches!(text.at(index), 0x2d | 0x20 | 0xa0);
    let mut longest = None;

    // Spaces and hyphens, as in `(650) 723-4567` and `+39-06-472-3456`.
    let mut locals = Vec::new();
    if text.ascii(start) == b'(' {
        if let Some(end) = plain_digits(text, start + 1, 2, 3)
            && text.ascii(end) == b')'
        {
            locals.push(end + 1);
            if matches!(text.at(end + 1), 0x20 | 0xa0) {
                locals.push(end + 2);
            }
        }
    } else if let Some(area) = plain_digits(text, plus, 2, 4).filter(|&end| sign(end)) {
        locals.push(area + 1);
        if let Some(second) = plain_digits(text, area + 1, 2, 4).filter(|&end| sign(end)) {
            locals.push(second + 1);
        }
    }
    for local in locals {
        for middle in each(text, local, 3, 4) {
            let last = middle + usize::from(sign(middle));
            longest = longest.max(plain_digits(text, last, 3, 5));
        }
    }

    // Full stops, as in `33.1.23.456`.
    let dotted = |start, least, most| {
        plain_digits(text, start, least, most)
            .filter(|&end| text.ascii(end) == b'.')
            .map(|end| end + 1)
    };
    let last = |start| {
        dotted(start, 2, 4)
            .and_then(|next| dotted(next, 3, 4))
            .and_then(|next| plain_digits(text, next, 3, 5))
    };
    longest = longest.max(dotted(plus, 2, 4).and_then(last));
    if plus == start {
        longest = longest.max(last(start));
    }
    longest
}
