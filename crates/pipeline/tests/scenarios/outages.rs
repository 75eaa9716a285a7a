//! Outages and rejections of the embedder and of Qdrant.

use std::time::Duration;

use serde_json::json;
use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::ports::IndexWriter;
use tidewheel_stores::redis::keys::{EMBEDDED, EMBEDDED_DEAD_LETTERS, RAW, RAW_DEAD_LETTERS, STAGE_1, STAGE_2};
use tidewheel_testkit::fakes::embedder::{Distortion, broken};
use tidewheel_testkit::fakes::faults::Fault;

use crate::world::{DATABASE, DIMENSION, HIGH_WATER, PROCESSOR, PRODUCER, UPSERTER, World, document, seconds, until};

/// Five documents waiting in stage 1 in this order, and no processor yet.
async fn waiting() -> World {
    let mut world = World::calm();
    world.consumer.batch = 5;
    for id in 0..5 {
        world.source.insert("tickets", document(id, &format!("name{id}"), 1));
    }
    // Makes the documents older than the snapshot, so that the feed does not contain them too.
    world.source.pass(Duration::from_secs(1));
    world.start(PRODUCER);
    world.start(UPSERTER);
    until("the snapshot", || world.streams.records::<Change>(RAW).len() == 5).await;
    world
}

/// The numbers of dead letters of both stages.
fn letters(world: &World) -> [usize; 2] {
    [RAW_DEAD_LETTERS, EMBEDDED_DEAD_LETTERS].map(|stream| world.streams.raw(stream).len())
}

/// The reason of the only dead letter.
fn reason(world: &World, stream: &str) -> String {
    let letters = world.streams.raw(stream);
    assert_eq!(letters.len(), 1);
    let reason = letters[0].iter().find(|(name, _)| name.as_slice() == b"reason");
    String::from_utf8(reason.expect("it has one").1.clone()).expect("text")
}

/// Waits until all documents except this one are in the index, and deletes it, so that the index equals the source.
async fn settles_without(world: &World, id: i32) {
    until("the end", || world.drained()).await;
    let missing = world.difference().expect("it is not in the index");
    assert!(missing.contains(&format!("\"{id}\"")) && missing.ends_with("is missing"), "{missing}");
    world.source.delete("tickets", json!(id));
    world.settle("without it").await;
}

