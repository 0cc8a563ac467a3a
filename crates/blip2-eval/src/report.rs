//! Metrics and their values.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::EvalError;

/// What can be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// `Bleu_1` to `Bleu_4`.
    Bleu,
    /// `METEOR`, for a scorer that has its data ([`Scorer::with_meteor`](crate::Scorer::with_meteor)).
    Meteor,
    /// `ROUGE_L`.
    RougeL,
    /// `CIDEr`, as pycocoevalcap's `Cider` computes it: with the clipping and the penalty on length
    /// that the paper calls CIDEr-D.
    Cider,
    /// `CIDErD`, with the document frequencies that the scorer was given
    /// ([`Scorer::with_document_frequencies`](crate::Scorer::with_document_frequencies)). Without
    /// them it is the value of `CIDEr`, for pycocoevalcap's `Cider` is CIDEr-D already.
    CiderD,
    /// `SPICE`, for a scorer that has its program ([`Scorer::with_spice`](crate::Scorer::with_spice)).
    Spice,
}

impl Metric {
    /// Its name; [`FromStr`] reads it back.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bleu => "BLEU",
            Self::Meteor => "METEOR",
            Self::RougeL => "ROUGE_L",
            Self::Cider => "CIDEr",
            Self::CiderD => "CIDErD",
            Self::Spice => "SPICE",
        }
    }
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        name.parse().map_err(D::Error::custom)
    }
}

impl FromStr for Metric {
    type Err = EvalError;

    fn from_str(name: &str) -> Result<Self, EvalError> {
        match name.to_ascii_lowercase().replace(['-', '_'], "").as_str() {
            "bleu" => Ok(Self::Bleu),
            "meteor" => Ok(Self::Meteor),
            "rougel" | "rouge" => Ok(Self::RougeL),
            "cider" => Ok(Self::Cider),
            "ciderd" => Ok(Self::CiderD),
            "spice" => Ok(Self::Spice),
            _ => Err(EvalError::UnknownMetric { name: name.into() }),
        }
    }
}

/// Values by name, in the order in which they are always shown; fractions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores(Vec<(String, f64)>);

impl Scores {
    /// The value of `name`, for example `Bleu_4`.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    pub(crate) fn push(&mut self, name: &str, value: f64) {
        self.0.push((name.to_string(), value));
    }
}

impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Scores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Scores;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("scores by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scores, A::Error> {
                let mut scores = Scores::default();
                while let Some((name, value)) = map.next_entry::<String, f64>()? {
                    scores.push(&name, value);
                }
                Ok(scores)
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// Scores of the whole set and of each image.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Of the whole set.
    pub scores: Scores,
    /// Of each image.
    pub per_image: BTreeMap<String, Scores>,
}
