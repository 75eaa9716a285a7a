//! A Redis that comes back without its latest writes: after a crash, or after failover to a lagging replica.
//!
//! Its data is saved at one moment and restored a little later, at many moments. The producer detects at its next
//! append or confirmation that the checkpoint is not the one that it saved last.

use std::time::Duration;

use serde_json::json;
use tidewheel_stores::redis::keys::{EMBEDDED, RAW};
use tidewheel_testkit::fakes::faults::Fault;

use crate::world::{PRODUCER, World, document, seconds};

/// How many milliseconds of writes are lost.
const LOST: [u64; 3] = [40, 300, 1_000];

/// Saves Redis `at` milliseconds after `begin`, and restores it after `LOST` more.
async fn goes_back(what: &str, at: impl IntoIterator<Item = u64>, begin: impl AsyncFn() -> World, go_on: fn(&World)) {
    let mut losses = 0;
    for at in at {
        for lost in LOST {
            let world = begin().await;
            tokio::time::sleep(Duration::from_millis(at)).await;
            let saved = world.streams.save();
            go_on(&world);
            tokio::time::sleep(Duration::from_millis(lost)).await;
            let known = world.streams.raw(RAW).len() + world.streams.raw(EMBEDDED).len();
            world.streams.restore(&saved);
            losses += known - world.streams.raw(RAW).len() - world.streams.raw(EMBEDDED).len();
            // MongoDB's token advances automatically every ten seconds; here a change advances it.
            world.source.insert("notes", document(1, "after", 1));
            world.settle(&format!("{what}: saved at {at} ms, restored after {lost} ms")).await;
            seconds(20.0).await;
            assert_eq!(world.difference(), None, "{what}: saved at {at} ms, restored after {lost} ms, some time later");
        }
    }
    assert!(losses > 100, "{what}: only {losses} entries were lost");
}

/// A world in which every step takes some milliseconds.
fn slow() -> World {
    let mut world = World::calm();
    (world.consumer.batch, world.consumer.concurrency) = (2, 1);
    for id in 0..12 {
        world.source.insert("tickets", document(id, "old", 1 + id as usize % 3));
    }
    let slow = |milliseconds| Fault::Slow(Duration::from_millis(milliseconds));
    world.source.faults().always("page", slow(60));
    world.embedder.faults().always("embed", slow(50));
    world.index.faults().always("upsert", slow(40));
    world.index.faults().always("page", slow(150));
    world
}

/// A world whose producer has just started a comparing snapshot: documents were deleted, changed and added unseen.
async fn comparing() -> World {
    let mut world = slow();
    world.start_all();
    world.settle("at the start").await;
    seconds(3.0).await;
    world.kill(PRODUCER);
    for id in [0, 5, 9] {
        world.source.delete("tickets", json!(id));
    }
    for id in [1, 6] {
        world.source.replace("tickets", document(id, "fresh", 2));
    }
    world.source.insert("tickets", document(20, "unseen", 1));
    world.source.lose_history();
    seconds(4.0).await;
    world.start(PRODUCER);
    world
}

fn changes(world: &World) {
    world.source.replace("tickets", document(2, "newer", 3));
    world.source.delete("tickets", json!(3));
    world.source.insert("tickets", document(30, "new", 2));
}

#[tokio::test(start_paused = true)]
async fn redis_rolls_back_while_changes_are_streamed() {
    let following = async || {
        let mut world = slow();
        world.start_all();
        world.settle("at the start").await;
        seconds(3.0).await;
        changes(&world);
        world
    };
    goes_back("following", (0..1_000).step_by(35), following, |world| {
        world.source.replace("tickets", document(2, "newest", 1));
        world.source.delete("tickets", json!(30));
        world.source.insert("tickets", document(3, "reborn", 1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn redis_rolls_back_while_a_snapshot_fills_the_index() {
    let filling = async || {
        let mut world = slow();
        world.start_all();
        world
    };
    goes_back("filling", (0..2_500).step_by(50), filling, changes).await;
}

#[tokio::test(start_paused = true)]
async fn redis_rolls_back_while_a_snapshot_compares_and_sweeps() {
    goes_back("comparing, with changes", (0..3_500).step_by(50), comparing, changes).await;
}

#[tokio::test(start_paused = true)]
async fn redis_rolls_back_while_a_snapshot_compares_and_sweeps_an_idle_source() {
    goes_back("comparing, idle", (0..3_500).step_by(50), comparing, |_| {}).await;
}
