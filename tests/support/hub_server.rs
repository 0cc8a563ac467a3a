//! The part of the Hugging Face hub's HTTP interface that a download uses, on a local port.
//!
//! As on the hub, small files are answered at once, weights with a redirection to another host, and
//! every file takes ranges.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The files of a revision by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A request, and how it was answered.
#[derive(Debug, Clone)]
pub struct Request {
    /// Path and query.
    pub path: String,
    /// Where the asked range begins.
    pub start: Option<u64>,
    /// The status of the answer.
    pub status: u16,
    /// Bytes of the body that were sent.
    pub sent: usize,
    /// The token that came along.
    pub token: Option<String>,
}

/// What the server does wrong, and how often yet.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Bodies longer than this end here.
    Cut(usize),
    /// Answers with this status.
    Status(u16),
    /// Answers with the whole file when asked for a range after its beginning.
    NoRange,
    /// Another first byte than the file's.
    Damage,
    /// A page instead of the listing.
    Page,
}

#[derive(Default)]
struct State {
    /// Files by repository and commit.
    commits: BTreeMap<(String, String), Files>,
    /// Commits by repository and branch.
    branches: BTreeMap<(String, String), String>,
    /// By a part of the path.
    faults: Vec<(String, Fault, usize)>,
    /// What opens `private/…`.
    token: Option<String>,
    log: Vec<Request>,
}

/// A hub with a port of its own. It ends with the value.
pub struct HubServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Default for HubServer {
    fn default() -> Self {
        Self::new()
    }
}

impl HubServer {
    /// A hub without models.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (state, stop) = (Arc::clone(&state), Arc::clone(&stop));
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    if let Ok(stream) = stream {
                        // A client that goes away early is what some tests are about.
                        let _ = answer(&stream, &state, address);
                    }
                }
            }
        });
        Self {
            address,
            state,
            stop,
            thread: Some(thread),
        }
    }

    /// The address of the hub.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a commit and moves the branch there. Gives the commit.
    pub fn commit(&self, repo: &str, branch: &str, files: &Files) -> String {
        let mut hash = Sha256::new();
        hash.update(repo);
        for (name, bytes) in files {
            hash.update(name);
            hash.update(bytes);
        }
        let commit = hex(hash)[..40].to_string();
        let mut state = lock(&self.state);
        state
            .commits
            .insert((repo.into(), commit.clone()), files.clone());
        state
            .branches
            .insert((repo.into(), branch.into()), commit.clone());
        commit
    }

    /// Does something wrong with the next `times` requests whose path contains `path`.
    pub fn fault(&self, path: &str, fault: Fault, times: usize) {
        lock(&self.state).faults.push((path.into(), fault, times));
    }

    /// Repositories of `private` want this token.
    pub fn require_token(&self, token: &str) {
        lock(&self.state).token = Some(token.into());
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut lock(&self.state).log)
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The files in a folder, by name.
pub fn files_in(folder: &Path) -> Files {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            (name, std::fs::read(path).expect("a file"))
        })
        .collect()
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hex(hash: Sha256) -> String {
    format!("{:x}", hash.finalize())
}

fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".bin")
}

/// What the hub calls the file: SHA-256 of large ones, else a git hash, for which any 40 digits do.
fn etag(name: &str, bytes: &[u8]) -> String {
    let hash = sha256(bytes);
    if is_large(name) {
        hash
    } else {
        hash[..40].to_string()
    }
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }
}

