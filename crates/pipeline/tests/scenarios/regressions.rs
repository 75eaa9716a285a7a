//! What once went wrong, reduced.

use std::time::Duration;

use serde_json::json;
use tidewheel_core::change::{Change, Operation};
use tidewheel_core::embedded::Embedded;
use tidewheel_core::streams::{EMBEDDED, RAW, STAGE_2};
use tidewheel_testkit::fakes::faults::{Fault, Gate};

use crate::losses::{deleted_at, filled};
use crate::world::{PROCESSOR, PRODUCER, UPSERTER, World, document, seconds, until};

/// The step that appends deletions leaves the checkpoint as it is, so that nobody notices when Redis has forgotten it.
#[tokio::test(start_paused = true)]
async fn redis_forgets_the_deletions_that_a_sweep_has_just_appended() {
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

/// The upserter has found the collection and prepares it, which makes an empty one and says nothing of it.
#[tokio::test(start_paused = true)]
async fn a_collection_that_is_deleted_before_it_is_prepared_is_filled_again() {
    deleted_at("prepare").await;
}

/// A restored backup raises the epoch; without the checkpoint nobody remembers that.
#[tokio::test(start_paused = true)]
async fn the_epoch_outlives_the_checkpoint() {
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

/// Redis is wiped while a change is in work at this call, and the document is deleted before the work goes on.
async fn in_work_during_a_wipe(held_at: &'static str) {
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
async fn what_a_processor_has_in_work_does_not_outlive_a_wipe() {
    in_work_during_a_wipe("embed").await;
}

/// An upserter dies before it cleans up behind its write, and Redis forgets that it has to be done again.
#[tokio::test(start_paused = true)]
async fn chunks_that_a_dead_upserter_left_do_not_outlive_a_wipe() {
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

/// An entry is deleted before it is read, and the group is past it before the producer looks.
#[tokio::test(start_paused = true)]
async fn an_unread_entry_that_was_deleted_is_noticed_however_soon_the_group_is_past_it() {
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
