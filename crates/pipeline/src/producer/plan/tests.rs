mod routing;

use std::sync::Arc;

use proptest::prelude::*;
use tidewheel_core::catalog::{Catalog, Routed, Routes, routes};
use tidewheel_core::ports::{SourceEvent, SourceRow, Swept, Touched, Verdicts};
use uuid::Uuid;

use super::super::admission::Limits;
use super::*;
use crate::parking::OnDeadLetter;
use crate::targets::samples::declaration;

fn time(seconds: u32) -> ClusterTime {
    ClusterTime { seconds, increment: 1 }
}

fn checkpoint() -> Checkpoint {
    begun(None, "all".into(), ResumeToken("start".into()), time(10), true)
}

fn event(operation: Operation, seconds: u32, document: Option<&str>) -> SourceEvent {
    SourceEvent {
        operation,
        namespace: Namespace::new("shop", "tickets"),
        key: "1".into(),
        id: "1".into(),
        time: time(seconds),
        committed_at: 0,
        shard: String::new(),
        document: document.map(|document| Ok(document.to_owned())),
        verdicts: Verdicts::default(),
        touched: Touched::All,
    }
}

fn batch(events: Vec<SourceEvent>) -> FeedBatch {
    let token = ResumeToken(format!("after {}", events.len()));
    let through = events.last().map(|event| event.time).unwrap_or_default();
    FeedBatch { events, appeared: Vec::new(), token, through }
}

/// The step for a batch, without queries of the source and size limits.
fn follow(checkpoint: &Checkpoint, batch: FeedBatch) -> Step {
    let (step, read_again) = super::follow(checkpoint, batch, &HashSet::new(), Rules::NONE);
    assert!(!read_again);
    step
}

/// Rows for the one target of an installation without a catalog.
fn plain(rows: Vec<SourceRow>) -> Vec<(SourceRow, Routed)> {
    rows.into_iter().map(|row| (row, Routed { stamp: Arc::default(), keeps_document: true })).collect()
}

/// The routes of local settings with this policy.
fn local_routes(on_dead_letter: OnDeadLetter) -> Routes {
    let mut declaration = declaration("documents");
    declaration.rules.on_dead_letter = on_dead_letter;
    routes(&Catalog::short_form(Arc::new(declaration)))
}

fn versions(step: &Step) -> Vec<String> {
    step.changes.iter().map(|change| change.version.to_string()).collect()
}

#[test]
fn events_of_one_time_are_numbered_across_batches() {
    let update = |seconds| event(Operation::Update, seconds, Some("{}"));
    let first = follow(&checkpoint(), batch(vec![update(10), update(11), update(11)]));
    assert_eq!(versions(&first), ["0.10.1.1", "0.11.1.1", "0.11.1.2"]);
    assert_eq!(first.next.token, ResumeToken("after 3".into()));
    let second = follow(&first.next, batch(vec![update(11), update(12)]));
    assert_eq!(versions(&second), ["0.11.1.3", "0.12.1.1"]);
}

/// An event of a collection sharded by another field than `_id`.
fn sharded(operation: Operation, seconds: u32, shard: &str) -> SourceEvent {
    let document = operation.has_document().then_some("{}");
    SourceEvent { shard: shard.into(), ..event(operation, seconds, document) }
}

fn operations(step: &Step) -> Vec<Operation> {
    step.changes.iter().map(|change| change.operation).collect()
}

#[test]
fn insert_wins_over_delete_of_a_shard_key_change_in_either_order() {
    let (insert, delete) = (sharded(Operation::Insert, 11, "eu"), sharded(Operation::Delete, 11, "us"));
    for events in [vec![insert.clone(), delete.clone()], vec![delete.clone(), insert.clone()]] {
        let step = follow(&checkpoint(), batch(events));
        let newest = step.changes.iter().max_by_key(|change| change.version).unwrap();
        assert_eq!(newest.operation, Operation::Insert);
    }
    let update = sharded(Operation::Update, 11, "eu");
    let step = follow(&checkpoint(), batch(vec![insert, update, delete]));
    assert_eq!(operations(&step), [Operation::Insert, Operation::Update]);
}

