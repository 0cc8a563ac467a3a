//! Shard patterns: `cc3m/{00000..00331}.tar`, `laion/*.tar`.

use std::path::{Path, PathBuf};

use crate::DataError;

/// Shards that a pattern may name; more is a slip of the pen.
const MAX_SHARDS: u64 = 10_000_000;

/// The files that `pattern` names: braces as in a shell (`{000..331}`, `{a,b}`), in their order, and
/// wildcards (`*`, `?`), sorted by name. A file that a brace names need not be there.
///
/// # Errors
///
/// A wildcard that no file matches, or braces that don't end or name too much.
pub(crate) fn expand(pattern: &Path) -> Result<Vec<PathBuf>, DataError> {
    let error = |reason: String| DataError::Config {
        field: "shards".into(),
        reason: format!("`{}` {reason}", pattern.display()),
    };
    let Some(text) = pattern.to_str() else {
        return Err(error("is not UTF-8".into()));
    };
    let mut paths = Vec::new();
    for name in braces(text).map_err(error)? {
        if !name.contains(['*', '?']) {
            paths.push(name.into());
            continue;
        }
        let before = paths.len();
        let matching = glob::glob(&name).map_err(|bad| error(bad.to_string()))?;
        for path in matching {
            paths.push(path.map_err(|bad| DataError::Io {
                path: bad.path().into(),
                source: bad.into(),
            })?);
        }
        if paths.len() == before {
            return Err(DataError::Io {
                path: name.into(),
                source: std::io::Error::new(std::io::ErrorKind::NotFound, "matches no file"),
            });
        }
    }
    Ok(paths)
}

/// Every text that `pattern` stands for.
fn braces(pattern: &str) -> Result<Vec<String>, String> {
    let Some(open) = pattern.find('{') else {
        return Ok(vec![pattern.to_string()]);
    };
    let close = closing(&pattern[open..]).ok_or("has a brace that does not end")? + open;
    let (before, inner) = (&pattern[..open], &pattern[open + 1..close]);
    let middles = match range(inner)? {
        Some(numbers) => numbers,
        None => {
            let mut middles = Vec::new();
            for choice in choices(inner) {
                middles.extend(braces(choice)?);
            }
            middles
        }
    };
    let ends = braces(&pattern[close + 1..])?;
    if middles.len() as u64 * ends.len() as u64 > MAX_SHARDS {
        return Err(format!("names more than {MAX_SHARDS} files"));
    }
    let all = middles
        .iter()
        .flat_map(|middle| ends.iter().map(move |end| format!("{before}{middle}{end}")));
    Ok(all.collect())
}

/// The place of the brace that closes the first one.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(place, letter)| {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(place)
    })
}

/// The numbers of `first..last`, with the leading zeros of the two ends.
fn range(inner: &str) -> Result<Option<Vec<String>>, String> {
    let Some((first, last)) = inner
        .split_once("..")
        .filter(|_| !inner.contains(['{', ',']))
    else {
        return Ok(None);
    };
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text
            .parse::<u64>()
            .map_err(|_| format!("has no number in `{{{inner}}}`")),
        false => Err(format!("has no number in `{{{inner}}}`")),
    };
    let (from, to) = (number(first)?, number(last)?);
    if from.abs_diff(to) >= MAX_SHARDS {
        return Err(format!("names more than {MAX_SHARDS} files"));
    }
    let is_padded = |text: &str| text.len() > 1 && text.starts_with('0');
    let width = match is_padded(first) || is_padded(last) {
        true => first.len().max(last.len()),
        false => 0,
    };
    let write = |number: u64| format!("{number:0width$}");
    Ok(Some(match from <= to {
        true => (from..=to).map(write).collect(),
        false => (to..=from).rev().map(write).collect(),
    }))
}

/// The parts between the commas that stand in no inner brace.
fn choices(inner: &str) -> Vec<&str> {
    let (mut depth, mut start) = (0, 0);
    let mut parts = Vec::new();
    for (place, letter) in inner.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// As `bash -c 'echo …'` prints it.
    #[test]
    fn braces_are_those_of_bash() {
        for (pattern, expected) in [
            ("a.tar", "a.tar"),
            ("{8..11}.tar", "8.tar 9.tar 10.tar 11.tar"),
            (
                "x/{08..11}-{b,a}",
                "x/08-b x/08-a x/09-b x/09-a x/10-b x/10-a x/11-b x/11-a",
            ),
            ("{2..0}", "2 1 0"),
            ("{008..9}", "008 009"),
            ("{a{0..1},b,}c", "a0c a1c bc c"),
        ] {
            assert_eq!(braces(pattern).unwrap().join(" "), expected, "{pattern}");
        }
        for wrong in [
            "{1..2",
            "{1..x}",
            "{..}",
            "{0..99999999999}",
            "{0..9999}{0..9999}",
        ] {
            let error = expand(Path::new(wrong)).unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn wildcards_give_files_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.tar", "a.tar", "a.parquet"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = expand(&folder.path().join("*.tar")).unwrap();
        assert_eq!(
            found,
            ["a.tar", "b.tar"].map(|name| folder.path().join(name))
        );
        let error = expand(&folder.path().join("*.zip"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("matches no file"), "{error}");
    }
}
