//! Every crash point, enumerated: a service dies at each of its calls, once before the call has done anything and once after
//! it has, and a new one takes its place. Whatever the point, the index must become equal to the source, with every change
//! appended exactly once.
//!
//! A point is the n-th call of a name, of those that a run without a crash has. Calls go on while a service is idle, so that
//! each point is reached in its run too; a run in which it is not fails.

mod world;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use serde_json::json;
use tidewheel_core::change::Change;
use tidewheel_core::streams::{EMBEDDED, EMBEDDED_DEAD_LETTERS, RAW, RAW_DEAD_LETTERS};
use tidewheel_testkit::contracts::source::SourceWrite;
use tidewheel_testkit::fakes::faults::Fault;
use tidewheel_testkit::fakes::index::FakeIndex;
use tidewheel_testkit::fakes::process::{CrashPoint, Moment, Process};
use tidewheel_testkit::fakes::source::FakeSource;
use tidewheel_testkit::fakes::streams::FakeStreams;

use world::{PROCESSOR, PRODUCER, SERVICES, UPSERTER, World, document, seconds};

/// For how long a service that is watched by nobody may be down.
const RESTART: Duration = Duration::from_millis(300);

/// What a run is to show.
#[derive(Clone, Copy)]
enum Story {
    /// Everything that can happen to a document, within seconds.
    Changes,
    /// What everybody fears: history lost, a stream and the collection deleted.
    Losses,
    /// What a service does only from time to time.
    Housekeeping,
}

impl Story {
    /// What is there when the services start.
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
                // At once, so that nobody has seen the writes before.
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
                // Until tombstones and streams are looked through.
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
    // Nothing that is embedded changes.
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

/// A run in which one service, if any, dies at a point: how often each service made each call in its first life. Fails if the
/// index does not become right, or if the point is never reached.
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
    // Longer than a third of the time after which entries are taken over: they have to be kept.
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
    // What is settled stays so: nothing that was left behind arrives later.
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

/// Crashes a service at every point that a run without a crash shows and that `calls` lets through; says at how many.
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
async fn a_producer_may_die_at_any_call_as_documents_change() {
    let points = crash_everywhere(Story::Changes, PRODUCER, |_| true).await;
    assert!(points > 80, "only {points} points");
}

#[tokio::test(start_paused = true)]
async fn a_processor_may_die_at_any_call_as_documents_change() {
    let points = crash_everywhere(Story::Changes, PROCESSOR, |_| true).await;
    assert!(points > 66, "only {points} points");
}

#[tokio::test(start_paused = true)]
async fn an_upserter_may_die_at_any_call_as_documents_change() {
    let points = crash_everywhere(Story::Changes, UPSERTER, |_| true).await;
    assert!(points > 110, "only {points} points");
    let points = crash_everywhere(Story::Changes, UPSERTER, |call| call == "refresh").await;
    assert!(points >= 2, "only {points} points at payloads that are written alone");
}

#[tokio::test(start_paused = true)]
async fn a_producer_may_die_at_any_call_as_losses_are_repaired() {
    let points = crash_everywhere(Story::Losses, PRODUCER, |_| true).await;
    assert!(points > 280, "only {points} points");
}

#[tokio::test(start_paused = true)]
async fn a_processor_may_die_at_any_call_as_losses_are_repaired() {
    let points = crash_everywhere(Story::Losses, PROCESSOR, |_| true).await;
    assert!(points > 120, "only {points} points");
}

#[tokio::test(start_paused = true)]
async fn an_upserter_may_die_at_any_call_as_losses_are_repaired() {
    let points = crash_everywhere(Story::Losses, UPSERTER, |_| true).await;
    assert!(points > 170, "only {points} points");
}

#[tokio::test(start_paused = true)]
async fn the_losses_are_real() {
    let producer = run(Story::Losses, None).await.remove(PRODUCER).expect("it runs");
    // The first start, the lost history, the stream and the collection.
    assert!(producer["restart"] >= 4 && producer["existing"] >= 1 && producer["points"] >= 1, "{producer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_service_may_die_while_it_keeps_house() {
    for (service, call) in [(PRODUCER, "collect"), (PROCESSOR, "trim"), (UPSERTER, "trim")] {
        let points = crash_everywhere(Story::Housekeeping, service, |name| name == call).await;
        assert!(points >= 2, "{service}: only {points} points");
    }
}