#[test]
fn document_inserted_and_deleted_in_one_transaction_is_deleted() {
    for shard in ["", "eu"] {
        let events = vec![sharded(Operation::Insert, 11, shard), sharded(Operation::Delete, 11, shard)];
        assert_eq!(operations(&follow(&checkpoint(), batch(events))), [Operation::Insert, Operation::Delete]);
    }
    // Moved, and then deleted on its new shard.
    let events = vec![
        sharded(Operation::Insert, 11, "eu"),
        sharded(Operation::Delete, 11, "us"),
        sharded(Operation::Delete, 11, "eu"),
    ];
    assert_eq!(operations(&follow(&checkpoint(), batch(events))), [Operation::Insert, Operation::Delete]);
    // At another time it is another deletion.
    let events = vec![sharded(Operation::Insert, 11, "eu"), sharded(Operation::Delete, 12, "us")];
    assert_eq!(operations(&follow(&checkpoint(), batch(events))), [Operation::Insert, Operation::Delete]);
}

#[test]
fn delete_of_a_shard_key_change_in_a_later_batch_depends_on_whether_the_document_exists() {
    let first = follow(&checkpoint(), batch(vec![sharded(Operation::Insert, 11, "eu")]));
    let second = || batch(vec![sharded(Operation::Delete, 11, "us"), sharded(Operation::Delete, 12, "us")]);
    let tickets = Namespace::new("shop", "tickets");
    let asked = doubtful(&first.next, &second());
    assert_eq!(asked.into_iter().collect::<Vec<_>>(), [(tickets.clone(), ["1".to_owned()].into())]);
    let present = HashSet::from([(tickets, "1".to_owned())]);
    let (step, _) = super::follow(&first.next, second(), &present, Rules::NONE);
    assert_eq!(versions(&step), ["0.12.1.1"], "the one at the same time is skipped");
    let (step, _) = super::follow(&first.next, second(), &HashSet::new(), Rules::NONE);
    assert_eq!(versions(&step), ["0.11.1.2", "0.12.1.1"], "deleted since: either order is valid");
    // No query if `_id` identifies the document, or if the time begins with the batch.
    let plain = batch(vec![event(Operation::Delete, 11, None)]);
    assert!(doubtful(&first.next, &plain).is_empty());
    assert!(doubtful(&checkpoint(), &second()).is_empty());
}

#[test]
fn changes_beyond_the_last_ordinal_trigger_a_comparing_snapshot() {
    let full = Checkpoint { last: (time(11), MAX_ORDINAL - 1), ..checkpoint() };
    let insert = |seconds| event(Operation::Insert, seconds, Some("{}"));
    let open = FeedBatch { through: time(11).before(), ..batch(vec![insert(11), insert(11), insert(11)]) };
    let (step, read_again) = super::follow(&full, open, &HashSet::new(), Rules::NONE);
    let last = format!("0.11.1.{MAX_ORDINAL}");
    assert_eq!(versions(&step), [last.clone(), last.clone(), last]);
    assert!(!read_again, "more events of this time may follow");
    let at_end = |batch| super::follow(&step.next, batch, &HashSet::new(), Rules::NONE);
    let (next, read_again) = at_end(batch(vec![insert(12)]));
    assert!(read_again);
    assert_eq!(versions(&next), ["0.12.1.1"]);
    let (next, read_again) = at_end(FeedBatch { through: time(11), ..batch(Vec::new()) });
    assert!(read_again, "an idle source shows that the time is complete");
    let idle = FeedBatch { through: time(12), ..batch(Vec::new()) };
    assert!(!super::follow(&next.next, idle, &HashSet::new(), Rules::NONE).1, "once");
    // Exactly as many as there are ordinals.
    let (step, read_again) = super::follow(&full, batch(vec![insert(11)]), &HashSet::new(), Rules::NONE);
    assert_eq!((versions(&step).len(), read_again), (1, false));
}

#[test]
fn changes_that_cannot_be_appended_are_parked_in_the_same_step() {
    let mut unreadable = event(Operation::Update, 11, Some("{}"));
    unreadable.document = Some(Err("malformed".into()));
    let large = event(Operation::Insert, 11, Some("{\"a\":\"xxxxxxxxxxxxxxxxxxxx\"}"));
    let mut deleted = event(Operation::Delete, 12, None);
    deleted.key = "k".repeat(50);
    let events = vec![unreadable, large, event(Operation::Insert, 11, Some("{}")), deleted];
    let rules = Rules { limits: Limits { key: 40, document: 20 }, ..Rules::NONE };
    let (step, _) = super::follow(&checkpoint(), batch(events), &HashSet::new(), rules);
    assert_eq!(versions(&step), ["0.11.1.3"], "the deleted document was never in the index");
    let parked: Vec<_> = step.parked.iter().map(|parked| parked.change.version.to_string()).collect();
    assert_eq!(parked, ["0.11.1.1", "0.11.1.2"]);
    let mut rows = vec![row("1"), row("2")];
    rows[0].document = Err("malformed".into());
    let page = PageRead { namespace: Namespace::new("shop", "tickets"), last: None, count: 2, differing: plain(rows) };
    let step = read(&checkpoint(), page, 99, Rules::NONE);
    assert_eq!((step.changes.len(), step.parked.len()), (1, 1));
    assert_eq!(step.next.snapshot, SnapshotState::Running { time: time(10), after: None, rows: 2 });
}

