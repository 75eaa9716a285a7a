use proptest::prelude::*;
use serde_json::json;
use tidewheel_core::catalog::{OnDeadLetter, State};
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::RecordError;

use super::super::options::Blank;
use super::super::samples::{REVISION, applied, change, deliveries, entry, local, routed, texts};
use super::super::steps::Steps;
use super::*;
use crate::targets::samples::{Servers, catalog, first};

use Operation::{Delete, Insert, Read, Update};

/// The lane of local settings.
fn lanes(blank: Blank, on_dead_letter: OnDeadLetter) -> Lanes {
    let mut declaration = texts("documents");
    declaration.text.blank = blank;
    declaration.rules.on_dead_letter = on_dead_letter;
    local(declaration)
}

fn plain() -> Lanes {
    lanes(Blank::Index, OnDeadLetter::Keep)
}

/// What a plan hands over and parks before its jobs are done.
#[derive(Default)]
struct Outcome {
    records: Vec<Embedded>,
    acknowledged: Vec<EntryId>,
    letters: Vec<DeadLetter>,
}

fn outcome(lanes: &Lanes, plan: Plan) -> Outcome {
    let (mut steps, mut records) = (Steps::default(), Vec::new());
    for unit in plan.units.into_iter().filter(|unit| unit.open == 0) {
        let settled = unit.settle(lanes, &mut records);
        steps.add(&mut records, settled);
    }
    let mut outcome = Outcome { letters: plan.letters, ..Outcome::default() };
    for handful in steps.take() {
        let units = 0..handful.len();
        outcome.acknowledged.extend(handful.entries_of(units.clone()));
        outcome.letters.extend(units.filter_map(|unit| handful.settled(unit).letter.clone()));
        outcome.records.extend(handful.records);
    }
    outcome.letters.append(&mut steps.letters);
    outcome.acknowledged.append(&mut steps.superfluous);
    outcome
}

/// The entries of a unit.
fn numbers(entries: &[EntryId]) -> Vec<u64> {
    entries.iter().map(|entry| entry.parts().0).collect()
}