fn answer(stream: &TcpStream, state: &Mutex<State>, address: SocketAddr) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_string();
    let (mut start, mut end, mut token) = (None, None, None);
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
        match name.to_lowercase().as_str() {
            "range" => {
                let range = value.trim_start_matches("bytes=");
                let (from, to) = range.split_once('-').unwrap_or((range, ""));
                start = from.parse::<u64>().ok();
                end = to.parse::<u64>().ok();
            }
            "authorization" => token = value.strip_prefix("Bearer ").map(str::to_string),
            _ => {}
        }
    }
    let mut state = lock(state);
    // Metadata are asked for as the first byte; faults are for the data.
    let fault = if end == Some(0) {
        None
    } else {
        state.take_fault(&path)
    };
    let mut cut = usize::MAX;
    let mut answer = match &fault {
        Some(Fault::Status(status)) => Answer::status(*status),
        Some(Fault::Page) => Answer {
            body: b"<html>Welcome</html>".to_vec(),
            ..Answer::status(200)
        },
        _ => state.answer(&path, token.as_deref(), address),
    };
    let whole = answer.body.len() as u64;
    match fault {
        Some(Fault::Cut(length)) => cut = length,
        Some(Fault::NoRange) => start = None,
        Some(Fault::Damage) => answer.body[0] ^= 1,
        _ => {}
    }
    if let (Some(start), 200) = (start, answer.status) {
        if start >= whole {
            answer = Answer::status(416);
        } else {
            let end = end.unwrap_or(whole - 1).min(whole - 1);
            answer.status = 206;
            answer
                .headers
                .push(("Content-Range", format!("bytes {start}-{end}/{whole}")));
            answer.body = answer.body[start as usize..=end as usize].to_vec();
        }
    }
    let sent = answer.body.len().min(cut);
    state.log.push(Request {
        path,
        start,
        status: answer.status,
        sent,
        token,
    });
    drop(state);
    let mut head = format!(
        "HTTP/1.1 {} Answer\r\nConnection: close\r\nContent-Length: {}\r\n",
        answer.status,
        answer.body.len()
    );
    for (name, value) in answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut stream = stream;
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(&answer.body[..sent])
}

impl State {
    fn take_fault(&mut self, path: &str) -> Option<Fault> {
        let index = self
            .faults
            .iter()
            .position(|(part, _, times)| *times > 0 && path.contains(part))?;
        self.faults[index].2 -= 1;
        Some(self.faults[index].1.clone())
    }

    fn answer(&self, path: &str, token: Option<&str>, address: SocketAddr) -> Answer {
        let plain = path.split('?').next().unwrap_or(path);
        if let Some(hash) = plain.strip_prefix("/cdn/") {
            let files = self.commits.values().flatten();
            let file = files
                .map(|(_, bytes)| bytes)
                .find(|bytes| sha256(bytes) == hash);
            return file.map_or(Answer::status(404), |bytes| Answer {
                body: bytes.clone(),
                ..Answer::status(200)
            });
        }
        let parts: Vec<&str> = plain.trim_start_matches('/').split('/').collect();
        let (repo, revision, file) = match parts[..] {
            ["api", "models", owner, name, "revision", revision] => {
                (format!("{owner}/{name}"), revision, None)
            }
            [owner, name, "resolve", revision, file] => {
                (format!("{owner}/{name}"), revision, Some(file))
            }
            _ => return Answer::status(404),
        };
        if repo.starts_with("private/") && token != self.token.as_deref() {
            return Answer::status(401);
        }
        let revision = revision.replace("%2F", "/");
        let commit = self
            .branches
            .get(&(repo.clone(), revision.clone()))
            .cloned()
            .unwrap_or(revision);
        let Some(files) = self.commits.get(&(repo, commit.clone())) else {
            return Answer::status(404);
        };
        let Some(name) = file else {
            return Answer {
                body: listing(&commit, files).to_string().into_bytes(),
                ..Answer::status(200)
            };
        };
        let Some(bytes) = files.get(name) else {
            return Answer::status(404);
        };
        let commit = ("X-Repo-Commit", commit);
        let quoted = format!("\"{}\"", etag(name, bytes));
        if is_large(name) {
            // Another host than the hub's.
            let location = format!("http://localhost:{}/cdn/{}", address.port(), sha256(bytes));
            return Answer {
                headers: vec![commit, ("X-Linked-Etag", quoted), ("Location", location)],
                ..Answer::status(302)
            };
        }
        Answer {
            headers: vec![commit, ("ETag", quoted)],
            body: bytes.clone(),
            ..Answer::status(200)
        }
    }
}

fn listing(commit: &str, files: &Files) -> Value {
    let siblings: Vec<Value> = files
        .iter()
        .map(|(name, bytes)| {
            let mut file =
                json!({"rfilename": name, "size": bytes.len(), "blobId": etag(name, bytes)});
            if is_large(name) {
                file["lfs"] =
                    json!({"sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 134});
            }
            file
        })
        .collect();
    json!({"sha": commit, "siblings": siblings})
}
