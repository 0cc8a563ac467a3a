//! Why a model did not come from the hub.

use std::path::PathBuf;

use thiserror::Error;

use crate::Blip2Error;

/// What can go wrong with the hub and its cache.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HubError {
    /// Not the name of a model.
    #[error("`{id}` is no hub id: {reason}")]
    Id {
        /// What was given.
        id: String,
        /// What it should be.
        reason: &'static str,
    },
    /// The hub knows no such model or revision.
    #[error("{endpoint} has no model {id}")]
    NotFound {
        /// The hub.
        endpoint: String,
        /// The model, and the revision if it is not the default.
        id: String,
    },
    /// The hub does not give it to everyone.
    #[error(
        "{endpoint} refuses {id} (HTTP {status}): it is private, or asks to accept its terms, or \
         does not exist; give a token in HF_TOKEN"
    )]
    Denied {
        /// The hub.
        endpoint: String,
        /// The model.
        id: String,
        /// 401 or 403.
        status: u16,
    },
    /// The hub can't be reached, or broke off more often than it was asked again.
    #[error(
        "{what} could not be fetched from {endpoint}: {reason}; what came is kept, the next try \
         goes on there"
    )]
    Unreachable {
        /// The hub.
        endpoint: String,
        /// The model or file.
        what: String,
        /// The last failure.
        reason: String,
    },
    /// The hub answers, but not as the hub does.
    #[error("{endpoint} answers unlike the hub for {what}: {reason}")]
    Answer {
        /// The hub.
        endpoint: String,
        /// The model or file.
        what: String,
        /// What was wrong with it.
        reason: String,
    },
    /// Offline, and the cache has not all of it.
    #[error(
        "{id} is not whole in the cache {cache}, and HF_HUB_OFFLINE forbids to fetch it",
        cache = cache.display()
    )]
    Offline {
        /// The model.
        id: String,
        /// The cache's folder.
        cache: PathBuf,
    },
    /// The repository has nothing that can be used.
    #[error("{id} has no {needed}; its files are {files}")]
    Useless {
        /// The model.
        id: String,
        /// What was looked for.
        needed: &'static str,
        /// What is there.
        files: String,
    },
    /// The index names a shard that the repository does not have.
    #[error("{id}: its index names the shard `{file}`, which is not there")]
    MissingShard {
        /// The model.
        id: String,
        /// The shard.
        file: String,
    },
    /// The index of the shards can't be read.
    #[error(transparent)]
    Index(Box<Blip2Error>),
    /// A file came otherwise than the hub announced it, twice; it was removed.
    #[error("{file} came damaged: {what} is {found}, the hub said {expected}; it was removed")]
    Damaged {
        /// The file.
        file: String,
        /// Size or SHA-256.
        what: &'static str,
        /// What the hub said.
        expected: String,
        /// What came.
        found: String,
    },
    /// Another process fetches the same file.
    #[error("another process is fetching {file}; wait for it, then try again")]
    Busy {
        /// The file.
        file: String,
    },
    /// There is no place for the cache.
    #[error("no home folder is known: set HF_HOME to a folder for the cache")]
    NoHome,
    /// The cache can't be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl HubError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// Whether a copy in the cache may stand in.
    pub(super) fn is_of_the_way(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Answer { .. })
    }
}
