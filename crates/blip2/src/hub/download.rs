//! One revision's files: announced by the hub, fetched, compared, linked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hf_hub::CacheRepo;
use hf_hub::api::sync::{Api, ApiError, ApiRepo};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{HubError, HubId, is_commit};
use crate::checkpoint::Progress;

/// Tries of a file that brought nothing new before it is given up.
const TRIES: u32 = 5;
/// The wait after the first failure; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// How often, and after what time, a request is made again.
struct Patience {
    /// Further tries.
    left: u32,
    wait: Duration,
}

impl Patience {
    /// For a request whose first try is one of all.
    fn new() -> Self {
        Self {
            left: TRIES - 1,
            wait: FIRST_WAIT,
        }
    }

    /// As if the try that brought something had not been one.
    fn after_progress() -> Self {
        Self {
            left: TRIES,
            wait: FIRST_WAIT,
        }
    }

    fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Waits for the next try.
    fn wait(&mut self) {
        std::thread::sleep(self.wait);
        self.wait *= 2;
        self.left -= 1;
    }
}

/// What the hub says of a revision.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    #[serde(rename = "sha")]
    pub commit: String,
    siblings: Vec<File>,
}

/// What the hub says of a file.
#[derive(Debug, Deserialize)]
struct File {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<LargeFile>,
}

#[derive(Debug, Deserialize)]
struct LargeFile {
    sha256: String,
}

impl Listing {
    /// Asks the hub.
    pub fn of(api: &Api, endpoint: &str, id: &HubId) -> Result<Self, HubError> {
        let repo = hf_hub::Repo::with_revision(
            id.repo().into(),
            hf_hub::RepoType::Model,
            id.revision().into(),
        );
        let failed = |error| {
            failure(
                endpoint,
                &id.to_string(),
                &ApiError::RequestError(Box::new(error)),
            )
        };
        let request = || {
            api.repo(repo.clone())
                .info_request()
                .query("blobs", "true")
                .call()
        };
        let mut patience = Patience::new();
        let mut answer = loop {
            match request().map_err(&failed) {
                Err(HubError::Unreachable { .. }) if !patience.is_spent() => patience.wait(),
                result => break result?,
            }
        };
        let listing: Self = answer.body_mut().read_json().map_err(failed)?;
        // It becomes the name of a folder.
        if !is_commit(&listing.commit) {
            return Err(HubError::Answer {
                endpoint: endpoint.into(),
                what: id.to_string(),
                reason: format!("`{}` is no commit", listing.commit),
            });
        }
        Ok(listing)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.siblings.iter().map(|file| file.rfilename.as_str())
    }

    fn get(&self, name: &str) -> Option<&File> {
        self.siblings.iter().find(|file| file.rfilename == name)
    }
}

impl File {
    /// The name of its blob in the cache, if the hub says it.
    fn etag(&self) -> Option<&str> {
        let etag = self
            .lfs
            .as_ref()
            .map(|lfs| &lfs.sha256)
            .or(self.blob_id.as_ref())?;
        is_commit(etag).then_some(etag)
    }
}

/// Fetches files of one commit into the cache.
pub(super) struct Download<'a> {
    pub endpoint: &'a str,
    pub repo: ApiRepo,
    pub cache: &'a CacheRepo,
    pub listing: &'a Listing,
}

impl Download<'_> {
    /// Fetches those of `names` that the cache has not; `progress` is told bytes of all of these.
    pub fn files(&self, names: &[String], progress: &Progress) -> Result<(), HubError> {
        let lacking: Vec<&File> = names
            .iter()
            .filter_map(|name| self.listing.get(name))
            .filter(|file| !self.is_there(file))
            .collect();
        let total: u64 = lacking.iter().filter_map(|file| file.size).sum();
        let mut before = 0;
        for file in lacking {
            if !self.link_known(file)? {
                self.fetch(file, &Meter::new(before, total, progress))?;
            }
            before += file.size.unwrap_or(0);
            progress(before, total);
        }
        Ok(())
    }

    fn pointer(&self, file: &File) -> PathBuf {
        self.cache
            .pointer_path(&self.listing.commit)
            .join(&file.rfilename)
    }

    fn is_there(&self, file: &File) -> bool {
        has_size(&self.pointer(file), file.size)
    }

    /// Another revision may have had the same file: its blob only needs a new name.
    fn link_known(&self, file: &File) -> Result<bool, HubError> {
        let pointer = self.pointer(file);
        // What stands there has another size, or lost its blob.
        if pointer.symlink_metadata().is_ok() {
            fs::remove_file(&pointer).map_err(HubError::io(&pointer))?;
        }
        let (Some(etag), Some(_)) = (file.etag(), file.size) else {
            return Ok(false);
        };
        let blob = self.cache.blob_path(etag);
        if has_size(&blob, file.size) {
            if let Some(folder) = pointer.parent() {
                fs::create_dir_all(folder).map_err(HubError::io(folder))?;
            }
            link(etag, &blob, &pointer).map_err(HubError::io(&pointer))?;
            return Ok(true);
        }
        if blob.exists() {
            fs::remove_file(&blob).map_err(HubError::io(&blob))?;
        }
        Ok(false)
    }

    /// Fetches until it is there, with patience as long as each try brings something.
    fn fetch(&self, file: &File, meter: &Meter) -> Result<(), HubError> {
        let name = &file.rfilename;
        let mut patience = Patience::new();
        let mut damaged = false;
        let mut most = 0;
        loop {
            self.prepare_part(file)?;
            let error = match self.repo.download_with_progress(name, meter.clone()) {
                Ok(path) => match verify(&path, file, meter.announced()) {
                    Ok(()) => return Ok(()),
                    Err(error) => {
                        remove(&path);
                        if damaged || !matches!(error, HubError::Damaged { .. }) {
                            return Err(error);
                        }
                        damaged = true;
                        error
                    }
                },
                Err(ApiError::LockAcquisition(_)) => {
                    return Err(HubError::Busy { file: name.clone() });
                }
                Err(error) => match failure(self.endpoint, name, &error) {
                    error @ HubError::Unreachable { .. } => error,
                    error => return Err(error),
                },
            };
            if meter.done() > most {
                most = meter.done();
                patience = Patience::after_progress();
            }
            if patience.is_spent() {
                return Err(error);
            }
            tracing::warn!("{error}; trying again");
            patience.wait();
        }
    }

    /// A part that is whole already, or more than that, can't be gone on with: the hub has no bytes
    /// after the end. Its last byte is asked for again.
    fn prepare_part(&self, file: &File) -> Result<(), HubError> {
        let (Some(etag), Some(size)) = (file.etag(), file.size) else {
            return Ok(());
        };
        let part = self.cache.blob_path(etag).with_extension("part");
        let Ok(metadata) = fs::metadata(&part) else {
            return Ok(());
        };
        if metadata.len() >= size.max(1) {
            let opened = fs::OpenOptions::new().write(true).open(&part);
            opened
                .and_then(|part| part.set_len(size.saturating_sub(1)))
                .map_err(HubError::io(&part))?;
        }
        Ok(())
    }
}

