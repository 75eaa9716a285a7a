//! Routes, adoption and scopes.

use tidewheel_core::catalog::{Due, Generation, Index, IndexName, Needs, Rows, State, TargetId};
use tidewheel_core::change::{Route, Stamp};
use tidewheel_core::ports::SourceFilter;

use super::super::super::admission::parkings;
use super::*;
use crate::targets::samples::{Servers, catalog, first};

/// Notes are open tickets, tickets are all documents.
fn filtered(revision: u64) -> Catalog {
    let mut catalog = catalog(revision, &[("notes", State::Serving, true), ("tickets", State::Serving, true)]);
    let notes = generation(&mut catalog, "notes");
    Arc::make_mut(&mut notes.declaration).filter = Some(SourceFilter(r#"{"state":"open"}"#.to_owned()));
    catalog
}

fn generation<'a>(catalog: &'a mut Catalog, name: &str) -> &'a mut Generation {
    let index = catalog.indexes.get_mut(&IndexName::new(name).unwrap()).unwrap();
    index.generations.get_mut(&1).unwrap()
}

fn removes(catalog: &mut Catalog, name: &str) {
    Arc::make_mut(&mut generation(catalog, name).declaration).rules.on_dead_letter = OnDeadLetter::Remove;
}

/// An update that sets the field of the filter, after which the document is or is not open.
fn update(seconds: u32, is_open: bool) -> SourceEvent {
    SourceEvent {
        verdicts: [is_open].into_iter().collect(),
        touched: Touched::Paths(vec!["state".into()]),
        ..event(Operation::Update, seconds, Some("{}"))
    }
}

fn routed(catalog: &Catalog, events: Vec<SourceEvent>, document: usize) -> Step {
    let routes = routes(catalog);
    let rules = Rules { limits: Limits { key: 40, document }, routes: Some(&routes) };
    super::super::follow(&checkpoint(), batch(events), &HashSet::new(), rules).0
}

/// The targets and the leaves of a route.
fn names(route: &Route) -> (Vec<String>, Vec<String>) {
    let names = |targets: &[TargetId]| targets.iter().map(|target| target.index.to_string()).collect();
    route.stamp().map(|stamp| (names(&stamp.targets), names(&stamp.leaves))).unwrap_or_default()
}

fn stamped(targets: &[&str], leaves: &[&str]) -> (Vec<String>, Vec<String>) {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    (owned(targets), owned(leaves))
}

#[test]
fn changes_are_stamped_with_their_targets() {
    let catalog = filtered(7);
    let events = vec![update(11, true), update(12, false), event(Operation::Delete, 13, None)];
    let step = routed(&catalog, events, 20);
    let routes: Vec<_> = step.changes.iter().map(|change| names(&change.route)).collect();
    let wanted =
        [stamped(&["notes", "tickets"], &[]), stamped(&["tickets"], &["notes"]), stamped(&["notes", "tickets"], &[])];
    assert_eq!(routes, wanted);
    assert!(step.changes.iter().all(|change| change.route.catalog() == 7));
    assert_eq!(operations(&step), [Operation::Update, Operation::Update, Operation::Delete]);
}

#[test]
fn document_outside_every_filter_becomes_a_deletion_without_content() {
    let mut catalog = filtered(7);
    catalog.indexes.retain(|name, _| name.as_str() == "notes");
    let untouched = SourceEvent { touched: Touched::Nothing, ..update(11, false) };
    let step = routed(&catalog, vec![untouched, update(11, false), update(11, true)], 20);
    assert_eq!(versions(&step), ["0.11.1.2", "0.11.1.3"], "the first event is counted, and not appended");
    assert_eq!(operations(&step), [Operation::Delete, Operation::Update]);
    assert_eq!((step.changes[0].document.as_ref(), names(&step.changes[0].route)), (None, stamped(&["notes"], &[])));
}

