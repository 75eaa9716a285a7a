//! `tidewheel replay` with a running pipeline.

use mongodb::bson::doc;
use serde_json::{Value, json};
use tidewheel_stores::redis::keys::{EMBEDDED, RAW, STAGE_2_REPLAY, TOMBSTONES};

use super::clients::points;
use super::world::{AUDIT_LOG, SERVICES, World, audit_log, recorded, ticket};
use super::writer::Writer;

struct Ran {
    code: i32,
    out: String,
    err: String,
}

async fn replay(world: &World, arguments: &[&str]) -> Ran {
    let mut command = world.command(&[&["replay"], arguments].concat());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

async fn settled() -> World {
    let mut world = World::running().await;
    world.collection("tickets").insert_many((0..200).map(ticket)).await.unwrap();
    world.collection("tickets").delete_many(doc! {"_id": {"$gte": 190}}).await.unwrap();
    assert_eq!(world.equal().await.documents, 190);
    world
}

/// Returns the number of points that a replay wrote, by the replay part of their version.
async fn replayed(world: &World) -> usize {
    let points = points(&world.stack.qdrant_http_url().unwrap()).await;
    points.iter().filter(|point| point["payload"]["_tidewheel"]["version"]["replay"].is_u64()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_without_yes_prints_plan_and_changes_nothing() {
    let world = settled().await;
    let before: u64 = world.redis(&["XLEN", RAW]).await;
    for (from, part) in [("embedded", EMBEDDED), ("raw", RAW), ("source", "MongoDB: every document")] {
        let ran = replay(&world, &[from]).await;
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.out.contains(part) && ran.out.contains("documents"), "{}", ran.out);
        assert!(ran.err.contains("--yes"), "{}", ran.err);
        let plan: Value = serde_json::from_str(&replay(&world, &[from, "--output", "json"]).await.out).unwrap();
        assert!(plan["from"].as_str().unwrap().contains(part));
    }
    assert_eq!(world.redis::<u64>(&["XLEN", RAW]).await, before);
    assert_eq!(replayed(&world).await, 0);
    assert_eq!(audit_log(world.command(&AUDIT_LOG)), [Value::Null; 0]);
    for wrong in [&["raw", "--filter", "{}"][..], &["raw", "--since", "yesterday"], &["source", "--into", "documents"]]
    {
        let ran = replay(&world, wrong).await;
        assert_eq!(ran.code, 2, "{wrong:?}: {}", ran.out);
        assert!(ran.err.contains("error"), "{}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_are_safe_under_live_writes() {
    let mut world = settled().await;
    let writer = Writer::start(world.collection("tickets"));
    for arguments in [
        &["embedded", "--yes"][..],
        &["raw", "--yes"],
        &["raw", "--since", "1h", "--yes"],
        &["source", "--yes"],
        &["source", "--since", "1h", "--yes"],
        &["source", "--filter", r#"{"product": "Atlas"}"#, "--yes", "--output", "json"],
    ] {
        let ran = replay(&world, arguments).await;
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
        if arguments.contains(&"json") {
            let done: Value = serde_json::from_str(&ran.out).unwrap();
            assert!(done["replayed"].as_u64().unwrap() > 50, "{done}");
        } else {
            assert!(!ran.err.contains(" 0 replayed"), "{arguments:?}: {}", ran.err);
        }
        let detail = if arguments.contains(&"--filter") { "Atlas" } else { "since" };
        recorded(&audit_log(world.command(&AUDIT_LOG)), &format!("replay {}", arguments[0]), detail);
    }
    assert!(writer.finish().await > 0);
    world.equal().await;
    assert_eq!(world.redis::<u64>(&["XLEN", tidewheel_stores::redis::keys::RAW_DEAD_LETTERS]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_rewrites_lost_and_existing_points() {
    let mut world = settled().await;
    let url = format!("{}/collections/documents/points/delete?wait=true", world.stack.qdrant_http_url().unwrap());
    let gone = json!({"filter": {"must": [{"key": "product", "match": {"value": "Atlas"}}]}});
    let answer = super::clients::http().post(&url).json(&gone).send().await.unwrap();
    assert!(answer.status().is_success());
    assert!(points(&world.stack.qdrant_http_url().unwrap()).await.len() < 190);
    let ran = replay(&world, &["embedded", "--yes"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(world.equal().await.documents, 190);
    world.wait_for_replayed(190).await;
    let ran = replay(&world, &["raw", "--yes"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(world.equal().await.documents, 190);
}

impl World {
    async fn wait_for_replayed(&mut self, expected: usize) {
        for _ in 0..600 {
            if replayed(self).await == expected {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("expected {expected} replayed points, got {}", replayed(self).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_into_new_collection_switches_alias_under_live_writes() {
    let mut world = World::new().await;
    world.write_settings(r#"qdrant.collection = "current""#);
    let qdrant = world.stack.qdrant_http_url().unwrap();
    // The initial setup for later switches: a collection and its alias.
    super::clients::put(
        &format!("{qdrant}/collections/documents_1"),
        &json!({"vectors": {"size": 64, "distance": "Cosine"}}),
    )
    .await;
    let alias = json!({"actions": [{"create_alias": {"alias_name": "current", "collection_name": "documents_1"}}]});
    let client = super::clients::http();
    let answer = client.post(format!("{qdrant}/collections/aliases")).json(&alias).send().await.unwrap();
    assert!(answer.status().is_success());
    for service in SERVICES {
        world.start(service);
    }
    world.collection("tickets").insert_many((0..200).map(ticket)).await.unwrap();
    world.equal_at("current", &["tickets"]).await;

    let writer = Writer::start(world.collection("tickets"));
    for (from, into) in [("source", "documents_2"), ("raw", "documents_3"), ("embedded", "documents_4")] {
        let ran = replay(&world, &[from, "--into", into, "--yes"]).await;
        assert_eq!(ran.code, 0, "{from}: {}", ran.err);
        assert!(ran.err.contains(&format!("switched to \"{into}\"")), "{}", ran.err);
        let answer: Value = client.get(format!("{qdrant}/aliases")).send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["result"]["aliases"][0]["collection_name"], into, "{answer}");
        let groups: Vec<redis::Value> = world.redis(&["XINFO", "GROUPS", EMBEDDED]).await;
        assert_eq!(groups.len(), 1, "the group {} is removed", STAGE_2_REPLAY.group);
    }
    assert!(writer.finish().await > 0);
    world.equal_at("documents_4", &["tickets"]).await;
    world.equal_at("current", &["tickets"]).await;
}

/// Their tombstones may be gone, and the replay may be interrupted before it reaches the deletion.
#[tokio::test(flavor = "multi_thread")]
async fn replay_of_history_does_not_restore_deleted_documents() {
    let mut world = settled().await;
    // Keeps the replayed entries in stage 1, for the checks below.
    world.kill("processor");
    world.redis::<u64>(&["DEL", TOMBSTONES]).await;
    let ran = replay(&world, &["source", "--since", "1h", "--yes"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let appended = world.appended().await;
    let replayed: Vec<_> = appended.iter().filter(|(_, version, _)| version.split('.').count() == 5).collect();
    let is_of = |name: &str, mut ids: std::ops::Range<i32>| ids.any(|id| name.ends_with(&format!("\"{id}\"}}")));
    let of = |ids: std::ops::Range<i32>| -> Vec<&str> {
        let of_these = replayed.iter().filter(|(name, ..)| is_of(name, ids.clone()));
        of_these.map(|(_, _, operation)| operation.as_str()).collect()
    };
    assert_eq!(of(190..200), ["delete"; 10]);
    assert_eq!(of(0..190).len(), 190);
    world.start("processor");
    assert_eq!(world.equal().await.documents, 190);
}