proptest! {
    /// With "remove" the same changes are parked and appended as with "keep", and each document of a parked change is
    /// deleted at the version of that change, unless its key is clipped.
    #[test]
    fn parked_changes_remove_older_versions_by_policy(
        events in prop::collection::vec((prop::sample::select(vec!["fits", "unreadable", "large", "long key"]), 11u32..14), 1..20),
    ) {
        let document = |kind: &str| match kind {
            "unreadable" => Err("malformed".to_owned()),
            "large" => Ok("x".repeat(21)),
            _ => Ok("{}".to_owned()),
        };
        let mut times: Vec<u32> = events.iter().map(|(_, seconds)| *seconds).collect();
        times.sort_unstable();
        let key = |number: usize, kind: &str| if kind == "long key" { "k".repeat(50 + number) } else { number.to_string() };
        let fed: Vec<_> = events.iter().zip(times).enumerate().map(|(number, ((kind, _), seconds))| SourceEvent {
            key: key(number, kind),
            document: Some(document(kind)),
            ..event(Operation::Update, seconds, None)
        }).collect();
        let routes = [OnDeadLetter::Keep, OnDeadLetter::Remove].map(local_routes);
        let rows = events.iter().enumerate().map(|(number, (kind, _))| {
            let row = SourceRow::new(key(number, kind), String::new(), document(kind));
            let routed = routes[0].row(&Namespace::new("shop", "tickets"), &row, &[], |_| true);
            (row, routed.expect("it is covered"))
        });
        let page = PageRead { namespace: Namespace::new("shop", "tickets"), last: None, count: 1, differing: rows.collect() };
        let [keep, remove] =
            routes.each_ref().map(|routes| Rules { limits: Limits { key: 40, document: 20 }, routes: Some(routes) });
        let steps = |rules: Rules<'_>| [
            super::follow(&checkpoint(), batch(fed.clone()), &HashSet::new(), rules).0,
            read(&checkpoint(), page.clone(), 99, rules),
        ];
        for (kept, removed) in steps(keep).into_iter().zip(steps(remove)) {
            prop_assert_eq!(&kept.parked, &removed.parked);
            prop_assert_eq!(&kept.next, &removed.next);
            let (deletions, others): (Vec<_>, Vec<_>) =
                removed.changes.into_iter().partition(|change| change.operation == Operation::Delete);
            prop_assert_eq!(&kept.changes, &others);
            let expected: Vec<_> = removed.parked.iter().map(|parked| &parked.change)
                .filter(|change| !key::is_clipped(&change.key))
                .map(|change| (change.key.clone(), change.version)).collect();
            let found: Vec<_> = deletions.into_iter().map(|change| (change.key, change.version)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}

#[test]
fn renamed_collections_are_read_after_their_events() {
    let step = follow(&checkpoint(), batch(vec![event(Operation::Drop, 12, None)]));
    let next = read_again(step.next, time(13));
    assert_eq!(next.snapshot, SnapshotState::Running { time: time(13), after: None, rows: 0 });
}

#[test]
fn update_without_document_is_skipped_but_counted() {
    let events =
        vec![event(Operation::Update, 11, None), event(Operation::Delete, 11, None), event(Operation::Drop, 12, None)];
    let step = follow(&checkpoint(), batch(events));
    assert_eq!(versions(&step), ["0.11.1.2", "0.12.1.1"]);
}

#[test]
fn time_going_backwards_increments_the_epoch() {
    let step = follow(&checkpoint(), batch(vec![event(Operation::Insert, 9, Some("{}"))]));
    assert_eq!(versions(&step), ["1.9.1.1"]);
    let again = begun(Some((0, time(10))), "all".into(), ResumeToken("x".into()), time(9), true);
    assert_eq!((again.epoch, again.last), (1, (time(9), 0)));
    let later = begun(Some((0, time(10))), "all".into(), ResumeToken("x".into()), time(11), false);
    assert_eq!((later.epoch, later.snapshot), (0, SnapshotState::Done { time: time(11), rows: 0 }));
}

#[test]
fn snapshot_reads_at_its_time_and_saves_its_position() {
    let tickets = Namespace::new("shop", "tickets");
    let differing = plain(vec![row("1"), row("2")]);
    let page = PageRead { namespace: tickets.clone(), last: Some("3".into()), count: 3, differing };
    let step = read(&checkpoint(), page, 99, Rules::NONE);
    assert_eq!(versions(&step), ["0.10.1.0", "0.10.1.0"]);
    let after = Some((tickets, "3".to_owned()));
    assert_eq!(step.next.snapshot, SnapshotState::Running { time: time(10), after, rows: 3 });
    assert_eq!(step.next.token, checkpoint().token);
    let sweeping = read_all(&step.next).next;
    assert_eq!(sweeping.snapshot, SnapshotState::Sweeping { time: time(10), rows: 3, after: None });
    let absent = vec![(Namespace::new("shop", "tickets"), "7".into())];
    let removed = gone(&sweeping, PageSwept { target: None, last: Uuid::max(), time: time(12), absent }, 99);
    let after = Some(Swept { target: None, point: Uuid::max() });
    assert_eq!(versions(&removed), ["0.12.1.0"]);
    assert_eq!(removed.next.snapshot, SnapshotState::Sweeping { time: time(10), rows: 3, after });
    assert_eq!(swept(&sweeping).next.snapshot, SnapshotState::Done { time: time(10), rows: 3 });
}

fn row(key: &str) -> SourceRow {
    SourceRow::new(key, key, Ok(format!(r#"{{"_id":{key}}}"#)))
}

#[test]
fn recovery_rewinds_to_the_applied_checkpoint_if_it_is_usable() {
    let current = Checkpoint { token: ResumeToken("now".into()), ..checkpoint() };
    let (entries, collection) = (Damage::Entries(String::new()), Damage::Collection(String::new()));
    let applied = checkpoint();
    let recovered = |applied: &Checkpoint, damage| recover(&current, Some(applied.clone()), damage);
    assert_eq!(recovered(&applied, &entries), Recovery::Rewind(applied.clone()));
    assert_eq!(recovered(&applied, &collection), Recovery::Compare(applied.clone()));
    let other = Checkpoint { selection: "other".into(), ..applied.clone() };
    let past = Checkpoint { epoch: 7, ..applied };
    for useless in [other, past] {
        assert_eq!(recovered(&useless, &entries), Recovery::Compare(current.clone()));
    }
    assert_eq!(recover(&current, None, &collection), Recovery::Compare(current.clone()));
}

#[test]
fn start_depends_on_the_saved_checkpoint() {
    assert_eq!(start(None, "all", 0), Start::Fresh);
    assert_ne!(selection("all"), "all", "the form that an earlier release saved");
    let saved = checkpoint();
    assert_eq!(start(Some(&saved), "all", 0), Start::Resume(StartAt::Token(saved.token.clone())));
    assert_eq!(start(Some(&saved), "other", 0), Start::Reselect(StartAt::Time(time(10))));
}

proptest! {
    /// However the feed is split into batches, every event gets the same version: a crash between any two batches
    /// changes nothing.
    #[test]
    fn versions_are_independent_of_batch_boundaries(
        mut seconds in prop::collection::vec(10u32..14, 1..20),
        cuts in prop::collection::vec(any::<bool>(), 20),
    ) {
        seconds.sort_unstable();
        let events: Vec<_> = seconds.iter().map(|s| event(Operation::Insert, *s, Some("{}"))).collect();
        let whole = versions(&follow(&checkpoint(), batch(events.clone())));
        let mut at = checkpoint();
        let mut pieces = Vec::new();
        let mut piece = Vec::new();
        for (event, cut) in events.into_iter().zip(cuts) {
            piece.push(event);
            if cut {
                let step = follow(&at, batch(std::mem::take(&mut piece)));
                pieces.extend(versions(&step));
                at = step.next;
            }
        }
        pieces.extend(versions(&follow(&at, batch(piece))));
        let distinct: BTreeSet<_> = pieces.iter().collect();
        prop_assert_eq!(distinct.len(), pieces.len());
        prop_assert_eq!(pieces, whole);
    }
}
