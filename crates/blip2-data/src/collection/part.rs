//! Which part of a collection a task takes.

use std::fmt;
use std::str::FromStr;

use crate::DataError;

/// Part `index` of `count`, written `index/count`: the items `index`, `index + count`, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    index: u64,
    count: u64,
}

impl Part {
    /// Everything.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Whether item `number` is in it.
    pub fn has(self, number: u64) -> bool {
        number % self.count == self.index
    }
}

impl FromStr for Part {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        // `parse` takes a plus sign.
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<u64>().ok(),
            false => None,
        };
        let parts = text.split_once('/');
        let parsed = parts.and_then(|(index, count)| Some((number(index)?, number(count)?)));
        match parsed {
            Some((index, count)) if index < count => Ok(Self { index, count }),
            _ => Err(DataError::Config {
                field: "--shard".into(),
                reason: format!(
                    "`{text}` is no I/N with I from 0 to N-1, for example 0/4 to 3/4 for four tasks"
                ),
            }),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}
