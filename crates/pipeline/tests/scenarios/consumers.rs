//! Concurrent or very late work of several consumers on one document.

use std::time::Duration;

use serde_json::json;
use tidewheel_core::embedded::Embedded;
use tidewheel_stores::redis::keys::EMBEDDED;
use tidewheel_testkit::fakes::faults::{Fault, Faults, Gate};
use tidewheel_testkit::fakes::index::SentWrite;

use crate::world::{PROCESSOR, PRODUCER, TAKEN_OVER, UPSERTER, World, document, seconds, until};

/// A world with batches of one entry, and one batch in flight per service.
fn one_by_one() -> World {
    let mut world = World::calm();
    (world.consumer.batch, world.consumer.concurrency) = (1, 1);
    world
}

/// The faults that apply to calls of this name.
fn faults<'w>(world: &'w World, call: &str) -> &'w Faults {
    match call {
        "embed" => world.embedder.faults(),
        "raise" | "of" | "hand_over" | "acknowledge" => world.streams.faults(),
        _ => world.index.faults(),
    }
}

/// Holds the next call of this name.
fn hold(world: &World, call: &'static str) -> Gate {
    let gate = Gate::closed();
    faults(world, call).once(call, Fault::Held(gate.clone()));
    gate
}

/// An entry is claimed from a live consumer that is held at `call`, and the claiming consumer is held there too.
async fn claimed_twice(service: &'static str, call: &'static str, owner_first: bool) -> World {
    let mut world = World::calm();
    let (owner, claimer) = (hold(&world, call), hold(&world, call));
    for other in [PRODUCER, PROCESSOR, UPSERTER] {
        if other != service {
            world.start(other);
        }
    }
    // As if suspended: it does not keep its entries.
    world.consumer.claim_after = Duration::from_secs(3_600);
    world.start(service);
    world.source.insert("tickets", document(1, "wanted", 2));
    until("the owner's call", || faults(&world, call).hits(call) == 1).await;
    world.consumer.claim_after = TAKEN_OVER;
    world.start(service);
    until("the claim", || faults(&world, call).hits(call) == 2).await;
    let (first, second) = if owner_first { (owner, claimer) } else { (claimer, owner) };
    first.open();
    seconds(1.0).await;
    second.open();
    world.settle(&format!("{service} held at {call}, the owner first: {owner_first}")).await;
    seconds(10.0).await;
    assert_eq!(world.difference(), None);
    world
}

#[tokio::test(start_paused = true)]
async fn entry_claimed_from_a_slow_owner_may_be_finished_by_both_in_any_order() {
    for owner_first in [true, false] {
        for call in ["embed", "hand_over"] {
            let world = claimed_twice(PROCESSOR, call, owner_first).await;
            assert_eq!(world.streams.records::<Embedded>(EMBEDDED).len(), 1, "the second has nothing to hand over");
        }
        for call in ["upsert", "stored", "of", "acknowledge"] {
            claimed_twice(UPSERTER, call, owner_first).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn update_and_delete_on_different_consumers_may_finish_in_any_order() {
    for update_at in ["upsert", "stored", "of", "acknowledge"] {
        for delete_at in ["raise", "delete"] {
            for update_first in [true, false] {
                let mut world = one_by_one();
                world.source.insert("tickets", document(1, "old", 2));
                world.start_all();
                world.start(UPSERTER);
                world.settle("at the start").await;
                let update = hold(&world, update_at);
                world.source.replace("tickets", document(1, "update", 3));
                until("the update", || faults(&world, update_at).hits(update_at) == 1).await;
                let delete = hold(&world, delete_at);
                world.source.delete("tickets", json!(1));
                until("the delete", || faults(&world, delete_at).hits(delete_at) == 1).await;
                let (first, second) = if update_first { (update, delete) } else { (delete, update) };
                first.open();
                seconds(1.0).await;
                second.open();
                let what = format!("update at {update_at}, delete at {delete_at}, update first: {update_first}");
                world.settle(&what).await;
                seconds(10.0).await;
                assert_eq!(world.difference(), None, "{what}");
            }
        }
    }
}

/// The first write of the document, as sent.
fn first_write(world: &World) -> SentWrite {
    let mut sent = world.index.sent().into_iter();
    sent.find(|write| matches!(write, SentWrite::Upsert(_))).expect("something was written")
}

#[tokio::test(start_paused = true)]
async fn stale_upsert_after_delete_and_reinsert_changes_nothing() {
    let mut world = World::calm();
    world.source.insert("tickets", document(1, "old", 2));
    world.start_all();
    world.settle("at the start").await;
    world.source.delete("tickets", json!(1));
    world.settle("deleted").await;
    world.source.insert("tickets", document(1, "reborn", 2));
    world.settle("inserted again").await;
    let before = world.index.points();
    world.index.arrives_late(&first_write(&world)).expect("the collection is there");
    assert_eq!(world.index.points(), before);
}

#[tokio::test(start_paused = true)]
async fn stale_upsert_between_delete_and_reinsert_is_cleaned_up() {
    let mut world = World::calm();
    world.source.insert("tickets", document(1, "old", 3));
    world.start_all();
    world.settle("at the start").await;
    world.source.delete("tickets", json!(1));
    world.settle("deleted").await;
    world.index.arrives_late(&first_write(&world)).expect("the collection is there");
    assert_eq!(world.index.points().len(), 3, "no fence rejects a write after its acknowledgement");
    world.source.insert("tickets", document(1, "reborn", 1));
    world.settle("inserted again").await;
    assert_eq!(world.index.points().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn late_longer_version_leaves_no_chunks_behind() {
    for held_at in ["upsert", "stored", "of"] {
        let mut world = one_by_one();
        world.source.insert("tickets", document(1, "old", 2));
        world.start_all();
        world.start(UPSERTER);
        world.settle("at the start").await;
        let longer = hold(&world, held_at);
        world.source.replace("tickets", document(1, "longer", 4));
        until("the longer version", || faults(&world, held_at).hits(held_at) == 1).await;
        world.source.replace("tickets", document(1, "short", 1));
        until("the shorter version", || world.difference().is_none()).await;
        longer.open();
        world.settle(held_at).await;
        seconds(10.0).await;
        assert_eq!((world.difference(), world.index.points().len()), (None, 1), "held at {held_at}");
    }
}