fn has_size(path: &Path, size: Option<u64>) -> bool {
    fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && size.is_none_or(|size| metadata.len() == size))
}

#[cfg(unix)]
fn link(etag: &str, _blob: &Path, pointer: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(Path::new("../../blobs").join(etag), pointer)
}

#[cfg(not(unix))]
fn link(_etag: &str, blob: &Path, pointer: &Path) -> io::Result<()> {
    fs::hard_link(blob, pointer)
}

/// Takes a damaged file and its name away, so that nothing ever takes them for whole.
fn remove(pointer: &Path) {
    if let Ok(blob) = fs::canonicalize(pointer) {
        let _ = fs::remove_file(blob);
    }
    let _ = fs::remove_file(pointer);
}

fn verify(path: &Path, file: &File, announced: Option<u64>) -> Result<(), HubError> {
    let damaged = |what, expected: String, found: String| HubError::Damaged {
        file: file.rfilename.clone(),
        what,
        expected,
        found,
    };
    let found = fs::metadata(path).map_err(HubError::io(path))?.len();
    if let Some(expected) = file
        .size
        .or(announced)
        .filter(|expected| *expected != found)
    {
        return Err(damaged("its size", expected.to_string(), found.to_string()));
    }
    if let Some(LargeFile { sha256 }) = &file.lfs {
        let mut hash = Sha256::new();
        let mut reader = fs::File::open(path).map_err(HubError::io(path))?;
        io::copy(&mut reader, &mut hash).map_err(HubError::io(path))?;
        let found = format!("{:x}", hash.finalize());
        if !found.eq_ignore_ascii_case(sha256) {
            return Err(damaged("its SHA-256", sha256.clone(), found));
        }
    }
    Ok(())
}

/// What a failed request means to the user.
fn failure(endpoint: &str, what: &str, error: &ApiError) -> HubError {
    let (endpoint, id) = (endpoint.to_string(), what.to_string());
    let is_of_the_way = match error {
        ApiError::IoError(_) | ApiError::InvalidResume | ApiError::TooManyRetries(_) => true,
        ApiError::RequestError(request) => match request.as_ref() {
            ureq::Error::StatusCode(404) => return HubError::NotFound { endpoint, id },
            ureq::Error::StatusCode(status @ (401 | 403)) => {
                let status = *status;
                return HubError::Denied {
                    endpoint,
                    id,
                    status,
                };
            }
            ureq::Error::StatusCode(408 | 416 | 429 | 500..)
            | ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::BodyStalled
            | ureq::Error::Protocol(_) => true,
            _ => false,
        },
        _ => false,
    };
    let (what, reason) = (id, error.to_string());
    if is_of_the_way {
        HubError::Unreachable {
            endpoint,
            what,
            reason,
        }
    } else {
        HubError::Answer {
            endpoint,
            what,
            reason,
        }
    }
}

/// Tells how much of all files is there, and remembers the size that the hub announced.
#[derive(Clone)]
struct Meter {
    /// Bytes of the files before this one.
    before: u64,
    total: u64,
    done: Arc<AtomicU64>,
    announced: Arc<AtomicU64>,
    progress: Progress,
}

impl Meter {
    fn new(before: u64, total: u64, progress: &Progress) -> Self {
        Self {
            before,
            total,
            done: Arc::default(),
            announced: Arc::new(AtomicU64::new(u64::MAX)),
            progress: progress.clone(),
        }
    }

    /// Bytes of this file that are there.
    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn announced(&self) -> Option<u64> {
        Some(self.announced.load(Ordering::Relaxed)).filter(|size| *size != u64::MAX)
    }
}

impl hf_hub::api::Progress for Meter {
    fn init(&mut self, size: usize, _filename: &str) {
        self.announced.store(size as u64, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
    }

    fn update(&mut self, size: usize) {
        let done = self.done.fetch_add(size as u64, Ordering::Relaxed) + size as u64;
        (self.progress)(self.before + done, self.total);
    }

    fn finish(&mut self) {}
}
