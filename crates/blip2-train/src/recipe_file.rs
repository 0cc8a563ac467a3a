//! Reading a recipe: the file, `--set` on top, relative paths made absolute.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::RunError;
use crate::model_path::{self, Needed};
use crate::recipe::Recipe;

/// Fields that are paths, wherever they stand. Those of a file are relative to the file's folder,
/// those of `--set` to the current folder.
pub(crate) const PATH_KEYS: [&str; 13] = [
    "annotations",
    "bert",
    "checkpoint",
    "emoji_scenes",
    "export",
    "folder",
    "images",
    "init",
    "shards",
    "tokenizer",
    "train_instances",
    "val_instances",
    "weights",
];

/// Fields that name a model, which may come from the hub (`hf://owner/name`), and what of it.
const MODEL_KEYS: [(&str, Needed); 4] = [
    ("bert", Needed::Checkpoint),
    ("checkpoint", Needed::Checkpoint),
    ("tokenizer", Needed::Tokenizer),
    ("weights", Needed::Checkpoint),
];

/// Reads the recipe in `file` with `set` (`key=value`, dotted keys) on top.
///
/// # Errors
///
/// A missing or broken file, an unknown or missing field, a value that is not TOML; the message
/// names the field.
pub fn read(file: &Path, set: &[String]) -> Result<Recipe, RunError> {
    let mut table = table(file, set)?;
    fetch_models(&mut table)?;
    recipe(table, file)
}

/// As [`read`], for who only looks at it: models of the hub stay names (`hf://owner/name`).
///
/// # Errors
///
/// As [`read`].
pub fn look_at(file: &Path, set: &[String]) -> Result<Recipe, RunError> {
    recipe(table(file, set)?, file)
}

/// The file's table with `set` on top and whole paths.
fn table(file: &Path, set: &[String]) -> Result<Table, RunError> {
    let config_error = |reason: String| RunError::Config {
        file: file.to_path_buf(),
        reason,
    };
    let text = std::fs::read_to_string(file).map_err(|error| config_error(error.to_string()))?;
    let mut table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| config_error(error.to_string().trim().to_string()))?;
    let base = absolute(file);
    absolute_paths(&mut table, base.parent().unwrap_or(&base));
    let here = absolute(Path::new("."));
    for assignment in set {
        apply(&mut table, assignment, &here)
            .map_err(|reason| RunError::Usage(format!("--set {assignment}: {reason}")))?;
    }
    Ok(table)
}

fn recipe(table: Table, file: &Path) -> Result<Recipe, RunError> {
    let config_error = |reason: String| RunError::Config {
        file: file.to_path_buf(),
        reason,
    };
    let recipe: Recipe =
        serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
            let path = error.path().to_string();
            let reason = error.into_inner().to_string();
            let reason = reason.trim();
            config_error(if path == "." {
                reason.to_string()
            } else {
                format!("field `{path}`: {reason}")
            })
        })?;
    recipe.validate().map_err(config_error)?;
    Ok(recipe)
}

