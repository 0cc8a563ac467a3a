//! What made the captions of a file, so that a task does not go on with others.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{CaptioningError, OutputFiles};
use crate::RunError;
use crate::run::write_json;

/// The flags of a task that its captions depend on, by name. Those that were not given are not there.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings(Map<String, Value>);

impl Settings {
    /// The fields of `flags`.
    ///
    /// # Errors
    ///
    /// A path that is no UTF-8.
    pub fn of(flags: &impl Serialize) -> Result<Self, RunError> {
        let wrong = |reason: String| RunError::Usage(format!("the command line: {reason}"));
        match serde_json::to_value(flags).map_err(|error| wrong(error.to_string()))? {
            Value::Object(mut fields) => {
                fields.retain(|_, value| !value.is_null());
                Ok(Self(fields))
            }
            _ => Err(wrong("has no fields".into())),
        }
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), RunError> {
        write_json(path, &self.0)
    }

    /// Compares with what the captions in `files` were made with.
    pub(super) fn check(&self, files: &OutputFiles) -> Result<(), CaptioningError> {
        let text = fs::read(&files.settings).unwrap_or_default();
        let Ok(Self(before)) = serde_json::from_slice(&text).map(Self) else {
            return Err(CaptioningError::NoSettings {
                file: files.result().into(),
                settings: files.settings.clone(),
            });
        };
        let show = |value: Option<&Value>| value.map_or("not given".into(), Value::to_string);
        let differs = |key: &&String| self.0.get(*key) != before.get(*key);
        match self.0.keys().chain(before.keys()).find(differs) {
            None => Ok(()),
            Some(key) => Err(CaptioningError::Settings {
                file: files.result().into(),
                flag: format!("--{}", key.replace('_', "-")),
                was: show(before.get(key)),
                now: show(self.0.get(key)),
            }),
        }
    }
}
