//! Redis at its memory limit.

use mongodb::bson::{Document, doc};
use tidewheel_stores::redis::keys::{EMBEDDED, EMBEDDED_GROUP, RAW, RAW_GROUP};

use super::world::{World, backlog, redis_command, ticket};

/// Redis' memory limit: its overhead, and about two thousand of these documents.
const LIMIT: u64 = 20 << 20;

/// A ticket of about 8 KB.
fn large(number: i32) -> Document {
    let mut document = ticket(number);
    document.insert("attachment", format!("{number:08} ").repeat(8_000 / 9));
    document
}

async fn is_out_of_memory(url: &str) -> bool {
    redis_command::<String>(url, &["INFO", "errorstats"]).await.contains("errorstat_OOM:")
}

#[tokio::test(flavor = "multi_thread")]
async fn full_redis_pauses_producer_and_drains_automatically() {
    // With short retention, so that little memory is used for replays.
    fills_and_drains(r#"streams.retention_age = "1s""#).await;
}

async fn fills_and_drains(settings: &str) {
    let mut world = World::with(|options| options.redis_maxmemory = Some(LIMIT)).await;
    world.write_settings(settings);
    for service in ["embedder", "producer"] {
        world.start(service);
    }
    let tickets = world.collection("tickets");
    for first in (0..3_000).step_by(500) {
        tickets.insert_many((first..first + 500).map(large)).await.unwrap();
    }
    let url = world.stack.redis_url();
    world.until("an append fails with OOM", || is_out_of_memory(&url)).await;
    world.wait(|world| world.log("producer").contains("OOM"), "the producer logs the cause").await;
    let held: u64 = world.redis(&["XLEN", RAW]).await;
    assert!(held < 3_000, "not all documents fit: {held}");
    tickets.delete_many(doc! {"_id": {"$lt": 100}}).await.unwrap();

    for service in ["processor", "upserter"] {
        world.start(service);
    }
    assert_eq!(world.equal().await.documents, 2_900);
    for (stream, group) in [(RAW, RAW_GROUP), (EMBEDDED, EMBEDDED_GROUP)] {
        world.until("the streams are drained", || async { backlog(&url, stream, group).await == 0 }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_reject_evicting_redis_and_name_the_fix() {
    let world = World::new().await;
    world.redis::<()>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    for service in ["producer", "processor", "upserter"] {
        let mut command = world.command(&[service]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{service}: {error}");
        assert!(error.contains("allkeys-lru"), "{service}: {error}");
        assert!(error.contains("CONFIG SET maxmemory-policy noeviction"), "{service}: {error}");
    }
}

/// With the default retention, acknowledged entries stay for an hour or 10,000 entries: more than fits here.
#[tokio::test(flavor = "multi_thread")]
async fn retained_entries_are_trimmed_when_redis_is_full() {
    fills_and_drains("").await;
}
