//! Permanent losses and the cost of their repair.

use std::collections::BTreeSet;

use serde_json::json;
use tidewheel_core::change::{Change, Operation};
use tidewheel_stores::redis::keys::{EMBEDDED, RAW, STAGE_1, STAGE_2, StreamKeys};
use tidewheel_testkit::fakes::faults::{Fault, Gate};

use crate::world::{PROCESSOR, PRODUCER, TAKEN_OVER, UPSERTER, World, document, seconds, until};

/// An idle world with some documents.
pub async fn filled() -> World {
    let mut world = World::calm();
    for id in 0..10 {
        world.source.insert("tickets", document(id, &format!("old{id}"), 1 + id as usize % 3));
    }
    world.source.insert("notes", document(1, "note", 1));
    world.start_all();
    world.settle("at the start").await;
    // Until the snapshot is done: the sweep waits until the source's time has advanced.
    seconds(25.0).await;
    world
}

#[derive(Clone, Copy, Debug)]
enum Loss {
    Everything,
    Stream,
    Token,
    Group,
}

/// A loss: while the pipeline is idle, or while changes wait in both stages.
async fn lost(loss: Loss, stage: StreamKeys, busy: bool) {
    let what = format!("{loss:?}, {}, busy: {busy}", stage.stream);
    let mut world = filled().await;
    if busy {
        world.kill(UPSERTER);
        seconds(1.0).await;
        world.source.replace("tickets", document(1, "stage2", 3));
        world.source.delete("tickets", json!(2));
        until("stage 2", || world.streams.status(STAGE_2).lag == Some(2)).await;
        world.kill(PROCESSOR);
        seconds(2.0).await;
        world.source.replace("tickets", document(3, "stage1", 1));
        world.source.delete("tickets", json!(4));
        until("stage 1", || world.streams.status(STAGE_1).lag == Some(2)).await;
    }
    match loss {
        Loss::Everything => world.streams.wipe(),
        Loss::Stream => world.streams.delete_stream(stage.stream),
        Loss::Token => world.streams.delete_checkpoint(),
        Loss::Group => world.streams.destroy_group(stage),
    }
    seconds(0.3).await;
    world.source.replace("tickets", document(5, "later", 2));
    world.source.delete("tickets", json!(6));
    if busy {
        world.start(PROCESSOR);
        world.start(UPSERTER);
    }
    world.settle(&what).await;
    seconds(20.0).await;
    assert_eq!(world.difference(), None, "{what}, some time later");
    assert!(world.drained(), "{what}");
}

#[tokio::test(start_paused = true)]
async fn wiped_redis_is_repaired() {
    for busy in [false, true] {
        lost(Loss::Everything, STAGE_1, busy).await;
    }
}

#[tokio::test(start_paused = true)]
async fn deleted_stream_is_repaired() {
    for (stage, busy) in [(STAGE_1, false), (STAGE_1, true), (STAGE_2, false), (STAGE_2, true)] {
        lost(Loss::Stream, stage, busy).await;
    }
}

#[tokio::test(start_paused = true)]
async fn missing_checkpoint_triggers_a_full_comparison() {
    for busy in [false, true] {
        lost(Loss::Token, STAGE_1, busy).await;
    }
}

#[tokio::test(start_paused = true)]
async fn destroyed_group_reads_from_the_beginning() {
    for (stage, busy) in [(STAGE_1, false), (STAGE_1, true), (STAGE_2, false), (STAGE_2, true)] {
        lost(Loss::Group, stage, busy).await;
    }
}

#[tokio::test(start_paused = true)]
async fn lost_history_removes_deleted_documents_and_embeds_only_differences() {
    let mut world = filled().await;
    world.kill(PRODUCER);
    let before = world.embedder.batches().len();
    let appended = world.streams.records::<Change>(RAW).len();
    for id in [0, 3, 7] {
        world.source.delete("tickets", json!(id));
    }
    world.source.replace("tickets", document(1, "fresh", 2));
    world.source.insert("tickets", document(11, "unseen", 1));
    world.source.lose_history();
    world.start(PRODUCER);
    world.settle("after the comparison").await;
    let texts: BTreeSet<String> = world.embedder.batches()[before..].concat().into_iter().collect();
    assert_eq!(world.embedder.batches()[before..].concat().len(), 2, "each text once");
    assert!(texts.iter().all(|text| text.contains("fresh") || text.contains("unseen")), "{texts:?}");
    let of = |operation| {
        let records = world.streams.records::<Change>(RAW).into_iter().skip(appended);
        records.filter(|(_, change)| change.operation == operation).count()
    };
    assert_eq!((of(Operation::Delete), of(Operation::Read)), (3, 2), "none of it came from the feed");
}

#[tokio::test(start_paused = true)]
async fn collection_deleted_while_idle_is_refilled() {
    let world = filled().await;
    let points = world.index.points().len();
    world.index.drop_collection();
    assert!(world.difference().is_some());
    world.settle("refilled").await;
    assert_eq!((world.index.points().len(), world.index.calls("prepare")), (points, 2));
}

/// The collection is deleted while the first write of a new upserter is held at this call.
pub async fn deleted_at(held_at: &'static str) {
    let mut world = filled().await;
    // A new instance prepares the collection before its first write.
    world.kill(UPSERTER);
    world.start(UPSERTER);
    let gate = Gate::closed();
    world.index.faults().once(held_at, Fault::Held(gate.clone()));
    world.source.replace("tickets", document(2, "short", 1));
    world.source.replace("tickets", document(1, "longer", 5));
    until(held_at, || world.index.faults().hits(held_at) == 1).await;
    world.index.drop_collection();
    seconds(0.2).await;
    gate.open();
    world.settle(held_at).await;
    seconds(20.0).await;
    assert_eq!(world.difference(), None, "held at {held_at}");
}

#[tokio::test(start_paused = true)]
async fn collection_deleted_during_a_write_is_refilled() {
    for held_at in ["exists", "upsert", "stored", "delete"] {
        deleted_at(held_at).await;
    }
}

#[tokio::test(start_paused = true)]
async fn entries_deleted_while_pending_are_appended_again() {
    for stream in [RAW, EMBEDDED] {
        let mut world = filled().await;
        let service = if stream == RAW { PROCESSOR } else { UPSERTER };
        let (call, faults) = match stream {
            RAW => ("embed", world.embedder.faults().clone()),
            _ => ("upsert", world.index.faults().clone()),
        };
        faults.once(call, Fault::Held(Gate::closed()));
        world.source.replace("tickets", document(1, "late", 2));
        until(call, || faults.hits(call) == 1).await;
        world.kill(service);
        world.streams.trim_all(stream);
        world.start(service);
        seconds(TAKEN_OVER.as_secs_f64()).await;
        world.settle(stream).await;
    }
}