#[tokio::test(start_paused = true)]
async fn embedder_outage_of_hours_loses_no_document() {
    let mut world = waiting().await;
    world.embedder.faults().always("embed", broken());
    world.start(PROCESSOR);
    seconds(3.0 * 3_600.0).await;
    let attempts = world.embedder.faults().hits("embed");
    assert!(attempts > 1_000, "only {attempts} attempts");
    assert_eq!((letters(&world), world.index.points().len()), ([0, 0], 0));
    world.embedder.faults().heal();
    world.settle("after the outage").await;
    assert_eq!(letters(&world), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn text_that_cannot_be_embedded_is_parked_and_its_neighbours_arrive() {
    let mut world = waiting().await;
    world.embedder.poison("name2 name2 name2 name2");
    world.start(PROCESSOR);
    settles_without(&world, 2).await;
    assert_eq!(letters(&world), [1, 0]);
    assert!(reason(&world, RAW_DEAD_LETTERS).contains("name2"));
    assert!(world.embedder.batches().iter().any(|batch| batch.len() == 5), "all in one batch");
}

#[tokio::test(start_paused = true)]
async fn documents_with_unusable_vectors_are_parked() {
    for distortion in [Distortion::NotANumber, Distortion::Infinite, Distortion::Zero] {
        let mut world = waiting().await;
        world.embedder.spoil("name0 name0 name0 name0", distortion);
        world.start(PROCESSOR);
        settles_without(&world, 0).await;
        let reason = reason(&world, RAW_DEAD_LETTERS);
        assert!(reason.contains("vector"), "{distortion:?}: {reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn response_with_wrong_dimension_stops_the_processor_and_loses_nothing() {
    let mut world = waiting().await;
    world.embedder.distort_always(Distortion::OtherDimension);
    world.start(PROCESSOR);
    let error = world.ending(PROCESSOR).await.expect_err("the service stops");
    assert!(error.to_string().contains("dimension"), "{error}");
    assert_eq!(letters(&world), [0, 0]);
    world.embedder.cure();
    world.start(PROCESSOR);
    world.settle("with a new processor").await;
}

#[tokio::test(start_paused = true)]
async fn document_that_qdrant_rejects_is_parked_and_its_neighbours_arrive() {
    let mut world = waiting().await;
    world.kill(UPSERTER);
    world.start(PROCESSOR);
    until("stage 2", || world.streams.records::<Embedded>(EMBEDDED).len() == 5).await;
    let key = &world.source.rows("tickets")[3].key;
    world.index.refuse(DocumentId::new(&Namespace::new(DATABASE, "tickets"), key));
    world.start(UPSERTER);
    settles_without(&world, 3).await;
    assert_eq!(letters(&world), [0, 1]);
    assert!(reason(&world, EMBEDDED_DEAD_LETTERS).contains("injected"));
}

#[tokio::test(start_paused = true)]
async fn qdrant_outage_of_hours_loses_no_document() {
    let mut world = waiting().await;
    for call in ["exists", "upsert", "stored", "delete", "count", "points", "page"] {
        world.index.faults().always(call, Fault::unreachable());
    }
    world.start(PROCESSOR);
    world.source.replace("tickets", document(1, "while", 2));
    seconds(3.0 * 3_600.0).await;
    assert!(world.index.faults().hits("exists") > 1_000);
    assert_eq!((letters(&world), world.index.points().len()), ([0, 0], 0));
    world.index.faults().heal();
    world.settle("after the outage").await;
    assert_eq!(letters(&world), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn collection_with_wrong_dimension_stops_the_upserter_and_loses_nothing() {
    let mut world = waiting().await;
    world.index.prepare(DIMENSION + 1).await.expect("no collection before");
    world.start(PROCESSOR);
    let error = world.ending(UPSERTER).await.expect_err("the service stops");
    assert!(error.to_string().contains("dimension"), "{error}");
    assert_eq!(letters(&world), [0, 0]);
    world.index.drop_collection();
    world.start(UPSERTER);
    world.settle("with a matching collection").await;
}

#[tokio::test(start_paused = true)]
async fn stage_1_is_bounded_while_no_processor_runs() {
    let mut world = World::calm();
    world.stage_1_high_water = HIGH_WATER;
    for id in 0..200 {
        world.source.insert("tickets", document(id, "waits", 1));
    }
    world.start(PRODUCER);
    seconds(600.0).await;
    // The producer reads the backlog once for a quarter of the mark, and appends pages of three rows.
    let held = world.streams.records::<Change>(RAW).len() as u64;
    assert!((HIGH_WATER..HIGH_WATER + HIGH_WATER / 4 + 3).contains(&held), "{held}");
    world.start(PROCESSOR);
    world.start(UPSERTER);
    world.settle("the processor runs").await;
    assert_eq!((letters(&world), world.index.points().len()), ([0, 0], 200));
}

#[tokio::test(start_paused = true)]
async fn stage_2_is_bounded_while_qdrant_is_down() {
    let mut world = World::calm();
    for id in 0..200 {
        world.source.insert("tickets", document(id, "waits", 1));
    }
    world.index.faults().always("upsert", Fault::unreachable());
    world.start_all();
    seconds(600.0).await;
    assert!(world.index.faults().hits("upsert") > 10);
    let unconfirmed = |stage| {
        let status = world.streams.status(stage);
        status.pending + status.lag.expect("the fake knows")
    };
    // Batches in flight when the mark is reached are handed over: two batches of four.
    let held = unconfirmed(STAGE_2);
    assert!((HIGH_WATER..=HIGH_WATER + 2 * HIGH_WATER / 4 + 8).contains(&held), "{held}");
    assert!(unconfirmed(STAGE_1) >= 100, "stage 1 holds the rest");
    world.index.faults().heal();
    world.settle("Qdrant is back").await;
    assert_eq!(letters(&world), [0, 0]);
}
