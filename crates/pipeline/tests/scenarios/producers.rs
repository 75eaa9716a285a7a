//! Lost, late and interrupted appends.

use std::collections::BTreeMap;
use std::time::Duration;

use tidewheel_core::change::{Change, Operation};
use tidewheel_stores::redis::keys::RAW;
use tidewheel_testkit::contracts::source::SourceWrite;
use tidewheel_testkit::fakes::faults::{Fault, Gate};
use tidewheel_testkit::fakes::process::{CrashPoint, Moment, Process};

use crate::world::{PRODUCER, TAKEN_OVER, World, document, seconds, until};

/// Every change in stage 1, with its number of entries.
fn appended(world: &World) -> BTreeMap<(String, String, String), usize> {
    let mut appended = BTreeMap::new();
    for (_, change) in world.streams.records::<Change>(RAW) {
        let change = (change.namespace.to_string(), change.key, change.version.to_string());
        *appended.entry(change).or_default() += 1;
    }
    appended
}

#[tokio::test(start_paused = true)]
async fn append_with_lost_reply_is_applied_exactly_once() {
    let mut world = World::calm();
    world.start_all();
    world.source.insert("tickets", document(1, "first", 1));
    world.settle("at the start").await;
    world.streams.faults().once("append", Fault::answer_lost());
    world.source.insert("tickets", document(2, "second", 1));
    world.settle("after the lost reply").await;
    assert_eq!(world.streams.faults().hits("append"), 1);
    let inserts = world.streams.records::<Change>(RAW).into_iter().filter(|(_, change)| change.key.contains('2'));
    assert_eq!(inserts.map(|(_, change)| change.operation).collect::<Vec<_>>(), [Operation::Insert]);
}

/// A producer is held at `call` past its lease, while another one takes over; `begin` triggers that call.
async fn held_past_its_lease(call: &'static str, begin: impl Fn(&World)) {
    let mut world = World::calm();
    for id in 0..4 {
        world.source.insert("tickets", document(id, "old", 2));
    }
    world.start_all();
    world.settle("at the start").await;
    seconds(2.0).await;
    let gate = Gate::closed();
    world.streams.faults().once(call, Fault::Held(gate.clone()));
    begin(&world);
    until("the call", || world.streams.faults().hits(call) == 1).await;

    world.start(PRODUCER);
    seconds(2.0 * TAKEN_OVER.as_secs_f64()).await;
    world.source.replace("tickets", document(1, "newer", 1));
    world.settle("without the first").await;
    world.source.replace("tickets", document(1, "newest", 3));
    gate.open();
    world.settle("with both").await;
    seconds(10.0).await;
    assert_eq!(world.difference(), None);
    let twice: Vec<_> = appended(&world).into_iter().filter(|(_, times)| *times > 1).collect();
    assert_eq!(twice, [], "held at {call}");
}

#[tokio::test(start_paused = true)]
async fn producer_resumed_after_its_lease_appends_nothing_twice_and_nothing_stale() {
    held_past_its_lease("append", |world| world.source.replace("tickets", document(1, "held", 2))).await;
    held_past_its_lease("confirm", |world| world.source.replace("tickets", document(1, "held", 2))).await;
    held_past_its_lease("restart", |world| {
        world.source.replace("tickets", document(1, "held", 2));
        world.source.lose_history();
    })
    .await;
}

/// Events per batch of the fake source, as of the real one.
const BATCH: i32 = 500;

/// One transaction that spans two batches, with document 0 in both.
async fn transaction(crash: Option<CrashPoint>) -> BTreeMap<(String, String, String), usize> {
    let mut world = World::calm();
    world.consumer.batch = 200;
    world.source.insert("tickets", document(0, "old", 1));
    // Makes it older than the snapshot, so that the feed does not contain it too.
    world.source.pass(Duration::from_secs(1));
    let process = crash.map_or_else(Process::default, Process::crashing);
    world.start_all();
    world.settle("at the start").await;
    world.kill(PRODUCER);
    world.start_as(PRODUCER, process.clone());
    seconds(2.0 * TAKEN_OVER.as_secs_f64()).await;

    let replace = |name| SourceWrite::Replace { collection: "tickets".into(), document: document(0, name, 1) };
    let insert = |id| SourceWrite::Insert { collection: "tickets".into(), document: document(id, "new", 1) };
    world.source.transaction(
        [replace("first")].into_iter().chain((1..=BATCH).map(insert)).chain([replace("second")]).collect(),
    );
    if crash.is_some() {
        process.died().await;
        world.kill(PRODUCER);
        world.start(PRODUCER);
    }
    world.settle(&format!("{crash:?}")).await;
    appended(&world)
}

#[tokio::test(start_paused = true)]
async fn transaction_versions_are_independent_of_a_crash_between_its_batches() {
    let whole = transaction(None).await;
    let of_document = |(_, key, _): &&(String, String, String)| key.contains("\"0\"");
    assert_eq!(whole.keys().filter(of_document).count(), 3, "{:?}", whole.keys().next());
    assert!(whole.values().all(|times| *times == 1));
    for number in [1, 2] {
        for moment in [Moment::Before, Moment::After] {
            let crashed = transaction(Some(CrashPoint { call: "append", number, moment })).await;
            assert_eq!(crashed, whole, "crashed at append {number}, {moment:?}");
        }
    }
}
