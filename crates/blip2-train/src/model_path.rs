//! Where a model's files are: a path, or a name on the hub whose files are fetched.

use std::path::{Path, PathBuf};

use crate::RunError;

/// The mark of a hub id in a config, where everything else is a path.
const SCHEME: &str = "hf://";

/// What is needed of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// Everything.
    Checkpoint,
    /// Its tokenizer alone.
    Tokenizer,
}

/// Whether `text` can only be a hub id: `hf://owner/name`.
pub fn is_hub_id(text: &str) -> bool {
    text.starts_with(SCHEME)
}

/// The file or folder that `name` means. What exists is meant as it is; `owner/name`,
/// `owner/name@revision` and `hf://owner/name` are models of the hub, and come from its cache.
///
/// # Errors
///
/// If there is no such file or folder, nor such a model on the hub, or it can't be fetched.
pub fn find(name: &Path, needed: Needed) -> Result<PathBuf, RunError> {
    let Some(text) = name.to_str().filter(|_| !name.exists()) else {
        return Ok(name.to_path_buf());
    };
    from_hub(text, needed).unwrap_or_else(|| {
        Err(RunError::Usage(format!(
            "{text} does not exist: name a run folder, a checkpoint, or a model of the hub \
             (owner/name)"
        )))
    })
}

/// Nothing if `text` is no hub id.
#[cfg(feature = "hub")]
fn from_hub(text: &str, needed: Needed) -> Option<Result<PathBuf, RunError>> {
    use blip2::hub::{Hub, HubId, Wanted};

    let id: HubId = match text.parse() {
        Ok(id) => id,
        Err(error) if is_hub_id(text) => return Some(Err(RunError::Usage(error.to_string()))),
        Err(_) => return None,
    };
    let wanted = match needed {
        Needed::Checkpoint => Wanted::Checkpoint,
        Needed::Tokenizer => Wanted::Tokenizer,
    };
    let bar = crate::cli::bytes_bar(&id.to_string());
    let folder = Hub::from_env().and_then(|hub| hub.snapshot(&id, wanted, &bar));
    Some(folder.map_err(|source| {
        if is_hub_id(text) {
            RunError::Hub(source)
        } else {
            RunError::NoPathNorHub {
                name: text.to_string(),
                source,
            }
        }
    }))
}

#[cfg(not(feature = "hub"))]
fn from_hub(text: &str, _needed: Needed) -> Option<Result<PathBuf, RunError>> {
    is_hub_id(text).then(|| {
        Err(RunError::Usage(format!(
            "{text}: this binary was built without the feature `hub`"
        )))
    })
}
