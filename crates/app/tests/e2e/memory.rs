//! Redis at its memory limit.

use mongodb::bson::{Document, doc};
use tidewheel_core::streams::{EMBEDDED, EMBEDDED_GROUP, RAW, RAW_GROUP};

use super::world::{World, backlog, redis_command, ticket};

/// The most memory that Redis may have here: its own needs, and about two thousand of these documents.
const LIMIT: u64 = 20 << 20;

/// A ticket of about 8 KB.
fn large(number: i32) -> Document {
    let mut document = ticket(number);
    document.insert("attachment", format!("{number:08} ").repeat(8_000 / 9));
    document
}

async fn refused_for_memory(url: &str) -> bool {
    redis_command::<String>(url, &["INFO", "errorstats"]).await.contains("errorstat_OOM:")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_stops_the_producer_and_drains_without_a_person() {
    // What is kept for a replay has to fit beside what is on its way.
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
    world.until("Redis refuses an append for want of memory", || refused_for_memory(&url)).await;
    world.wait(|world| world.log("producer").contains("OOM"), "the producer says why it waits").await;
    let held: u64 = world.redis(&["XLEN", RAW]).await;
    assert!(held < 3_000, "not everything fits: {held}");
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
async fn a_redis_that_evicts_is_refused_with_the_command_that_mends_it() {
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

/// With the usual retention, what everyone has confirmed stays for an hour or 10,000 entries: more than fits here.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_for_a_replay_gives_way_to_what_is_on_its_way() {
    fills_and_drains("").await;
}
