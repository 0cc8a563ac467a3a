//! Typed access to the fields of a foreign JSON file, with errors that name file and field.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::Blip2Error;

/// A JSON object of a file, and where in the file it is.
pub(super) struct Fields {
    path: PathBuf,
    prefix: String,
    values: Map<String, Value>,
}

impl Fields {
    /// The object that a file is.
    pub fn read(path: &Path) -> Result<Self, Blip2Error> {
        let text = std::fs::read_to_string(path).map_err(Blip2Error::io(path))?;
        let format = |reason: String| Blip2Error::Format {
            path: path.to_path_buf(),
            reason,
        };
        let value: Value = serde_json::from_str(&text)
            .map_err(|error| format(format!("is no whole JSON file: {error}")))?;
        match value {
            Value::Object(values) => Ok(Self {
                path: path.to_path_buf(),
                prefix: String::new(),
                values,
            }),
            _ => Err(format("expected an object".into())),
        }
    }

    /// The object inside this one; empty where there is none.
    pub fn object(&self, field: &str) -> Result<Self, Blip2Error> {
        let values = match self.get(field) {
            None => Map::new(),
            Some(Value::Object(values)) => values.clone(),
            Some(_) => return Err(self.expected(field, "an object")),
        };
        Ok(Self {
            path: self.path.clone(),
            prefix: format!("{}{field}.", self.prefix),
            values,
        })
    }

    pub fn text(&self, field: &str) -> Result<Option<&str>, Blip2Error> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.expected(field, "a text")),
        }
    }

    pub fn size(&self, field: &str, default: usize) -> Result<usize, Blip2Error> {
        match self.get(field).map(Value::as_u64) {
            None => Ok(default),
            Some(Some(size)) => Ok(size as usize),
            Some(None) => Err(self.expected(field, "a whole number")),
        }
    }

    pub fn number(&self, field: &str, default: f64) -> Result<f64, Blip2Error> {
        match self.get(field).map(Value::as_f64) {
            None => Ok(default),
            Some(Some(number)) => Ok(number),
            Some(None) => Err(self.expected(field, "a number")),
        }
    }

    pub fn flag(&self, field: &str, default: bool) -> Result<bool, Blip2Error> {
        match self.get(field).map(Value::as_bool) {
            None => Ok(default),
            Some(Some(flag)) => Ok(flag),
            Some(None) => Err(self.expected(field, "true or false")),
        }
    }

    /// One of the words that `T` knows.
    pub fn word<T: DeserializeOwned>(&self, field: &str, default: &str) -> Result<T, Blip2Error> {
        let word = self.text(field)?.unwrap_or(default);
        serde_json::from_value(word.into()).map_err(|error| self.invalid(field, &error.to_string()))
    }

    /// A token id, or the first of several.
    pub fn id(&self, field: &str, default: u32) -> Result<u32, Blip2Error> {
        Ok(self.ids(field)?.first().copied().unwrap_or(default))
    }

    /// Token ids: one, several or none.
    pub fn ids(&self, field: &str) -> Result<Vec<u32>, Blip2Error> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match self.get(field) {
            None => Some(Vec::new()),
            Some(Value::Array(values)) => values.iter().map(id).collect(),
            Some(value) => id(value).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.expected(field, "a token id or a list of them"))
    }

    /// An error: this field's word is not the one that is needed.
    pub fn wrong_type(&self, field: &str, expected: &'static str) -> Blip2Error {
        Blip2Error::ModelType {
            path: self.path.clone(),
            field: format!("{}{field}", self.prefix),
            expected,
            found: self.get(field).map(plain).unwrap_or_default(),
        }
    }

    /// An error: this field can't be used, for `reason`.
    pub fn invalid(&self, field: &str, reason: &str) -> Blip2Error {
        Blip2Error::Format {
            path: self.path.clone(),
            reason: format!("`{}{field}`: {reason}", self.prefix),
        }
    }

    fn expected(&self, field: &str, what: &str) -> Blip2Error {
        let found = self.get(field).map(Value::to_string).unwrap_or_default();
        self.invalid(field, &format!("expected {what}, found {found}"))
    }

    /// The field's value; `null` is as good as none.
    fn get(&self, field: &str) -> Option<&Value> {
        self.values.get(field).filter(|value| !value.is_null())
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
