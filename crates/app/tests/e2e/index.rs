//! Qdrant crashes, or is so slow that writes arrive late and twice, under continuous writes.

use std::time::Duration;

use mongodb::bson::doc;
use tidewheel_stores::redis::keys::{EMBEDDED, EMBEDDED_GROUP};
use tidewheel_testkit::proxy::{Proxy, Weather};

use super::world::{SERVICES, World, backlog, ticket};
use super::writer::Writer;

#[tokio::test(flavor = "multi_thread")]
async fn qdrant_kills_under_writes_lose_nothing() {
    let mut world = World::running().await;
    let writer = Writer::start(world.collection("tickets"));
    let qdrant = world.stack.qdrant.clone().unwrap();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        let pid = qdrant.pid();
        qdrant.kill().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        qdrant.start().await.unwrap();
        assert_ne!(qdrant.pid(), pid, "a new process");
    }
    assert!(writer.finish().await > 50);
    world.equal().await;
    assert!(world.log("upserter").contains("retrying"), "the outage is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn late_and_duplicate_writes_undo_nothing() {
    let mut world = World::new().await;
    let qdrant = world.stack.qdrant_grpc_url().unwrap();
    let proxy = Proxy::start(qdrant.trim_start_matches("http://")).await.unwrap();
    world.detours.qdrant_url = Some(format!("http://{}", proxy.address()));
    world.write_settings(r#"qdrant.timeout = "500ms""#);
    for service in SERVICES {
        world.start(service);
    }
    let tickets = world.collection("tickets");
    tickets.insert_many((0..100).map(ticket)).await.unwrap();
    world.equal().await;

    // Requests arrive after the client's timeout, and so do responses.
    proxy.set(Weather::Slow(Duration::from_millis(800)));
    tickets.insert_many((100..150).map(ticket)).await.unwrap();
    let rest = world.stack.qdrant_http_url().unwrap();
    world.until("late writes have arrived", || super::clients::count(&rest, 150)).await;
    let url = world.stack.redis_url();
    assert!(backlog(&url, EMBEDDED, EMBEDDED_GROUP).await > 0, "writes without a response are not acknowledged");
    tickets.update_many(doc! {"_id": {"$lt": 20}}, doc! {"$set": {"content": "Changed meanwhile."}}).await.unwrap();
    tickets.delete_many(doc! {"_id": {"$gte": 20, "$lt": 120}}).await.unwrap();
    tickets.insert_many((30..40).map(ticket)).await.unwrap();
    // A second upserter, without the first one's state.
    world.start("upserter");
    tokio::time::sleep(Duration::from_secs(3)).await;
    proxy.set(Weather::Fair);
    assert_eq!(world.equal().await.documents, 60);
    assert!(world.log("upserter").contains("failed to write to Qdrant, retrying"), "its calls timed out");
    // Requests still in flight arrive.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.equal().await.documents, 60);
}
