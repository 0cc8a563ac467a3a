//! Models by their names on the hub, against a local server of the hub's paths.

mod command_line;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use blip2::checkpoint::Progress;
use blip2::hub::{Hub, HubError, HubId, Wanted};
use blip2_tests::hub_server::{Fault, Files, HubServer, Request, files_in};

const REPO: &str = "owner/tiny";
const WEIGHTS: usize = 200_000;

/// A cache of its own, and a server.
struct Place {
    server: HubServer,
    cache: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            server: HubServer::new(),
            cache: tempfile::tempdir().unwrap(),
        }
    }

    fn with_model() -> Self {
        let place = Self::new();
        place.server.commit(REPO, "main", &model(1));
        place
    }

    fn hub(&self) -> Hub {
        Hub {
            endpoint: self.server.endpoint(),
            cache: self.cache.path().join("hub"),
            token: None,
            offline: false,
        }
    }

    fn snapshot(&self, id: &str) -> Result<PathBuf, HubError> {
        snapshot(&self.hub(), id)
    }
}

fn snapshot(hub: &Hub, id: &str) -> Result<PathBuf, HubError> {
    hub.snapshot(&id.parse::<HubId>().unwrap(), Wanted::Checkpoint, &silent())
}

fn silent() -> Progress {
    Arc::new(|_, _| {})
}

/// A repository's files; only their names matter here.
fn model(seed: u8) -> Files {
    let weights = (0..WEIGHTS)
        .map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed))
        .collect();
    [
        ("README.md", b"About it".to_vec()),
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", weights),
        ("pytorch_model.bin", vec![7; WEIGHTS]),
        ("tokenizer.json", b"{\"model\": {}}".to_vec()),
    ]
    .into_iter()
    .map(|(name, bytes)| (name.to_string(), bytes))
    .collect()
}

fn names(folder: &Path) -> Vec<String> {
    files_in(folder).into_keys().collect()
}

/// Bytes of files, without the listing.
fn sent(requests: &[Request]) -> usize {
    let files = requests
        .iter()
        .filter(|request| !request.path.starts_with("/api"));
    files.map(|request| request.sent).sum()
}

#[test]
fn a_model_is_fetched_once_and_only_what_is_needed_of_it() {
    let place = Place::with_model();
    let seen = Arc::new(AtomicU64::new(0));
    let progress: Progress = Arc::new({
        let seen = Arc::clone(&seen);
        move |done, total| {
            assert!(done <= total && done >= seen.load(Ordering::SeqCst));
            seen.store(done, Ordering::SeqCst);
        }
    });
    let id: HubId = REPO.parse().unwrap();
    let folder = place
        .hub()
        .snapshot(&id, Wanted::Checkpoint, &progress)
        .unwrap();
    assert_eq!(
        names(&folder),
        ["config.json", "model.safetensors", "tokenizer.json"]
    );
    let expected = model(1);
    for (name, bytes) in files_in(&folder) {
        assert_eq!(bytes, expected[&name], "{name}");
    }
    assert_eq!(seen.load(Ordering::SeqCst) as usize, WEIGHTS + 2 + 13);
    // What the Python tools look for.
    let refs = place.cache.path().join("hub/models--owner--tiny/refs/main");
    assert!(folder.ends_with(format!("snapshots/{}", fs::read_to_string(refs).unwrap())));

    let _ = place.server.requests();
    assert_eq!(place.snapshot(REPO).unwrap(), folder);
    let again = place.server.requests();
    assert_eq!((again.len(), sent(&again)), (1, 0), "{again:?}");
}

#[test]
fn a_tokenizer_comes_without_the_weights() {
    let place = Place::with_model();
    let id: HubId = REPO.parse().unwrap();
    let folder = place
        .hub()
        .snapshot(&id, Wanted::Tokenizer, &silent())
        .unwrap();
    assert_eq!(names(&folder), ["tokenizer.json"]);
    // And doesn't pass for the model afterwards.
    let offline = Hub {
        offline: true,
        ..place.hub()
    };
    assert!(matches!(
        snapshot(&offline, REPO),
        Err(HubError::Offline { .. })
    ));
    assert_eq!(names(&place.snapshot(REPO).unwrap()).len(), 3);
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    let place = Place::with_model();
    place.server.fault("/cdn/", Fault::Cut(60_000), 3);
    let folder = place.snapshot(REPO).unwrap();
    assert_eq!(
        fs::read(folder.join("model.safetensors")).unwrap(),
        model(1)["model.safetensors"]
    );
    let requests = place.server.requests();
    let starts: Vec<u64> = requests
        .iter()
        .filter(|request| request.path.starts_with("/cdn/") && request.sent > 1)
        .filter_map(|request| request.start)
        .collect();
    assert_eq!(starts, [0, 60_000, 120_000, 180_000]);
}

