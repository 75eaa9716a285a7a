//! A rolling restart of all services and servers under writes, as in an upgrade.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mongodb::Collection;
use mongodb::bson::{Document, doc};
use mongodb::error::Result;

use super::world::{SERVICES, World, ticket};

/// One round of idempotent writes: a few documents replaced, one of seven hot ones updated, some deleted.
async fn round(tickets: &Collection<Document>, round: i32) -> Result<()> {
    for number in 0..3 {
        let document = ticket(1_000 + round * 3 + number);
        let id = doc! {"_id": document.get_i32("_id").unwrap()};
        tickets.replace_one(id, document).upsert(true).await?;
    }
    let hot = doc! {"_id": round % 7};
    let text = format!("Version {round}. {}", "It grows and shrinks. ".repeat((round as usize * 13) % 120));
    tickets.update_one(hot, doc! {"$set": {"content": text}}).upsert(true).await?;
    if round % 3 == 0 {
        tickets.delete_one(doc! {"_id": (round + 3) % 7}).await?;
        tickets.delete_one(doc! {"_id": 1_000 + round}).await?;
    }
    Ok(())
}

/// Writes until `stop`; retries writes that fail during a server restart.
async fn write(tickets: Collection<Document>, stop: Arc<AtomicBool>) -> i32 {
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        match round(&tickets, rounds).await {
            Ok(()) => rounds += 1,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rounds
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_restart_under_writes_loses_nothing() {
    let mut world = World::running().await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(world.collection("tickets"), stop.clone()));
    for service in SERVICES {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (status, _) = world.terminate(service);
        assert!(status.success(), "{service} ended with {status}");
        world.start(service);
    }
    let servers = [world.stack.qdrant.clone().unwrap(), world.stack.redis.clone(), world.stack.mongod.clone()];
    for server in &servers {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let pid = server.pid();
        server.restart().await.unwrap();
        assert_ne!(server.pid(), pid, "a new process");
    }
    // All services a second time, in reverse order.
    for service in SERVICES.into_iter().rev() {
        let (status, _) = world.terminate(service);
        assert!(status.success(), "{service} ended with {status}");
        world.start(service);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.await.unwrap() > 20);
    world.equal().await;
}
