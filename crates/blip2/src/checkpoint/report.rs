//! Where every tensor of a captioner came from, and what became of every key of its files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::fill::Expected;
use super::names::Address;
use super::weights::Weights;
use crate::Blip2Error;

/// The account of a load: each key of the checkpoint, each tensor of the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// The checkpoint.
    pub path: PathBuf,
    /// Keys that were used.
    pub loaded: Vec<String>,
    /// Tensors that the checkpoint lacks and a base has, with the base's file.
    pub supplied: Vec<(String, PathBuf)>,
    /// Tensors that nothing has.
    pub missing: Vec<String>,
    /// Keys that captioning does not need, and why.
    pub dropped: Vec<(String, &'static str)>,
    /// Keys that belong to nothing.
    pub unexpected: Vec<String>,
}

impl LoadReport {
    /// Fails unless every tensor has its values and every key its meaning.
    ///
    /// # Errors
    ///
    /// Names the missing or the unexpected keys.
    pub fn check(&self) -> Result<(), Blip2Error> {
        let (path, keys) = (self.path.clone(), self.missing.clone());
        if !keys.is_empty() {
            return Err(Blip2Error::Missing { path, keys });
        }
        let keys = self.unexpected.clone();
        if !keys.is_empty() {
            return Err(Blip2Error::Unexpected { path, keys });
        }
        Ok(())
    }
}

/// How many names are shown before the rest is counted.
const SHOWN: usize = 12;

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "weights: {}", self.path.display())?;
        writeln!(f, "  loaded: {}", self.loaded.len())?;
        let mut bases: BTreeMap<&PathBuf, usize> = BTreeMap::new();
        for (_, base) in &self.supplied {
            *bases.entry(base).or_default() += 1;
        }
        writeln!(f, "  supplied by base: {}", self.supplied.len())?;
        for (base, count) in bases {
            writeln!(f, "    {count} from {}", base.display())?;
        }
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (key, reason) in &self.dropped {
            reasons.entry(reason).or_default().push(key);
        }
        writeln!(f, "  dropped: {}", self.dropped.len())?;
        for (reason, keys) in reasons {
            writeln!(f, "    {} ({reason})", shortened(&keys))?;
        }
        for (what, keys) in [("missing", &self.missing), ("unexpected", &self.unexpected)] {
            match keys.as_slice() {
                [] => writeln!(f, "  {what}: none")?,
                keys => {
                    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                    writeln!(f, "  {what}: {}: {}", keys.len(), shortened(&keys))?;
                }
            }
        }
        Ok(())
    }
}

/// The first names, and how many more there are.
pub(crate) fn shortened<S: AsRef<str>>(keys: &[S]) -> String {
    let shown: Vec<&str> = keys.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match keys.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Takes what `weights` lacks of `expected` from `bases`, the first that has it, and gives account.
pub fn complete(
    weights: &Weights,
    bases: &[&Weights],
    expected: &BTreeMap<Address, Expected>,
) -> (Weights, LoadReport) {
    let mut report = LoadReport {
        path: weights.path.to_path_buf(),
        dropped: weights.dropped.clone(),
        unexpected: weights.unexpected.clone(),
        ..LoadReport::default()
    };
    let mut tensors = BTreeMap::new();
    for address in expected.keys() {
        let base = || {
            let found =
                |base: &&Weights| Some((base.tensors.get(address)?.clone(), base.path.clone()));
            bases.iter().find_map(found)
        };
        if let Some(weight) = weights.tensors.get(address) {
            report
                .loaded
                .extend(weights.layout.keys(address).into_iter().map(|key| key.name));
            tensors.insert(address.clone(), weight.clone());
        } else if let Some((weight, path)) = base() {
            let key = weights.key(address);
            report.supplied.push((key, path.to_path_buf()));
            tensors.insert(address.clone(), weight);
        } else {
            report.missing.push(weights.key(address));
        }
    }
    for (address, weight) in &weights.tensors {
        if !expected.contains_key(address) {
            report.unexpected.push(weight.key.clone());
        }
    }
    let completed = Weights {
        layout: weights.layout,
        path: weights.path.clone(),
        tensors,
        dropped: weights.dropped.clone(),
        unexpected: weights.unexpected.clone(),
    };
    (completed, report)
}
