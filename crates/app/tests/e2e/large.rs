//! Documents up to MongoDB's size limit, and documents with invalid UTF-8.

use std::time::Duration;

use mongodb::bson::{Document, RawDocumentBuf, doc};
use tidewheel_stores::redis::keys::{
    EMBEDDED, EMBEDDED_DEAD_LETTERS, EMBEDDED_GROUP, RAW, RAW_DEAD_LETTERS, RAW_GROUP,
};

use super::world::{World, backlog, ticket};

const MEGABYTE: usize = 1 << 20;

/// A ticket with an attachment that is not embedded.
fn with_attachment(number: i32, megabytes: usize) -> Document {
    let mut document = ticket(number);
    document.insert("attachment", "x".repeat(megabytes * MEGABYTE));
    document
}

async fn nothing_is_left(world: &mut World) {
    let url = world.stack.redis_url();
    for (stream, group) in [(RAW, RAW_GROUP), (EMBEDDED, EMBEDDED_GROUP)] {
        world.until_within(LONG, "the streams are drained", || async { backlog(&url, stream, group).await == 0 }).await;
    }
    for stream in [RAW_DEAD_LETTERS, EMBEDDED_DEAD_LETTERS] {
        assert_eq!(world.redis::<u64>(&["XLEN", stream]).await, 0, "{stream}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_nearly_16_mb_are_indexed_without_blocking_others() {
    // Concurrent writes of this size exceed the local stack's small MongoDB cache.
    let mut world = World::new().await;
    let cache = doc! {"setParameter": 1, "wiredTigerEngineRuntimeConfig": "cache_size=1GB"};
    world.database.client().database("admin").run_command(cache).await.unwrap();
    let tickets = world.collection("tickets");
    // The snapshot reads one of them, the others are changes.
    tickets.insert_one(with_attachment(0, 15)).await.unwrap();
    for service in super::world::SERVICES {
        world.start(service);
    }
    tickets.insert_many((1..50).map(ticket)).await.unwrap();
    assert_eq!(world.equal().await.documents, 50);

    tickets.insert_one(with_attachment(100, 9)).await.unwrap();
    tickets.insert_many((101..120).map(ticket)).await.unwrap();
    // Its event has the new attachment twice, in the update description and in the document, and exceeds the reply
    // limit.
    let attachment = "y".repeat(15 * MEGABYTE);
    tickets.update_one(doc! {"_id": 1}, doc! {"$set": {"attachment": attachment}}).await.unwrap();
    tickets.update_one(doc! {"_id": 0}, doc! {"$set": {"content": "It is still as large."}}).await.unwrap();
    tickets.insert_many((120..140).map(ticket)).await.unwrap();
    assert_eq!(world.equal().await.documents, 90);
    tickets.delete_one(doc! {"_id": 100}).await.unwrap();
    tickets.update_one(doc! {"_id": 1}, doc! {"$unset": {"attachment": 1}}).await.unwrap();
    assert_eq!(world.equal().await.documents, 89);
    nothing_is_left(&mut world).await;
}

/// With the whole document in every chunk's payload, the points together would be quadratic in its size.
#[tokio::test(flavor = "multi_thread")]
async fn memory_for_long_text_is_not_quadratic() {
    let mut world = World::running().await;
    let texts = world.collection("texts");
    let sentence = "The quick brown fox jumps over the lazy dog, and nobody writes it down. ";
    texts.insert_one(doc! {"_id": 1, "content": sentence.repeat(600 * 1024 / sentence.len())}).await.unwrap();
    let report = world.equal().await;
    assert!(report.points > 500, "{report}");
    let peak = world.peak_megabytes("upserter");
    assert!(peak < 200, "the upserter took {peak} MB");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_utf_8_is_indexed_lossily_without_blocking_others() {
    let mut world = World::running().await;
    let tickets = world.collection("tickets");
    tickets.insert_many((0..20).map(ticket)).await.unwrap();
    world.equal().await;
    // MongoDB does not validate strings.
    let command = doc! {"insert": "tickets", "documents": [{"_id": 1_000, "content": "broken here?", "owner": "a?b"}]};
    let mut bytes = command.to_vec().unwrap();
    for mark in [b"here?".as_slice(), b"a?b"] {
        let at = bytes.windows(mark.len()).position(|window| window == mark).unwrap();
        let question = mark.iter().position(|letter| *letter == b'?').unwrap();
        bytes[at + question] = 0xff;
    }
    world.database.run_raw_command(RawDocumentBuf::from_bytes(bytes).unwrap()).await.unwrap();
    tickets.insert_many((20..40).map(ticket)).await.unwrap();
    let qdrant = world.stack.qdrant_http_url().unwrap();
    world.until("all 41 documents are in the index", || super::clients::count(&qdrant, 41)).await;
    let points = super::clients::points(&qdrant).await;
    let broken = points.iter().find(|point| point["payload"]["_id"] == 1_000).unwrap();
    assert_eq!(broken["payload"]["content"], "broken here\u{fffd}");
    assert_eq!(broken["payload"]["owner"], "a\u{fffd}b");
    nothing_is_left(&mut world).await;

    // The oracle cannot decode it; without it, index and source are equal.
    tickets.delete_one(doc! {"_id": 1_000}).await.unwrap();
    assert_eq!(world.equal().await.documents, 40);
}

/// Memory limit of each service, in megabytes.
const MOST: u64 = 512;

/// Size of each document, in megabytes.
const EACH: usize = 5;

/// Number of documents: together they exceed the limit.
const DOCUMENTS: i32 = 120;

/// Each of them takes every service a while on a loaded machine.
const LONG: Duration = Duration::from_secs(240);

const _: () = assert!(DOCUMENTS as u64 * EACH as u64 > MOST);

/// In the snapshot, in the backlog of stage 1 and of stage 2, and as changes.
#[tokio::test(flavor = "multi_thread")]
async fn services_stay_below_512_mb_with_120_documents_of_5_mb_at_every_stage() {
    let mut world = World::new().await;
    world.write_settings(r#"streams.retention_age = "1s""#);
    let cache = doc! {"setParameter": 1, "wiredTigerEngineRuntimeConfig": "cache_size=1GB"};
    world.database.client().database("admin").run_command(cache).await.unwrap();
    let tickets = world.collection("tickets");
    for number in 0..DOCUMENTS {
        tickets.insert_one(with_attachment(number, EACH)).await.unwrap();
    }
    let (redis, qdrant) = (world.stack.redis_url(), world.stack.qdrant_http_url().unwrap());
    for service in ["embedder", "producer"] {
        world.start(service);
    }
    let length = async |stream: &'static str| super::world::redis_command::<u64>(&redis, &["XLEN", stream]).await;
    let all = DOCUMENTS as u64;
    world.until_within(LONG, "all documents are in stage 1", || async { length(RAW).await >= all }).await;
    world.start("processor");
    world.until_within(LONG, "all documents are in stage 2", || async { length(EMBEDDED).await >= all }).await;
    // The update begins while all of stage 2, which exceeds the limit, is a backlog.
    world.start("upserter");
    tickets.update_many(doc! {}, doc! {"$set": {"content": "It has changed since."}}).await.unwrap();
    world.until_within(LONG, "all documents are in the index", || super::clients::count(&qdrant, all)).await;
    nothing_is_left(&mut world).await;
    for service in super::world::SERVICES {
        let peak = world.peak_megabytes(service);
        assert!(peak < MOST, "the {service} took {peak} MB");
    }
}
