//! A producer that is frozen past its lease and resumes while another one is active: a zombie.

use std::time::Duration;

use tidewheel_stores::redis::keys::{LEASE, RAW};

use super::world::{World, redis_command, signal, ticket};
use super::writer::Writer;

/// Returns the pid in a lease owner: `producer-HOST-PID-UNIQUE`.
fn pid_of(owner: &str) -> u32 {
    owner.rsplit('-').nth(1).and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("no pid in {owner:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn producer_frozen_past_its_lease_appends_nothing_after_resume() {
    let mut world = World::running().await;
    world.collection("tickets").insert_one(ticket(1)).await.unwrap();
    world.equal().await;
    world.start("producer");
    let writer = Writer::start(world.collection("tickets"));
    let first: String = world.redis(&["GET", LEASE]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    // Frozen while active: writes come every few milliseconds.
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
        .until("the other producer appends", || async {
            redis_command::<u64>(&url, &["XLEN", RAW]).await > before + 100
        })
        .await;

    signal(pid_of(&first), "CONT");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.redis::<String>(&["GET", LEASE]).await, second, "the second producer keeps the lease");
    assert!(world.log("producer").contains("another producer holds the lease"), "the first producer stands by");
    assert!(writer.finish().await > 50);
    world.equal().await;
    world.each_change_once().await;
}
