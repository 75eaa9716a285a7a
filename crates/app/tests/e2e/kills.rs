//! Services die without a word, and several of each work at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mongodb::Collection;
use mongodb::bson::{Document, doc};
use tokio::task::JoinHandle;

use super::world::{SERVICES, World, ticket};

/// Writes to a collection until it is told to stop: some of every operation, some documents hot.
struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<i32>,
}

impl Writer {
    fn start(tickets: Collection<Document>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(write(tickets, stop.clone()));
        Self { stop, task }
    }

    /// Stops, and says how many rounds it wrote.
    async fn finish(self) -> i32 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("every write succeeds")
    }
}

async fn write(tickets: Collection<Document>, stop: Arc<AtomicBool>) -> i32 {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        tickets.insert_many((0..5).map(|i| ticket(1_000 + round * 5 + i))).await.unwrap();
        let hot = doc! {"_id": round % 7};
        let text = format!("Version {round}. {}", "It grows and shrinks. ".repeat((round as usize * 13) % 120));
        tickets.update_one(hot, doc! {"$set": {"content": text}}).upsert(true).await.unwrap();
        if round % 3 == 0 {
            tickets.delete_one(doc! {"_id": (round + 3) % 7}).await.unwrap();
        }
        if round % 5 == 0 {
            tickets.delete_one(doc! {"_id": 1_000 + round}).await.unwrap();
        }
        round += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    round
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_may_be_killed_and_started_again() {
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
async fn two_of_each_work_together_and_one_may_be_killed() {
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
async fn a_second_producer_takes_over_when_the_first_is_killed() {
    let mut world = World::running().await;
    world.collection("tickets").insert_one(ticket(1)).await.unwrap();
    world.equal().await;
    world.start("producer");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lease: String = world.redis(&["GET", tidewheel_core::streams::LEASE]).await;
    world.kill_oldest("producer");
    world.collection("tickets").insert_one(ticket(2)).await.unwrap();
    assert_eq!(world.equal().await.documents, 2);
    let taken: String = world.redis(&["GET", tidewheel_core::streams::LEASE]).await;
    assert_ne!(lease, taken);
}
