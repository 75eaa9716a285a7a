//! Inputs for which a server fails while it accepts others, and servers that fail for everything.

use std::collections::BTreeSet;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::json;
use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::error::{Cause, PortError, Server};
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::metric::ENTRIES_PARKED;
use tidewheel_core::ports::{Appended, Checkpoint, DeadLetters as _, EntryId, Journal as _, SnapshotState};
use tidewheel_core::stage::Stage;
use tidewheel_pipeline::parking::OnDeadLetter;
use tidewheel_pipeline::processor::Blank;
use tidewheel_stores::redis::keys::{EMBEDDED, EMBEDDED_DEAD_LETTERS, RAW, RAW_DEAD_LETTERS, STAGE_1};
use tidewheel_testkit::fakes::embedder::Distortion;
use tidewheel_testkit::fakes::faults::Fault;

use crate::world::{DATABASE, PROCESSOR, PRODUCER, SERVICES, TAKEN_OVER, UPSERTER, World, document, seconds, until};

/// The server of the streams.
const STREAMS: Server = Server::opaque("redis");

/// The server of the index.
const INDEX: Server = Server::named("qdrant");

/// Every way in which a server can fail for one input.
fn failures(server: Server) -> Vec<PortError> {
    let transient = [Cause::Other, Cause::Unreachable, Cause::Timeout, Cause::Busy, Cause::Refused];
    let transient = transient.map(|cause| PortError::transient(format!("injected: {cause:?}")).because(server, cause));
    let poison = PortError::poison("injected: rejected").because(server, Cause::Refused);
    let denied = PortError::fatal("injected: 403 from a proxy").because(server, Cause::Denied);
    transient.into_iter().chain([poison, denied]).collect()
}

fn text(name: &str) -> String {
    [name; 4].join(" ")
}

/// Documents 0 to `count` in stage 1, and no processor yet.
async fn waiting(count: i32) -> World {
    let mut world = World::calm();
    world.consumer.batch = 16;
    for id in 0..count {
        world.source.insert("tickets", document(id, &format!("name{id}"), 1));
    }
    world.source.pass(Duration::from_secs(1));
    world.start(PRODUCER);
    until("the snapshot", || world.streams.records::<Change>(RAW).len() == count as usize).await;
    world
}

fn letters(world: &World) -> [usize; 2] {
    [RAW_DEAD_LETTERS, EMBEDDED_DEAD_LETTERS].map(|stream| world.streams.raw(stream).len())
}

fn id_of(world: &World, id: i32) -> DocumentId {
    let rows = world.source.rows("tickets");
    let row = rows.iter().find(|row| row.id == id.to_string()).expect("it is there");
    DocumentId::new(&Namespace::new(DATABASE, "tickets"), &row.key)
}

/// Waits until the streams are drained: an item that fails with overload is retried for more than a minute before it is
/// parked.
async fn drained(world: &World) {
    for _ in 0..6_000 {
        if world.drained() {
            return;
        }
        seconds(0.1).await;
    }
    panic!("the streams are not drained");
}

/// Waits until the streams are drained, and deletes these documents, so that the index equals the source.
async fn settles_without(world: &World, ids: &[i32]) {
    drained(world).await;
    for id in ids {
        world.source.delete("tickets", json!(id));
    }
    world.settle("without them").await;
}