#[test]
fn the_next_process_goes_on_where_the_last_one_gave_up() {
    let place = Place::with_model();
    place.server.fault("/cdn/", Fault::Cut(60_000), 1);
    place.server.fault("/cdn/", Fault::Status(503), 5);
    let error = place.snapshot(REPO).unwrap_err();
    assert!(error.to_string().contains("model.safetensors"), "{error}");
    assert!(matches!(error, HubError::Unreachable { .. }), "{error:?}");
    let offline = Hub {
        offline: true,
        ..place.hub()
    };
    assert!(snapshot(&offline, REPO).is_err(), "a part is not the model");
    let _ = place.server.requests();
    place.snapshot(REPO).unwrap();
    assert!(sent(&place.server.requests()) < WEIGHTS - 60_000 + 1000);
}

/// The file was complete, but the process ended before it got its name.
#[test]
fn a_part_that_is_whole_already_is_used() {
    let place = Place::with_model();
    let folder = place.snapshot(REPO).unwrap();
    let blob = fs::canonicalize(folder.join("model.safetensors")).unwrap();
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    fs::rename(&blob, blob.with_extension("part")).unwrap();
    let _ = place.server.requests();
    place.snapshot(REPO).unwrap();
    assert!(sent(&place.server.requests()) < 10);
    assert_eq!(fs::read(blob).unwrap(), model(1)["model.safetensors"]);
}

