//! What names a model on the hub: `owner/name`, `owner/name@revision`.

use std::fmt;
use std::str::FromStr;

use super::HubError;

/// The mark of a hub id where a path may stand as well.
const SCHEME: &str = "hf://";
/// The branch that is meant where none is named.
const DEFAULT_REVISION: &str = "main";

/// A model on the hub, at one of its branches, tags or commits.
///
/// ```
/// let id: blip2::hub::HubId = "Salesforce/blip2-opt-2.7b@main".parse()?;
/// assert_eq!(id.repo(), "Salesforce/blip2-opt-2.7b");
/// # Ok::<(), blip2::hub::HubError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubId {
    repo: String,
    revision: String,
}

impl HubId {
    /// `owner/name`.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// A branch, a tag or a commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repo)?;
        match self.revision.as_str() {
            DEFAULT_REVISION => Ok(()),
            revision => write!(f, "@{revision}"),
        }
    }
}

impl FromStr for HubId {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let invalid = |reason| HubError::Id {
            id: text.to_string(),
            reason,
        };
        let id = text.strip_prefix(SCHEME).unwrap_or(text);
        let (repo, revision) = id.split_once('@').unwrap_or((id, DEFAULT_REVISION));
        let named = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
                && !part.contains("..")
                && !part.contains("--")
        };
        match repo.split_once('/') {
            Some((owner, name)) if named(owner) && named(name) => {}
            _ => return Err(invalid("a model is owner/name")),
        }
        // It becomes a part of a path below the cache.
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if !revision.split('/').all(plain) {
            return Err(invalid("a revision is a branch, a tag or a commit"));
        }
        Ok(Self {
            repo: repo.to_string(),
            revision: revision.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_paths() {
        for (text, shown) in [
            ("Salesforce/blip2-opt-2.7b", "Salesforce/blip2-opt-2.7b"),
            ("hf://facebook/opt-125m@main", "facebook/opt-125m"),
            ("a/b@refs/pr/7", "a/b@refs/pr/7"),
            ("_a/b_c@v1.0", "_a/b_c@v1.0"),
        ] {
            assert_eq!(text.parse::<HubId>().unwrap().to_string(), shown);
        }
        for text in [
            "", "a", "/a/b", "./a/b", "../a", "a/b/c", "a/", "/b", "a/b@", "a/b@../x", "a/b@x//y",
            "a/b c", "a--b/c", "a/..", "hf://", "~/models", "a\\b/c",
        ] {
            assert!(text.parse::<HubId>().is_err(), "{text}");
        }
    }
}
