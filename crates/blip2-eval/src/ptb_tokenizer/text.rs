//! The text under the lexer, in the UTF-16 units that Stanford's rules count in.

use super::classes::{Class, class};

/// Read-only text; behind its end stand line feeds.
pub(super) struct Text {
    units: Vec<u16>,
    /// Whether there is an `@`; without one, no mail address need be looked for.
    pub has_at: bool,
}

impl Text {
    pub fn new(text: &str) -> Self {
        Self {
            units: text.encode_utf16().collect(),
            has_at: text.contains('@'),
        }
    }

    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// The unit at `index`; a line feed behind the end.
    pub fn at(&self, index: usize) -> u16 {
        self.units.get(index).copied().unwrap_or(LINE_FEED)
    }

    /// The unit at `index` if it is ASCII, otherwise 0.
    pub fn ascii(&self, index: usize) -> u8 {
        u8::try_from(self.at(index))
            .ok()
            .filter(u8::is_ascii)
            .unwrap_or(0)
    }

    /// The text of a token.
    pub fn slice(&self, start: usize, end: usize) -> String {
        String::from_utf16_lossy(&self.units[start..end.min(self.units.len())])
    }

    /// The end of the longest run of units that are `part`.
    pub fn run(&self, start: usize, part: impl Fn(u16) -> bool) -> usize {
        let rest = self.units.get(start..).unwrap_or(&[]);
        start + rest.iter().take_while(|&&unit| part(unit)).count()
    }

    /// The end of the longest run of ASCII characters that are `part`.
    pub fn ascii_run(&self, start: usize, part: impl Fn(u8) -> bool) -> usize {
        self.run(start, |unit| {
            u8::try_from(unit).is_ok_and(|byte| byte.is_ascii() && part(byte))
        })
    }

    /// The end of `literal`, which is lower case, if it stands at `start` in any case.
    pub fn literal(&self, start: usize, literal: &str) -> Option<usize> {
        let same = literal
            .bytes()
            .enumerate()
            .all(|(offset, byte)| self.ascii(start + offset).to_ascii_lowercase() == byte);
        same.then_some(start + literal.len())
    }

    /// The end of the first of `literals` that stands at `start`.
    pub fn any(&self, start: usize, literals: &[&str]) -> Option<usize> {
        literals
            .iter()
            .find_map(|literal| self.literal(start, literal))
    }

    pub fn is_letter(&self, index: usize) -> bool {
        class(self.at(index)) == Class::Letter
    }

    pub fn is_digit(&self, index: usize) -> bool {
        class(self.at(index)) == Class::Digit
    }

    pub fn is_alphanumeric(&self, index: usize) -> bool {
        matches!(class(self.at(index)), Class::Letter | Class::Digit)
    }

    /// The end of an apostrophe.
    pub fn apostrophe(&self, index: usize) -> Option<usize> {
        match self.at(index) {
            0x27 | 0x92 | 0x2019 => Some(index + 1),
            0x26 => self.literal(index, "&apos;"),
            _ => None,
        }
    }

    /// The end of an apostrophe or of a quote that is used as one.
    pub fn loose_apostrophe(&self, index: usize) -> Option<usize> {
        match self.at(index) {
            0x60 | 0x91 | 0x2018 | 0x201b => Some(index + 1),
            _ => self.apostrophe(index),
        }
    }

    pub fn is_space_or_line_end(&self, index: usize) -> bool {
        is_space(self.at(index)) || is_line_end(self.at(index))
    }
}

const LINE_FEED: u16 = 0x0a;

pub(super) fn is_space(unit: u16) -> bool {
    matches!(unit, 0x20 | 0x09 | 0xa0 | 0x2000..=0x200a | 0x3000)
}

pub(super) fn is_line_end(unit: u16) -> bool {
    matches!(unit, 0x0a..=0x0d | 0x85 | 0x2028 | 0x2029)
}

/// What ends addresses: white space and the ASCII signs of `stops`.
pub(super) fn is_address(unit: u16, stops: &[u8]) -> bool {
    match u8::try_from(unit) {
        Ok(b' ' | b'\t' | b'\n' | b'\r' | 0x0c | b'"' | b'<' | b'>' | b'|') => false,
        Ok(byte) => !stops.contains(&byte),
        Err(_) => true,
    }
}
