//! Provisioning with real registries and programs; large downloads use the user's cache.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::{Path as UrlPath, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect},
    routing::get,
};
use tidewheel_local::{
    Event, Part, Report,
    provision::{Origin, Program, ProvisionError, Provisioner, default_cache},
    silent,
};

const MODEL: &str = "sentence-transformers/all-MiniLM-L6-v2";

/// Records the reported events.
fn recorder() -> (Report, Arc<Mutex<Vec<Event>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    (Arc::new(move |event| sink.lock().expect("events").push(event)), events)
}

/// Uses the cache and the registries only, not PATH.
fn without_path(cache: &Path, report: Report) -> Provisioner {
    let mut provisioner = Provisioner::with_cache(cache, report);
    provisioner.search_path = false;
    provisioner
}

fn runs(program: &Program) -> String {
    let mut command = Command::new(&program.path);
    command.arg("--version");
    if let Some(libraries) = &program.library_path {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    let output = command.output().expect("starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn mongod_is_provisioned_and_runs() {
    let cache = default_cache().expect("a cache");
    let provisioner = without_path(&cache, silent());
    let program = provisioner.mongod().await.expect("mongod");
    assert!(program.path.starts_with(&cache), "{program:?}");
    assert!(runs(&program).contains(&format!("v{}", program.version)), "{program:?}");
    let again = provisioner.mongod().await.expect("mongod");
    assert_eq!((again.origin, again.path), (Origin::Cache, program.path));
}

#[tokio::test]
async fn redis_server_is_provisioned_and_runs() {
    let cache = default_cache().expect("a cache");
    let provisioner = without_path(&cache, silent());
    let program = provisioner.redis_server().await.expect("redis-server");
    assert!(runs(&program).contains(&format!("v={}", program.version)), "{program:?}");
    let again = provisioner.redis_server().await.expect("redis-server");
    assert_eq!((again.origin, again.path), (Origin::Cache, program.path));
}

#[tokio::test]
async fn default_model_is_provisioned() {
    let provisioner = Provisioner::new(silent()).expect("a cache");
    let dir = provisioner.model(MODEL).await.expect("the model");
    for file in ["config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"] {
        assert!(dir.join(file).is_file(), "{file}");
    }
    assert!(fs::metadata(dir.join("model.safetensors")).expect("weights").len() > 90_000_000);
    // A directory is used as it is.
    let dir_text = dir.to_str().expect("a readable path");
    assert_eq!(provisioner.model(dir_text).await.expect("the directory"), dir);
}

/// Fetches through apt, twice concurrently, then with a corrupted entry, in a separate cache. Redis is small.
#[tokio::test]
async fn concurrent_provisioners_fetch_once_and_corrupted_entry_is_refetched() {
    let cache = tempfile::tempdir().expect("a directory");
    let (report, events) = recorder();
    let (first, second) = (without_path(cache.path(), report.clone()), without_path(cache.path(), report));
    let (one, two) = tokio::join!(first.redis_server(), second.redis_server());
    let (one, two) = (one.expect("first"), two.expect("second"));
    assert_eq!(one.path, two.path);
    let mut origins = [one.origin, two.origin];
    origins.sort_by_key(|origin| *origin == Origin::Fetched);
    assert_eq!(origins, [Origin::Cache, Origin::Fetched]);
    let fetches = |events: &[Event]| {
        let fetching = |event: &&Event| matches!(event, Event::Fetching { part: Part::REDIS_SERVER, .. });
        events.iter().filter(fetching).cloned().collect::<Vec<_>>()
    };
    {
        let events = events.lock().expect("events");
        let [Event::Fetching { bytes: Some(bytes), licence, .. }] = &fetches(&events)[..] else {
            panic!("one fetch: {events:?}");
        };
        assert!(*bytes > 100_000, "{bytes}");
        assert_eq!(*licence, "BSD-3-Clause");
        assert!(events.contains(&Event::Waiting { part: Part::REDIS_SERVER }), "{events:?}");
        assert!(events.iter().any(|event| matches!(event, Event::Fetched { .. })), "{events:?}");
    }

    fs::write(&one.path, "not a program any more").expect("damage");
    let repaired = first.redis_server().await.expect("repaired");
    assert_eq!(repaired.origin, Origin::Fetched);
    runs(&repaired);
    assert_eq!(fetches(&events.lock().expect("events")).len(), 2);
}

#[tokio::test]
async fn configured_program_is_used_or_rejected() {
    let cache = default_cache().expect("a cache");
    let real = without_path(&cache, silent()).mongod().await.expect("mongod");
    let with = |path: &Path| {
        let mut provisioner = Provisioner::with_cache(&cache, silent());
        provisioner.mongod = Some(path.to_owned());
        provisioner
    };

    let dir = tempfile::tempdir().expect("a directory");
    let fake = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("write");
        assert!(Command::new("chmod").arg("+x").arg(&path).status().expect("chmod").success());
        path
    };
    if real.library_path.is_none() {
        let used = with(&real.path).mongod().await.expect("the given one");
        assert_eq!((used.origin, used.version), (Origin::Given, real.version));
    }
    let old = with(&fake("old", "echo db version v4.4.29")).mongod().await.expect_err("too old");
    assert!(matches!(&old, ProvisionError::TooOld { found, .. } if found == "4.4.29"), "{old}");
    assert_eq!(old.hint(), "install mongod 6.0 or newer");
    let broken = with(&fake("broken", "echo no such thing >&2; exit 3")).mongod().await.expect_err("broken");
    assert!(broken.to_string().contains("no such thing (exit status: 3)"), "{broken}");
    let missing = with(Path::new("/nonexistent/mongod")).mongod().await.expect_err("missing");
    assert!(missing.to_string().starts_with("invalid path /nonexistent/mongod for mongod: "), "{missing}");
}

#[tokio::test]
async fn directory_without_a_model_is_rejected() {
    let dir = tempfile::tempdir().expect("a directory");
    let provisioner = Provisioner::with_cache(dir.path(), silent());
    let nonsense = provisioner.model("./no/such/model").await.expect_err("nonsense");
    assert!(matches!(nonsense, ProvisionError::NotAModel { .. }), "{nonsense}");
    let path = dir.path().to_str().expect("a path");
    let empty = provisioner.model(path).await.expect_err("no model");
    assert!(empty.to_string().ends_with("missing modules.json and config.json"), "{empty}");
    // Other missing files are reported when it is loaded.
    fs::write(dir.path().join("config.json"), "{}").expect("write");
    assert_eq!(provisioner.model(path).await.expect("a directory"), dir.path());
}

/// Requests to the fake hub and its storage: path, and whether it had a token.
type Seen = Arc<Mutex<Vec<(String, bool)>>>;

/// A hub that responds as the real one does: small files directly, weights by a redirect to a storage on another host
/// (here: another port), with their checksum in a header of the redirect.
async fn fake_hub(weights_sum: &'static str) -> (String, Seen) {
    let seen = Seen::default();
    let record = |seen: &Seen, path: String, headers: &HeaderMap| {
        seen.lock().expect("seen").push((path, headers.contains_key(header::AUTHORIZATION)));
    };
    let serve = async |router: Router| {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    };
    let storage = move |State(seen): State<Seen>, headers: HeaderMap| async move {
        record(&seen, "storage".into(), &headers);
        "abc"
    };
    let storage = serve(Router::new().route("/blob", get(storage)).with_state(Arc::clone(&seen))).await;
    let file = move |State(seen): State<Seen>, UrlPath(path): UrlPath<String>, headers: HeaderMap| async move {
        record(&seen, path.clone(), &headers);
        match path.rsplit('/').next() {
            Some("model.safetensors") => {
                let headers = [("x-linked-etag", format!("\"{weights_sum}\"")), ("x-linked-size", "3".into())];
                (headers, Redirect::temporary(&format!("{storage}/blob"))).into_response()
            }
            Some("config.json" | "tokenizer.json") if !path.contains("1_Pooling") => "{}".into_response(),
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    };
    let hub = serve(Router::new().route("/{*path}", get(file)).with_state(Arc::clone(&seen))).await;
    (hub, seen)
}

const SUM_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[tokio::test]
async fn model_is_fetched_once_and_token_is_sent_only_to_hub() {
    let (hub, seen) = fake_hub(SUM_OF_ABC).await;
    let cache = tempfile::tempdir().expect("a directory");
    let (report, events) = recorder();
    let provisioner = Provisioner::with_cache(cache.path(), report).with_hub(&format!("{hub}/"), Some("secret".into()));
    let dir = provisioner.model("someone/some-model").await.expect("the model");
    assert_eq!(fs::read_to_string(dir.join("model.safetensors")).expect("weights"), "abc");
    assert!(!dir.join("modules.json").exists());
    {
        let seen = seen.lock().expect("seen");
        assert_eq!(seen[0], ("api/models/someone/some-model/revision/main".into(), true));
        assert!(seen.contains(&("someone/some-model/resolve/main/config.json".into(), true)), "{seen:?}");
        assert!(seen.iter().all(|(path, authorized)| *authorized == (path != "storage")), "{seen:?}");
        assert!(seen.iter().any(|(path, _)| path == "storage"), "{seen:?}");
    }
    let fetching = |event: &Event| matches!(event, Event::Fetching { bytes: Some(3), .. });
    assert!(events.lock().expect("events").iter().any(fetching));

    let asked = seen.lock().expect("seen").len();
    provisioner.model("someone/some-model").await.expect("from the cache");
    assert_eq!(seen.lock().expect("seen").len(), asked, "no requests with a cached model");
}

#[tokio::test]
async fn weights_with_checksum_mismatch_are_rejected() {
    let (hub, _) = fake_hub("0000000000000000000000000000000000000000000000000000000000000000").await;
    let cache = tempfile::tempdir().expect("a directory");
    let provisioner = Provisioner::with_cache(cache.path(), silent()).with_hub(&hub, None);
    let error = provisioner.model("someone/some-model").await.expect_err("checksum mismatch");
    assert!(matches!(&error, ProvisionError::Checksum { found, .. } if found == SUM_OF_ABC), "{error}");
    assert!(!cache.path().join("model-someone--some-model").exists());
}

#[tokio::test]
async fn unreachable_hub_error_names_its_url() {
    let cache = tempfile::tempdir().expect("a directory");
    // Port 9 (discard) on loopback: nothing listens.
    let provisioner = Provisioner::with_cache(cache.path(), silent()).with_hub("http://127.0.0.1:9", None);
    let error = provisioner.model("someone/some-model").await.expect_err("no hub");
    let message = error.to_string();
    assert!(message.starts_with("failed to fetch model someone/some-model from http://127.0.0.1:9: "), "{message}");
    assert!(error.hint().contains("HF_ENDPOINT"));
}
