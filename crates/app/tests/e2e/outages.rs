//! Outages of servers: the streams buffer unacknowledged entries, and drain automatically.

use mongodb::bson::doc;
use tidewheel_stores::redis::keys::{EMBEDDED, EMBEDDED_GROUP, RAW, RAW_GROUP};

use super::world::{World, backlog, ticket};

/// Starts a pipeline with a few indexed documents.
async fn settled() -> World {
    let mut world = World::running().await;
    world.collection("tickets").insert_many((0..100).map(ticket)).await.unwrap();
    world.equal().await;
    world
}

/// Performs inserts, updates and deletes.
async fn write_more(world: &World) {
    let tickets = world.collection("tickets");
    tickets.insert_many((1000..1200).map(ticket)).await.unwrap();
    tickets.update_many(doc! {"_id": {"$lt": 20}}, doc! {"$set": {"content": "Changed meanwhile."}}).await.unwrap();
    tickets.delete_many(doc! {"_id": {"$gte": 80, "$lt": 100}}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stage_1_buffers_while_embedder_is_down_and_drains_afterwards() {
    let mut world = settled().await;
    world.kill("embedder");
    write_more(&world).await;
    let url = world.stack.redis_url();
    // 200 inserts and 20 updates wait for vectors; 20 deletes need none and may continue.
    world
        .until("a backlog of all changes that need vectors", || async { backlog(&url, RAW, RAW_GROUP).await >= 220 })
        .await;
    let qdrant = world.stack.qdrant_http_url().unwrap();
    assert!(!super::clients::points(&qdrant).await.iter().any(|point| point["payload"]["_id"] == 1000));
    world.start("embedder");
    assert_eq!(world.equal().await.documents, 280);
    world.until("stage 1 is drained", || async { backlog(&url, RAW, RAW_GROUP).await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stage_2_buffers_while_qdrant_is_down_and_drains_afterwards() {
    let mut world = settled().await;
    let qdrant = world.stack.qdrant.clone().unwrap();
    qdrant.kill().await;
    write_more(&world).await;
    let url = world.stack.redis_url();
    world
        .until("a backlog of all changes in stage 2", || async { backlog(&url, EMBEDDED, EMBEDDED_GROUP).await >= 240 })
        .await;
    world.until("stage 1 is drained", || async { backlog(&url, RAW, RAW_GROUP).await == 0 }).await;
    qdrant.start().await.unwrap();
    assert_eq!(world.equal().await.documents, 280);
    world.until("stage 2 is drained", || async { backlog(&url, EMBEDDED, EMBEDDED_GROUP).await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_restart_loses_nothing() {
    let mut world = settled().await;
    let pid = world.stack.redis.pid();
    world.collection("tickets").insert_many((500..600).map(ticket)).await.unwrap();
    world.stack.redis.restart().await.unwrap();
    assert_ne!(world.stack.redis.pid(), pid, "a new process");
    write_more(&world).await;
    assert_eq!(world.equal().await.documents, 380);
}

#[tokio::test(flavor = "multi_thread")]
async fn mongod_kill_loses_nothing() {
    let mut world = settled().await;
    world.collection("tickets").insert_many((500..600).map(ticket)).await.unwrap();
    world.stack.mongod.kill().await;
    world.stack.mongod.start().await.unwrap();
    write_more(&world).await;
    assert_eq!(world.equal().await.documents, 380);
}
