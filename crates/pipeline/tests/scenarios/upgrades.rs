//! Services of different releases on the same streams.

use std::time::Duration;

use tidewheel_core::change::Change;
use tidewheel_core::ports::{Acknowledge as _, EntryId, Maintenance as _};
use tidewheel_pipeline::service::ServiceError;
use tidewheel_stores::redis::keys::{EMBEDDED, RAW, STAGE_1, STAGE_2, StreamKeys};
use tidewheel_stores::redis::wire::{FORMAT, RawFields};

use crate::world::{PROCESSOR, UPSERTER, World, document, seconds};

/// A world in which each service has done some work.
async fn working() -> World {
    let mut world = World::calm();
    world.start_all();
    for id in 0..3 {
        world.source.insert("tickets", document(id, "before", 2));
    }
    world.settle("before the upgrade").await;
    world
}

/// Adds the last entry of a stream again, in this format.
fn add(world: &World, stream: &'static str, format: Option<u32>) -> EntryId {
    let mut fields: RawFields = world.streams.raw(stream).pop().expect("an entry");
    fields.retain(|(name, _)| name != b"format");
    fields.extend(format.map(|format| (b"format".to_vec(), format.to_string().into_bytes())));
    world.streams.add_raw(stream, fields)
}

fn assert_names_versions_and_fix(ended: Result<(), ServiceError>, entry: &EntryId) {
    let error = ended.expect_err("the service stops");
    let newer = FORMAT + 1;
    let expected = format!(
        "failed to read entry {}: unsupported format {newer}: this release reads formats up to {FORMAT}",
        entry.0
    );
    assert_eq!(error.message, expected);
    assert!(error.hint.unwrap().starts_with("upgrade this service"));
}

/// No entry of the stage is lost: the newer one and its neighbours stay for other consumers.
fn assert_kept(world: &World, stage: StreamKeys, length: usize) {
    let status = world.streams.status(stage);
    assert_eq!((status.length, status.dead_letters), (length as u64, 0), "{}", stage.stream);
    assert!(status.pending > 0, "{}: unacknowledged", stage.stream);
}

#[tokio::test(start_paused = true)]
async fn older_service_stops_at_a_newer_entry_which_stays_for_an_upgraded_one() {
    for (stage, service) in [(STAGE_1, PROCESSOR), (STAGE_2, UPSERTER)] {
        let mut world = working().await;
        let newer = add(&world, stage.stream, Some(FORMAT + 1));
        let length = world.streams.raw(stage.stream).len();
        assert_names_versions_and_fix(world.ending(service).await, &newer);
        assert_kept(&world, stage, length);

        // A supervisor restarts it: it claims the entry and stops again.
        world.start(service);
        assert_names_versions_and_fix(world.ending(service).await, &newer);
        assert_kept(&world, stage, length);

        // An upgraded consumer gets the entry at once and finishes it; the other entries are unaffected.
        world.source.insert("tickets", document(9, "after", 2));
        seconds(5.0).await;
        let upgraded = world.streams.queue::<Change>(stage, "upgraded");
        let claimed = upgraded.claim(Duration::MAX, 100).await.unwrap().deliveries;
        assert_eq!(claimed.first().map(|delivery| &delivery.id), Some(&newer));
        upgraded.acknowledge(&[newer]).await.unwrap();
        world.start(service);
        world.settle("after the upgrade").await;
    }
}

#[tokio::test(start_paused = true)]
async fn entries_of_the_previous_release_are_processed() {
    let world = working().await;
    for stream in [RAW, EMBEDDED] {
        add(&world, stream, None);
    }
    world.source.replace("tickets", document(1, "after", 1));
    world.settle("entries of both releases").await;
    for stage in [STAGE_1, STAGE_2] {
        assert_eq!(world.streams.status(stage).dead_letters, 0, "{}", stage.stream);
    }
}
