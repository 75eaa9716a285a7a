//! Every crash point, enumerated: a service crashes at each of its calls, once before the call takes effect and once
//! after, and a new instance replaces it. At every point the index must converge to the source, with every change
//! appended exactly once.
//!
//! A point is the n-th call of a name in a run without a crash. Calls continue while a service is idle, so that each
//! point is reached in its own run too; a run that does not reach it fails.

mod world;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use serde_json::json;
use tidewheel_core::change::Change;
use tidewheel_stores::redis::keys::{EMBEDDED, EMBEDDED_DEAD_LETTERS, RAW, RAW_DEAD_LETTERS};
use tidewheel_testkit::contracts::source::SourceWrite;
use tidewheel_testkit::fakes::faults::Fault;
use tidewheel_testkit::fakes::index::FakeIndex;
use tidewheel_testkit::fakes::process::{CrashPoint, Moment, Process};
use tidewheel_testkit::fakes::source::FakeSource;
use tidewheel_testkit::fakes::streams::FakeStreams;

use world::{PROCESSOR, PRODUCER, SERVICES, UPSERTER, World, document, seconds};

/// How long a crashed service stays down.
const RESTART: Duration = Duration::from_millis(300);

/// The scenario of a run.
#[derive(Clone, Copy)]
enum Story {
    /// Every kind of document change, within seconds.
    Changes,
    /// Losses: the history, a stream and the collection.
    Losses,
    /// The periodic work of a service.
    Housekeeping,
}

impl Story {
    /// The documents that exist when the services start.
    fn begin(self, source: &FakeSource) {
        for id in 0..4 {
            source.insert("tickets", document(id, "old", 1 + id as usize % 2));
        }
        source.insert("notes", document(1, "old", 2));
    }

    async fn go_on(self, source: &FakeSource, streams: &FakeStreams, index: &FakeIndex) {
        match self {
            Self::Changes => changes(source).await,
            Self::Losses => {
                seconds(4.0).await;
                // At once, so that no service has seen the writes.
                source.delete("tickets", json!(3));
                source.insert("tickets", document(4, "unseen", 2));
                source.lose_history();
                seconds(2.0).await;
                source.replace("tickets", document(2, "moving", 2));
                seconds(0.01).await;
                streams.delete_stream(EMBEDDED);
                seconds(2.0).await;
                index.drop_collection();
                source.replace("tickets", document(1, "void", 1));
                seconds(4.0).await;
            }
            Self::Housekeeping => {
                source.delete("tickets", json!(0));
                seconds(1.0).await;
                source.insert("tickets", document(9, "later", 1));
                // Until tombstones are collected and streams trimmed.
                seconds(62.0).await;
            }
        }
    }
}

async fn changes(source: &FakeSource) {
    let set = |id: i32, text: &str| SourceWrite::Set {
        collection: "tickets".into(),
        id: json!(id),
        field: "text".into(),
        value: json!(text),
    };
    seconds(0.7).await;
    source.insert("tickets", document(4, "new", 1));
    source.replace("tickets", document(0, "grown", 3));
    seconds(0.3).await;
    source.replace("tickets", document(0, "shrunk", 1));
    source.write(set(2, "seen as it is now"));
    source.transaction(vec![set(1, "first of a transaction"), set(1, "second of a transaction and a longer one")]);
    seconds(0.3).await;
    source.delete("tickets", json!(3));
    source.delete("notes", json!(1));
    // No embedded field changes.
    source.write(SourceWrite::Set {
        collection: "tickets".into(),
        id: json!(4),
        field: "state".into(),
        value: json!("closed"),
    });
    seconds(0.3).await;
    source.insert("tickets", document(3, "reborn", 2));
    source.insert("notes", document(2, "brief", 2));
    source.write(SourceWrite::Drop { collection: "notes".into() });
    seconds(0.2).await;
    source.insert("notes", document(2, "later", 1));
    seconds(1.0).await;
}

