//! Reuse of vectors.

use serde_json::{Value, json};
use tidewheel_testkit::fakes::embedder::broken;
use tidewheel_testkit::fakes::faults::{Fault, Gate};

use crate::world::{CHUNK, DIMENSION, PROCESSOR, PRODUCER, TAKEN_OVER, UPSERTER, World, seconds, until};

/// A document with one chunk for each of these words, and a field that is not embedded.
fn ticket(id: i32, words: &[&str], state: &str) -> Value {
    let chunks: Vec<String> = words.iter().map(|word| [*word; CHUNK].join(" ")).collect();
    json!({"_id": id, "text": chunks.join(" "), "state": state})
}

/// The number of texts embedded.
fn embedded(world: &World) -> usize {
    world.embedder.batches().concat().len()
}

/// All services, and one document of three chunks in the index.
async fn with_one() -> World {
    let mut world = World::calm();
    world.start_all();
    world.source.insert("tickets", ticket(1, &["ebb", "flow", "tide"], "open"));
    world.settle("the first version").await;
    assert_eq!(embedded(&world), 3);
    world
}

#[tokio::test(start_paused = true)]
async fn payload_only_change_embeds_nothing_and_writes_no_vector() {
    let world = with_one().await;
    let upserts = world.index.calls("upsert");
    for state in ["answered", "closed"] {
        world.source.replace("tickets", ticket(1, &["ebb", "flow", "tide"], state));
        world.settle(state).await;
    }
    assert_eq!((embedded(&world), world.index.calls("upsert")), (3, upserts));
    assert_eq!(world.index.calls("refresh"), 2);
}

#[tokio::test(start_paused = true)]
async fn only_changed_chunks_are_embedded() {
    let world = with_one().await;
    world.source.replace("tickets", ticket(1, &["ebb", "wave", "tide"], "open"));
    world.settle("one chunk changed").await;
    assert_eq!(embedded(&world), 4);
    // Chunks that moved, and one that occurs twice, are reused too.
    world.source.replace("tickets", ticket(1, &["tide", "ebb", "ebb"], "open"));
    world.settle("chunks moved").await;
    assert_eq!(embedded(&world), 4);
    world.source.replace("tickets", ticket(1, &["tide"], "open"));
    world.settle("shorter").await;
    assert_eq!((embedded(&world), world.index.points().len()), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn text_shared_by_documents_of_a_batch_is_embedded_once() {
    let mut world = World::calm();
    world.consumer.batch = 64;
    world.start(PRODUCER);
    for id in 0..4 {
        world.source.insert("tickets", ticket(id, &["same"], "open"));
    }
    seconds(3.0).await;
    world.start(PROCESSOR);
    world.start(UPSERTER);
    world.settle("four documents").await;
    assert_eq!((embedded(&world), world.index.points().len()), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn many_queued_versions_of_one_document_cost_one_embedding() {
    let mut world = with_one().await;
    world.kill(PROCESSOR);
    // Several times the size of a batch.
    let versions: Vec<String> = (0..30).map(|version| format!("version{}", (b'a' + version) as char)).collect();
    for version in &versions {
        world.source.replace("tickets", ticket(1, &[&version[version.len() - 1..]], "open"));
    }
    seconds(5.0).await;
    world.start(PROCESSOR);
    world.settle("the newest version").await;
    assert_eq!(embedded(&world), 4);
}

#[tokio::test(start_paused = true)]
async fn unresponsive_index_costs_embedding_only() {
    for fault in [broken(), Fault::Held(Gate::closed())] {
        let world = with_one().await;
        world.index.faults().always("known", fault);
        for state in ["answered", "closed"] {
            world.source.replace("tickets", ticket(1, &["ebb", "flow", "tide"], state));
            world.settle(state).await;
        }
        assert_eq!(embedded(&world), 9);
        assert_eq!(world.index.faults().hits("known"), 1, "the index is not queried for a while");
    }
}

/// The processor's read of the index is stale when the payload is written.
#[tokio::test(start_paused = true)]
async fn document_is_written_completely_if_its_vectors_change_before_the_payload_write() {
    for late in [false, true] {
        let world = with_one().await;
        // The second version is in flight to the index when the third, with the first one's text, is processed.
        let gate = Gate::closed();
        world.index.faults().once("upsert", Fault::Held(gate.clone()));
        world.source.replace("tickets", ticket(1, &["wave", "flow", "surf"], "answered"));
        until("the second version's write", || world.index.faults().hits("upsert") == 1).await;
        let held = Gate::closed();
        world.index.faults().once("refresh", Fault::Held(held.clone()));
        world.source.replace("tickets", ticket(1, &["ebb", "flow", "tide"], "closed"));
        until("the third version's write", || world.index.faults().hits("refresh") == 1).await;
        let (first, second) = if late { (held, gate) } else { (gate, held) };
        first.open();
        seconds(1.0).await;
        second.open();
        // Also checks every vector.
        world.settle("the third version").await;
    }
}

#[tokio::test(start_paused = true)]
async fn crash_between_payload_write_and_acknowledgement_changes_nothing() {
    let mut world = with_one().await;
    world.index.faults().once("refresh", Fault::answer_lost());
    world.source.replace("tickets", ticket(1, &["ebb", "flow", "tide"], "closed"));
    until("the payload's write", || world.index.faults().hits("refresh") == 1).await;
    world.kill(UPSERTER);
    world.start(UPSERTER);
    seconds(2.0 * TAKEN_OVER.as_secs_f64()).await;
    world.settle("after the crash").await;
    assert_eq!(embedded(&world), 3);
    assert!(world.index.points().iter().all(|point| point.vector.len() == DIMENSION));
}