/// The recipe as the TOML text that [`read`] takes back.
pub fn write(recipe: &Recipe) -> Result<String, RunError> {
    toml::to_string_pretty(recipe).map_err(|error| RunError::Usage(error.to_string()))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

fn absolute_paths(table: &mut Table, base: &Path) {
    for (key, value) in table.iter_mut() {
        match value {
            value if PATH_KEYS.contains(&key.as_str()) => absolute_value(value, base),
            Value::Table(inner) => absolute_paths(inner, base),
            Value::Array(items) => {
                for item in items {
                    if let Value::Table(inner) = item {
                        absolute_paths(inner, base);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Makes a path absolute, or a list of paths.
fn absolute_value(value: &mut Value, base: &Path) {
    match value {
        Value::String(path) => *path = join(base, path),
        Value::Array(paths) => {
            for path in paths {
                absolute_value(path, base);
            }
        }
        _ => {}
    }
}

/// Puts the folder in the place of every hub id: a run that is resumed then has the same files,
/// whatever became of the branch.
fn fetch_models(table: &mut Table) -> Result<(), RunError> {
    for (key, value) in table.iter_mut() {
        match value {
            Value::String(name) if model_path::is_hub_id(name) => {
                if let Some((_, needed)) = MODEL_KEYS.iter().find(|(model, _)| model == key) {
                    *name = model_path::find(Path::new(name), *needed)?
                        .display()
                        .to_string();
                }
            }
            Value::Table(inner) => fetch_models(inner)?,
            _ => {}
        }
    }
    Ok(())
}

/// `base/path` without `.` and `..`, so that the run's config reads well.
fn join(base: &Path, path: &str) -> String {
    if model_path::is_hub_id(path) {
        return path.to_string();
    }
    let mut joined = PathBuf::new();
    for part in base.join(path).components() {
        match part {
            std::path::Component::ParentDir => {
                joined.pop();
            }
            std::path::Component::CurDir => {}
            part => joined.push(part),
        }
    }
    joined.display().to_string()
}

fn apply(table: &mut Table, assignment: &str, here: &Path) -> Result<(), String> {
    let (key, value) = assignment
        .split_once('=')
        .ok_or("write it as key=value, for example train.epochs=2")?;
    let keys: Vec<&str> = key.trim().split('.').collect();
    let (last, parents) = keys.split_last().ok_or("the key is empty")?;
    let mut value = parse_value(value.trim());
    if PATH_KEYS.contains(last) {
        absolute_value(&mut value, here);
    }
    let mut table = table;
    for parent in parents {
        table = child(table, parent)?;
    }
    table.insert((*last).to_string(), value);
    Ok(())
}

/// The table `name` in `table`; `test[1]`, in the way of the error messages, is an array's entry.
fn child<'a>(table: &'a mut Table, name: &str) -> Result<&'a mut Table, String> {
    let (name, index) = match name.strip_suffix(']').and_then(|name| name.split_once('[')) {
        Some((name, index)) => (
            name,
            Some(
                index
                    .parse::<usize>()
                    .map_err(|_| format!("`{index}` is no index"))?,
            ),
        ),
        None => (name, None),
    };
    let entry = table
        .entry(name)
        .or_insert_with(|| Value::Table(Table::new()));
    let entry = match (entry, index) {
        (Value::Array(items), Some(index)) => {
            let count = items.len();
            items
                .get_mut(index)
                .ok_or(format!("`{name}` has {count} entries"))?
        }
        (entry, None) => entry,
        (_, Some(_)) => return Err(format!("`{name}` is no array")),
    };
    entry.as_table_mut().ok_or(format!("`{name}` is no table"))
}

/// A TOML value, or else the text itself, so that strings need no quotes on a command line.
fn parse_value(text: &str) -> Value {
    format!("value = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_reaches_nested_tables_and_arrays_and_keeps_types() {
        let mut table: Table = "a = 1\n[b]\nc = 2\n[[t]]\nname = \"x\"".parse().unwrap();
        let here = Path::new("/here");
        for assignment in [
            "b.c=3",
            "b.d.e=[1, 2]",
            "t[0].name=y",
            "t[0].images=../pics",
            "f=text",
        ] {
            apply(&mut table, assignment, here).unwrap();
        }
        assert_eq!(table["b"]["c"], Value::Integer(3));
        assert_eq!(table["b"]["d"]["e"].as_array().unwrap().len(), 2);
        assert_eq!(table["t"][0]["name"].as_str(), Some("y"));
        assert_eq!(table["t"][0]["images"].as_str(), Some("/pics"));
        assert_eq!(table["f"].as_str(), Some("text"));
        for assignment in ["noequals", "a.b=1", "t[7].x=1", "b[0].x=1"] {
            assert!(apply(&mut table, assignment, here).is_err(), "{assignment}");
        }
    }

    #[test]
    fn paths_of_a_file_are_relative_to_it() {
        let mut table: Table = "[m]\nweights = \"x/../towers\"\nname = \"x\"\n\
                                [[m.s]]\nshards = [\"a/*.tar\", \"/b.tar\"]"
            .parse()
            .unwrap();
        absolute_paths(&mut table, Path::new("/configs"));
        assert_eq!(table["m"]["weights"].as_str(), Some("/configs/towers"));
        assert_eq!(table["m"]["name"].as_str(), Some("x"));
        let shards = &table["m"]["s"][0]["shards"];
        assert_eq!(shards[0].as_str(), Some("/configs/a/*.tar"));
        assert_eq!(shards[1].as_str(), Some("/b.tar"));
    }
}
