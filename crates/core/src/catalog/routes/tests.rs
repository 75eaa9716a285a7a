use proptest::collection::vec;
use proptest::prelude::*;

use super::super::samples::{catalog, declaration, name};
use super::*;
use crate::catalog::State;
use crate::version::ClusterTime;

const OPEN: &str = r#"{"status":"open"}"#;

/// `open`: open tickets. `all`: all tickets. `notes`: all notes.
fn sample() -> Catalog {
    let mut open = declaration("open", "tickets");
    open.filter = Some(SourceFilter(OPEN.to_owned()));
    catalog(7, [open, declaration("all", "tickets"), declaration("notes", "notes")])
}

fn event(operation: Operation, verdict: Option<bool>, touched: Touched) -> SourceEvent {
    SourceEvent {
        operation,
        namespace: Namespace::new("shop", "tickets"),
        key: "1".into(),
        id: "1".into(),
        shard: String::new(),
        time: ClusterTime::default(),
        committed_at: 0,
        document: operation.has_document().then(|| Ok("{}".to_owned())),
        verdicts: verdict.into_iter().collect(),
        touched,
    }
}

fn paths_of(filter: &str) -> Option<Vec<String>> {
    paths(&SourceFilter(filter.to_owned()))
}

fn touched(path: &str) -> Touched {
    Touched::Paths(vec![path.to_owned()])
}

/// The targets and the leaves, without the number of the generation.
fn routed(routed: Option<Routed>) -> Option<(Vec<String>, Vec<String>, bool)> {
    let names = |targets: &[TargetId]| targets.iter().map(|target| target.index.to_string()).collect();
    routed.map(|routed| (names(&routed.stamp.targets), names(&routed.stamp.leaves), routed.keeps_document))
}

fn expected(targets: &[&str], leaves: &[&str], keeps_document: bool) -> Option<(Vec<String>, Vec<String>, bool)> {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Some((owned(targets), owned(leaves), keeps_document))
}

#[test]
fn matching_document_goes_to_every_target_of_its_collection() {
    let routes = routes(&sample());
    let update = event(Operation::Update, Some(true), touched("note"));
    assert_eq!(routed(routes.event(&update)), expected(&["all", "open"], &[], true));
    let first = routes.event(&update).unwrap();
    assert!(Arc::ptr_eq(&first.stamp, &routes.event(&update).unwrap().stamp));
    assert_eq!(first.stamp.catalog, 7);
}

#[test]
fn document_leaves_a_target_only_if_its_condition_may_have_changed() {
    let routes = routes(&sample());
    let update = |touched| routed(routes.event(&event(Operation::Update, Some(false), touched)));
    assert_eq!(update(touched("status")), expected(&["all"], &["open"], true));
    assert_eq!(update(Touched::All), expected(&["all"], &["open"], true));
    assert_eq!(update(touched("note")), expected(&["all"], &[], true));
    let insert = event(Operation::Insert, Some(false), Touched::Nothing);
    assert_eq!(routed(routes.event(&insert)), expected(&["all"], &[], true));
}

#[test]
fn document_without_a_target_becomes_a_deletion_or_nothing() {
    let mut catalog = sample();
    catalog.indexes.remove(&name("all"));
    let routes = routes(&catalog);
    let update = |touched| routed(routes.event(&event(Operation::Update, Some(false), touched)));
    assert_eq!(update(touched("status.code")), expected(&["open"], &[], false));
    assert_eq!(update(touched("note")), None);
    let mut elsewhere = event(Operation::Insert, Some(true), Touched::All);
    elsewhere.namespace = Namespace::new("crm", "tickets");
    assert_eq!(routes.event(&elsewhere), None);
}

#[test]
fn deletions_drops_and_unreadable_documents_concern_every_target() {
    let routes = routes(&sample());
    for operation in [Operation::Delete, Operation::Drop, Operation::Update] {
        let event = event(operation, None, Touched::Nothing);
        assert_eq!(routed(routes.event(&event)), expected(&["all", "open"], &[], true), "{operation}");
    }
}

#[test]
fn rows_go_to_targets_in_scope_that_lack_them() {
    let routes = routes(&sample());
    let namespace = Namespace::new("shop", "tickets");
    let row = |verdict: Option<bool>| SourceRow {
        verdicts: verdict.into_iter().collect(),
        ..SourceRow::new("1", "1", Ok("{}".to_owned()))
    };
    let due = |index: &str| Due { target: name(index).target(1), due: 7 };
    let rows = |verdict, scope: &[Due], lacking: &str| {
        let differs = |target: &TargetId| lacking.is_empty() || target.index.as_str() == lacking;
        routed(routes.row(&namespace, &row(verdict), scope, differs))
    };
    assert_eq!(rows(Some(true), &[], ""), expected(&["all", "open"], &[], true));
    assert_eq!(rows(Some(true), &[due("open")], ""), expected(&["open"], &[], true));
    assert_eq!(rows(Some(true), &[due("open"), due("all")], "all"), expected(&["all"], &[], true));
    assert_eq!(rows(Some(false), &[due("open")], ""), None);
    assert_eq!(rows(None, &[due("open")], ""), expected(&["open"], &[], true));
    assert_eq!(rows(Some(true), &[due("notes")], ""), None);
}

