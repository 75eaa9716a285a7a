//! For how long a deletion is remembered.

use std::time::Duration;

use serde_json::json;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::ports::{FenceTarget, Tombstones};
use tidewheel_core::streams::RAW_DEAD_LETTERS;

use crate::world::{DATABASE, GRACE, UPSERTER, World, document, seconds, until};

/// Longer than the time from one collection to the next.
const COLLECTED: f64 = 130.0;

/// A world in which document 1 was deleted, and that document.
async fn deleted() -> (World, FenceTarget) {
    let mut world = World::calm();
    world.source.insert("tickets", document(1, "brief", 1));
    world.source.insert("tickets", document(2, "stays", 1));
    let key = world.source.rows("tickets")[0].key.clone();
    world.start_all();
    world.settle("at the start").await;
    world.source.delete("tickets", json!(1));
    world.settle("deleted").await;
    (world, FenceTarget::Document(DocumentId::new(&Namespace::new(DATABASE, "tickets"), &key)))
}

async fn is_remembered(world: &World, target: &FenceTarget) -> bool {
    let versions = world.streams.tombstones().of(std::slice::from_ref(target)).await.expect("no fault is planned");
    versions[0].is_some()
}

/// The source's clock moves on, and a change shows it.
fn passes(world: &World, time: Duration) {
    world.source.pass(time);
    world.source.replace("tickets", document(2, "stays", 1));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_remembered_for_the_grace_and_no_longer() {
    let (world, target) = deleted().await;
    passes(&world, GRACE - Duration::from_secs(1));
    seconds(COLLECTED).await;
    assert!(is_remembered(&world, &target).await);
    passes(&world, Duration::from_secs(2));
    seconds(COLLECTED).await;
    assert!(!is_remembered(&world, &target).await);
    assert_eq!(world.difference(), None);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_remembered_while_a_dead_letter_could_bring_it_back() {
    let (world, target) = deleted().await;
    world.streams.add_raw(RAW_DEAD_LETTERS, vec![(b"reason".to_vec(), b"a test".to_vec())]);
    passes(&world, 2 * GRACE);
    seconds(COLLECTED).await;
    assert!(is_remembered(&world, &target).await);
    world.streams.delete_stream(RAW_DEAD_LETTERS);
    seconds(COLLECTED).await;
    assert!(!is_remembered(&world, &target).await);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_remembered_while_an_older_change_may_be_on_its_way() {
    let (mut world, target) = deleted().await;
    world.kill(UPSERTER);
    seconds(1.0).await;
    passes(&world, 2 * GRACE);
    seconds(COLLECTED).await;
    assert!(is_remembered(&world, &target).await, "what came after the deletion is not in the index");
    world.start(UPSERTER);
    until("the collection", || world.drained()).await;
    seconds(COLLECTED).await;
    assert!(!is_remembered(&world, &target).await);
}
