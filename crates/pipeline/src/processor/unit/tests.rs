use tidewheel_core::catalog::{Catalog, State};
use tidewheel_core::change::Operation;
use tidewheel_stores::redis::wire::Record as _;

use super::super::samples::{REVISION, applied, change, entry, local, model, routed, texts};
use super::*;
use crate::targets::samples::{catalog, first};

/// Indexes `a` to `d`, of which the last two remove parked documents.
fn four() -> Catalog {
    let states = ["a", "b", "c", "d"].map(|name| (name, State::Serving, true));
    let mut catalog = catalog(REVISION, &states);
    for name in ["c", "d"] {
        let index = catalog.indexes.get_mut(&first(name).index).unwrap();
        let mut declaration = texts(name);
        declaration.rules.on_dead_letter = OnDeadLetter::Remove;
        index.generations.get_mut(&1).unwrap().declaration = Arc::new(declaration);
    }
    catalog
}

fn written(to: Vec<usize>, unchanged: Vec<usize>) -> Part {
    behind("Late", to, unchanged)
}

/// A document whose chunk has this prefix.
fn behind(prefix: &str, to: Vec<usize>, unchanged: Vec<usize>) -> Part {
    let vectors = Vectors::new(2, vec![1.0, 0.0]).unwrap();
    let (chunks, prefix) = (vec!["text".to_owned()], prefix.to_owned());
    Part::Embedded { to, texts: Texts { model: model(), chunks, prefix, vectors, reused: 0, unchanged } }
}

fn failed(to: Vec<usize>, message: &str, attempts: u32) -> Part {
    Part::Failed { to, error: PortError { attempts, ..PortError::poison(message) } }
}

fn unit(change: Change, parts: Vec<Part>) -> Unit {
    Unit { change, entries: vec![entry(3), entry(1), entry(2)], parts, open: 0 }
}

fn settle(unit: Unit, lanes: &Lanes) -> (Settled, Vec<Embedded>) {
    let mut records = Vec::new();
    let settled = unit.settle(lanes, &mut records);
    (settled, records)
}

/// The targets of records, with their operations.
fn targets(records: &[Embedded]) -> Vec<(String, Operation)> {
    let name = |record: &Embedded| record.target.as_ref().map(|target| target.id.index.to_string());
    records.iter().map(|record| (name(record).unwrap_or_default(), record.change.operation)).collect()
}

fn update(to: &[&str], leaves: &[&str]) -> Change {
    routed(change(Operation::Update, 1, 9), to, leaves)
}

#[tokio::test]
async fn every_target_has_one_complete_record() {
    let (declared, change) = (four(), update(&["a", "b", "c"], &["d"]));
    let lanes = applied(&declared).await;
    let parts = vec![written(vec![0, 1], vec![1]), Part::Removed { to: vec![3] }, written(vec![2], vec![])];
    let (settled, mut records) = settle(unit(change.clone(), parts), &lanes);
    assert_eq!((settled.entries.len(), settled.letter.is_none(), settled.gaps.len()), (3, true, 0));
    records.sort_by_key(|record| record.target.as_ref().map(|target| target.id.clone()));
    use Operation::{Delete, Update};
    let names = |operations: [Operation; 4]| ["a", "b", "c", "d"].map(ToOwned::to_owned).into_iter().zip(operations);
    assert_eq!(targets(&records), names([Update, Update, Update, Delete]).collect::<Vec<_>>());
    for (record, name) in records.iter().zip(["a", "b", "c", "d"]) {
        let target = record.target.as_ref().unwrap();
        let made = declared.generation(&first(name)).unwrap().declaration.made();
        assert_eq!((target.catalog, target.made), (REVISION, made.text));
        assert_eq!(record.change.version, change.version);
        assert_eq!(record.unchanged, name == "b");
    }
    for record in &records[..3] {
        assert_eq!(
            (&record.change, &record.chunks[..], record.prefix.as_str()),
            (&change, &["text".into()][..], "Late")
        );
        assert_eq!((record.vectors.len(), record.model.as_str(), record.revision.as_str()), (1, "hash:2", "1"));
    }
    assert!(records[3].change.document.is_none() && records[3].chunks.is_empty());
}

