//! Retention of tombstones.

use serde_json::json;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::ports::{FenceTarget, Tombstones};
use tidewheel_stores::redis::keys::RAW_DEAD_LETTERS;

use crate::world::{DATABASE, GRACE, UPSERTER, World, document, seconds, until};

/// Longer than the interval between two collections.
const COLLECTED: f64 = 130.0;

/// A world in which document 1 was deleted, and its tombstone's target.
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

async fn has_tombstone(world: &World, target: &FenceTarget) -> bool {
    let versions = world.streams.tombstones().of(std::slice::from_ref(target)).await.expect("no fault is planned");
    versions[0].is_some()
}

#[tokio::test(start_paused = true)]
async fn tombstone_is_kept_for_the_grace_period_and_no_longer() {
    let (world, target) = deleted().await;
    seconds(GRACE.as_secs_f64() - COLLECTED).await;
    assert!(has_tombstone(&world, &target).await);
    seconds(2.0 * COLLECTED).await;
    assert!(!has_tombstone(&world, &target).await);
    assert_eq!(world.difference(), None);
}

#[tokio::test(start_paused = true)]
async fn tombstone_grace_starts_when_the_deletion_is_applied() {
    let mut world = World::calm();
    world.source.insert("tickets", document(1, "brief", 1));
    let key = world.source.rows("tickets")[0].key.clone();
    let target = FenceTarget::Document(DocumentId::new(&Namespace::new(DATABASE, "tickets"), &key));
    world.start_all();
    world.settle("at the start").await;
    world.kill(UPSERTER);
    world.source.delete("tickets", json!(1));
    // The source's time advances for longer than the grace period, with other changes.
    for number in 2..6 {
        world.source.pass(GRACE);
        world.source.insert("tickets", document(number, "later", 1));
        seconds(GRACE.as_secs_f64()).await;
    }
    world.start(UPSERTER);
    until("the backlog is applied", || world.drained()).await;
    seconds(COLLECTED).await;
    assert!(has_tombstone(&world, &target).await, "its grace period starts when it is applied");
    seconds(GRACE.as_secs_f64() + COLLECTED).await;
    assert!(!has_tombstone(&world, &target).await);
}

#[tokio::test(start_paused = true)]
async fn dead_letter_does_not_block_tombstone_collection() {
    let (world, target) = deleted().await;
    world.streams.add_raw(RAW_DEAD_LETTERS, vec![(b"reason".to_vec(), b"a test".to_vec())]);
    seconds(GRACE.as_secs_f64() + COLLECTED).await;
    assert!(!has_tombstone(&world, &target).await);
}
