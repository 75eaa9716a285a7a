//! Something that was saved is gone: it is noticed, and repaired without a person.

use mongodb::bson::doc;
use tidewheel_core::streams::{
    APPLIED, CHECKPOINT, EMBEDDED, EMBEDDED_GROUP, RAW, RAW_DEAD_LETTERS, RAW_GROUP, TOMBSTONES,
};

use super::world::{World, backlog, ticket};

const REWOUND: &str = "appending lost changes again";
const COMPARED: &str = "comparing all documents with the index";

/// A running world with documents that have arrived, and of which that is known.
async fn settled() -> World {
    let mut world = World::running().await;
    world.collection("tickets").insert_many((0..300).map(ticket)).await.unwrap();
    assert_eq!(world.equal().await.documents, 300);
    let redis = world.stack.redis_url();
    world
        .until("everything is known to be applied", || async {
            let token = async |key| -> (Option<String>, Option<String>) {
                super::world::redis_command(&redis, &["HMGET", key, "time", "snapshot"]).await
            };
            token(APPLIED).await == token(CHECKPOINT).await
        })
        .await;
    world
}

fn count(world: &World, what: &str) -> usize {
    world.log("producer").matches(what).count()
}

async fn drained(world: &mut World) {
    let url = world.stack.redis_url();
    for (stream, group) in [(RAW, RAW_GROUP), (EMBEDDED, EMBEDDED_GROUP)] {
        world.until("the streams are drained", || async { backlog(&url, stream, group).await == 0 }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_streams_are_noticed_and_only_the_gap_is_sent_again() {
    let mut world = settled().await;
    // What is on its way when the streams go: changes that nobody has embedded, and vectors that nobody has written.
    world.kill("upserter");
    world.collection("tickets").delete_many(doc! {"_id": {"$lt": 10}}).await.unwrap();
    let url = world.stack.redis_url();
    world.until("stage 2 holds them", || async { backlog(&url, EMBEDDED, EMBEDDED_GROUP).await >= 10 }).await;
    world.kill("processor");
    world.collection("tickets").insert_many((1_000..1_050).map(ticket)).await.unwrap();
    world.until("stage 1 holds them", || async { backlog(&url, RAW, RAW_GROUP).await >= 50 }).await;

    assert_eq!(world.redis::<u64>(&["DEL", RAW, EMBEDDED]).await, 2);
    world.wait(|world| count(world, REWOUND) >= 1, "the producer has gone back").await;
    world.start("processor");
    world.start("upserter");
    assert_eq!(world.equal().await.documents, 340);
    drained(&mut world).await;
    assert_eq!(count(&world, COMPARED), 0, "MongoDB was not read as a whole");
    let sent: u64 = world.redis(&["XLEN", RAW]).await;
    assert!(sent < 300, "{sent} entries were sent for a gap of 60");

    // Deleted while nothing is on its way.
    assert_eq!(world.redis::<u64>(&["DEL", EMBEDDED]).await, 1);
    world.wait(|world| count(world, REWOUND) >= 2, "the producer has gone back").await;
    world.collection("tickets").insert_one(ticket(2_000)).await.unwrap();
    assert_eq!(world.equal().await.documents, 341);
    drained(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_redis_is_filled_again_with_what_differs() {
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
    assert_eq!(sent, 30 + 20, "deletions and changes, and none of the 250 documents that the index had");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_checkpoint_a_destroyed_group_and_entries_claimed_by_hand_do_no_harm() {
    let mut world = settled().await;
    world.kill("upserter");
    world.collection("tickets").insert_many((1_000..1_100).map(ticket)).await.unwrap();
    let url = world.stack.redis_url();
    world.until("stage 2 holds them", || async { backlog(&url, EMBEDDED, EMBEDDED_GROUP).await >= 100 }).await;

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
async fn a_collection_that_somebody_deletes_is_filled_again_idle_or_not() {
    let mut world = settled().await;
    let collection = format!("{}/collections/documents", world.stack.qdrant_http_url().unwrap());
    let delete = || async {
        let answer = super::clients::http().delete(&collection).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    };
    delete().await;
    world.wait(|world| count(world, COMPARED) == 1, "it is noticed while nothing is written").await;
    assert_eq!(world.equal().await.documents, 300);
    drained(&mut world).await;

    let writer = super::writer::Writer::start(world.collection("tickets"));
    delete().await;
    world.wait(|world| count(world, COMPARED) >= 2, "it is noticed by a write").await;
    assert!(writer.finish().await > 0);
    assert!(world.equal().await.documents > 300);
    drained(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_collection_is_filled_when_its_name_is_set() {
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
    assert!(world.log("producer").contains("takes the place of documents"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_model_gets_a_collection_of_its_own() {
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
async fn deletions_are_forgotten_when_their_time_is_over() {
    let mut world = World::new().await;
    // Longer than it takes to look at them. The grace is never shorter than what is kept for replays.
    world.write_settings("streams.tombstone_grace = \"10s\"\nstreams.retention_age = \"5s\"");
    for service in super::world::SERVICES {
        world.start(service);
    }
    world.collection("tickets").insert_many((0..20).map(ticket)).await.unwrap();
    // Or the snapshot would find them deleted already.
    assert_eq!(world.equal().await.documents, 20);
    world.collection("tickets").delete_many(doc! {"_id": {"$lt": 15}}).await.unwrap();
    assert_eq!(world.equal().await.documents, 5);
    assert_eq!(world.redis::<u64>(&["HLEN", TOMBSTONES]).await, 15);
    // A dead letter does not hold them up.
    world.redis::<String>(&["XADD", RAW_DEAD_LETTERS, "*", "operation", "insert"]).await;
    let url = world.stack.redis_url();
    world
        .until("they are forgotten", || async {
            super::world::redis_command::<u64>(&url, &["HLEN", TOMBSTONES]).await == 0
        })
        .await;
    assert_eq!(world.equal().await.documents, 5);
}
