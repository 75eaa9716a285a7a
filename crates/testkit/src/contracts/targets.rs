//! The contracts of the streams and their dead letters for entries that name targets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::catalog::{Catalog, Declaration, EmbeddingSpec, Generation, Index, IndexName, Selector, TargetId};
use tidewheel_core::change::{Change, Operation};
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{
    Appended, DeadLetter, Delivery, EntryId, Fence, FenceTarget, Gap, Letter, StageQueue, TargetState,
};
use tidewheel_core::stage::Stage;
use tidewheel_core::version::Version;
use tidewheel_stores::redis::keys::{EMBEDDED, RAW};
use tidewheel_stores::redis::wire::FORMAT;
use uuid::Uuid;

use super::catalog::CatalogHarness;
use super::samples::{REVISION, change, checkpoint, embedded_for, routed, targets};
use super::streams::{NOW, ids, stage_1};

/// Every contract of targets, as tests on a harness: `targets_contract_tests!(harness().await)`.
#[macro_export]
macro_rules! targets_contract_tests {
    ($harness:expr) => {
        $crate::contract_tests!(
            targets,
            $harness,
            [
                entries_of_targets_are_delivered_unchanged,
                entries_of_targets_carry_the_newest_format,
                dead_letter_is_restricted_to_the_failed_targets,
                dead_letter_of_every_target_keeps_its_entry,
                retried_dead_letter_keeps_its_targets,
                collected_tombstone_of_any_target_makes_a_dead_letter_outdated,
                dead_letter_of_the_plain_target_is_outdated_by_its_tombstones_alone,
                many_entries_are_skipped_at_once,
            ]
        );
    };
}

/// Appends these changes to stage 1.
async fn append(harness: &dyn CatalogHarness, changes: &[Change]) {
    let journal = harness.journal();
    let saved = journal.load().await.unwrap();
    let next = saved.as_ref().map_or(0, |saved| saved.last.0.increment) + 1;
    assert_eq!(journal.append(saved.as_ref(), changes, &checkpoint(next)).await.unwrap(), Appended::Saved);
}

fn records<T: Clone>(deliveries: &[Delivery<T>]) -> Vec<T> {
    deliveries.iter().map(|delivery| delivery.record.clone().unwrap()).collect()
}

/// With their targets, in both stages.
pub async fn entries_of_targets_are_delivered_unchanged(harness: &dyn CatalogHarness) {
    let leaves = Change { operation: Operation::Delete, document: None, ..routed(3, &[], &["notes.g1", "tickets.g2"]) };
    let changes = [routed(1, &["tickets.g2"], &[]), routed(2, &["a.g1.g1"], &["tickets.g2"]), leaves, change(4)];
    append(harness, &changes).await;
    let read = stage_1(harness, "a").read(10, NOW).await.unwrap();
    assert_eq!(records(&read), changes);
    let asked = [(changes[1].namespace.clone(), changes[1].key.clone())];
    let found = harness.finder().entries_of(Stage::Raw, &asked, 10).await.unwrap();
    assert_eq!(found.entries[0].change.as_ref(), Ok(&changes[1]));

    let deletion = Change { operation: Operation::Delete, document: None, ..routed(6, &["notes.g1"], &[]) };
    let target = embedded_for(6, "notes.g1").target;
    let deletion = Embedded { target, ..Embedded::without_vectors(deletion) };
    let embedded = [embedded_for(5, "tickets.g2"), deletion];
    harness.handover().hand_over(&embedded, &ids(&read)).await.unwrap();
    let read = harness.embedded("b").read(10, NOW).await.unwrap();
    assert_eq!(records(&read), embedded);
}

/// Releases without targets stop at them instead of misreading them.
pub async fn entries_of_targets_carry_the_newest_format(harness: &dyn CatalogHarness) {
    append(harness, &[routed(1, &["tickets.g2"], &[])]).await;
    harness.handover().hand_over(&[embedded_for(1, "tickets.g2")], &[]).await.unwrap();
    for stream in [RAW, EMBEDDED] {
        let entries = harness.raw(stream).await;
        let format = (b"format".to_vec(), FORMAT.to_string().into_bytes());
        assert!(entries.len() == 1 && entries[0].contains(&format), "{stream}: {entries:?}");
    }
}