#[test]
fn document_that_is_read_again_leaves_the_targets_that_it_does_not_belong_to() {
    let routes = routes(&sample());
    let row = |verdict: Option<bool>| SourceRow {
        verdicts: verdict.into_iter().collect(),
        ..SourceRow::new("1", "1", Ok("{}".to_owned()))
    };
    let current = |collection: &str, row: Option<SourceRow>, among: &[&str]| {
        let namespace = Namespace::new("shop", collection);
        routed(routes.current(&namespace, row.as_ref(), |target| among.contains(&target.index.as_str())))
    };
    let both = ["all", "open"];
    assert_eq!(current("tickets", Some(row(Some(true))), &both), expected(&["all", "open"], &[], true));
    assert_eq!(current("tickets", Some(row(Some(false))), &both), expected(&["all"], &["open"], true));
    assert_eq!(current("tickets", Some(row(Some(false))), &["open"]), expected(&["open"], &[], false));
    assert_eq!(current("tickets", Some(row(None)), &["open"]), expected(&["open"], &[], true));
    assert_eq!(current("tickets", None, &both), expected(&["all", "open"], &[], false));
    assert_eq!(current("users", Some(row(Some(true))), &both), expected(&["all", "open"], &[], false));
    assert_eq!(current("tickets", Some(row(Some(true))), &["elsewhere"]), None);
}

#[test]
fn retiring_and_created_generations_receive_nothing() {
    for state in [State::Creating, State::Retiring] {
        let mut catalog = sample();
        for index in catalog.indexes.values_mut() {
            index.generations.values_mut().for_each(|generation| generation.state = state);
        }
        let routes = routes(&catalog);
        assert_eq!(routes.event(&event(Operation::Insert, Some(true), Touched::All)), None, "{state}");
        assert_eq!(**routes.coverage(), Coverage::default());
    }
}

#[test]
fn coverage_has_each_selector_and_each_filter_once() {
    let mut catalog = sample();
    let index = catalog.indexes[&name("open")].clone();
    catalog.indexes.insert(name("again"), index);
    let routes = routes(&catalog);
    assert_eq!(routes.coverage().selectors.len(), 2);
    assert_eq!(routes.coverage().filters, [SourceFilter(OPEN.to_owned())]);
    assert_eq!(routes.revision(), 7);
}

#[test]
fn entries_of_the_short_form_have_no_stamp() {
    let catalog = Catalog::short_form(Arc::new(declaration("tickets", "tickets")));
    let routes = routes(&catalog);
    let insert = event(Operation::Insert, None, Touched::All);
    assert_eq!(routes.event(&insert).unwrap().into_route(), Route::Plain);
    assert_eq!(routes.on_dead_letter(&name("tickets").target(1)), OnDeadLetter::Keep);
}

