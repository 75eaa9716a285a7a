//! A producer that sleeps past its lease and wakes up while another one works: a zombie.

use std::time::Duration;

use tidewheel_core::streams::{LEASE, RAW};

use super::world::{World, redis_command, signal, ticket};
use super::writer::Writer;

/// The process that an owner of the lease names: `producer-HOST-PID-UNIQUE`.
fn pid_of(owner: &str) -> u32 {
    owner.rsplit('-').nth(1).and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("{owner:?} names no process"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_frozen_past_its_lease_wakes_up_and_does_no_harm() {
    let mut world = World::running().await;
    world.collection("tickets").insert_one(ticket(1)).await.unwrap();
    world.equal().await;
    world.start("producer");
    let writer = Writer::start(world.collection("tickets"));
    let first: String = world.redis(&["GET", LEASE]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    // It is frozen in the midst of its work: writes come every few milliseconds.
    signal(pid_of(&first), "STOP");
    let url = world.stack.redis_url();
    let first_owner = first.clone();
    world
        .until("another producer has the lease", || async {
            let owner: Option<String> = redis_command(&url, &["GET", LEASE]).await;
            owner.is_some_and(|owner| owner != first_owner)
        })
        .await;
    let second: String = world.redis(&["GET", LEASE]).await;
    let before: u64 = world.redis(&["XLEN", RAW]).await;
    world
        .until("the other producer works", || async { redis_command::<u64>(&url, &["XLEN", RAW]).await > before + 100 })
        .await;

    signal(pid_of(&first), "CONT");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.redis::<String>(&["GET", LEASE]).await, second, "the lease stays with the second one");
    assert!(world.log("producer").contains("another producer holds the lease"), "the first one stands by");
    assert!(writer.finish().await > 50);
    world.equal().await;
    world.each_change_once().await;
}
