//! A rolling restart of all services and servers under writes, and services of different releases on one Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mongodb::Collection;
use mongodb::bson::{Document, doc};
use mongodb::error::Result;
use tidewheel_stores::redis::keys::{INSTALLATION, RAW, RAW_DEAD_LETTERS, RAW_GROUP};
use tidewheel_stores::redis::layout::{INITIAL_LAYOUT, LAYOUT};
use tidewheel_stores::redis::wire::FORMAT;

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

/// An entry of a newer release, as the processor of this one reads it.
const NEWER: [&str; 17] = [
    "XADD",
    RAW,
    "*",
    "format",
    "3",
    "operation",
    "insert",
    "namespace",
    "shop.tickets",
    "id",
    "77",
    "key",
    r#"{"$numberInt":"77"}"#,
    "version",
    "0.1600000000.1.1",
    "document",
    "in a form that this release cannot read",
];

#[tokio::test(flavor = "multi_thread")]
async fn service_stops_at_an_entry_of_a_newer_release_and_leaves_it_in_its_stream() {
    assert_eq!(FORMAT, 2, "the entry has to be newer");
    let mut world = World::running().await;
    world.collection("tickets").insert_many((0..20).map(ticket)).await.unwrap();
    world.equal().await;
    let id: String = world.redis(&NEWER).await;
    world.redis::<u64>(&["HINCRBY", "{raw_document_changes}:counts", "raw", "1"]).await;
    let expected = format!("failed to read entry {id}: unsupported format 3: this release reads formats up to 2");
    for stops in 1..=2 {
        let stopped = |world: &World| world.log("processor").matches(&expected).count() >= stops;
        world.wait(stopped, "the processor has stopped at the newer entry").await;
        assert!(world.log("processor").contains("upgrade this service"), "{}", world.log("processor"));
        let pending: Vec<redis::Value> = world.redis(&["XPENDING", RAW, RAW_GROUP, &id, &id, "1"]).await;
        assert_eq!(pending.len(), 1, "unacknowledged");
        assert_eq!(world.redis::<u64>(&["XLEN", RAW_DEAD_LETTERS]).await, 0);
        // Another instance of the same release claims the entry and stops as well.
        if stops == 1 {
            world.start("processor");
        }
    }
    // An upgraded processor finishes it; here an operator acknowledges it in its place.
    world.redis::<u64>(&["XACK", RAW, RAW_GROUP, &id]).await;
    world.start("processor");
    world.collection("tickets").insert_many((20..30).map(ticket)).await.unwrap();
    assert_eq!(world.equal().await.documents, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_stop_and_refuse_to_start_on_keys_of_a_newer_release() {
    let mut world = World::running().await;
    world.collection("tickets").insert_many((0..20).map(ticket)).await.unwrap();
    world.equal().await;
    let newer = (LAYOUT + 1).to_string();
    world.redis::<u64>(&["HSET", INSTALLATION, "format", &newer]).await;
    let expected = format!("unsupported layout {newer} of the keys in Redis");
    for stops in 1..=2 {
        for service in ["producer", "processor", "upserter"] {
            let stopped = |world: &World| world.log(service).matches(&expected).count() >= stops;
            world.wait(stopped, &format!("the {service} has stopped for the newer layout")).await;
            assert!(world.log(service).contains("upgrade this service"), "{}", world.log(service));
            if stops == 1 {
                world.start(service);
            }
        }
    }
    let refused: [&[&str]; 5] = [
        &["installation", "adopt", "--yes"],
        &["replay", "source", "--yes"],
        &["verify", "--repair"],
        &["wait"],
        &["inspect", "1"],
    ];
    for arguments in refused {
        let output = world.command(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(&expected), "{text}");
    }
    let status = world.command(&["status", "--output", "json"]).output().unwrap();
    assert_eq!(status.status.code(), Some(2));
    let overview: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(overview["verdict"]["state"], "unknown");
    assert!(overview["source"]["error"].as_str().unwrap().contains(&expected), "{overview}");
    let check = world.command(&["check"]).output().unwrap();
    assert_eq!(check.status.code(), Some(1));
    let text = String::from_utf8_lossy(&check.stdout).into_owned() + &String::from_utf8_lossy(&check.stderr);
    assert!(text.contains(&expected), "{text}");
    assert_eq!(world.redis::<String>(&["HGET", INSTALLATION, "format"]).await, newer, "nothing was changed");

    world.redis::<u64>(&["HSET", INSTALLATION, "format", &INITIAL_LAYOUT.to_string()]).await;
    for service in ["producer", "processor", "upserter"] {
        world.start(service);
    }
    world.collection("tickets").insert_many((20..30).map(ticket)).await.unwrap();
    assert_eq!(world.equal().await.documents, 30);
}