#[test]
fn paths_of_filters_are_found_below_combining_operators() {
    let found =
        paths_of(r#"{"a.b": 1, "$or": [{"c": {"$elemMatch": {"d": 1}}}, {"$and": [{"a.b": 2}, {"e": null}]}]}"#);
    assert_eq!(found.unwrap(), ["a.b", "c", "e"]);
    assert_eq!(paths_of("{}"), Some(Vec::new()));
    for unknown in [r#"{"$expr": {}}"#, r#"{"$or": {}}"#, "[]", "{"] {
        assert_eq!(paths_of(unknown), None, "{unknown}");
    }
    let unknown = Condition { number: 0, paths: None };
    assert!(unknown.may_change(&touched("anything")));
}

/// A write of one document, of which `status` decides whether it matches.
#[derive(Clone, Copy, Debug)]
enum Write {
    Insert { open: bool },
    Replace { open: bool },
    Status { open: bool },
    Note,
    Delete,
}

/// The state of the document after each write; `None` without a document. Writes that are impossible are left out.
fn states(writes: &[Write]) -> Vec<(Write, Option<bool>)> {
    let (mut state, mut history) = (None, Vec::new());
    for write in writes {
        state = match (*write, state) {
            (Write::Insert { open }, None) => Some(open),
            (Write::Replace { open } | Write::Status { open }, Some(_)) => Some(open),
            (Write::Note, Some(open)) => Some(open),
            (Write::Delete, Some(_)) => None,
            _ => continue,
        };
        history.push((*write, state));
    }
    history
}

/// The event of a write. Its document is the one that a lookup finds; `None` if that finds nothing, so that nothing is
/// appended.
fn observed(write: Write, own: Option<bool>, found: Option<bool>, knows_paths: bool) -> Option<SourceEvent> {
    let paths = |path: &str| if knows_paths { touched(path) } else { Touched::All };
    let (operation, verdict, touched) = match write {
        Write::Insert { .. } if knows_paths => (Operation::Insert, own, Touched::Nothing),
        Write::Insert { .. } => (Operation::Insert, own, Touched::All),
        Write::Replace { .. } => (Operation::Replace, own, Touched::All),
        Write::Status { .. } => (Operation::Update, found, paths("status")),
        Write::Note => (Operation::Update, found, paths("note")),
        Write::Delete => (Operation::Delete, None, Touched::All),
    };
    (verdict.is_some() || write_removes(write)).then(|| event(operation, verdict, touched))
}

fn write_removes(write: Write) -> bool {
    matches!(write, Write::Delete)
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let write = prop_oneof![
        any::<bool>().prop_map(|open| Write::Insert { open }),
        any::<bool>().prop_map(|open| Write::Replace { open }),
        any::<bool>().prop_map(|open| Write::Status { open }),
        Just(Write::Note),
        Just(Write::Delete),
    ];
    vec(write, 0..14)
}

proptest! {
    /// Each target is named once: it either receives the document, or loses it.
    #[test]
    fn document_that_is_read_again_concerns_exactly_the_given_targets(
        among in proptest::sample::subsequence(vec!["all", "notes", "open"], 0..=3),
        verdict: Option<bool>,
        exists: bool,
        collection in proptest::sample::select(vec!["tickets", "notes", "users"]),
    ) {
        let routes = routes(&sample());
        let row = exists.then(|| SourceRow {
            verdicts: verdict.into_iter().collect(),
            ..SourceRow::new("1", "1", Ok("{}".to_owned()))
        });
        let namespace = Namespace::new("shop", collection);
        let current =
            routes.current(&namespace, row.as_ref(), |target| among.contains(&target.index.as_str()));
        let Some(Routed { stamp, keeps_document }) = current else {
            prop_assert!(among.is_empty());
            return Ok(());
        };
        let mut named: Vec<&str> =
            stamp.targets.iter().chain(&stamp.leaves).map(|target| target.index.as_str()).collect();
        named.sort_unstable();
        prop_assert_eq!(named, among.clone());
        let belongs = |name: &str| match (name, collection) {
            ("notes", "notes") | ("all", "tickets") => exists,
            ("open", "tickets") => exists && verdict != Some(false),
            _ => false,
        };
        prop_assert_eq!(keeps_document, among.iter().any(|name| belongs(name)));
        if keeps_document {
            prop_assert!(stamp.targets.iter().all(|target| belongs(target.index.as_str())));
        }
    }

    /// Whatever state a lookup returns, and in whatever order entries are applied.
    #[test]
    fn document_ends_in_a_target_if_and_only_if_it_matches(
        writes in writes(),
        lags in vec(0..4_usize, 14),
        order in Just((0..14_usize).collect::<Vec<_>>()).prop_shuffle(),
        knows_paths: bool,
    ) {
        let history = states(&writes);
        let routes = routes(&sample());
        let entries: Vec<Option<Routed>> = (0..history.len())
            .map(|at| {
                let found = (at + lags[at]).min(history.len() - 1);
                let event = observed(history[at].0, history[at].1, history[found].1, knows_paths)?;
                routes.event(&event)
            })
            .collect();
        let (mut newest, mut member): (Option<usize>, bool) = (None, false);
        for at in order {
            let Some(Some(entry)) = entries.get(at) else { continue };
            let open = |targets: &[TargetId]| targets.iter().any(|target| target.index.as_str() == "open");
            let (targets, leaves) = (open(&entry.stamp.targets), open(&entry.stamp.leaves));
            if (targets || leaves) && newest.is_none_or(|newest| at > newest) {
                newest = Some(at);
                member = targets && entry.keeps_document && !write_removes(history[at].0);
            }
        }
        let last = history.last().and_then(|(_, state)| *state);
        prop_assert_eq!(member, last == Some(true), "{:?}", history);
    }

    #[test]
    fn only_events_that_touch_the_condition_remove_a_document(writes in writes()) {
        let routes = routes(&sample());
        let history = states(&writes);
        let leaves = |knows_paths| {
            let events = history.iter().filter_map(|(write, state)| observed(*write, *state, *state, knows_paths));
            events.filter(|event| routes.event(event).is_some_and(|routed| !routed.stamp.leaves.is_empty())).count()
        };
        let closed = |write: &Write, state: &Option<bool>| *state == Some(false) && !write_removes(*write);
        let all = history.iter().filter(|(write, state)| closed(write, state)).count();
        let touching = |write: &Write| matches!(write, Write::Status { .. } | Write::Replace { .. });
        let transitions = history.iter().filter(|(write, state)| closed(write, state) && touching(write)).count();
        prop_assert_eq!((leaves(false), leaves(true)), (all, transitions));
    }
}
