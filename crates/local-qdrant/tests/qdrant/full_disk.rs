//! A full disk: only durable writes are confirmed, and writes resume when there is space again.

use std::path::{Path, PathBuf};

use qdrant_client::Qdrant;
use qdrant_client::qdrant::{Condition, Filter, PointsIdsList, Range, SetPayloadPointsBuilder, UpsertPointsBuilder};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use super::durability::Killable;
use super::server::{DOCS, all, create, numbered, upsert};

/// The log of the only collection.
fn log_of(data: &Path) -> PathBuf {
    let files = std::fs::read_dir(data.join("collections").join(DOCS)).unwrap().flatten();
    files.map(|entry| entry.path().join("oplog")).find(|log| log.exists()).expect("the collection has a log")
}

/// Sets the maximum file size of the process.
fn limit_files(process: u32, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(process).unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

/// Writes the point unless the same or a newer one is stored, as the upserter does.
async fn write(client: &Qdrant, id: u64, n: i64) -> bool {
    let older = Filter::must([Condition::range("n", Range { lt: Some(n as f64), ..Range::default() })]);
    let request = UpsertPointsBuilder::new(DOCS, vec![numbered(id, n)]).update_filter(older).wait(true);
    client.upsert_points(request).await.is_ok()
}

async fn set(client: &Qdrant, id: u64, n: i64) -> bool {
    let payload: qdrant_client::Payload = json!({"n": n}).try_into().unwrap();
    let points = PointsIdsList { ids: vec![id.into()] };
    let request = SetPayloadPointsBuilder::new(DOCS, payload).points_selector(points).wait(true);
    client.set_payload(request).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn write_is_not_confirmed_while_log_cannot_be_written() {
    // No space; space for a frame; space for a part of a record.
    for room in [0, 8, 30] {
        let dir = tempfile::tempdir().unwrap();
        let server = Killable::start(dir.path()).await;
        create(&server.client, DOCS, 4).await;
        upsert(&server.client, (1..=20).map(|id| numbered(id, 1)).collect()).await;
        let length = std::fs::metadata(log_of(dir.path())).unwrap().len();
        limit_files(server.id(), Some(length + room));
        assert!(!write(&server.client, 1, 2).await, "with room for {room} bytes");
        // The engine has applied it, so there is nothing to log, but it is not durable.
        assert!(!write(&server.client, 1, 2).await);
        assert!(!write(&server.client, 1, 1).await);
        assert!(!set(&server.client, 2, 2).await);
        limit_files(server.id(), None);
        assert!(write(&server.client, 1, 2).await);
        assert!(write(&server.client, 3, 2).await);
        server.kill();
        let server = Killable::start(dir.path()).await;
        let points = all(&server.client, DOCS).await;
        let n = |id: &str| points.iter().find(|(found, _)| found == id).unwrap().1["n"].clone();
        assert_eq!((n("1"), n("3"), points.len()), (json!(2), json!(2), 20), "with room for {room} bytes");
        server.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn write_confirmed_before_disk_was_full_survives_kill() {
    let dir = tempfile::tempdir().unwrap();
    let server = Killable::start(dir.path()).await;
    create(&server.client, DOCS, 4).await;
    upsert(&server.client, (1..=20).map(|id| numbered(id, 1)).collect()).await;
    let length = std::fs::metadata(log_of(dir.path())).unwrap().len();
    limit_files(server.id(), Some(length + 3 * 1024));
    let mut confirmed = 1;
    while write(&server.client, 1, confirmed + 1).await {
        confirmed += 1;
    }
    assert!(confirmed > 3, "confirmed before the limit: {confirmed}");
    server.kill();
    let server = Killable::start(dir.path()).await;
    let n = all(&server.client, DOCS).await[0].1["n"].as_i64().unwrap();
    assert!(n >= confirmed, "{n} after {confirmed} was confirmed");
    server.kill();
}
