//! Regression tests of former bugs.

use std::time::Duration;

use serde_json::json;
use tidewheel_core::change::{Change, Operation};
use tidewheel_core::embedded::Embedded;
use tidewheel_stores::redis::keys::{EMBEDDED, RAW, STAGE_2};
use tidewheel_testkit::fakes::faults::{Fault, Gate};

use crate::losses::{deleted_at, filled};
use crate::world::{PROCESSOR, PRODUCER, UPSERTER, World, document, seconds, until};

/// The bug: the step that appends deletions left the checkpoint unchanged, so a rollback of Redis went undetected.
#[tokio::test(start_paused = true)]
async fn redis_loses_deletions_just_appended_by_a_sweep() {
    let mut world = World::calm();
    for id in 0..4 {
        world.source.insert("tickets", document(id, "old", 1));
    }
    world.start_all();
    world.settle("at the start").await;
    seconds(3.0).await;
    world.kill(PRODUCER);
    world.source.delete("tickets", json!(1));
    world.source.lose_history();
    seconds(4.0).await;
    let (first, second) = (Gate::closed(), Gate::closed());
    for gate in [&first, &second] {
        world.index.faults().once("page", Fault::Held(gate.clone()));
    }
    world.start(PRODUCER);
    until("the sweep", || world.index.faults().hits("page") == 1).await;

    world.kill(PROCESSOR);
    let saved = world.streams.save();
    let deletions = |world: &World| {
        let records = world.streams.records::<Change>(RAW).into_iter();
        records.filter(|(_, change)| change.operation == Operation::Delete).count()
    };
    first.open();
    until("its deletion", || deletions(&world) == 1).await;
    world.streams.restore(&saved);
    assert_eq!(deletions(&world), 0);
    second.open();
    world.start(PROCESSOR);
    world.settle("after the sweep").await;
}

/// The bug: the upserter found the collection, then prepared it, which created an empty one without recording that.
#[tokio::test(start_paused = true)]
async fn collection_deleted_before_it_is_prepared_is_refilled() {
    deleted_at("prepare").await;
}

/// The bug: a restored backup increments the epoch, which was lost with the checkpoint.
#[tokio::test(start_paused = true)]
async fn epoch_survives_the_loss_of_the_checkpoint() {
    let world = filled().await;
    let backup = world.source.backup();
    for _ in 0..3 {
        world.source.replace("tickets", document(1, "undone", 2));
    }
    world.settle("before the backup was restored").await;
    world.source.restore(backup);
    world.source.replace("tickets", document(2, "after", 1));
    world.settle("after the backup was restored").await;
    world.streams.delete_checkpoint();
    world.source.replace("tickets", document(1, "newest", 1));
    world.settle("without the checkpoint").await;
}

/// Redis is wiped while a change is in flight at this call, and the document is deleted before the work continues.
async fn in_flight_during_a_wipe(held_at: &'static str) {
    let world = filled().await;
    let faults = if held_at == "embed" { world.embedder.faults() } else { world.index.faults() };
    let gate = Gate::closed();
    faults.once(held_at, Fault::Held(gate.clone()));
    world.source.insert("tickets", document(11, "brief", 1));
    until(held_at, || faults.hits(held_at) == 1).await;
    world.streams.wipe();
    world.source.delete("tickets", json!(11));
    // The new feed begins after it.
    world.source.pass(Duration::from_secs(1));
    world.source.insert("tickets", document(12, "later", 1));
    seconds(10.0).await;
    assert_eq!(world.difference(), None, "compared");
    gate.open();
    seconds(1.0).await;
    world.settle(held_at).await;
}

#[tokio::test(start_paused = true)]
async fn work_in_flight_in_a_processor_does_not_survive_a_wipe() {
    in_flight_during_a_wipe("embed").await;
}

/// An upserter crashes before it cleans up after its write, and the wiped Redis does not redeliver the entry.
#[tokio::test(start_paused = true)]
async fn leftover_chunks_of_a_crashed_upserter_do_not_survive_a_wipe() {
    let mut world = filled().await;
    world.source.replace("tickets", document(1, "longer", 4));
    world.settle("a longer version").await;
    let gate = Gate::closed();
    world.index.faults().once("stored", Fault::Held(gate));
    world.source.replace("tickets", document(1, "short", 1));
    until("the write", || world.index.faults().hits("stored") == 1).await;
    world.kill(UPSERTER);
    world.streams.wipe();
    world.start(UPSERTER);
    // The new feed begins after the change.
    world.source.pass(Duration::from_secs(1));
    world.source.insert("tickets", document(12, "later", 1));
    world.settle("compared").await;
}

/// An entry is deleted before it is read, and the group has passed it before the producer reads the positions.
#[tokio::test(start_paused = true)]
async fn deleted_unread_entry_is_detected_even_after_the_group_has_passed_it() {
    let mut world = filled().await;
    world.kill(UPSERTER);
    seconds(2.0).await;
    world.source.replace("tickets", document(1, "lost", 1));
    world.source.replace("tickets", document(2, "after", 1));
    let unread = || world.streams.status(STAGE_2).lag == Some(2);
    until("stage 2", unread).await;
    let entries = world.streams.records::<Embedded>(EMBEDDED);
    world.streams.delete_entry(EMBEDDED, &entries[entries.len() - 2].0);
    world.start(UPSERTER);
    world.settle("appended again").await;
}