proptest! {
    #[test]
    fn newest_change_of_each_document_wins_in_any_order_and_every_entry_is_settled_once(
        changes in prop::collection::vec((prop::sample::select(&Operation::ALL[..]), 0u8..4, 0u32..6), 0..30),
    ) {
        let batch = changes.iter().map(|(operation, key, time)| change(*operation, *key, *time));
        let plan = plain().plan(deliveries(batch), &Skipped::new());
        prop_assert!(plan.letters.is_empty() && plan.retired.is_empty());
        let mut settled: Vec<&EntryId> = plan.units.iter().flat_map(|unit| &unit.entries).collect();
        settled.sort();
        let mut all: Vec<EntryId> = (0..changes.len()).map(entry).collect();
        all.sort();
        prop_assert_eq!(settled, all.iter().collect::<Vec<_>>());
        for key in 0..4 {
            let newest = changes.iter().filter(|(operation, k, _)| *k == key && !operation.is_of_collection())
                .map(|(_, _, time)| *time).max();
            let kept = plan.units.iter().map(|unit| &unit.change)
                .filter(|change| change.key == key.to_string())
                .map(|change| change.version.time.seconds)
                .collect::<Vec<_>>();
            // Plus the newest of the deletions that it supersedes.
            prop_assert_eq!(kept.iter().max(), newest.as_ref());
            let deletions = changes.iter().filter(|(operation, k, _)| *k == key && *operation == Delete);
            let deletion = deletions.map(|(_, _, time)| *time).max().filter(|time| Some(*time) != newest);
            prop_assert!(kept.iter().all(|time| Some(*time) == newest || Some(*time) == deletion), "{:?}", kept);
            prop_assert!(kept.len() <= 2);
        }
        let wide = changes.iter().filter(|(operation, ..)| operation.is_of_collection()).count();
        let passed = plan.units.iter().filter(|unit| unit.change.operation.is_of_collection()).count();
        prop_assert_eq!(passed, wide);
        let documents = plan.units.iter().filter(|unit| unit.change.operation.has_document()).count();
        prop_assert_eq!(plan.jobs.len(), documents);
    }

    /// Each target gets what it would get from a batch of the changes that concern it.
    #[test]
    fn targets_are_planned_independently(
        changes in prop::collection::vec(
            (prop::sample::select(vec![Insert, Update, Read, Delete]), 0u8..3, 0u32..6, 0u8..9), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let states = [("notes", State::Serving, true), ("tickets", State::Serving, true)];
        let lanes = runtime.block_on(applied(&catalog(REVISION, &states)));
        // A change concerns a target as a member, as one that leaves, or not at all.
        let concerns = |code: u8| [code % 3, code / 3];
        let route = |(operation, key, time, code): &(Operation, u8, u32, u8)| {
            let with = |effect: u8| {
                let names = ["notes", "tickets"].into_iter().zip(concerns(*code));
                names.filter(move |(_, found)| *found == effect).map(|(name, _)| name).collect::<Vec<_>>()
            };
            routed(change(*operation, *key, *time), &with(1), &with(2))
        };
        let kept = |changes: Vec<Change>| {
            let plan = lanes.plan(deliveries(changes), &Skipped::new());
            let mut kept = Vec::new();
            for (number, unit) in plan.units.iter().enumerate() {
                let removed = unit.parts.iter().flat_map(|part| match part {
                    Part::Removed { to } => to.iter().map(|lane| (*lane, false)).collect::<Vec<_>>(),
                    _ => Vec::new(),
                });
                let jobs = plan.jobs.iter().filter(|job| job.unit == number);
                let written = jobs.flat_map(|job| job.to.iter().map(|lane| (*lane, true)));
                for (lane, written) in removed.chain(written) {
                    kept.push((lane, unit.change.key.clone(), unit.change.version, written));
                }
            }
            kept.sort();
            kept
        };
        let together = kept(changes.iter().map(route).collect());
        let mut apart = Vec::new();
        for (lane, name) in ["notes", "tickets"].into_iter().enumerate() {
            let alone = |change: &(Operation, u8, u32, u8)| {
                let change = route(change);
                let stamp = change.route.stamp().unwrap().clone();
                let only = |targets: &[_]| if targets.contains(&first(name)) { vec![name] } else { Vec::new() };
                routed(change, &only(&stamp.targets), &only(&stamp.leaves))
            };
            apart.extend(kept(changes.iter().map(alone).collect()).into_iter().filter(|kept| kept.0 == lane));
        }
        apart.sort();
        prop_assert_eq!(together, apart);
    }
}

#[test]
fn unreadable_entries_are_parked_and_their_neighbours_proceed() {
    let mut batch = deliveries([change(Insert, 1, 1), change(Insert, 2, 1)]);
    batch.push(Delivery { id: entry(9), record: Err(RecordError::Missing("key")) });
    batch[1].record.as_mut().unwrap().document = Some("not json".into());
    let lanes = plain();
    let plan = lanes.plan(batch, &Skipped::new());
    assert_eq!(plan.jobs.len(), 1);
    let letters = outcome(&lanes, plan).letters;
    assert_eq!(letters.iter().map(|letter| letter.id.0.as_str()).collect::<Vec<_>>(), ["9-0", "1-0"]);
    assert!(letters[1].reason.contains("invalid document"), "{}", letters[1].reason);
    assert!(letters.iter().all(|letter| letter.targets.is_empty()));
}

#[test]
fn document_without_visible_text_is_indexed_as_one_empty_chunk_or_deleted() {
    let batch = || {
        let blank = |change: Change| Change { document: Some(json!({ "text": " \u{200b}" }).to_string()), ..change };
        deliveries([blank(change(Insert, 1, 1)), blank(change(Update, 2, 1))])
    };
    let indexed = plain().plan(batch(), &Skipped::new());
    assert!(indexed.jobs.len() == 2 && indexed.jobs.iter().all(|job| job.chunks == [""]));
    let lanes = lanes(Blank::Skip, OnDeadLetter::Keep);
    let skipped = lanes.plan(batch(), &Skipped::new());
    assert!(skipped.jobs.is_empty());
    let Outcome { records, letters, .. } = outcome(&lanes, skipped);
    let operations: Vec<_> = records.iter().map(|record| record.change.operation).collect();
    assert_eq!(operations, [Delete; 2], "an older version is deleted");
    assert!(letters.is_empty() && records.iter().all(|record| record.change.document.is_none()));
}

#[test]
fn older_deletion_is_applied_when_the_newest_change_cannot_be_rendered() {
    let deleted = [(Update, 1, 1), (Delete, 1, 2), (Insert, 1, 3)];
    let updated = [(Update, 1, 1), (Update, 1, 2), (Update, 1, 3)];
    let batch = |changes: [(Operation, u8, u32); 3]| {
        deliveries(changes.map(|(operation, key, time)| change(operation, key, time)))
    };
    let broken = |changes| {
        let mut batch = batch(changes);
        batch[2].record.as_mut().unwrap().document = Some("not json".into());
        batch
    };
    let lanes = |policy| lanes(Blank::Index, policy);
    let plan = lanes(OnDeadLetter::Keep).plan(batch(deleted), &Skipped::new());
    let units: Vec<_> = plan.units.iter().map(|unit| (unit.change.operation, numbers(&unit.entries))).collect();
    assert_eq!(units, [(Delete, vec![1, 0]), (Insert, vec![2])]);

    for (changes, removals) in [(deleted, vec![2]), (updated, vec![])] {
        let keeps = lanes(OnDeadLetter::Keep);
        let kept = outcome(&keeps, keeps.plan(broken(changes), &Skipped::new()));
        let seconds = |outcome: &Outcome| {
            let removed = outcome.records.iter().filter(|record| record.change.operation == Delete);
            removed.map(|record| record.change.version.time.seconds).collect::<Vec<_>>()
        };
        assert_eq!((seconds(&kept), kept.letters.len(), kept.acknowledged.len()), (removals.clone(), 1, 2));
        assert_eq!(kept.letters[0].id, entry(2));
        let removes = lanes(OnDeadLetter::Remove);
        let removed = outcome(&removes, removes.plan(broken(changes), &Skipped::new()));
        assert_eq!(seconds(&removed), [removals, vec![3]].concat());
        assert_eq!((removed.letters.len(), removed.acknowledged.len()), (1, 2));
    }
}

#[tokio::test]
async fn targets_with_equal_texts_share_a_job_and_leaves_are_deletions() {
    let mut declared = catalog(
        REVISION,
        &[("copy", State::Serving, true), ("notes", State::Serving, true), ("tickets", State::Serving, true)],
    );
    let index = declared.indexes.get_mut(&first("notes").index).unwrap();
    index.generations.get_mut(&1).unwrap().declaration = Arc::new(texts("notes"));
    let lanes = applied(&declared).await;
    let update = routed(change(Update, 1, 3), &["tickets", "copy"], &["notes"]);
    let plan = lanes.plan(deliveries([update]), &Skipped::new());
    let [job] = &plan.jobs[..] else { panic!("{} jobs", plan.jobs.len()) };
    assert_eq!((&job.to[..], plan.units[0].open), (&[2, 0][..], 1));
    assert!(matches!(&plan.units[0].parts[..], [Part::Removed { to }] if *to == [1]));

    let different = routed(change(Update, 1, 3), &["tickets", "notes"], &[]);
    let plan = lanes.plan(deliveries([different]), &Skipped::new());
    assert_eq!((plan.jobs.len(), plan.units[0].open), (2, 2), "their texts differ");

    let drop = routed(change(Operation::Drop, 0, 4), &["tickets", "notes"], &[]);
    let deletion = routed(change(Delete, 1, 5), &["notes"], &[]);
    let plan = lanes.plan(deliveries([drop, deletion]), &Skipped::new());
    let Outcome { records, acknowledged, .. } = outcome(&lanes, plan);
    let records: Vec<_> = records
        .iter()
        .map(|record| (record.change.operation, record.target.as_ref().map(|target| target.id.to_string()).unwrap()))
        .collect();
    let target = |name: &str| format!("{name}.g1");
    assert_eq!(
        records,
        [(Operation::Drop, target("tickets")), (Operation::Drop, target("notes")), (Delete, target("notes"))]
    );
    assert_eq!(numbers(&acknowledged), [0, 1]);
}

#[tokio::test]
async fn newest_change_is_chosen_for_each_target() {
    let states = [("notes", State::Serving, true), ("tickets", State::Serving, true)];
    let lanes = applied(&catalog(REVISION, &states)).await;
    let batch = deliveries([
        routed(change(Update, 1, 2), &["notes", "tickets"], &[]),
        routed(change(Update, 1, 3), &["tickets"], &["notes"]),
        routed(change(Read, 1, 4), &["notes"], &[]),
        routed(change(Update, 1, 1), &["notes", "tickets"], &[]),
    ]);
    let plan = lanes.plan(batch, &Skipped::new());
    let units: Vec<_> = plan.units.iter().map(|unit| (numbers(&unit.entries), unit.open)).collect();
    // The leave is applied too, because the newest change of `notes` may be parked.
    assert_eq!(units, [(vec![1, 0, 3], 1), (vec![2], 1)]);
    assert!(matches!(&plan.units[0].parts[..], [Part::Removed { to }] if *to == [0]));
    assert_eq!(plan.jobs.iter().map(|job| (job.unit, job.to[0])).collect::<Vec<_>>(), [(0, 1), (1, 0)]);
}

#[tokio::test]
async fn change_without_targets_is_for_the_plain_index_or_has_no_effect() {
    let mut declared = catalog(REVISION, &[("documents", State::Serving, true), ("tickets", State::Serving, true)]);
    let batch = || {
        deliveries([
            change(Insert, 1, 1),
            routed(change(Insert, 2, 1), &["gone"], &[]),
            routed(change(Insert, 3, 1), &["tickets"], &["gone"]),
        ])
    };
    let plan = applied(&declared).await.plan(batch(), &Skipped::new());
    let retired: Vec<_> = plan.retired.iter().map(|(_, entry)| entry.parts().0).collect();
    assert_eq!((retired, plan.jobs.len()), (vec![0, 1], 1));

    let index = declared.indexes.get_mut(&first("documents").index).unwrap();
    index.plain = true;
    index.generations.get_mut(&1).unwrap().collection = "documents".into();
    let lanes = applied(&declared).await;
    let plan = lanes.plan(batch(), &Skipped::new());
    assert_eq!((plan.retired.len(), plan.jobs.len()), (1, 2));
    assert_eq!(lanes.stamp(plan.jobs[0].to[0]).map(|stamp| stamp.id), Some(first("documents")));
}

#[tokio::test]
async fn targets_that_are_not_prepared_are_skipped_for_documents_only() {
    let servers = Servers::new();
    servers.apply(&catalog(REVISION, &[("notes", State::Filling, false), ("tickets", State::Serving, true)])).await;
    let lanes = Lanes::new(servers.targets().at_least(REVISION).await.unwrap());
    assert_eq!(lanes.unprepared(&deliveries([routed(change(Delete, 1, 1), &["notes"], &[])])).len(), 0);
    let batch = || deliveries([routed(change(Insert, 1, 1), &["notes"], &["tickets"])]);
    assert_eq!(lanes.unprepared(&batch()).into_iter().collect::<Vec<_>>(), [0]);
    let plan = lanes.plan(batch(), &Skipped::from([(0, "down".to_owned())]));
    assert!(plan.jobs.is_empty());
    let unit = plan.units.into_iter().next().unwrap();
    let mut records = Vec::new();
    let settled = unit.settle(&lanes, &mut records);
    assert_eq!((settled.gaps[0].target.clone(), settled.gaps[0].reason.as_str()), (first("notes"), "down"));
    assert_eq!((records.len(), records[0].change.operation, settled.entries.len()), (1, Delete, 1));
}
