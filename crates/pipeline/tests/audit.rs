//! The audit on the fakes: damage planted in the index is found, listed and repaired; changes in flight are not
//! reported.

mod world;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::payload::RESERVED;
use tidewheel_core::ports::Point;
use tidewheel_pipeline::audit::{AuditOptions, AuditPorts, Found, Kind, Range, Scope, audit};
use tidewheel_pipeline::processor::{Blank, LeftOut, TextOptions};
use tidewheel_pipeline::upserter::PayloadOptions;
use tidewheel_stores::redis::keys::STAGE_1;
use tidewheel_testkit::fakes::faults::Fault;
use tidewheel_testkit::fakes::source::FakeSource;
use uuid::Uuid;

use world::{DATABASE, PROCESSOR, PRODUCER, TAKEN_OVER, UPSERTER, World, document, seconds};

/// Maximum numbers of source documents and index points that may be requested at once.
const ROWS: usize = 200;
const POINTS: usize = 1_000;

fn key(id: i32) -> String {
    format!(r#"{{"$numberInt":"{id}"}}"#)
}

fn tickets() -> Namespace {
    Namespace::new(DATABASE, "tickets")
}

fn id(of: i32, chunk: u32) -> Uuid {
    DocumentId::new(&tickets(), &key(of)).point(chunk)
}

impl World {
    /// A point of a ticket.
    fn point(&self, of: i32, chunk: u32) -> Point {
        let wanted = id(of, chunk);
        self.index.points().into_iter().find(|point| point.id == wanted).expect("it is in the index")
    }

    /// Removes all points of a ticket, bypassing the pipeline.
    fn lose(&self, of: i32) {
        for chunk in 0..4 {
            self.index.remove(id(of, chunk));
        }
    }

    async fn audit(&self, options: &AuditOptions, repair: bool) -> Found {
        let ports = AuditPorts {
            source: self.source.covered(),
            index: Arc::new(self.index.clone()),
            journal: Arc::new(self.streams.journal()),
            position: None,
            repair: repair.then(|| Arc::new(self.streams.stream_log(STAGE_1)) as _),
        };
        audit(&ports, options, &(Arc::new(|_| {}) as _)).await.unwrap()
    }

    /// The result of an audit of this scope.
    async fn look(&self, scope: Scope) -> Found {
        self.audit(&AuditOptions { scope, ..AuditOptions::default() }, false).await
    }
}

/// Three services, and this many tickets, all in the index. Every third has three chunks.
async fn indexed(count: i32) -> World {
    let mut world = World::new();
    world.start_all();
    seconds(2.0).await;
    for number in 0..count {
        world.source.insert("tickets", document(number, &format!("t{number}"), if number % 3 == 0 { 3 } else { 1 }));
    }
    world.settle("the tickets are indexed").await;
    world
}

fn counts(found: &Found) -> [u64; 4] {
    Kind::ALL.map(|kind| found.of(kind))
}

/// The differences found, as kind and key.
fn named(found: &Found) -> BTreeSet<(Kind, String)> {
    found.differences.iter().map(|difference| (difference.kind, difference.key.clone())).collect()
}

/// Plants damage of every kind; returns the expected differences: by digest, and with every field.
fn damage(world: &World) -> [BTreeSet<(Kind, String)>; 2] {
    // Missing: all chunks, or chunk 0.
    world.lose(1);
    world.index.remove(id(3, 0));
    // Stale: a missing chunk; another state; a chunk of an older version.
    world.index.remove(id(6, 1));
    let stamped = |of: i32, chunk: u32, name: &str, value: serde_json::Value| {
        let mut point = world.point(of, chunk);
        point.payload[RESERVED][name] = value;
        point
    };
    world.index.put(stamped(2, 0, "digest", "00000000000000000000000000000000".into()));
    let older = {
        let mut version = world.point(9, 2).payload[RESERVED]["version"].clone();
        version["high"] = json!(version["high"].as_i64().unwrap() - 1);
        version
    };
    world.index.put(stamped(9, 2, "version", older));
    // Stale, visible only when every field is compared.
    let mut edited = world.point(4, 0);
    edited.payload.insert("text".into(), "something else".into());
    world.index.put(edited);
    // Extra: a document that never existed; a later chunk of one, without chunk 0.
    for (of, chunk, like) in [(1_000, 0, world.point(5, 0)), (1_001, 1, world.point(12, 1))] {
        let mut point = like;
        point.id = id(of, chunk);
        point.payload[RESERVED]["key"] = key(of).into();
        point.payload[RESERVED]["document"] = DocumentId::new(&tickets(), &key(of)).to_string().into();
        world.index.put(point);
    }
    // Surplus: right after the last chunk, far after it, and a copy under another id.
    for (of, chunk) in [(7, 1), (12, 90)] {
        let mut point = stamped(of, 0, "chunk", chunk.into());
        point.id = id(of, chunk);
        world.index.put(point);
    }
    let mut copy = world.point(8, 0);
    copy.id = Uuid::from_u128(8);
    world.index.put(copy);
    // Ignored: a foreign point, and one of another database.
    let mut foreign = world.point(5, 0);
    foreign.id = Uuid::from_u128(1);
    foreign.payload.shift_remove(RESERVED);
    world.index.put(foreign);
    let mut elsewhere = world.point(5, 0);
    elsewhere.id = Uuid::from_u128(2);
    elsewhere.payload[RESERVED]["namespace"] = "elsewhere.tickets".into();
    world.index.put(elsewhere);

    use Kind::{Extra, Missing, Stale, Surplus};
    let all = [
        (Missing, 1),
        (Missing, 3),
        (Stale, 6),
        (Stale, 2),
        (Stale, 9),
        (Extra, 1_000),
        (Extra, 1_001),
        (Surplus, 7),
        (Surplus, 12),
        (Surplus, 8),
    ];
    let digests: BTreeSet<_> = all.into_iter().map(|(kind, of)| (kind, key(of))).collect();
    let mut fields = digests.clone();
    fields.insert((Stale, key(4)));
    [digests, fields]
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_damage_is_found_and_repaired() {
    let world = indexed(30).await;
    let found = world.look(Scope::default()).await;
    assert_eq!((found.drift(), found.documents, found.points, found.settled), (0, 30, 50, true), "{found:?}");

    let [digests, fields] = damage(&world);
    let found = world.look(Scope::default()).await;
    assert_eq!(named(&found), digests);
    assert_eq!((counts(&found), found.foreign, found.unsettled), ([2, 3, 2, 3], 2, 0));
    assert!(found.settled && found.repaired.is_none());
    assert!(found.differences.iter().all(|difference| difference.namespace == "shop.tickets"));

    let whole = AuditOptions { payload: Some(PayloadOptions::default()), ..AuditOptions::default() };
    let found = world.audit(&whole, false).await;
    assert_eq!(named(&found), fields);
    let few = AuditOptions { named: 2, ..AuditOptions::default() };
    let found = world.audit(&few, false).await;
    assert_eq!((found.differences.len(), found.drift()), (2, 10), "the rest is counted");

    let found = world.audit(&whole, true).await;
    assert_eq!(named(&found), fields, "the repaired differences");
    let repaired = found.repaired.unwrap();
    assert_eq!((repaired.sent, repaired.deleted, repaired.left), (9, 2, 0), "{:?}", repaired.still);
    let found = world.audit(&whole, false).await;
    assert_eq!((found.drift(), found.foreign), (0, 2), "{found:?}");
    for of in [1, 2] {
        world.index.remove(Uuid::from_u128(of));
    }
    world.settle("only expected points are left").await;
}

#[tokio::test(start_paused = true)]
async fn audit_compares_only_its_scope() {
    let world = indexed(60).await;
    world.source.insert("notes", document(1, "note", 1));
    world.settle("the note is indexed").await;
    for of in 0..60 {
        world.lose(of);
    }
    let extra = |of: i32| {
        let namespace = Namespace::new(DATABASE, "notes");
        let mut point = world.index.points().remove(0);
        let document = DocumentId::new(&namespace, &key(of));
        point.id = document.point(0);
        point.payload[RESERVED]["key"] = key(of).into();
        point.payload[RESERVED]["document"] = document.to_string().into();
        world.index.put(point);
    };
    extra(15);
    extra(35);

    let notes = Scope { namespaces: vec![Namespace::new(DATABASE, "notes")], ..Scope::default() };
    let found = world.look(notes.clone()).await;
    assert_eq!((counts(&found), found.documents), ([0, 0, 2, 0], 1), "{found:?}");

    let range = Some(Range { from: Some(key(10)), to: Some(key(19)) });
    let found = world.look(Scope { range: range.clone(), ..Scope::default() }).await;
    assert_eq!((counts(&found), found.documents), ([10, 0, 1, 0], 10), "{found:?}");
    let found = world.look(Scope { range: range.clone(), ..notes }).await;
    assert_eq!((counts(&found), found.documents), ([0, 0, 1, 0], 0), "{found:?}");
    let open = Some(Range { from: Some(key(50)), to: None });
    assert_eq!(counts(&world.look(Scope { range: open, ..Scope::default() }).await), [10, 0, 0, 0]);
    let text = Some(Range { from: Some(r#""a""#.into()), to: None });
    assert_eq!(world.look(Scope { range: text, ..Scope::default() }).await.documents, 0, "no `_id` is a string");
}

#[tokio::test(start_paused = true)]
async fn sampled_audit_finds_a_proportional_part_of_the_damage() {
    let world = indexed(300).await;
    for of in 0..150 {
        world.lose(of);
    }
    let found = world.look(Scope { share: Some(0.5), ..Scope::default() }).await;
    // 300 and 150 coin tosses: a deviation this large occurs once in billions of runs.
    assert!((90..=210).contains(&found.documents), "{found:?}");
    assert!((35..=115).contains(&found.missing) && found.drift() == found.missing, "{found:?}");
    assert!((50..=250).contains(&found.points), "{found:?}");
    let whole = world.look(Scope { share: Some(1.0), ..Scope::default() }).await;
    assert_eq!((whole.documents, whole.missing), (300, 150));
}

#[tokio::test(start_paused = true)]
async fn document_that_keeps_changing_is_unsettled_and_its_damaged_neighbour_is_drift() {
    let world = indexed(20).await;
    // Slow writes: the index always lags behind a document that changes twice as often.
    world.index.faults().always("upsert", Fault::Slow(Duration::from_millis(400)));
    let source = world.source.clone();
    let writer = tokio::spawn(async move {
        for round in 0.. {
            source.replace("tickets", document(5, &format!("r{round}"), 1));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    seconds(1.0).await;
    world.lose(11);
    let found = world.look(Scope::default()).await;
    writer.abort();
    assert_eq!(named(&found), [(Kind::Missing, key(11))].into(), "{found:?}");
    assert_eq!((found.unsettled, found.settled), (1, true), "its state is undetermined: {found:?}");
}

#[tokio::test(start_paused = true)]
async fn audit_waits_for_changes_in_flight() {
    let mut world = indexed(20).await;
    world.kill(UPSERTER);
    world.source.insert("tickets", document(100, "late", 1));
    world.source.delete("tickets", json!(4));
    seconds(1.0).await;
    let begun = tokio::time::Instant::now();
    let late = AuditOptions { settle: Duration::from_secs(20), ..AuditOptions::default() };
    let found = world.audit(&late, false).await;
    assert!(!found.settled, "reports the timeout: {found:?}");
    assert!((20.0..30.0).contains(&begun.elapsed().as_secs_f64()), "and stops waiting");

    world.start(UPSERTER);
    let found = world.look(Scope::default()).await;
    assert!(found.settled && found.drift() == 0, "the changes arrived while the audit waited: {found:?}");
}

#[tokio::test(start_paused = true)]
async fn audit_memory_is_bounded_regardless_of_drift() {
    let world = indexed(450).await;
    for of in 0..450 {
        world.lose(of);
    }
    // Resets both maximums.
    world.source.largest_fetch();
    world.index.largest_read();
    let found = world.audit(&AuditOptions { named: 50, ..AuditOptions::default() }, true).await;
    assert_eq!((found.missing, found.differences.len()), (450, 50));
    assert_eq!(found.repaired.map(|repaired| (repaired.sent, repaired.left)), Some((450, 0)));
    let (rows, points) = (world.source.largest_fetch(), world.index.largest_read());
    assert!((1..=ROWS).contains(&rows), "{rows} rows at once");
    assert!((1..=POINTS).contains(&points), "{points} points at once");
    world.settle("all documents are indexed again").await;
}

#[tokio::test(start_paused = true)]
async fn producer_audits_soon_after_start_and_drift_and_else_at_its_interval() {
    const HOUR: f64 = 3_600.0;
    let mut world = World::calm();
    world.audit_interval = Duration::from_secs_f64(3.0 * HOUR);
    world.start_all();
    for number in 0..10 {
        world.source.insert("tickets", document(number, "ticket", 1));
    }
    world.settle("the tickets are indexed").await;
    // From here on only audits count the index.
    let before = world.index.calls("count");
    let audits = |world: &World| world.index.calls("count") - before;
    seconds(0.9 * HOUR).await;
    assert_eq!(audits(&world), 0);
    seconds(0.2 * HOUR).await;
    assert_eq!(audits(&world), 1, "a process that runs for less than three hours audits too");
    seconds(2.8 * HOUR).await;
    assert_eq!(audits(&world), 1);
    world.lose(4);
    seconds(0.3 * HOUR).await;
    assert_eq!(audits(&world), 2, "this audit finds the drift");
    assert!(world.difference().is_some_and(|difference| difference.contains("missing")), "and repairs nothing");
    world.audit(&AuditOptions::default(), true).await;
    let own = audits(&world) - 2;
    seconds(HOUR).await;
    assert_eq!(audits(&world) - own, 3, "the next audit follows soon");
    seconds(2.5 * HOUR).await;
    assert_eq!(audits(&world) - own, 3, "the drift was repaired");
    world.index.faults().once("page", Fault::unreachable());
    seconds(0.5 * HOUR).await;
    assert_eq!(audits(&world) - own, 4, "this audit fails");
    seconds(HOUR).await;
    assert_eq!(audits(&world) - own, 5, "and is retried before three hours have passed");
}

#[tokio::test(start_paused = true)]
async fn interrupted_audit_resumes_at_its_saved_position() {
    let world = indexed(330).await;
    world.lose(3);
    world.lose(310);
    let slow = AuditOptions { pause: Duration::from_secs(1), resumes: true, ..AuditOptions::default() };
    // Pages have three rows, so the first position is saved after the 300th.
    let interrupted = tokio::time::timeout(Duration::from_secs(105), world.audit(&slow, false)).await;
    assert!(interrupted.is_err(), "the audit takes longer");
    let begun = tokio::time::Instant::now();
    let found = world.audit(&slow, false).await;
    assert!(begun.elapsed() < Duration::from_secs(60), "it does not start over");
    assert_eq!((found.documents, found.missing, found.settled), (330, 2, true), "{found:?}");
    // That audit had finished, so this one starts over.
    assert_eq!(world.audit(&slow, false).await.documents, 330);
}

/// In real time, on a single thread: rendering on it would stop the producer.
#[tokio::test]
async fn producer_renews_its_lease_while_its_audit_renders_an_expensive_template() {
    let template = "{{ text }}{% for a in range(n) %}{% for b in range(n) %}{% endfor %}{% endfor %}";
    let text = TextOptions { template: Some(template.into()), ..TextOptions::default() };
    let left_out = LeftOut::new(&text, Blank::Skip).expect("a valid template");
    let ticket = |number: i32| json!({"_id": number, "text": format!("t{number}"), "n": 800});
    let once = || {
        let begun = Instant::now();
        assert!(!left_out.holds(&ticket(0).to_string()));
        begun.elapsed()
    };
    // The shortest of several, because other processes only add to it.
    let once = (0..5).map(|_| once()).min().expect("five times");
    // All of them together take twice as long as the lease.
    let count = (2.0 * TAKEN_OVER.as_secs_f64() / once.as_secs_f64()).ceil() as i32;

    let mut world = World::new();
    // All of them are in one page.
    world.source = FakeSource::with(DATABASE, Duration::from_millis(20), 1_000);
    world.start(PROCESSOR);
    world.start(UPSERTER);
    world.blank = Blank::Skip;
    world.template = Some(template.into());
    world.audit_interval = Duration::from_secs(1);
    // Hits are counted for calls with a planned fault; this one changes nothing.
    world.streams.faults().always("lease", Fault::Slow(Duration::ZERO));
    for number in 0..count {
        world.source.insert("tickets", ticket(number));
    }
    world.start(PRODUCER);
    world.settle("the tickets are indexed").await;
    // The second look renders it too.
    world.lose(0);

    // The next but one audit follows the end of a whole one.
    let before = world.index.calls("count");
    let audits = || world.index.calls("count") - before;
    let renewals = || world.streams.faults().hits("lease");
    let (mut begun, mut known, mut renewed, mut longest) = (None, renewals(), Instant::now(), Duration::ZERO);
    while audits() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if begun.is_none() && audits() == 1 {
            begun = Some(Instant::now());
        }
        longest = longest.max(renewed.elapsed());
        assert!(longest < TAKEN_OVER, "{longest:?} without a renewal");
        if renewals() > known {
            (known, renewed) = (renewals(), Instant::now());
        }
        assert!(known < 500, "no audit has ended");
    }
    let lasted = begun.expect("an audit began").elapsed();
    assert!(lasted > TAKEN_OVER, "the audit ended after {lasted:?}, before the lease did");
}