fn letter(id: EntryId, failed: &[&str]) -> DeadLetter {
    DeadLetter { id, reason: "refused".into(), attempts: 3, targets: targets(failed) }
}

/// Parks everything that stage 1 has, for these targets.
async fn park_changes(harness: &dyn CatalogHarness, failed: &[&str]) -> Vec<Letter> {
    let queue = stage_1(harness, "a");
    park(&*queue, failed).await;
    letters(harness, Stage::Raw).await
}

async fn park<T>(queue: &dyn StageQueue<T>, failed: &[&str]) {
    let read = queue.read(10, NOW).await.unwrap();
    let parked: Vec<DeadLetter> = ids(&read).into_iter().map(|id| letter(id, failed)).collect();
    queue.park(&parked).await.unwrap();
}

async fn letters(harness: &dyn CatalogHarness, stage: Stage) -> Vec<Letter> {
    harness.dead_letters().letters(stage, &EntryId::zero(), 10).await.unwrap()
}

fn change_of(letter: &Letter) -> &Change {
    &letter.record.as_ref().unwrap().change
}

fn letter_ids(letters: &[Letter]) -> Vec<EntryId> {
    letters.iter().map(|letter| letter.id.clone()).collect()
}

/// The other targets have their records, and the document has left the remaining ones.
pub async fn dead_letter_is_restricted_to_the_failed_targets(harness: &dyn CatalogHarness) {
    append(harness, &[routed(1, &["tickets.g1", "tickets.g2", "notes.g1"], &["users.g1"])]).await;
    let letters = park_changes(harness, &["tickets.g2", "notes.g1"]).await;
    assert_eq!(change_of(&letters[0]), &routed(1, &["tickets.g2", "notes.g1"], &[]));
    assert_eq!((letters[0].reason.as_str(), letters[0].attempts, letters.len()), ("refused", 3, 1));
    assert_eq!(harness.status(Stage::Raw).await.pending, 0);
}

/// Nothing has been done for any of its targets.
pub async fn dead_letter_of_every_target_keeps_its_entry(harness: &dyn CatalogHarness) {
    let entry = routed(1, &["tickets.g1"], &["users.g1"]);
    append(harness, std::slice::from_ref(&entry)).await;
    assert_eq!(change_of(&park_changes(harness, &[]).await[0]), &entry);
    harness.handover().hand_over(&[embedded_for(2, "tickets.g2")], &[]).await.unwrap();
    park(&*harness.embedded("b"), &["tickets.g2"]).await;
    assert_eq!(letters(harness, Stage::Embedded).await[0].record, Ok(embedded_for(2, "tickets.g2")));
}

/// As it was parked.
pub async fn retried_dead_letter_keeps_its_targets(harness: &dyn CatalogHarness) {
    append(harness, &[routed(1, &["tickets.g1", "notes.g1"], &["users.g1"])]).await;
    let parked = letter_ids(&park_changes(harness, &["notes.g1"]).await);
    assert_eq!(harness.dead_letters().retry(Stage::Raw, &parked).await.unwrap().moved, 1);
    let read = stage_1(harness, "b").read(10, NOW).await.unwrap();
    assert_eq!(records(&read), [routed(1, &["notes.g1"], &[])]);
}

/// Saves a catalog with these generations of `tickets`, of which the first may be in a plain collection.
async fn save(harness: &dyn CatalogHarness, generations: u32, plain: bool) {
    let name = IndexName::of_collection("tickets");
    let embedding = EmbeddingSpec::new("default", "tidewheel", "minilm");
    let declaration = Declaration::new(name.clone(), Selector::of_database("shop", &["tickets"]), embedding);
    let declaration = Arc::new(declaration);
    let mut generations: BTreeMap<u32, Generation> = (1..=generations)
        .map(|number| (number, Generation::new(&name.target(number), declaration.clone(), REVISION)))
        .collect();
    if plain {
        generations.get_mut(&1).expect("the first generation").collection = name.as_str().to_owned();
    }
    let index = Index { plain, generations, ..Index::default() };
    let catalog = harness.catalog();
    let (Catalog { revision, .. }, _) = catalog.load().await.unwrap();
    let saved = catalog.save(Uuid::new_v4(), revision, REVISION, &[(name, Some(index))], Some(2)).await.unwrap();
    assert_eq!(saved, Appended::Saved);
}