#[test]
fn damage_is_seen_and_fetched_again_once() {
    let place = Place::with_model();
    place.server.fault("/cdn/", Fault::Damage, 1);
    let folder = place.snapshot(REPO).unwrap();
    assert_eq!(
        fs::read(folder.join("model.safetensors")).unwrap(),
        model(1)["model.safetensors"]
    );

    let place = Place::with_model();
    place.server.fault("/cdn/", Fault::Damage, 2);
    let error = place.snapshot(REPO).unwrap_err();
    assert!(matches!(error, HubError::Damaged { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("model.safetensors came damaged: its SHA-256"),
        "{error}"
    );
    let offline = Hub {
        offline: true,
        ..place.hub()
    };
    assert!(snapshot(&offline, REPO).is_err(), "nothing damaged stays");
}

/// A proxy that takes ranges for whole files would append the beginning to the end.
#[test]
fn a_server_without_ranges_is_survived() {
    let place = Place::with_model();
    place.server.fault("/cdn/", Fault::Cut(60_000), 1);
    place.server.fault("/cdn/", Fault::NoRange, 1);
    let folder = place.snapshot(REPO).unwrap();
    assert_eq!(
        fs::read(folder.join("model.safetensors")).unwrap(),
        model(1)["model.safetensors"]
    );
}

#[test]
fn offline_takes_the_cache_or_says_what_lacks() {
    let place = Place::with_model();
    let offline = Hub {
        offline: true,
        ..place.hub()
    };
    let error = snapshot(&offline, REPO).unwrap_err();
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    assert!(place.server.requests().is_empty());
    let folder = place.snapshot(REPO).unwrap();
    let _ = place.server.requests();
    assert_eq!(snapshot(&offline, REPO).unwrap(), folder);
    assert!(place.server.requests().is_empty());
    fs::remove_file(fs::canonicalize(folder.join("model.safetensors")).unwrap()).unwrap();
    assert!(snapshot(&offline, REPO).is_err(), "a link without its file");
    // Online it is made whole again.
    assert_eq!(place.snapshot(REPO).unwrap(), folder);
    assert_eq!(snapshot(&offline, REPO).unwrap(), folder);
}

#[test]
fn a_hub_that_is_away_leaves_the_cache() {
    let place = Place::with_model();
    let folder = place.snapshot(REPO).unwrap();
    place.server.fault("/api/", Fault::Status(500), usize::MAX);
    assert_eq!(place.snapshot(REPO).unwrap(), folder);
    let Place { server, cache } = place;
    let (endpoint, cache_folder) = (server.endpoint(), cache.path().join("hub"));
    drop(server);
    let away = Hub {
        endpoint: endpoint.clone(),
        cache: cache_folder,
        token: None,
        offline: false,
    };
    assert_eq!(snapshot(&away, REPO).unwrap(), folder);
    let error = snapshot(&away, "owner/other").unwrap_err();
    assert!(error.to_string().contains(&endpoint), "{error}");
    assert!(matches!(error, HubError::Unreachable { .. }), "{error:?}");
}

#[test]
fn branches_move_and_commits_do_not() {
    let place = Place::with_model();
    let first = place.snapshot(REPO).unwrap();
    let mut changed = model(1);
    changed.insert("config.json".into(), b"{\"new\": 1}".to_vec());
    let commit = place.server.commit(REPO, "main", &changed);
    place.server.commit(REPO, "refs/pr/7", &model(2));
    let _ = place.server.requests();

    let second = place.snapshot(REPO).unwrap();
    assert_ne!(first, second);
    assert_eq!(
        fs::read(second.join("config.json")).unwrap(),
        b"{\"new\": 1}"
    );
    assert_eq!(fs::read(first.join("config.json")).unwrap(), b"{}");
    let requests = place.server.requests();
    assert!(
        sent(&requests) < 100,
        "the weights are the same: {requests:?}"
    );

    let other = place.snapshot(&format!("{REPO}@refs/pr/7")).unwrap();
    assert_eq!(
        fs::read(other.join("model.safetensors")).unwrap(),
        model(2)["model.safetensors"]
    );
    let _ = place.server.requests();
    assert_eq!(place.snapshot(&format!("{REPO}@{commit}")).unwrap(), second);
    assert!(
        place.server.requests().is_empty(),
        "a commit is not asked for twice"
    );
}

#[test]
fn shards_come_with_their_index() {
    let place = Place::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/blip2/sharded");
    let mut files = files_in(&folder);
    place.server.commit("owner/sharded", "main", &files);
    let fetched = place.snapshot("owner/sharded").unwrap();
    for name in [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "preprocessor_config.json",
    ] {
        assert_eq!(fs::read(fetched.join(name)).unwrap(), files[name]);
    }
    assert!(!fetched.join("expected.safetensors").exists());
    blip2::checkpoint::Import::new(fetched)
        .open()
        .unwrap()
        .report
        .check()
        .unwrap();

    files.remove("model-00002-of-00002.safetensors");
    place.server.commit("owner/lacking", "main", &files);
    let error = place.snapshot("owner/lacking").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("model-00002-of-00002.safetensors"),
        "{error}"
    );
    assert!(matches!(error, HubError::MissingShard { .. }));

    let index = br#"{"weight_map": {"a": "../../../outside.safetensors"}}"#;
    files.insert("model.safetensors.index.json".into(), index.to_vec());
    place.server.commit("owner/hostile", "main", &files);
    let error = place.snapshot("owner/hostile").unwrap_err();
    assert!(error.to_string().contains("not in its folder"), "{error}");
}

#[test]
fn private_models_want_a_token() {
    let place = Place::new();
    place.server.commit("private/tiny", "main", &model(1));
    place.server.require_token("secret");
    let error = place.snapshot("private/tiny").unwrap_err();
    assert!(error.to_string().contains("HF_TOKEN"), "{error}");
    assert!(matches!(error, HubError::Denied { status: 401, .. }));
    let hub = Hub {
        token: Some("secret".into()),
        ..place.hub()
    };
    snapshot(&hub, "private/tiny").unwrap();
}

#[test]
fn what_is_not_there_is_named() {
    let place = Place::with_model();
    let error = place.snapshot("owner/nothing").unwrap_err();
    assert!(
        error.to_string().contains("has no model owner/nothing"),
        "{error}"
    );
    let error = place.snapshot("owner/tiny@v9").unwrap_err();
    assert!(error.to_string().contains("owner/tiny@v9"), "{error}");

    let mut files = model(1);
    files.retain(|name, _| !name.contains("model"));
    place.server.commit("owner/words", "main", &files);
    let error = place.snapshot("owner/words").unwrap_err();
    assert!(error.to_string().contains("no weights"), "{error}");
    assert!(error.to_string().contains("README.md"), "{error}");

    place.server.fault("/api/", Fault::Page, 1);
    let error = place.snapshot(REPO).unwrap_err();
    assert!(matches!(error, HubError::Answer { .. }), "{error:?}");
}

#[test]
fn the_environment_is_read_as_the_python_tools_read_it() {
    let hub = |variables: &[(&str, &str)]| {
        Hub::from_variables(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_string())
        })
        .unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("token"), "from-file\n").unwrap();
    let home = folder.path().to_str().unwrap();
    let plain = hub(&[("HF_HOME", home)]);
    assert_eq!(plain.endpoint, "https://huggingface.co");
    assert_eq!(plain.cache, folder.path().join("hub"));
    assert_eq!(plain.token.as_deref(), Some("from-file"));
    assert!(!plain.offline);
    let all = hub(&[
        ("HF_HOME", home),
        ("HF_HUB_CACHE", "/elsewhere"),
        ("HF_ENDPOINT", "http://mirror/"),
        ("HF_TOKEN", "given"),
        ("HF_HUB_OFFLINE", "1"),
    ]);
    assert_eq!(all.cache, Path::new("/elsewhere"));
    assert_eq!(all.endpoint, "http://mirror");
    assert_eq!(all.token.as_deref(), Some("given"));
    assert!(all.offline);
    let xdg = hub(&[("XDG_CACHE_HOME", "/x"), ("HF_HUB_OFFLINE", "0")]);
    assert_eq!(xdg.cache, Path::new("/x/huggingface/hub"));
    assert!(!xdg.offline);
}