#[test]
fn parked_change_leaves_its_filter_and_removes_by_the_policy_of_each_target() {
    let mut catalog = filtered(7);
    let deletions = |step: &Step| {
        let deletions = step.changes.iter().filter(|change| change.operation == Operation::Delete);
        deletions.map(|change| (change.version.to_string(), names(&change.route))).collect::<Vec<_>>()
    };
    let large = || vec![update(11, false)];
    let kept = routed(&catalog, large(), 1);
    assert_eq!(deletions(&kept), [("0.11.1.1".to_owned(), stamped(&["notes"], &[]))]);
    assert_eq!(names(&kept.parked[0].change.route), stamped(&["tickets"], &[]), "the rest can be retried");
    removes(&mut catalog, "tickets");
    let removed = routed(&catalog, large(), 1);
    assert_eq!(deletions(&removed), [("0.11.1.1".to_owned(), stamped(&["notes", "tickets"], &[]))]);
    assert_eq!(removed.parked, kept.parked);
    let joined = routed(&catalog, vec![update(11, true)], 1);
    assert_eq!(deletions(&joined), [("0.11.1.1".to_owned(), stamped(&["tickets"], &[]))]);
    assert_eq!(names(&joined.parked[0].change.route), stamped(&["notes", "tickets"], &[]));
}

#[test]
fn event_that_stands_for_unknown_ones_is_parked_for_every_target() {
    let namespace = Namespace::new("unknown", "unknown");
    let unknown =
        || SourceEvent { namespace: namespace.clone(), document: Some(Err("too large".into())), ..update(11, true) };
    let step = routed(&filtered(7), vec![unknown()], 20);
    assert!(step.changes.is_empty());
    assert_eq!(names(&step.parked[0].change.route), stamped(&["notes", "tickets"], &[]));
    let local = routed(&Catalog::short_form(Arc::new(declaration("documents"))), vec![unknown()], 20);
    assert_eq!((local.parked.len(), &local.parked[0].change.route), (1, &Route::Plain));
}

#[test]
fn change_that_redis_rejects_still_leaves_its_filter() {
    let step = routed(&filtered(7), vec![update(11, false)], 20);
    let all: Vec<Step> = parkings(&step, "rejected").collect();
    let (first, last) = (&all[0], &all[all.len() - 1]);
    assert_eq!(operations(first), [Operation::Delete]);
    assert_eq!(names(&first.changes[0].route), stamped(&["notes"], &[]));
    assert_eq!(names(&first.parked[0].change.route), stamped(&["tickets"], &[]));
    assert!(last.changes.is_empty() && key::is_clipped(&last.parked[0].change.key), "the key may be the reason");
}

#[test]
fn row_is_routed_to_the_targets_that_it_was_read_for() {
    let differing = vec![(
        row("1"),
        Routed {
            stamp: Arc::new(Stamp { catalog: 7, targets: vec![first("notes")], leaves: Vec::new() }),
            keeps_document: true,
        },
    )];
    let page = PageRead { namespace: Namespace::new("shop", "tickets"), last: None, count: 1, differing };
    let step = read(&checkpoint(), page, 99, Rules::NONE);
    assert_eq!(names(&step.changes[0].route), stamped(&["notes"], &[]));
}

#[test]
fn changed_coverage_reopens_the_feed_and_a_changed_form_of_keys_compares() {
    let current = selection("shop.*");
    let saved = Checkpoint { selection: current.clone(), through: time(15), last: (time(12), 3), ..checkpoint() };
    assert_eq!(start(Some(&saved), &current, 7), Start::Resume(StartAt::Token(saved.token.clone())));
    let other = selection("crm.*");
    assert_eq!(
        start(Some(&saved), &other, 7),
        Start::Reopen(StartAt::Time(time(15))),
        "everything up to it is appended"
    );
    let behind = Checkpoint { through: ClusterTime::default(), ..saved.clone() };
    assert_eq!(start(Some(&behind), &other, 7), Start::Reopen(StartAt::Time(time(12))));
    assert_eq!(start(Some(&saved), &other, 0), Start::Reselect(StartAt::Time(time(12))), "local settings");
    let former = Checkpoint { selection: "shop.*".into(), ..saved };
    assert_eq!(start(Some(&former), &current, 7), Start::Reselect(StartAt::Time(time(12))));
}

#[test]
fn events_of_the_time_at_which_the_feed_is_reopened_get_greater_ordinals() {
    let reopened = Checkpoint { last: (time(12), 3), ..checkpoint() };
    let step =
        follow(&reopened, batch(vec![event(Operation::Insert, 12, Some("{}")), event(Operation::Delete, 12, None)]));
    assert_eq!(versions(&step), ["0.12.1.4", "0.12.1.5"]);
}

