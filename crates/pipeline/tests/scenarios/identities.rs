//! Documents with special `_id`s or sizes.

use serde_json::{Value, json};
use tidewheel_core::change::{Change, Operation};
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::key;
use tidewheel_core::payload::RESERVED;
use tidewheel_core::ports::{Appended, Checkpoint, DeadLetters as _, EntryId, Journal as _, StreamLog as _};
use tidewheel_core::stage::Stage;
use tidewheel_pipeline::parking::OnDeadLetter;
use tidewheel_stores::redis::keys::{RAW, STAGE_1};
use tidewheel_testkit::contracts::source::SourceWrite;
use tidewheel_testkit::fakes::faults::{Fault, Gate};
use tidewheel_testkit::fakes::process::{CrashPoint, Moment, Process};

use crate::world::{PRODUCER, SERVICES, TAKEN_OVER, World, document, seconds, until};

fn text(id: &Value, words: &str) -> Value {
    json!({"_id": id, "text": words})
}

#[tokio::test(start_paused = true)]
async fn document_keeps_its_points_while_its_id_changes_numeric_type_until_it_is_deleted() {
    let mut world = World::new();
    world.start_all();
    let forms = |value: i32| {
        [
            json!({"$numberInt": value.to_string()}),
            json!({"$numberLong": value.to_string()}),
            json!({"$numberDouble": format!("{value}.0")}),
            json!({"$numberDecimal": format!("{value}.00")}),
        ]
    };
    for id in 1..=4 {
        world.source.insert("tickets", text(&forms(id)[0], "first"));
        world.source.insert("notes", text(&json!({"b": forms(id)[1], "a": 1}), "first"));
    }
    world.settle("at the start").await;
    for id in 1..=4 {
        for form in forms(id) {
            world.source.replace("tickets", text(&form, "second"));
            world.source.replace("notes", text(&json!({"b": form, "a": 1}), "second"));
        }
    }
    world.settle("after the replacements").await;
    assert_eq!(world.index.points().len(), 8);
    for id in 1..=4 {
        world.source.delete("tickets", forms(id)[0].clone());
        world.source.delete("notes", json!({"b": forms(id)[2], "a": 1}));
    }
    world.settle("after the deletions").await;
    assert_eq!(world.index.points().len(), 0);
}

/// Replaces the checkpoint by one as saved by an earlier release.
async fn downgrade(world: &World) {
    let journal = world.streams.journal();
    let saved = journal.load().await.unwrap().unwrap();
    let former = Checkpoint { selection: world.source.covered().scope(), ..saved.clone() };
    assert_ne!(former.selection, saved.selection, "this release records the form of its keys");
    assert_eq!(journal.append(Some(&saved), &[], &former).await.unwrap(), Appended::Saved);
}

#[tokio::test(start_paused = true)]
async fn points_and_entries_with_keys_of_an_earlier_release_converge_after_an_upgrade() {
    let mut world = World::calm();
    let ids = [
        (json!({"$numberLong": "1"}), json!({"$numberInt": "1"})),
        (json!({"$numberDouble": "2.0"}), json!({"$numberInt": "2"})),
        (json!({"$numberDecimal": "3.50"}), json!({"$numberDouble": "3.5"})),
        (json!({"b": {"$numberLong": "4"}}), json!({"b": {"$numberInt": "4"}})),
    ];
    for (former, _) in &ids {
        world.source.insert("tickets", text(former, "word"));
    }
    world.source.insert("tickets", document(9, "same", 2));
    world.start_all();
    world.settle("at the start").await;
    seconds(3.0).await;
    world.kill(PRODUCER);
    seconds(2.0 * TAKEN_OVER.as_secs_f64()).await;
    // The state left by an earlier release: points under the former keys, and an entry in flight.
    let tickets = Namespace::new("shop", "tickets");
    for mut point in world.index.points() {
        let present = point.payload[RESERVED]["key"].as_str().unwrap().to_owned();
        let Some((former, _)) = ids.iter().find(|(_, key)| *key == serde_json::from_str::<Value>(&present).unwrap())
        else {
            continue;
        };
        let document = DocumentId::new(&tickets, &former.to_string());
        world.index.remove(point.id);
        point.id = document.point(0);
        point.payload[RESERVED]["key"] = former.to_string().into();
        point.payload[RESERVED]["document"] = document.to_string().into();
        world.index.put(point);
    }
    let (_, entry) =
        world.streams.records::<Change>(RAW).into_iter().find(|(_, change)| change.key.contains("3.5")).unwrap();
    let entry = Change { key: ids[2].0.to_string(), ..entry };
    world.streams.stream_log(STAGE_1).append(&[entry]).await.unwrap();
    downgrade(&world).await;
    // One of the documents is deleted while no producer is running.
    world.source.delete("tickets", ids[1].0.clone());

    world.start(PRODUCER);
    world.settle("after the upgrade").await;
    assert!(
        world.index.points().iter().all(|point| key::is_canonical(point.payload[RESERVED]["key"].as_str().unwrap()))
    );
    assert_eq!(world.index.points().len(), 5);
    // Entries of the earlier release that are replayed from the stream create no points of their own.
    let (_, old) =
        world.streams.records::<Change>(RAW).into_iter().find(|(_, change)| change.key.contains("3.5")).unwrap();
    world.streams.stream_log(STAGE_1).append(&[Change { key: ids[2].0.to_string(), ..old }]).await.unwrap();
    world.settle("after a replay").await;
    assert_eq!(world.index.points().len(), 5);
}