/// A run in which one service, if any, crashes at a point. Returns how often each service made each call before its
/// crash. Fails if the index does not converge, or if the point is never reached.
async fn run(
    story: Story,
    crash: Option<(&'static str, CrashPoint)>,
) -> HashMap<&'static str, HashMap<&'static str, u64>> {
    let name = format!("{crash:?}");
    let mut world = World::calm();
    if matches!(story, Story::Housekeeping) {
        world.grace = Duration::from_secs(30);
    }
    story.begin(&world.source);
    // Longer than a third of the claim timeout, so the entries have to be kept.
    world.embedder.faults().once("embed", Fault::Slow(Duration::from_millis(1_100)));
    world.index.faults().once("upsert", Fault::Slow(Duration::from_millis(1_100)));
    let mut processes = HashMap::new();
    for service in SERVICES {
        let process = match crash {
            Some((crashing, point)) if crashing == service => Process::crashing(point),
            _ => Process::default(),
        };
        world.start_as(service, process.clone());
        processes.insert(service, process);
    }
    let (source, streams, index) = (world.source.clone(), world.streams.clone(), world.index.clone());
    tokio::join!(story.go_on(&source, &streams, &index), async {
        let Some((service, _)) = crash else { return };
        let died = tokio::time::timeout(Duration::from_secs(120), processes[service].died()).await;
        died.unwrap_or_else(|_| panic!("{name} was never reached"));
        world.kill(service);
        tokio::time::sleep(RESTART).await;
        world.start(service);
    });
    world.settle(&name).await;
    let calls = processes.iter().map(|(service, process)| (*service, process.calls())).collect();
    // The index stays in sync: no leftover write arrives later.
    seconds(7.0).await;
    assert_eq!(world.difference(), None, "{name}, some time later");
    for letters in [RAW_DEAD_LETTERS, EMBEDDED_DEAD_LETTERS] {
        assert!(world.streams.raw(letters).is_empty(), "{name}: {letters}");
    }
    let mut appended = BTreeSet::new();
    let once = !matches!(story, Story::Losses);
    for (entry, change) in world.streams.records::<Change>(RAW).into_iter().filter(|_| once) {
        let exactly = (change.namespace.to_string(), change.key.clone(), change.version);
        assert!(appended.insert(exactly), "{name}: {} has {} {} again", entry.0, change.namespace, change.key);
    }
    calls
}

/// Crashes a service at every point of a run without a crash that `calls` accepts; returns the number of points.
async fn crash_everywhere(story: Story, service: &'static str, calls: impl Fn(&str) -> bool) -> usize {
    let counted = run(story, None).await.remove(service).expect("every service runs");
    let mut points = 0;
    for (call, count) in counted {
        for number in (1..=count).filter(|_| calls(call)) {
            for moment in [Moment::Before, Moment::After] {
                run(story, Some((service, CrashPoint { call, number, moment }))).await;
                points += 1;
            }
        }
    }
    points
}

#[tokio::test(start_paused = true)]
async fn producer_may_crash_at_any_call_while_documents_change() {
    let points = crash_everywhere(Story::Changes, PRODUCER, |_| true).await;
    assert!(points > 80, "only {points} points");
}

#[tokio::test(start_paused = true)]
async fn processor_may_crash_at_any_call_while_documents_change() {
    let points = crash_everywhere(Story::Changes, PROCESSOR, |_| true).await;
    assert!(points > 66, "only {points} points");
}

#[tokio::test(start_paused = true)]
async fn upserter_may_crash_at_any_call_while_documents_change() {
    let points = crash_everywhere(Story::Changes, UPSERTER, |_| true).await;
    assert!(points > 110, "only {points} points");
    let points = crash_everywhere(Story::Changes, UPSERTER, |call| call == "refresh").await;
    assert!(points >= 2, "only {points} points at payload-only writes");
}

#[tokio::test(start_paused = true)]
async fn producer_may_crash_at_any_call_while_losses_are_repaired() {
    let points = crash_everywhere(Story::Losses, PRODUCER, |_| true).await;
    assert!(points > 280, "only {points} points");
}

#[tokio::test(start_paused = true)]
async fn processor_may_crash_at_any_call_while_losses_are_repaired() {
    let points = crash_everywhere(Story::Losses, PROCESSOR, |_| true).await;
    assert!(points > 120, "only {points} points");
}

#[tokio::test(start_paused = true)]
async fn upserter_may_crash_at_any_call_while_losses_are_repaired() {
    let points = crash_everywhere(Story::Losses, UPSERTER, |_| true).await;
    assert!(points > 170, "only {points} points");
}

#[tokio::test(start_paused = true)]
async fn losses_story_triggers_repairs() {
    let producer = run(Story::Losses, None).await.remove(PRODUCER).expect("it runs");
    // The first start, the lost history, the deleted stream and the deleted collection.
    assert!(producer["restart"] >= 4 && producer["existing"] >= 1 && producer["points"] >= 1, "{producer:?}");
}

#[tokio::test(start_paused = true)]
async fn services_may_crash_during_housekeeping() {
    for (service, call) in [(PRODUCER, "collect"), (PROCESSOR, "trim"), (UPSERTER, "trim")] {
        let points = crash_everywhere(Story::Housekeeping, service, |name| name == call).await;
        assert!(points >= 2, "{service}: only {points} points");
    }
}