#[tokio::test]
async fn change_that_fails_for_some_targets_is_handed_over_for_the_others_and_parked() {
    let lanes = applied(&four()).await;
    let parts = || vec![written(vec![0], vec![]), failed(vec![1], "bad", 3), Part::Removed { to: vec![3] }];
    let (settled, records) = settle(unit(update(&["a", "b"], &["d"]), parts()), &lanes);
    assert_eq!(targets(&records), [("d".to_owned(), Operation::Delete), ("a".to_owned(), Operation::Update)]);
    let letter = settled.letter.unwrap();
    assert_eq!((letter.id, letter.reason.as_str(), letter.attempts), (entry(3), "bad", 3));
    assert_eq!(letter.targets, [first("b")]);
    assert_eq!(settled.entries, [entry(1), entry(2)]);

    // A policy of the failed target removes the document from it, with the version of the parked change.
    let parts = vec![written(vec![0], vec![]), failed(vec![2], "bad", 1)];
    let (settled, records) = settle(unit(update(&["a", "c"], &[]), parts), &lanes);
    assert_eq!(targets(&records), [("c".to_owned(), Operation::Delete), ("a".to_owned(), Operation::Update)]);
    assert_eq!(records[0].change.version, records[1].change.version);
    assert_eq!(settled.letter.unwrap().targets, [first("c")]);
}

#[tokio::test]
async fn letter_for_all_targets_keeps_the_entry_and_names_every_reason() {
    let lanes = applied(&four()).await;
    let parts = vec![failed(vec![0], "bad", 3), failed(vec![1], "worse", 5)];
    let (settled, records) = settle(unit(update(&["a", "b"], &[]), parts), &lanes);
    let letter = settled.letter.unwrap();
    assert!(records.is_empty() && letter.targets.is_empty());
    assert_eq!((letter.reason.as_str(), letter.attempts), ("a.g1: bad; b.g1: worse", 5));
    let equal = vec![failed(vec![0], "bad", 3), failed(vec![1], "bad", 3)];
    let (settled, _) = settle(unit(update(&["a", "b"], &["d"]), equal), &lanes);
    let letter = settled.letter.unwrap();
    // The document has left `d` already when the entry is parked.
    assert_eq!((letter.reason.as_str(), letter.targets), ("bad", vec![first("a"), first("b")]));
}

#[tokio::test]
async fn skipped_targets_are_gaps_of_the_same_step() {
    let lanes = applied(&four()).await;
    let skipped = Part::Skipped { to: vec![1, 2], reason: "down".to_owned() };
    let (settled, records) =
        settle(unit(update(&["a", "b", "c"], &[]), vec![written(vec![0], vec![]), skipped]), &lanes);
    let gap = |name: &str| Gap { target: first(name), reason: "down".to_owned() };
    assert_eq!((settled.gaps, settled.entries.len()), (vec![gap("b"), gap("c")], 3));
    assert_eq!(targets(&records), [("a".to_owned(), Operation::Update)]);
}

#[test]
fn record_of_local_settings_has_the_fields_of_earlier_releases() {
    let lanes = local(texts("documents"));
    let (change, deletion) = (change(Operation::Update, 1, 9), change(Operation::Delete, 1, 9));
    let (settled, records) = settle(unit(change.clone(), vec![behind("", vec![0], vec![0])]), &lanes);
    assert_eq!((settled.entries.len(), settled.letter.is_none(), settled.gaps.len()), (3, true, 0));
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!((&record.change, &record.target, record.unchanged), (&change, &None, true));
    let names: Vec<_> = record.encode().into_iter().map(|(name, _)| name).collect();
    let of_change = ["format", "operation", "namespace", "id", "key", "version", "committed_at"];
    let of_texts = ["document", "model", "revision", "dimension", "chunks", "vectors", "unchanged"];
    assert_eq!(names, [&of_change[..], &of_texts[..]].concat());

    let (_, records) = settle(unit(deletion.clone(), vec![Part::Removed { to: vec![0] }]), &lanes);
    assert_eq!(records, [Embedded::without_vectors(deletion)]);
    let (settled, records) = settle(unit(change, vec![failed(vec![0], "bad", 3)]), &lanes);
    let letter = settled.letter.unwrap();
    assert!(records.is_empty() && letter.targets.is_empty());
    assert_eq!((letter.id, letter.reason.as_str(), letter.attempts), (entry(3), "bad", 3));
}