/// The shard key of a document changes while a producer is running, in one transaction after this many inserts, so that
/// the two events may be in two batches; the producer may crash in between.
async fn shard_key_changes(insert_first: bool, fillers: i32, crash: bool) {
    let mut world = World::calm();
    world.consumer.batch = 200;
    world.source.insert("tickets", document(0, "old", 1));
    world.source.pass(std::time::Duration::from_secs(1));
    world.start_all();
    world.settle("at the start").await;
    world.kill(PRODUCER);
    let crash = crash.then_some(CrashPoint { call: "append", number: 1, moment: Moment::After });
    let process = crash.map_or_else(Process::default, Process::crashing);
    world.start_as(PRODUCER, process.clone());
    seconds(2.0 * TAKEN_OVER.as_secs_f64()).await;
    let filler = |id| SourceWrite::Insert { collection: "notes".into(), document: document(id, "filler", 1) };
    world.source.change_shard_key((1..=fillers).map(filler).collect(), "tickets", document(0, "new", 2), insert_first);
    if crash.is_some() {
        process.died().await;
        world.kill(PRODUCER);
        world.start(PRODUCER);
    }
    world.settle(&format!("insert first: {insert_first}, {fillers} before")).await;
    seconds(10.0).await;
    assert_eq!(world.difference(), None);
}