/// Raises and collects a tombstone of this version.
async fn collect_tombstone(harness: &dyn CatalogHarness, state: &dyn TargetState, version: Version) {
    let fence = Fence { target: FenceTarget::Document(change(9).document_id()), version };
    state.raise(&[fence]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let settled = harness.journal().positions().await.unwrap().at;
    assert_eq!(state.collect(NOW, settled).await.unwrap().forgotten, 1);
}

fn target(text: &str) -> TargetId {
    text.parse().expect("a valid target")
}

/// A deletion may have followed there. Newer dead letters, deletions and other targets are unaffected.
pub async fn collected_tombstone_of_any_target_makes_a_dead_letter_outdated(harness: &dyn CatalogHarness) {
    save(harness, 3, false).await;
    let deletion = Change { operation: Operation::Delete, document: None, ..routed(1, &["tickets.g2"], &[]) };
    let entries = [
        routed(1, &["tickets.g2"], &[]),
        routed(1, &["tickets.g1", "tickets.g2"], &[]),
        routed(1, &["tickets.g1", "tickets.g3"], &[]),
        routed(1, &["tickets.g1"], &["tickets.g2"]),
        routed(3, &["tickets.g2"], &[]),
        routed(1, &["retired.g1"], &[]),
        deletion,
    ];
    append(harness, &entries).await;
    let parked = letter_ids(&park_changes(harness, &[]).await);
    harness.handover().hand_over(&[embedded_for(1, "tickets.g2"), embedded_for(1, "tickets.g1")], &[]).await.unwrap();
    park(&*harness.embedded("b"), &[]).await;
    let state = harness.targets().target(&target("tickets.g2"), false);
    collect_tombstone(harness, &*state, change(2).version).await;

    let dead_letters = harness.dead_letters();
    let retried = dead_letters.retry(Stage::Raw, &parked).await.unwrap();
    assert_eq!((retried.moved, retried.outdated), (5, parked[..2].to_vec()));
    let parked = letter_ids(&letters(harness, Stage::Embedded).await);
    let retried = dead_letters.retry(Stage::Embedded, &parked).await.unwrap();
    assert_eq!((retried.moved, retried.outdated), (1, parked[..1].to_vec()));
}

/// Whether they name it or, from before the catalog, no target.
pub async fn dead_letter_of_the_plain_target_is_outdated_by_its_tombstones_alone(harness: &dyn CatalogHarness) {
    save(harness, 2, true).await;
    append(harness, &[change(1), routed(1, &["tickets.g1"], &[]), routed(1, &["tickets.g2"], &[]), change(3)]).await;
    let parked = letter_ids(&park_changes(harness, &[]).await);
    let state = harness.targets().target(&target("tickets.g1"), true);
    collect_tombstone(harness, &*state, change(2).version).await;
    let retried = harness.dead_letters().retry(Stage::Raw, &parked).await.unwrap();
    assert_eq!((retried.moved, retried.outdated), (2, parked[..2].to_vec()));
}

/// 2,500 entries, more than a script can unpack at once.
pub async fn many_entries_are_skipped_at_once(harness: &dyn CatalogHarness) {
    let changes: Vec<Change> = (1..=2500).map(|number| routed(number, &["tickets.g2"], &[])).collect();
    append(harness, &changes).await;
    let queue = stage_1(harness, "a");
    let mut read = Vec::new();
    while read.len() < changes.len() {
        read.extend(ids(&queue.read(3000, NOW).await.unwrap()));
    }
    let gap = Gap { target: target("tickets.g2"), reason: "the embedder is unreachable".into() };
    queue.skip(&[], std::slice::from_ref(&gap)).await.unwrap();
    assert_eq!(harness.catalog().lost().await.unwrap(), [], "nothing was skipped");
    queue.skip(&read, &[gap]).await.unwrap();
    assert_eq!(harness.status(Stage::Raw).await.pending, 0);
    assert_eq!(harness.catalog().lost().await.unwrap().len(), 1);
}