#[test]
fn rewind_keeps_the_current_catalog() {
    let applied = Checkpoint { selection: selection("shop.*"), catalog: 5, ..checkpoint() };
    let current = Checkpoint { selection: selection("crm.*"), catalog: 7, last: (time(20), 1), ..applied.clone() };
    let entries = Damage::Entries(String::new());
    let rewound = Checkpoint { catalog: 7, ..applied.clone() };
    assert_eq!(recover(&current, Some(applied.clone()), &entries), Recovery::Rewind(rewound));
    let former = Checkpoint { selection: "shop.*".into(), ..applied };
    assert_eq!(recover(&current, Some(former), &entries), Recovery::Compare(current.clone()), "another form of keys");
}

#[test]
fn targets_that_missed_changes_are_made_due_once() {
    let mut catalog = catalog(7, &[("notes", State::Serving, true), ("tickets", State::Filling, false)]);
    let partial = Needs { rows: Rows::Payload, sweep: false };
    let due = |catalog: &Catalog| {
        let changed = made_due(catalog, 9, |_, generation| missed(generation));
        let generation = |(name, index): &(IndexName, Option<Index>)| {
            let generation = &index.as_ref().expect("nothing is removed").generations[&1];
            (name.to_string(), generation.due, generation.needs)
        };
        changed.iter().map(generation).collect::<Vec<_>>()
    };
    let lacking = Needs::COMPARISON;
    assert_eq!(due(&catalog), [("notes".to_owned(), 9, lacking)], "the other one is read and swept anyway");
    let tickets = generation(&mut catalog, "tickets");
    tickets.needs = partial;
    let both = [("notes".to_owned(), 9, lacking), ("tickets".to_owned(), 9, lacking)];
    assert_eq!(due(&catalog), both);
    let notes = generation(&mut catalog, "notes");
    notes.make_due(8, COMPLETE);
    assert_eq!(due(&catalog), both, "another selection is taken up, but documents were not missing");
    generation(&mut catalog, "notes").make_due(8, lacking);
    assert_eq!(due(&catalog), both[1..]);
    generation(&mut catalog, "tickets").state = State::Creating;
    assert_eq!(due(&catalog), [], "nothing is routed to it yet");
}

#[tokio::test]
async fn snapshot_does_for_each_target_in_scope_what_the_catalog_requires() {
    let servers = Servers::new();
    let mut catalog = catalog(7, &[("notes", State::Serving, true), ("tickets", State::Filling, false)]);
    let payload = Needs { rows: Rows::Payload, sweep: false };
    generation(&mut catalog, "tickets").needs = payload;
    servers.apply(&catalog).await;
    let applied = servers.targets().reload().await.unwrap();
    let filled = |scope: Vec<Due>| {
        let checkpoint = Checkpoint { catalog: 7, scope, ..checkpoint() };
        let filled = filled_by(&checkpoint, &applied).into_iter();
        filled.map(|(target, needs)| (target.id.index.to_string(), needs)).collect::<Vec<_>>()
    };
    let all = everything(applied.catalog());
    assert_eq!(all, ["notes", "tickets"].map(|name| Due { target: first(name), due: 7 }));
    assert_eq!(filled(all.clone()), [("notes".to_owned(), COMPLETE), ("tickets".to_owned(), payload)]);
    assert_eq!(filled(all[1..].to_vec()), [("tickets".to_owned(), payload)]);
    assert_eq!(filled(vec![Due { target: first("gone"), due: 7 }]), []);
    assert_eq!(filled(Vec::new()), [], "a snapshot of the short form, which has no target any more");
}

#[test]
fn abandoned_snapshot_fills_nothing() {
    let scope = vec![Due { target: first("notes"), due: 7 }];
    let begun = begin(&checkpoint(), time(13), scope.clone()).next;
    assert_eq!(
        (begun.snapshot.clone(), begun.scope.clone()),
        (SnapshotState::Running { time: time(13), after: None, rows: 0 }, scope)
    );
    let ended = abandon(&begun).next;
    assert_eq!((ended.snapshot, ended.scope), (SnapshotState::Done { time: time(13), rows: 0 }, Vec::new()));
    assert!(everything(&Catalog::short_form(Arc::new(declaration("documents")))).is_empty());
}