#[tokio::test(start_paused = true)]
async fn document_survives_a_shard_key_change_in_any_order_of_events() {
    for insert_first in [false, true] {
        shard_key_changes(insert_first, 0, false).await;
        // The fake's batches have 500 events.
        shard_key_changes(insert_first, 499, false).await;
        shard_key_changes(insert_first, 499, true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn changes_too_large_for_redis_are_parked_and_their_neighbours_arrive() {
    too_large_for_redis(OnDeadLetter::Keep).await;
}

#[tokio::test(start_paused = true)]
async fn changes_too_large_for_redis_remove_older_versions_by_policy() {
    too_large_for_redis(OnDeadLetter::Remove).await;
}

async fn too_large_for_redis(policy: OnDeadLetter) {
    const MOST: usize = 400;
    let mut world = World::calm();
    world.on_dead_letter = policy;
    let large = |id: i32| json!({"_id": id, "text": "x".repeat(MOST)});
    let long_id = "k".repeat(2 * MOST);
    world.streams.limit(MOST);
    // Some for the snapshot, others for the feed.
    world.source.insert("tickets", document(1, "there", 1));
    world.source.insert("tickets", large(2));
    world.source.insert("tickets", text(&json!(long_id), "word"));
    world.source.insert("tickets", document(9, "there", 1));
    world.start_all();
    let arrived = |world: &World, id: i32| world.index.points().iter().any(|point| point.payload["_id"] == id);
    until("the snapshot", || arrived(&world, 9)).await;
    world.source.insert("notes", large(3));
    world.source.insert("notes", document(4, "new", 1));
    world.source.replace("tickets", json!({"_id": 1, "text": "x".repeat(MOST)}));
    world.source.insert("notes", document(5, "newer", 1));
    until("the neighbours", || arrived(&world, 4) && arrived(&world, 5)).await;
    let kept = policy == OnDeadLetter::Keep;
    until("the parked change is settled", || world.drained()).await;
    assert_eq!(arrived(&world, 1), kept, "the last valid version is kept or removed");
    let letters = world.streams.dead_letters().letters(Stage::Raw, &EntryId::zero(), 100).await.unwrap();
    let keys: Vec<_> = letters.iter().map(|letter| letter.record.as_ref().unwrap().change.key.clone()).collect();
    for id in [1, 2, 3] {
        assert!(keys.contains(&format!(r#"{{"$numberInt":"{id}"}}"#)), "{keys:?}");
    }
    assert!(keys.iter().any(|key| key::is_clipped(key)), "{keys:?}");
    assert!(letters.iter().all(|letter| letter.reason.contains("too large")), "{letters:?}");
    // A snapshot finds another one that has become too large.
    seconds(10.0).await;
    world.kill(PRODUCER);
    seconds(2.0 * TAKEN_OVER.as_secs_f64()).await;
    world.source.replace("tickets", json!({"_id": 9, "text": "x".repeat(MOST)}));
    world.source.insert("notes", document(6, "newest", 1));
    world.source.lose_history();
    world.start(PRODUCER);
    until("the comparing snapshot", || arrived(&world, 6)).await;
    seconds(10.0).await;
    until("everything is settled", || world.drained()).await;
    assert_eq!((arrived(&world, 1), arrived(&world, 9)), (kept, kept));
    // The documents are deleted or become small again: nothing is left over.
    world.source.replace("tickets", document(9, "small", 1));
    world.source.delete("tickets", json!(2));
    world.source.delete("tickets", json!(long_id));
    world.source.delete("notes", json!(3));
    world.source.replace("tickets", document(1, "small", 1));
    world.settle("at the end").await;
}

#[tokio::test(start_paused = true)]
async fn producer_backs_off_while_appends_fail() {
    let mut world = World::calm();
    world.start_all();
    world.settle("at the start").await;
    world.streams.faults().always("append", Fault::unreachable());
    world.source.insert("tickets", document(1, "first", 1));
    seconds(120.0).await;
    let attempts = world.streams.faults().hits("append");
    // Ten per second without backoff; with a backoff of two and a half to five seconds, about forty, each followed by an
    // empty append as proof.
    assert!((20..120).contains(&attempts), "{attempts} attempts in two minutes");
    world.streams.faults().heal();
    world.settle("at the end").await;
}

/// Starts services, and renames a collection into the selection while the producer opens its change stream at this
/// attempt: the rename is in the first batch.
async fn rename_while_a_change_stream_opens(world: &mut World, services: &[&'static str], attempt: u64) {
    let (open, gate) = (Gate::closed(), Gate::closed());
    open.open();
    for _ in 1..attempt {
        world.source.faults().once("open", Fault::Held(open.clone()));
    }
    world.source.faults().once("open", Fault::Held(gate.clone()));
    for service in services {
        world.start(service);
    }
    until("the change stream opens", || world.source.faults().hits("open") == attempt).await;
    world.source.write(SourceWrite::Rename { from: "staging".into(), to: "tickets".into() });
    gate.open();
    world.settle("after the rename").await;
    let drops =
        world.streams.records::<Change>(RAW).into_iter().filter(|(_, change)| change.operation == Operation::Drop);
    assert!(drops.count() >= 1, "the rename arrived with the first batch");
}

fn staged() -> World {
    let mut world = World::calm();
    world.source.insert("staging", document(7, "moved", 1));
    world.source.insert("tickets", document(1, "old", 1));
    world.source = world.source.clone().selecting(&["tickets", "notes"]);
    world
}

#[tokio::test(start_paused = true)]
async fn collection_renamed_into_the_selection_while_the_first_change_stream_opens_is_indexed() {
    let mut world = staged();
    rename_while_a_change_stream_opens(&mut world, &SERVICES, 1).await;
}

#[tokio::test(start_paused = true)]
async fn collection_renamed_into_the_selection_while_a_lost_change_stream_is_replaced_is_indexed() {
    let mut world = staged();
    world.start_all();
    world.settle("at the start").await;
    world.kill(PRODUCER);
    seconds(2.0 * TAKEN_OVER.as_secs_f64()).await;
    world.source.insert("tickets", document(2, "missed", 1));
    world.source.lose_history();
    // The first attempt is at the lost position.
    rename_while_a_change_stream_opens(&mut world, &[PRODUCER], 2).await;
}
