//! Killed services, and several instances of each.

use std::time::Duration;

use super::world::{SERVICES, World, ticket};
use super::writer::Writer;

#[tokio::test(flavor = "multi_thread")]
async fn killing_each_service_loses_nothing() {
    let mut world = World::running().await;
    let writer = Writer::start(world.collection("tickets"));
    for _ in 0..2 {
        for service in SERVICES {
            tokio::time::sleep(Duration::from_millis(700)).await;
            world.kill(service);
            tokio::time::sleep(Duration::from_millis(300)).await;
            world.start(service);
        }
    }
    assert!(writer.finish().await > 50);
    world.equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_of_each_service_share_work_and_survive_kill_of_one() {
    let mut world = World::running().await;
    let writer = Writer::start(world.collection("tickets"));
    for service in ["producer", "processor", "upserter"] {
        world.start(service);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for service in ["producer", "processor", "upserter"] {
        world.kill(service);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(writer.finish().await > 50);
    world.equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standby_producer_takes_over_after_kill() {
    let mut world = World::running().await;
    world.collection("tickets").insert_one(ticket(1)).await.unwrap();
    world.equal().await;
    world.start("producer");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lease: String = world.redis(&["GET", tidewheel_stores::redis::keys::LEASE]).await;
    world.kill_oldest("producer");
    world.collection("tickets").insert_one(ticket(2)).await.unwrap();
    assert_eq!(world.equal().await.documents, 2);
    let taken: String = world.redis(&["GET", tidewheel_stores::redis::keys::LEASE]).await;
    assert_ne!(lease, taken);
}
