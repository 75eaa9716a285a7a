//! Loss of persisted state: it is detected and repaired automatically.

use mongodb::bson::doc;
use tidewheel_stores::redis::keys::{
    APPLIED, CHECKPOINT, EMBEDDED, EMBEDDED_GROUP, RAW, RAW_DEAD_LETTERS, RAW_GROUP, TOMBSTONES,
};

use super::world::{World, backlog, ticket};

const REWOUND: &str = "appending lost changes again";
const COMPARED: &str = "comparing all documents with the index";

/// Starts a pipeline with indexed documents and an applied checkpoint.
async fn settled() -> World {
    let mut world = World::running().await;
    world.collection("tickets").insert_many((0..300).map(ticket)).await.unwrap();
    assert_eq!(world.equal().await.documents, 300);
    let redis = world.stack.redis_url();
    world
        .until("the checkpoint is applied", || async {
            let token = async |key| -> (Option<String>, Option<String>) {
                super::world::redis_command(&redis, &["HMGET", key, "time", "snapshot"]).await
            };
            token(APPLIED).await == token(CHECKPOINT).await
        })
        .await;
    world
}

fn count(world: &World, message: &str) -> usize {
    world.log("producer").matches(message).count()
}

async fn drained(world: &mut World) {
    let url = world.stack.redis_url();
    for (stream, group) in [(RAW, RAW_GROUP), (EMBEDDED, EMBEDDED_GROUP)] {
        world.until("the streams are drained", || async { backlog(&url, stream, group).await == 0 }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_streams_are_detected_and_only_lost_entries_are_appended_again() {
    let mut world = settled().await;
    // With a backlog in both streams: changes without vectors, and vectors that are not written.
    world.kill("upserter");
    world.collection("tickets").delete_many(doc! {"_id": {"$lt": 10}}).await.unwrap();
    let url = world.stack.redis_url();
    world.until("a backlog in stage 2", || async { backlog(&url, EMBEDDED, EMBEDDED_GROUP).await >= 10 }).await;
    world.kill("processor");
    world.collection("tickets").insert_many((1_000..1_050).map(ticket)).await.unwrap();
    world.until("a backlog in stage 1", || async { backlog(&url, RAW, RAW_GROUP).await >= 50 }).await;

    assert_eq!(world.redis::<u64>(&["DEL", RAW, EMBEDDED]).await, 2);
    world.wait(|world| count(world, REWOUND) >= 1, "the producer has rewound").await;
    world.start("processor");
    world.start("upserter");
    assert_eq!(world.equal().await.documents, 340);
    drained(&mut world).await;
    assert_eq!(count(&world, COMPARED), 0, "no comparing snapshot");
    let sent: u64 = world.redis(&["XLEN", RAW]).await;
    assert!(sent < 300, "{sent} entries were sent for a gap of 60");

    // Deleted without a backlog.
    assert_eq!(world.redis::<u64>(&["DEL", EMBEDDED]).await, 1);
    world.wait(|world| count(world, REWOUND) >= 2, "the producer has rewound").await;
    world.collection("tickets").insert_one(ticket(2_000)).await.unwrap();
    assert_eq!(world.equal().await.documents, 341);
    drained(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wiped_redis_is_recovered_by_appending_only_differences() {
    let mut world = settled().await;
    world.kill("producer");
    world.collection("tickets").delete_many(doc! {"_id": {"$lt": 30}}).await.unwrap();
    let changed = doc! {"$set": {"content": "Changed while nobody looked."}};
    world.collection("tickets").update_many(doc! {"_id": {"$gte": 280}}, changed).await.unwrap();
    world.redis::<()>(&["FLUSHALL"]).await;
    world.start("producer");
    assert_eq!(world.equal().await.documents, 270);
    drained(&mut world).await;
    let sent: u64 = world.redis(&["XLEN", RAW]).await;
    assert_eq!(sent, 30 + 20, "deletions and changes, but none of the 250 unchanged documents");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_checkpoint_destroyed_group_and_manual_claims_are_repaired() {
    let mut world = settled().await;
    world.kill("upserter");
    world.collection("tickets").insert_many((1_000..1_100).map(ticket)).await.unwrap();
    let url = world.stack.redis_url();
    world.until("a backlog in stage 2", || async { backlog(&url, EMBEDDED, EMBEDDED_GROUP).await >= 100 }).await;

    for (stream, group) in [(RAW, RAW_GROUP), (EMBEDDED, EMBEDDED_GROUP)] {
        assert_eq!(world.redis::<u64>(&["XGROUP", "DESTROY", stream, group]).await, 1);
    }
    world.redis::<()>(&["XGROUP", "CREATE", EMBEDDED, EMBEDDED_GROUP, "0"]).await;
    let read = ["XREADGROUP", "GROUP", EMBEDDED_GROUP, "operator", "COUNT", "7", "STREAMS", EMBEDDED, ">"];
    world.redis::<redis::Value>(&read).await;
    let pending: Vec<(String, String, u64, u64)> =
        world.redis(&["XPENDING", EMBEDDED, EMBEDDED_GROUP, "-", "+", "1"]).await;
    let claim = ["XCLAIM", EMBEDDED, EMBEDDED_GROUP, "another", "0", &pending[0].0];
    world.redis::<redis::Value>(&claim).await;
    assert_eq!(world.redis::<u64>(&["DEL", CHECKPOINT]).await, 1);
    world.start("upserter");
    assert_eq!(world.equal().await.documents, 400);
    drained(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_collection_is_refilled_when_idle_and_under_writes() {
    let mut world = settled().await;
    let collection = format!("{}/collections/documents", world.stack.qdrant_http_url().unwrap());
    let delete = || async {
        let answer = super::clients::http().delete(&collection).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    };
    delete().await;
    world.wait(|world| count(world, COMPARED) == 1, "the loss is detected while idle").await;
    assert_eq!(world.equal().await.documents, 300);
    drained(&mut world).await;

    let writer = super::writer::Writer::start(world.collection("tickets"));
    delete().await;
    world.wait(|world| count(world, COMPARED) >= 2, "the loss is detected by a write").await;
    assert!(writer.finish().await > 0);
    assert!(world.equal().await.documents > 300);
    drained(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_collection_name_is_filled() {
    let mut world = settled().await;
    world.terminate("upserter");
    world.terminate("producer");
    world.write_settings(r#"qdrant.collection = "articles""#);
    world.start("upserter");
    world.start("producer");
    let qdrant = format!("{}/collections/articles", world.stack.qdrant_http_url().unwrap());
    world
        .until("all documents are in the other collection", || async {
            let answer =
                super::clients::http().get(&qdrant).send().await.unwrap().json::<serde_json::Value>().await.unwrap();
            answer["result"]["points_count"] == 300
        })
        .await;
    assert_eq!(count(&world, COMPARED), 1);
    assert!(world.log("producer").contains("replaced documents"));
}

#[tokio::test(flavor = "multi_thread")]
async fn new_model_with_new_collection_is_filled() {
    let mut world = settled().await;
    world.terminate("producer");
    world.collection("tickets").insert_many((5_000..5_020).map(ticket)).await.unwrap();
    drained(&mut world).await;
    for service in ["processor", "upserter", "embedder"] {
        world.terminate(service);
    }
    world.write_settings(r#"qdrant.collection = "documents_2""#);
    let settings = std::fs::read_to_string(world.settings()).unwrap();
    std::fs::write(world.settings(), settings.replace("hash:64", "hash:32")).unwrap();
    for service in super::world::SERVICES {
        world.start(service);
    }
    assert_eq!(world.equal_at("documents_2", &["tickets"]).await.documents, 320);
    let qdrant = format!("{}/collections/documents_2", world.stack.qdrant_http_url().unwrap());
    let answer = super::clients::http().get(&qdrant).send().await.unwrap().json::<serde_json::Value>().await.unwrap();
    assert_eq!(answer["result"]["config"]["params"]["vectors"]["size"], 32, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_are_collected_after_grace() {
    let mut world = World::new().await;
    // Longer than the checks below take. The grace is never shorter than the retention.
    world.write_settings("streams.tombstone_grace = \"10s\"\nstreams.retention_age = \"5s\"");
    for service in super::world::SERVICES {
        world.start(service);
    }
    world.collection("tickets").insert_many((0..20).map(ticket)).await.unwrap();
    // Otherwise the snapshot would not see the documents at all.
    assert_eq!(world.equal().await.documents, 20);
    world.collection("tickets").delete_many(doc! {"_id": {"$lt": 15}}).await.unwrap();
    assert_eq!(world.equal().await.documents, 5);
    assert_eq!(world.redis::<u64>(&["HLEN", TOMBSTONES]).await, 15);
    // A dead letter does not prevent the collection.
    world.redis::<String>(&["XADD", RAW_DEAD_LETTERS, "*", "operation", "insert"]).await;
    let url = world.stack.redis_url();
    world
        .until("no tombstones", || async { super::world::redis_command::<u64>(&url, &["HLEN", TOMBSTONES]).await == 0 })
        .await;
    assert_eq!(world.equal().await.documents, 5);
}
