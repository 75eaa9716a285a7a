//! Models by id: every file that affects vectors is fetched, all from one commit, and pinned.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{Path as UrlPath, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tidewheel_local::{Event, Report, provision::Provisioner, silent};

/// A model's files.
type Files = BTreeMap<&'static str, &'static str>;

/// A hub with one model.
struct Hub {
    files: Mutex<Files>,
    /// The commit that its API returns. `None`: a mirror without the API.
    commit: Mutex<Option<String>>,
    asked: Mutex<Vec<String>>,
}

impl Hub {
    async fn start(files: Files, commit: Option<&str>) -> (Arc<Self>, String) {
        let hub = Arc::new(Self {
            files: Mutex::new(files),
            commit: Mutex::new(commit.map(str::to_owned)),
            asked: Mutex::default(),
        });
        let router = Router::new().route("/{*path}", get(answer)).with_state(Arc::clone(&hub));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (hub, address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("asked").clone()
    }
}

async fn answer(State(hub): State<Arc<Hub>>, UrlPath(path): UrlPath<String>) -> Response {
    hub.asked.lock().expect("asked").push(path.clone());
    let commit = hub.commit.lock().expect("commit").clone();
    let files = hub.files.lock().expect("files");
    if path.starts_with("api/models/acme/model/revision/") {
        let Some(commit) = commit else { return StatusCode::NOT_FOUND.into_response() };
        let siblings: Vec<_> = files.keys().map(|name| json!({"rfilename": name})).collect();
        return Json(json!({"sha": commit, "siblings": siblings})).into_response();
    }
    let file = path.strip_prefix("acme/model/resolve/").and_then(|rest| files.get(rest.split_once('/')?.1));
    match file {
        Some(content) => ([("x-linked-etag", sum(content))], *content).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The checksums of the test's weights, as the hub's header has them.
fn sum(content: &str) -> &'static str {
    match content {
        "abc" => "\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"",
        _ => "",
    }
}

const FIRST: &str = "1111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222";

/// All files that affect vectors, as in most models.
fn files() -> Files {
    Files::from([
        (
            "modules.json",
            r#"[{"path": "", "type": "T"}, {"path": "1_Pooling", "type": "P"}, {"path": "2_Dense", "type": "D"}]"#,
        ),
        ("config.json", "{}"),
        ("tokenizer.json", "{}"),
        ("model.safetensors", "abc"),
        ("config_sentence_transformers.json", r#"{"prompts": {"query": "query: "}}"#),
        ("sentence_bert_config.json", "{}"),
        ("sentence_xlm-roberta_config.json", "{}"),
        ("tokenizer_config.json", "{}"),
        ("special_tokens_map.json", "{}"),
        ("added_tokens.json", "{}"),
        ("adapter_config.json", "{}"),
        ("1_Pooling/config.json", "{}"),
        ("2_Dense/config.json", "{}"),
    ])
}

fn names(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for path in fs::read_dir(next).expect("a directory").flatten().map(|entry| entry.path()) {
            match path.is_dir() {
                true => dirs.push(path),
                false => found.push(path.strip_prefix(dir).expect("inside").display().to_string()),
            }
        }
    }
    found.retain(|name| !name.starts_with("tidewheel-"));
    found.sort();
    found
}

fn provisioner(cache: &Path, hub: &str) -> Provisioner {
    Provisioner::with_cache(cache, silent()).with_hub(hub, None)
}

#[tokio::test]
async fn model_by_id_has_every_file_that_affects_vectors() {
    // With the hub's API, and from a mirror without it.
    for commit in [Some(FIRST), None] {
        let (_, address) = Hub::start(files(), commit).await;
        let cache = tempfile::tempdir().expect("a directory");
        let dir = provisioner(cache.path(), &address).model("acme/model").await.expect("the model");
        let mut expected: Vec<_> = files().into_keys().map(str::to_owned).collect();
        expected.sort();
        assert_eq!(names(&dir), expected, "{commit:?}");
    }
}

#[tokio::test]
async fn model_in_subfolder_with_sharded_weights_is_fetched() {
    let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "../../evil"}}"#;
    let files = Files::from([
        ("modules.json", r#"[{"path": "0_Transformer"}, {"path": "1_Pooling"}, {"path": "../outside"}]"#),
        ("0_Transformer/config.json", "{}"),
        ("0_Transformer/tokenizer.json", "{}"),
        ("0_Transformer/model.safetensors.index.json", index),
        ("0_Transformer/model-1.safetensors", "abc"),
        ("0_Transformer/model-2.safetensors", "def"),
        ("1_Pooling/config.json", "{}"),
    ]);
    let (hub, address) = Hub::start(files.clone(), None).await;
    let cache = tempfile::tempdir().expect("a directory");
    let dir = provisioner(cache.path(), &address).model("acme/model").await.expect("the model");
    assert_eq!(names(&dir), files.into_keys().map(str::to_owned).collect::<Vec<_>>());
    assert!(hub.asked().iter().all(|path| !path.contains("evil") && !path.contains("outside")), "{:?}", hub.asked());
}

#[tokio::test]
async fn cached_model_stays_at_commit_when_branch_moves() {
    let (hub, address) = Hub::start(files(), Some(FIRST)).await;
    let cache = tempfile::tempdir().expect("a directory");
    let provisioner = provisioner(cache.path(), &address);
    let dir = provisioner.model("acme/model").await.expect("the model");
    let fetched: Vec<_> = hub.asked().into_iter().filter(|path| path.contains("/resolve/")).collect();
    assert!(!fetched.is_empty() && fetched.iter().all(|path| path.contains(FIRST)), "{fetched:?}");
    let record = fs::read_to_string(dir.join("tidewheel-model.json")).expect("a record");
    assert!(record.contains(FIRST), "{record}");

    // The branch moves; the cached model stays, and an explicit revision is another entry.
    *hub.commit.lock().expect("commit") = Some(SECOND.to_owned());
    hub.files.lock().expect("files").insert("config.json", r#"{"new": true}"#);
    let asked = hub.asked().len();
    assert_eq!(provisioner.model("acme/model").await.expect("from the cache"), dir);
    assert_eq!(hub.asked().len(), asked, "no requests with a cached model");
    let other = provisioner.model("acme/model@refs/pr/1").await.expect("another revision");
    assert_ne!(other, dir);
    assert!(hub.asked().contains(&"api/models/acme/model/revision/refs/pr/1".to_owned()), "{:?}", hub.asked());
    assert_eq!(fs::read_to_string(other.join("config.json")).expect("config"), r#"{"new": true}"#);
    assert_eq!(fs::read_to_string(dir.join("config.json")).expect("config"), "{}");
}

/// Fetches a model and returns the warnings about it.
async fn warnings(hub: &str, id: &str) -> Vec<String> {
    let cache = tempfile::tempdir().expect("a directory");
    let events: Arc<Mutex<Vec<Event>>> = Arc::default();
    let sink = Arc::clone(&events);
    let report: Report = Arc::new(move |event| sink.lock().expect("events").push(event));
    Provisioner::with_cache(cache.path(), report).with_hub(hub, None).model(id).await.expect("the model");
    let events = events.lock().expect("events");
    let warning = |event: &Event| match event {
        Event::Warned { reason, .. } => Some(reason.clone()),
        _ => None,
    };
    events.iter().filter_map(warning).collect()
}

#[tokio::test]
async fn model_of_hub_without_commits_is_used_with_a_warning() {
    // A mirror without the API, and an API that returns no commit hash.
    for commit in [None, Some("main"), Some("")] {
        let (_, address) = Hub::start(files(), commit).await;
        for id in ["acme/model", "acme/model@v2"] {
            let warned = warnings(&address, id).await;
            assert_eq!(warned.len(), 1, "{commit:?} {id}: {warned:?}");
            for part in ["acme/model@COMMIT", "not pinned"] {
                assert!(warned[0].contains(part), "{commit:?} {id}: {warned:?}");
            }
        }
        let named = warnings(&address, &format!("acme/model@{SECOND}")).await;
        assert_eq!(named, [""; 0], "a commit needs no API");
    }
    let (_, address) = Hub::start(files(), Some(FIRST)).await;
    assert_eq!(warnings(&address, "acme/model").await, [""; 0]);
}

/// Creates an entry as older releases did: without prompts, without a record.
fn old_entry(cache: &Path) {
    let entry = cache.join("model-acme--model");
    fs::create_dir_all(&entry).expect("an entry");
    let sums = [
        ("config.json", "{}", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
        ("tokenizer.json", "{}", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
        ("model.safetensors", "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ];
    let listed: Vec<_> = sums
        .iter()
        .map(|(name, content, sum)| {
            fs::write(entry.join(name), content).expect("write");
            json!({"path": name, "bytes": content.len(), "modified_ns": 0, "sha256": sum})
        })
        .collect();
    fs::write(entry.join("tidewheel-entry.json"), json!({"files": listed}).to_string()).expect("a manifest");
}

#[tokio::test]
async fn entry_of_older_release_is_completed_and_reuses_weights() {
    let (_, address) = Hub::start(files(), None).await;
    let cache = tempfile::tempdir().expect("a directory");
    old_entry(cache.path());
    let events: Arc<Mutex<Vec<Event>>> = Arc::default();
    let sink = Arc::clone(&events);
    let report: Report = Arc::new(move |event| sink.lock().expect("events").push(event));
    let dir = Provisioner::with_cache(cache.path(), report).with_hub(&address, None).model("acme/model").await;
    let dir = dir.expect("the model");
    assert!(dir.join("config_sentence_transformers.json").is_file());
    assert_eq!(fs::read_to_string(dir.join("model.safetensors")).expect("weights"), "abc");
    let events = events.lock().expect("events");
    assert!(!events.iter().any(|event| matches!(event, Event::Fetching { .. })), "{events:?}");
}

#[tokio::test]
async fn weights_of_the_hugging_face_cache_are_reused_if_their_checksum_matches() {
    let (_, address) = Hub::start(files(), Some(FIRST)).await;
    for (content, fetches) in [("abc", false), ("abd", true)] {
        let (cache, theirs) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let blobs = theirs.path().join("models--acme--model/blobs");
        fs::create_dir_all(&blobs).expect("their cache");
        fs::write(blobs.join(sum("abc").trim_matches('"')), content).expect("their weights");
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let sink = Arc::clone(&events);
        let report: Report = Arc::new(move |event| sink.lock().expect("events").push(event));
        let provisioner = Provisioner::with_cache(cache.path(), report).with_hub(&address, None);
        let dir = provisioner.with_hub_cache(theirs.path()).model("acme/model").await.expect("the model");
        assert_eq!(fs::read_to_string(dir.join("model.safetensors")).expect("weights"), "abc");
        let events = events.lock().expect("events");
        let fetched = events.iter().any(|event| matches!(event, Event::Fetching { .. }));
        assert_eq!(fetched, fetches, "{content}: {events:?}");
    }
}

#[tokio::test]
async fn entry_of_older_release_is_used_while_hub_is_unreachable() {
    let cache = tempfile::tempdir().expect("a directory");
    old_entry(cache.path());
    let events: Arc<Mutex<Vec<Event>>> = Arc::default();
    let sink = Arc::clone(&events);
    let report: Report = Arc::new(move |event| sink.lock().expect("events").push(event));
    let provisioner = Provisioner::with_cache(cache.path(), report).with_hub("http://127.0.0.1:9", None);
    let dir = provisioner.model("acme/model").await.expect("the old entry");
    assert_eq!(fs::read_to_string(dir.join("model.safetensors")).expect("weights"), "abc");
    let events = events.lock().expect("events");
    let skipped =
        |event: &Event| matches!(event, Event::Skipped { reason, .. } if reason.contains("without its prompts"));
    assert!(events.iter().any(skipped), "{events:?}");
}

#[tokio::test]
async fn missing_safetensors_error_names_the_file() {
    let mut files = files();
    files.remove("model.safetensors");
    files.insert("pytorch_model.bin", "x");
    let (_, address) = Hub::start(files, Some(FIRST)).await;
    let cache = tempfile::tempdir().expect("a directory");
    let error = provisioner(cache.path(), &address).model("acme/model").await.expect_err("no weights");
    assert!(error.to_string().ends_with("missing model.safetensors"), "{error}");
}
