//! Models of the Hugging Face hub, in the cache that the Python tools use as well.
//!
//! Only what a captioner needs is fetched: descriptions, tokenizer, and the weights in one format.
//! Files that break off go on where they stopped, sizes and SHA-256 are compared with what the hub
//! announces, and a revision is known to the cache only when all of its files are there.

mod download;
mod error;
mod files;
mod id;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use download::{Download, Listing};
pub use error::HubError;
use files::Plan;
pub use id::HubId;

use crate::checkpoint::{Progress, shard_files};

/// Where models come from if nothing else is said.
const ENDPOINT: &str = "https://huggingface.co";

/// What of a repository is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Descriptions, tokenizer and weights.
    Checkpoint,
    /// The tokenizer alone.
    Tokenizer,
}

/// A hub and the cache of what came from it.
#[derive(Debug, Clone)]
pub struct Hub {
    /// The hub's address.
    pub endpoint: String,
    /// The folder with `models--owner--name`.
    pub cache: PathBuf,
    /// What opens private models.
    pub token: Option<String>,
    /// Takes the cache only.
    pub offline: bool,
}

impl Hub {
    /// The hub as the environment describes it, like the Python tools: `HF_ENDPOINT`,
    /// `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    ///
    /// If no variable names the cache and there is no home folder.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// The same, from variables given otherwise.
    ///
    /// # Errors
    ///
    /// As [`Hub::from_env`].
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let set = |name| variable(name).filter(|value| !value.trim().is_empty());
        let home = set("HF_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(Path::new(&set("XDG_CACHE_HOME")?).join("huggingface")))
            .or_else(|| Some(std::env::home_dir()?.join(".cache/huggingface")));
        let in_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let cache = set("HF_HUB_CACHE")
            .map(PathBuf::from)
            .or_else(|| in_home("hub"));
        let token_file = set("HF_TOKEN_PATH")
            .map(PathBuf::from)
            .or_else(|| in_home("token"));
        let token = set("HF_TOKEN").or_else(|| std::fs::read_to_string(token_file?).ok());
        let offline = set("HF_HUB_OFFLINE").is_some_and(|value| {
            ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str())
        });
        Ok(Self {
            endpoint: set("HF_ENDPOINT")
                .unwrap_or_else(|| ENDPOINT.into())
                .trim_end_matches('/')
                .into(),
            cache: std::path::absolute(cache.ok_or(HubError::NoHome)?)
                .map_err(HubError::io("HF_HUB_CACHE"))?,
            token: token
                .map(|token| token.trim().into())
                .filter(|token: &String| !token.is_empty()),
            offline,
        })
    }

    /// The folder with the model's files, fetched unless the cache has them.
    ///
    /// A revision that names a commit is never asked for again once it is whole. If the hub can't be
    /// reached, a whole copy in the cache is taken, with a warning.
    ///
    /// # Errors
    ///
    /// See [`HubError`].
    pub fn snapshot(
        &self,
        id: &HubId,
        wanted: Wanted,
        progress: &Progress,
    ) -> Result<PathBuf, HubError> {
        let cached = self.cached(id, wanted);
        if self.offline {
            return cached.ok_or_else(|| HubError::Offline {
                id: id.to_string(),
                cache: self.cache.clone(),
            });
        }
        match cached {
            Some(folder) if is_commit(id.revision()) => return Ok(folder),
            _ => {}
        }
        match (self.fetch(id, wanted, progress), cached) {
            (Err(error), Some(folder)) if error.is_of_the_way() => {
                tracing::warn!("{error}; the copy in the cache is used");
                Ok(folder)
            }
            (result, _) => result,
        }
    }

    /// The folder of a revision that the cache has whole.
    fn cached(&self, id: &HubId, wanted: Wanted) -> Option<PathBuf> {
        let repo = self.cache_repo(id.repo(), id.revision());
        let folder = if is_commit(id.revision()) {
            repo.pointer_path(id.revision())
        } else {
            // The commit that the branch stood at.
            let refs = self
                .cache
                .join(Repo::model(id.repo().into()).folder_name())
                .join("refs");
            let commit = std::fs::read_to_string(refs.join(id.revision())).ok()?;
            let commit = commit.trim();
            is_commit(commit).then(|| repo.pointer_path(commit))?
        };
        let entries = std::fs::read_dir(&folder).ok()?;
        let there: BTreeSet<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            // A link may have lost its file.
            .filter(|name| folder.join(name).is_file())
            .collect();
        let plan = Plan::new(&there, wanted).ok()?;
        let shards = match plan.index {
            Some(index) => shard_files(&folder.join(index)).ok()?,
            None => BTreeSet::new(),
        };
        shards.is_subset(&there).then_some(folder)
    }

    fn fetch(&self, id: &HubId, wanted: Wanted, progress: &Progress) -> Result<PathBuf, HubError> {
        let api = self.api()?;
        let listing = Listing::of(&api, &self.endpoint, id)?;
        let available: BTreeSet<String> = listing.names().map(str::to_string).collect();
        let plan = Plan::new(&available, wanted).map_err(|needed| HubError::Useless {
            id: id.to_string(),
            needed,
            files: if available.is_empty() {
                "none".into()
            } else {
                available
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join(", ")
            },
        })?;
        // Asked for by commit: the branch may move between two files.
        let commit = listing.commit.clone();
        let cache = self.cache_repo(id.repo(), &commit);
        let folder = cache.pointer_path(&commit);
        let revision = Repo::with_revision(id.repo().into(), RepoType::Model, commit.clone());
        let download = Download {
            endpoint: &self.endpoint,
            repo: api.repo(revision),
            cache: &cache,
            listing: &listing,
        };
        let mut files = plan.files;
        if let Some(index) = plan.index {
            download.files(
                std::slice::from_ref(&index),
                &(std::sync::Arc::new(|_, _| {}) as Progress),
            )?;
            let shards = shard_files(&folder.join(&index))
                .map_err(|error| HubError::Index(Box::new(error)))?;
            if let Some(file) = shards.iter().find(|shard| !available.contains(*shard)) {
                return Err(HubError::MissingShard {
                    id: id.to_string(),
                    file: file.clone(),
                });
            }
            files.extend(shards);
        }
        download.files(&files, progress)?;
        if !is_commit(id.revision()) {
            self.cache_repo(id.repo(), id.revision())
                .create_ref(&commit)
                .map_err(HubError::io(&self.cache))?;
        }
        Ok(folder)
    }

    fn api(&self) -> Result<Api, HubError> {
        ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_user_agent("blip2-rs", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|error| HubError::Unreachable {
                endpoint: self.endpoint.clone(),
                what: "the hub".into(),
                reason: error.to_string(),
            })
    }

    fn cache_repo(&self, repo: &str, revision: &str) -> CacheRepo {
        let repo = Repo::with_revision(repo.into(), RepoType::Model, revision.into());
        Cache::new(self.cache.clone()).repo(repo)
    }
}

/// Whether a revision names a commit, which never changes: 40 hexadecimal digits (SHA-1) or 64.
fn is_commit(revision: &str) -> bool {
    matches!(revision.len(), 40 | 64) && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}
