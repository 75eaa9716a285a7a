//! The local Qdrant as a program of its own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::super::clients::{http, put};
use super::super::world::free_port;
use super::{Servers, TIMEOUT, local_qdrant};

/// Returns the paths below a directory whose modes grant something to others.
fn accessible(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        // The server may have removed the file in the meantime.
        let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
        let mode = metadata.permissions().mode() & 0o777;
        if mode != if metadata.is_dir() { 0o700 } else { 0o600 } {
            found.push(format!("{mode:o} {}", path.display()));
        }
        if metadata.is_dir() {
            found.extend(accessible(&path));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn standalone_local_qdrant_creates_private_directories_and_files() {
    let mut servers = Servers::prepare("");
    let url = servers.local_qdrant("").await.rest;
    let vectors = serde_json::json!({"vectors": {"size": 4, "distance": "Cosine"}});
    put(&format!("{url}/collections/docs"), &vectors).await;
    let points = serde_json::json!({"points": [{"id": 1, "vector": [1.0, 0.0, 0.0, 0.0], "payload": {"a": "text"}}]});
    put(&format!("{url}/collections/docs/points?wait=true"), &points).await;
    put(
        &format!("{url}/collections/docs/index?wait=true"),
        &serde_json::json!({"field_name": "a", "field_schema": "keyword"}),
    )
    .await;
    let data = servers.dir.path().join("qdrant");
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(data.join("collections/docs").is_dir());
    assert_eq!(accessible(&data), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn local_qdrant_beyond_loopback_requires_long_key() {
    let dir = tempfile::tempdir().unwrap();
    let address = |host: &str| format!("{host}:{}", free_port());
    for (http, grpc) in [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("127.0.0.1", "[::]")] {
        for key in [None, Some(""), Some("only hunter2")] {
            let mut command = local_qdrant(&dir.path().join("data"), &address(http), &address(grpc));
            if let Some(key) = key {
                command.env("QDRANT__SERVICE__API_KEY", key);
            }
            let refused = tokio::task::spawn_blocking(move || command.stderr(Stdio::piped()).output().unwrap());
            let refused = tokio::time::timeout(TIMEOUT, refused).await.expect("it does not start").unwrap();
            let text = String::from_utf8_lossy(&refused.stderr);
            assert_eq!(refused.status.code(), Some(1), "{text}");
            assert!(text.contains("QDRANT__SERVICE__API_KEY") && text.contains("16"), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
    assert!(!dir.path().join("data").exists());

    let (port, key) = (free_port(), "a long key for tests");
    let mut servers = Servers::prepare("");
    let mut command = local_qdrant(&dir.path().join("data"), &format!("0.0.0.0:{port}"), &address("127.0.0.1"));
    servers.processes.push(command.env("QDRANT__SERVICE__API_KEY", key).stderr(Stdio::null()).spawn().unwrap());
    let begun = Instant::now();
    let ask = || http().get(format!("http://127.0.0.1:{port}/collections")).header("api-key", key).send();
    while !ask().await.is_ok_and(|answer| answer.status() == 200) {
        assert!(begun.elapsed() < TIMEOUT, "it does not start with a long key");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