#[tokio::test(start_paused = true)]
async fn texts_that_fail_in_the_embedder_are_parked_and_all_others_arrive_for_every_error() {
    for error in failures(Server::EMBEDDER) {
        let mut world = waiting(64).await;
        for bad in [3, 17, 18, 40] {
            world.embedder.fail_for(text(&format!("name{bad}")), error.clone());
        }
        world.start(PROCESSOR);
        world.start(UPSERTER);
        settles_without(&world, &[3, 17, 18, 40]).await;
        assert_eq!(letters(&world), [4, 0], "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn texts_without_a_valid_vector_are_parked_and_all_others_arrive() {
    for distortion in Distortion::ALL {
        let mut world = waiting(20).await;
        for bad in [2, 9, 13] {
            world.embedder.spoil(text(&format!("name{bad}")), distortion);
        }
        world.start(PROCESSOR);
        world.start(UPSERTER);
        settles_without(&world, &[2, 9, 13]).await;
        assert_eq!(letters(&world), [3, 0], "{distortion:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn batch_of_one_text_with_wrong_dimension_is_parked_and_processor_continues() {
    let mut world = waiting(3).await;
    world.start(PROCESSOR);
    world.start(UPSERTER);
    world.settle("all are indexed").await;
    world.embedder.spoil(text("odd"), Distortion::OtherDimension);
    world.source.insert("tickets", document(10, "odd", 1));
    until("the text is parked", || letters(&world) == [1, 0] && world.drained()).await;
    // A single wrong response: the probe is right, and so is the next response.
    world.embedder.distort_once(Distortion::OtherDimension);
    world.source.insert("tickets", document(11, "fine", 1));
    settles_without(&world, &[10]).await;
    assert_eq!(letters(&world), [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn documents_that_fail_in_qdrant_are_parked_and_all_others_arrive_for_every_error() {
    for error in failures(INDEX) {
        let mut world = waiting(32).await;
        for bad in [0, 15, 16, 31] {
            world.index.fail_for(id_of(&world, bad), error.clone());
        }
        world.start(PROCESSOR);
        until("stage 2", || world.streams.records::<Embedded>(EMBEDDED).len() == 32).await;
        world.start(UPSERTER);
        drained(&world).await;
        assert_eq!(letters(&world), [0, 4], "{error}");
        world.index.cure();
        settles_without(&world, &[0, 15, 16, 31]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn deletions_that_fail_in_qdrant_are_parked_and_all_others_arrive() {
    for error in failures(INDEX) {
        let mut world = waiting(16).await;
        world.start(PROCESSOR);
        world.start(UPSERTER);
        world.settle("all are indexed").await;
        // Until the snapshot is done: its sweep would find the leftover points and delete them again.
        seconds(60.0).await;
        let kept = [1, 8].map(|id| id_of(&world, id));
        for document in kept {
            world.index.fail_to_delete(document, error.clone());
        }
        for id in 0..16 {
            world.source.delete("tickets", json!(id));
        }
        seconds(1.0).await;
        drained(&world).await;
        assert_eq!(letters(&world), [0, 2], "{error}");
        let left = world.index.points().into_iter().map(|point| point.id).collect::<Vec<_>>();
        let mut expected = kept.map(|document| document.point(0));
        expected.sort_unstable();
        assert_eq!(left, expected, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_rejects_every_text_is_waited_out_and_parks_nothing() {
    for error in failures(Server::EMBEDDER) {
        let mut world = waiting(40).await;
        world.embedder.faults().always("embed", Fault::Refused(error.clone()));
        world.start(PROCESSOR);
        world.start(UPSERTER);
        seconds(3_600.0).await;
        assert_eq!((letters(&world), world.index.points().len()), ([0, 0], 0), "{error}");
        world.embedder.faults().heal();
        world.settle("after the recovery").await;
        assert_eq!(letters(&world), [0, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn qdrant_that_rejects_every_write_is_waited_out_and_parks_nothing() {
    for error in failures(INDEX) {
        let mut world = waiting(40).await;
        for call in ["upsert", "refresh"] {
            world.index.faults().always(call, Fault::Refused(error.clone()));
        }
        world.start(PROCESSOR);
        world.start(UPSERTER);
        seconds(3_600.0).await;
        assert_eq!((letters(&world), world.index.points().len()), ([0, 0], 0), "{error}");
        world.index.faults().heal();
        world.settle("after the recovery").await;
        assert_eq!(letters(&world), [0, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn full_disk_is_waited_out_even_though_small_writes_succeed() {
    let mut world = waiting(10).await;
    let full = PortError::transient("injected: No space left on device").because(INDEX, Cause::Full);
    world.index.faults().always("upsert", Fault::Refused(full));
    world.start(PROCESSOR);
    world.start(UPSERTER);
    seconds(3_600.0).await;
    assert_eq!(letters(&world), [0, 0]);
    world.index.faults().heal();
    world.settle("once there is space").await;
}

/// An indexed document with a newer state that cannot be embedded.
async fn parked_update(policy: OnDeadLetter) -> World {
    let mut world = waiting(3).await;
    world.on_dead_letter = policy;
    world.start(PROCESSOR);
    world.start(UPSERTER);
    world.settle("all are indexed").await;
    world.embedder.poison(text("bad"));
    world.source.replace("tickets", document(1, "bad", 1));
    seconds(1.0).await;
    until("the update is parked", || letters(&world) == [1, 0] && world.drained()).await;
    world
}

#[tokio::test(start_paused = true)]
async fn parked_update_keeps_or_removes_the_older_version_by_policy() {
    let kept = parked_update(OnDeadLetter::Keep).await;
    assert!(kept.difference().expect("it is stale").contains("stale"));
    let removed = parked_update(OnDeadLetter::Remove).await;
    assert!(removed.difference().expect("it is missing").contains("missing"));
    // The same change is retried and wins over its own removal.
    removed.embedder.cure();
    let dead = removed.streams.dead_letters();
    let parked = dead.letters(Stage::Raw, &EntryId::zero(), 10).await.expect("dead letters are readable");
    let ids: Vec<EntryId> = parked.into_iter().map(|letter| letter.id).collect();
    assert_eq!(dead.retry(Stage::Raw, &ids).await.expect("retry succeeds").moved, 1);
    removed.settle("after the retry").await;
}

/// The `_id`s of the documents in the index.
fn indexed(world: &World) -> BTreeSet<i64> {
    world.index.points().iter().map(|point| point.payload["_id"].as_i64().expect("a number")).collect()
}

#[tokio::test(start_paused = true)]
async fn records_that_redis_rejects_are_parked_and_older_versions_kept_or_removed_by_policy() {
    for policy in [OnDeadLetter::Keep, OnDeadLetter::Remove] {
        let mut world = waiting(6).await;
        world.on_dead_letter = policy;
        world.start(PROCESSOR);
        world.start(UPSERTER);
        world.settle("all are indexed").await;
        world.kill(PROCESSOR);
        let before = world.streams.records::<Change>(RAW).len();
        // Fourteen vectors are larger than that; the documents are not.
        world.streams.limit(400);
        world.source.replace("tickets", document(1, "w", 14));
        world.source.replace("tickets", document(4, "older", 1));
        world.source.replace("tickets", document(4, "w", 15));
        world.source.insert("tickets", document(10, "w", 16));
        world.source.insert("tickets", document(11, "fine", 1));
        until("all changes", || world.streams.records::<Change>(RAW).len() == before + 5).await;
        world.start(PROCESSOR);
        drained(&world).await;
        assert_eq!(letters(&world), [3, 0], "{policy:?}");
        let expected = match policy {
            OnDeadLetter::Keep => BTreeSet::from([0, 1, 2, 3, 4, 5, 11]),
            OnDeadLetter::Remove => BTreeSet::from([0, 2, 3, 5, 11]),
        };
        assert_eq!(indexed(&world), expected, "{policy:?}");
        // The same changes are retried and win over their own removal.
        world.streams.limit(usize::MAX);
        let dead = world.streams.dead_letters();
        let parked = dead.letters(Stage::Raw, &EntryId::zero(), 10).await.expect("dead letters are readable");
        let ids: Vec<EntryId> = parked.into_iter().map(|letter| letter.id).collect();
        assert_eq!(dead.retry(Stage::Raw, &ids).await.expect("retry succeeds").moved, 3);
        world.settle("after the retry").await;
    }
}

#[tokio::test(start_paused = true)]
async fn older_deletion_is_applied_when_an_insert_of_the_same_batch_is_parked() {
    for stage in [1, 2] {
        let mut world = waiting(3).await;
        world.start(PROCESSOR);
        world.start(UPSERTER);
        world.settle("all are indexed").await;
        let id = id_of(&world, 1);
        world.kill(if stage == 1 { PROCESSOR } else { UPSERTER });
        let before = world.streams.records::<Change>(RAW).len();
        world.source.delete("tickets", json!(1));
        world.source.insert("tickets", document(1, "bad", 1));
        until("both changes", || world.streams.records::<Change>(RAW).len() == before + 2).await;
        if stage == 1 {
            world.embedder.poison(text("bad"));
            world.start(PROCESSOR);
        } else {
            until("stage 2", || world.drained_by(STAGE_1)).await;
            world.index.fail_for(id, PortError::transient("injected"));
            world.start(UPSERTER);
        }
        until("the insert is parked", || letters(&world)[stage - 1] == 1 && world.drained()).await;
        assert!(world.index.points().iter().all(|point| point.id != id.point(0)), "stage {stage}");
    }
}

#[tokio::test(start_paused = true)]
async fn documents_without_text_are_indexed_without_the_embedder_or_skipped() {
    for blank in [Blank::Index, Blank::Skip] {
        let mut world = waiting(2).await;
        world.blank = blank;
        world.start(PROCESSOR);
        world.start(UPSERTER);
        world.settle("all are indexed").await;
        world.source.replace("tickets", json!({"_id": 1, "text": " \n"}));
        for (id, text) in [(10, json!("")), (11, json!("\u{200b}")), (12, json!(null)), (13, json!("\t\u{a0}"))] {
            world.source.insert("tickets", json!({"_id": id, "text": text}));
        }
        seconds(1.0).await;
        until("the end", || world.drained()).await;
        if blank == Blank::Index {
            world.settle("blank ones too").await;
        } else {
            assert_eq!(world.index.points().len(), 1, "an older version of a blank document is deleted");
        }
        let asked = world.embedder.batches().concat();
        assert!(asked.iter().all(|text| !text.trim().is_empty()), "{asked:?}");
        assert_eq!(letters(&world), [0, 0]);
    }
}

/// Failures of an append that can be due to one change.
fn rejections() -> Vec<PortError> {
    let causes = [Cause::Refused, Cause::Unreachable, Cause::Timeout, Cause::Other];
    causes.map(|cause| PortError::transient(format!("injected: {cause:?}")).because(STREAMS, cause)).into()
}

/// Ids of the parked changes of stage 1.
async fn parked(world: &World) -> Vec<String> {
    let letters = world.streams.dead_letters().letters(Stage::Raw, &EntryId::zero(), 100).await.expect("readable");
    letters.iter().map(|letter| letter.record.as_ref().expect("a change").change.id.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn changes_that_redis_rejects_are_parked_and_their_neighbours_arrive_for_every_error() {
    for error in rejections() {
        let mut world = World::calm();
        // Some for the snapshot, others for the feed.
        for id in 0..7 {
            world.source.insert("tickets", document(id, &format!("name{id}"), 1));
        }
        world.source.pass(Duration::from_secs(1));
        for bad in ["name3", "name12", "name13", "name40"] {
            world.streams.reject(text(bad), error.clone());
        }
        world.start_all();
        until("the snapshot", || world.index.points().len() == 6).await;
        world.streams.faults().always("append", Fault::unreachable());
        for id in 7..60 {
            world.source.insert("tickets", document(id, &format!("name{id}"), 1));
        }
        seconds(5.0).await;
        world.streams.faults().heal();
        until("the neighbours", || world.index.points().len() == 56).await;
        assert_eq!(parked(&world).await, ["3", "12", "13", "40"], "{error}");
        let inserted = world.streams.records::<Change>(RAW).len();
        assert_eq!(inserted, 56, "each is appended once");
        settles_without(&world, &[3, 12, 13, 40]).await;
    }
}

/// A world whose initial snapshot is done: later changes arrive from the change stream only.
async fn following() -> World {
    let mut world = World::calm();
    world.start_all();
    for _ in 0..1_200 {
        seconds(0.1).await;
        let saved = world.streams.journal().load().await.expect("readable");
        if matches!(saved, Some(Checkpoint { snapshot: SnapshotState::Done { .. }, .. })) {
            return world;
        }
    }
    panic!("the snapshot is never done");
}

#[tokio::test(start_paused = true)]
async fn appends_above_an_unknown_limit_are_divided_and_only_larger_changes_are_parked() {
    for error in rejections() {
        let world = following().await;
        world.streams.limit_append(2_000, error.clone());
        for id in 0..100 {
            world.source.insert("tickets", document(id, "small", 1));
        }
        world.source.insert("tickets", json!({"_id": 200, "text": "x".repeat(3_000)}));
        world.source.insert("tickets", document(201, "last", 1));
        until("the neighbours", || world.index.points().len() == 101).await;
        assert_eq!(parked(&world).await, ["200"], "{error}");
        settles_without(&world, &[200]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn parked_changes_are_counted_by_the_service_that_parks_them() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    // With and without an index.
    let counted = |service: &str, parked: u64| {
        let series = format!("{ENTRIES_PARKED}{{service=\"{service}\"");
        let rendered = recorder.handle().render();
        let lines = rendered.lines().filter(|line| line.starts_with(&series));
        let counts: Vec<u64> = lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        !counts.is_empty() && counts.iter().sum::<u64>() == parked
    };
    let world = following().await;
    assert!(SERVICES.iter().all(|service| counted(service, 0)), "{}", recorder.handle().render());
    world.streams.reject(text("barred"), PortError::transient("injected").because(STREAMS, Cause::Refused));
    world.embedder.poison(text("bane"));
    for (id, name) in [(1, "barred"), (2, "bane"), (3, "fine")] {
        world.source.insert("tickets", document(id, name, 1));
    }
    until("both are parked", || counted(PRODUCER, 1) && counted(PROCESSOR, 1)).await;
    assert_eq!(letters(&world), [2, 0]);
    assert!(counted(UPSERTER, 0));
}

#[tokio::test(start_paused = true)]
async fn id_that_redis_rejects_is_parked_with_a_clipped_key() {
    let world = following().await;
    let refused = PortError::transient("injected: ERR forbidden word").because(STREAMS, Cause::Refused);
    world.streams.reject(format!("{}forbidden", "long".repeat(200)), refused);
    let id = format!("{}forbidden", "long".repeat(200));
    world.source.insert("tickets", json!({"_id": id, "text": "word"}));
    world.source.insert("tickets", document(1, "after", 1));
    until("the neighbour", || world.index.points().len() == 1).await;
    let ids = parked(&world).await;
    assert!(ids.len() == 1 && tidewheel_core::key::is_clipped(&ids[0]), "{ids:?}");
}

#[tokio::test(start_paused = true)]
async fn changes_that_redis_rejects_after_a_new_selection_are_parked_and_their_neighbours_arrive() {
    for error in rejections() {
        let mut world = following().await;
        world.source.insert("tickets", document(0, "before", 1));
        world.settle("at the start").await;
        world.kill(PRODUCER);
        seconds(2.0 * TAKEN_OVER.as_secs_f64()).await;
        // The change stream is opened at the last change: these are in its first batch, in every session.
        for id in 1..20 {
            world.source.insert("tickets", document(id, &format!("name{id}"), 1));
        }
        world.streams.reject(text("name7"), error.clone());
        let journal = world.streams.journal();
        let saved = journal.load().await.expect("readable").expect("saved");
        let other = Checkpoint { selection: "other".into(), ..saved.clone() };
        assert_eq!(journal.append(Some(&saved), &[], &other).await, Ok(Appended::Saved));
        world.start(PRODUCER);
        until("the neighbours", || world.index.points().len() == 19).await;
        until("the checkpoint", || world.drained()).await;
        let ids = parked(&world).await;
        assert!(!ids.is_empty() && ids.iter().all(|id| id == "7"), "{ids:?}: {error}");
        settles_without(&world, &[7]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn redis_that_cannot_write_is_waited_out_and_parks_nothing() {
    for cause in [Cause::Busy, Cause::Full] {
        let world = following().await;
        // Even if it accepts an empty append.
        let unable = PortError::transient("injected: unable").because(STREAMS, cause);
        world.streams.limit_append(0, unable);
        for id in 0..10 {
            world.source.insert("tickets", document(id, "word", 1));
        }
        seconds(3_600.0).await;
        assert_eq!((letters(&world), world.index.points().len()), ([0, 0], 0), "{cause:?}");
        world.streams.limit_append(usize::MAX, PortError::transient("unused"));
        world.settle("after the recovery").await;
        assert_eq!(letters(&world), [0, 0]);
    }
}
