//! The contracts of [`CatalogStore`] and [`TargetStates`].

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewheel_core::catalog::{
    Catalog, Declaration, EmbedderIdentity, EmbeddingSpec, Generation, Index, IndexName, Selector, State, Switch,
    TargetId,
};
use tidewheel_core::ports::{Appended, CatalogStore, Fence, FenceTarget, Gap, SourceFilter, TargetState, TargetStates};
use tidewheel_core::stage::Stage;
use tidewheel_core::version::Version;
use uuid::Uuid;

use super::samples::{change, embedded};
use super::streams::{NOW, StreamsHarness, append, ids, stage_1};

/// A dedicated Redis with a catalog, or a fake of it.
pub trait CatalogHarness: StreamsHarness {
    /// The catalog.
    fn catalog(&self) -> Arc<dyn CatalogStore>;
    /// The states of all targets.
    fn targets(&self) -> Arc<dyn TargetStates>;
}

/// Every contract of the catalog, as tests on a harness: `catalog_contract_tests!(harness().await)`.
#[macro_export]
macro_rules! catalog_contract_tests {
    ($harness:expr) => {
        $crate::contract_tests!(
            catalog,
            $harness,
            [
                new_catalog_is_empty,
                saved_indexes_are_returned_whole,
                unnamed_indexes_are_kept,
                dropped_index_leaves_its_last_number,
                change_of_another_revision_is_a_conflict,
                repeated_change_is_saved_once,
                concurrent_changes_are_saved_one_after_another,
                plain_declaration_is_stored_beside_the_catalog,
                positions_report_revision_and_losses,
                skipped_records_are_a_loss_of_their_target,
                gaps_of_entries_that_are_not_pending_are_ignored,
                newer_loss_is_kept,
                missing_or_replaced_collection_is_a_loss,
                targets_have_states_of_their_own,
                forgotten_target_leaves_nothing,
            ]
        );
    };
}

fn name(text: &str) -> IndexName {
    IndexName::new(text).expect("a valid name")
}

fn target(generation: u32) -> TargetId {
    name("tickets").target(generation)
}

fn declaration(index: &str) -> Declaration {
    let source = Selector::of_database("shop", &[index]);
    let embedding = EmbeddingSpec::new("default", "tidewheel", "minilm");
    let filter = Some(SourceFilter(r#"{"subject":"Grüße \"1\""}"#.into()));
    Declaration { filter, ..Declaration::new(name(index), source, embedding) }
}

/// An index with these generations, of which the last one serves.
fn index(of: &str, generations: u32) -> Index {
    let declaration = Arc::new(declaration(of));
    let generation = |number: u32| {
        let embedder = Some(EmbedderIdentity { model: "minilm".into(), revision: "1".into(), dimension: 384 });
        let state = if number == generations { State::Serving } else { State::Kept };
        let problem = Some("the collection \"a\" has another layout".to_owned());
        let new = Generation::new(&name(of).target(number), declaration.clone(), u64::from(number));
        (number, Generation { embedder, state, problem, ..new })
    };
    Index {
        plain: false,
        serving: Some(generations),
        switching: Some(Switch { from: Some(1), to: generations, plain: false }),
        generations: (1..=generations).map(generation).collect(),
        ..Index::default()
    }
}

/// Saves these indexes as the next revision; returns it.
async fn save(harness: &dyn CatalogHarness, indexes: &[(IndexName, Option<Index>)]) -> u64 {
    let catalog = harness.catalog();
    let (known, now) = catalog.load().await.unwrap();
    let next = known.next_revision(now);
    let saved = catalog.save(Uuid::new_v4(), known.revision, next, indexes, None).await.unwrap();
    assert_eq!(saved, Appended::Saved);
    next
}

async fn load(harness: &dyn CatalogHarness) -> Catalog {
    harness.catalog().load().await.unwrap().0
}

/// Before the first change the revision is 0, and nothing is stored.
pub async fn new_catalog_is_empty(harness: &dyn CatalogHarness) {
    let catalog = harness.catalog();
    let (known, now) = catalog.load().await.unwrap();
    assert_eq!(known, Catalog::default());
    assert!(now > 1_600_000_000_000, "{now}");
    assert_eq!(catalog.revision().await.unwrap(), 0);
    assert_eq!(catalog.plain().await.unwrap(), None);
    assert_eq!(catalog.lost().await.unwrap(), []);
}

/// Indexes and revision are returned as they were saved.
pub async fn saved_indexes_are_returned_whole(harness: &dyn CatalogHarness) {
    let indexes = [(name("tickets"), Some(index("tickets", 3))), (name("notes"), Some(index("notes", 1)))];
    let revision = save(harness, &indexes).await;
    assert_eq!(harness.catalog().revision().await.unwrap(), revision);
    let indexes: BTreeMap<_, _> = indexes.into_iter().map(|(name, index)| (name, index.unwrap())).collect();
    assert_eq!(load(harness).await, Catalog { revision, indexes, ..Catalog::default() });
}

/// A change affects the indexes that it names; a removed one is gone.
pub async fn unnamed_indexes_are_kept(harness: &dyn CatalogHarness) {
    let names = ["tickets", "notes", "users"];
    save(harness, &names.map(|of| (name(of), Some(index(of, 1))))).await;
    save(harness, &[(name("tickets"), Some(index("tickets", 2))), (name("notes"), None)]).await;
    let indexes = BTreeMap::from([(name("tickets"), index("tickets", 2)), (name("users"), index("users", 1))]);
    assert_eq!(load(harness).await.indexes, indexes);
    save(harness, &[(name("unknown"), None)]).await;
    assert_eq!(load(harness).await.indexes, indexes);
}

/// Of a dropped index the number of its last generation stays, until an index has its name again.
pub async fn dropped_index_leaves_its_last_number(harness: &dyn CatalogHarness) {
    save(harness, &["tickets", "notes"].map(|of| (name(of), Some(index(of, 3))))).await;
    save(harness, &[(name("tickets"), Some(index("tickets", 3).dropped()))]).await;
    let dropped = load(harness).await;
    assert_eq!((dropped.indexes.len(), dropped.dropped), (1, [(name("tickets"), 3)].into()));
    save(harness, &[(name("tickets"), Some(index("tickets", 4)))]).await;
    let created = load(harness).await;
    assert_eq!((created.indexes.len(), created.dropped.len()), (2, 0));
    save(harness, &[(name("tickets"), Some(index("tickets", 4).dropped())), (name("notes"), None)]).await;
    save(harness, &[(name("tickets"), None)]).await;
    let revision = harness.catalog().revision().await.unwrap();
    assert_eq!(load(harness).await, Catalog { revision, ..Catalog::default() });
}

/// With an unexpected revision nothing changes.
pub async fn change_of_another_revision_is_a_conflict(harness: &dyn CatalogHarness) {
    let catalog = harness.catalog();
    let change = [(name("notes"), Some(index("notes", 1)))];
    let saved = catalog.save(Uuid::new_v4(), 7, 8, &change, Some(2)).await.unwrap();
    assert_eq!((saved, load(harness).await), (Appended::Conflict, Catalog::default()));
    let revision = save(harness, &[(name("tickets"), Some(index("tickets", 1)))]).await;
    let known = load(harness).await;
    for expected in [0, revision - 1, revision + 1] {
        let saved = catalog.save(Uuid::new_v4(), expected, revision + 2, &change, None).await.unwrap();
        assert_eq!(saved, Appended::Conflict, "{expected}");
    }
    assert_eq!(load(harness).await, known);
}

/// A caller that does not know the outcome of a change repeats it. Once another change has followed, the repetition is a
/// conflict.
pub async fn repeated_change_is_saved_once(harness: &dyn CatalogHarness) {
    let catalog = harness.catalog();
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    let tickets = |generations| [(name("tickets"), Some(index("tickets", generations)))];
    for _ in 0..3 {
        assert_eq!(catalog.save(first, 0, 10, &tickets(1), Some(2)).await.unwrap(), Appended::Saved);
    }
    assert_eq!(catalog.save(second, 0, 10, &tickets(2), None).await.unwrap(), Appended::Conflict);
    assert_eq!(load(harness).await.indexes[&name("tickets")], index("tickets", 1));
    assert_eq!(catalog.save(second, 10, 11, &tickets(2), None).await.unwrap(), Appended::Saved);
    assert_eq!(catalog.save(first, 0, 10, &tickets(1), None).await.unwrap(), Appended::Conflict);
    assert_eq!(load(harness).await.indexes[&name("tickets")], index("tickets", 2));
}

/// Clients that race change the catalog one after another: no change is lost.
pub async fn concurrent_changes_are_saved_one_after_another(harness: &dyn CatalogHarness) {
    const CLIENTS: u32 = 4;
    const CHANGES: u32 = 10;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let catalog = harness.catalog();
        clients.spawn(async move {
            for number in 0..CHANGES {
                let of = name(&format!("index-{client}-{number}"));
                let change = [(of.clone(), Some(index(of.as_str(), 1)))];
                loop {
                    let revision = catalog.revision().await.unwrap();
                    let saved = catalog.save(Uuid::new_v4(), revision, revision + 1, &change, None).await.unwrap();
                    if saved == Appended::Saved {
                        break;
                    }
                }
            }
        });
    }
    clients.join_all().await;
    let Catalog { revision, indexes, .. } = load(harness).await;
    assert_eq!((revision, indexes.len()), (u64::from(CLIENTS * CHANGES), (CLIENTS * CHANGES) as usize));
}

/// The declaration of the short form belongs to no revision, and is no index.
pub async fn plain_declaration_is_stored_beside_the_catalog(harness: &dyn CatalogHarness) {
    let catalog = harness.catalog();
    for of in ["tickets", "notes"] {
        catalog.set_plain(&declaration(of)).await.unwrap();
        assert_eq!(catalog.plain().await.unwrap(), Some(declaration(of)));
    }
    assert_eq!(load(harness).await, Catalog::default());
    save(harness, &[(name("tickets"), Some(index("tickets", 1)))]).await;
    assert_eq!(load(harness).await.indexes.len(), 1);
    assert_eq!(catalog.plain().await.unwrap(), Some(declaration("notes")));
}

/// Hands over an entry of stage 1 without its record for this target.
async fn lose(harness: &dyn CatalogHarness, target: &TargetId, reason: &str) {
    let number = harness.journal().load().await.unwrap().map_or(0, |saved| saved.last.0.increment) + 1;
    append(harness, [number]).await;
    let read = stage_1(harness, "a").read(10, NOW).await.unwrap();
    let gap = Gap { target: target.clone(), reason: reason.to_owned() };
    harness.handover().hand_over_with_gaps(&[], &ids(&read), &[gap]).await.unwrap();
}

/// The recorded losses.
async fn lost(harness: &dyn CatalogHarness) -> Vec<(TargetId, String)> {
    harness.catalog().lost().await.unwrap()
}

/// The text of the only loss.
async fn only_loss(harness: &dyn CatalogHarness) -> String {
    let lost = lost(harness).await;
    let [(_, text)] = &lost[..] else { panic!("one loss in {lost:?}") };
    text.clone()
}

/// A producer learns of a new revision and of losses with the positions.
pub async fn positions_report_revision_and_losses(harness: &dyn CatalogHarness) {
    let journal = harness.journal();
    let positions = journal.positions().await.unwrap();
    assert_eq!((positions.catalog, positions.lost), (0, Vec::new()));
    let revision = save(harness, &[(name("tickets"), Some(index("tickets", 2)))]).await;
    lose(harness, &target(2), "the embedder is unreachable").await;
    lose(harness, &target(1), "Qdrant is unreachable").await;
    let positions = journal.positions().await.unwrap();
    assert_eq!((positions.catalog, positions.damage), (revision, None));
    let mut reported = positions.lost;
    reported.sort_unstable();
    assert_eq!(reported, lost(harness).await);
    let reported: Vec<_> = reported.iter().map(|(target, _)| target.to_string()).collect();
    assert_eq!(reported, ["tickets.g1", "tickets.g2"]);
}

/// Both stages acknowledge an entry whose record is left out, and record the loss.
pub async fn skipped_records_are_a_loss_of_their_target(harness: &dyn CatalogHarness) {
    lose(harness, &target(2), "the embedder is unreachable").await;
    let text = only_loss(harness).await;
    assert!(text.starts_with("the embedder is unreachable at "), "{text}");
    assert_eq!(harness.status(Stage::Raw).await.pending, 0);
    harness.handover().hand_over(&[embedded(1)], &[]).await.unwrap();
    let queue = harness.embedded("b");
    let read = queue.read(10, NOW).await.unwrap();
    let gap = Gap { target: target(1), reason: "Qdrant is unreachable".to_owned() };
    queue.skip(&ids(&read), &[gap]).await.unwrap();
    assert_eq!(harness.status(Stage::Embedded).await.pending, 0);
    let targets: Vec<TargetId> = lost(harness).await.into_iter().map(|(target, _)| target).collect();
    assert_eq!(targets, [target(1), target(2)]);
}

/// A consumer whose entries were taken over has left nothing out.
pub async fn gaps_of_entries_that_are_not_pending_are_ignored(harness: &dyn CatalogHarness) {
    append(harness, [1]).await;
    let queue = stage_1(harness, "a");
    let read = ids(&queue.read(10, NOW).await.unwrap());
    queue.acknowledge(&read).await.unwrap();
    let gap = [Gap { target: target(1), reason: "late".to_owned() }];
    queue.skip(&read, &gap).await.unwrap();
    harness.handover().hand_over_with_gaps(&[], &read, &gap).await.unwrap();
    assert_eq!(lost(harness).await, []);
}

/// A loss is forgotten once it is repaired, unless something was lost meanwhile.
pub async fn newer_loss_is_kept(harness: &dyn CatalogHarness) {
    let catalog = harness.catalog();
    catalog.found(&target(1), "unknown").await.unwrap();
    lose(harness, &target(1), "the embedder is unreachable").await;
    let first = only_loss(harness).await;
    lose(harness, &target(1), "the embedder is unreachable").await;
    let second = only_loss(harness).await;
    assert_ne!(first, second);
    catalog.found(&target(1), &first).await.unwrap();
    catalog.found(&target(2), &second).await.unwrap();
    assert_eq!(only_loss(harness).await, second);
    catalog.found(&target(1), &second).await.unwrap();
    assert_eq!(lost(harness).await, []);
}

/// A target whose collection is missing or was replaced is lost. The others and the streams are undamaged.
pub async fn missing_or_replaced_collection_is_a_loss(harness: &dyn CatalogHarness) {
    save(harness, &[(name("tickets"), Some(index("tickets", 2)))]).await;
    let targets = harness.targets();
    let (one, two) = (targets.target(&target(1), false), targets.target(&target(2), false));
    one.collection("tickets.g1", false).await.unwrap();
    one.collection("tickets.g1", true).await.unwrap();
    one.collection("tickets.g1", true).await.unwrap();
    two.collection("tickets.g2", true).await.unwrap();
    assert_eq!(lost(harness).await, [], "no points were written before");
    one.collection("tickets.g1", false).await.unwrap();
    let text = only_loss(harness).await;
    assert!(text.contains("tickets.g1") && text.contains("is missing"), "{text}");
    harness.catalog().found(&target(1), &text).await.unwrap();
    one.collection("tickets.g1", true).await.unwrap();
    assert_eq!(lost(harness).await, [], "a new collection");
    two.collection("other", true).await.unwrap();
    let text = only_loss(harness).await;
    assert!(text.contains("other") && text.contains("tickets.g2"), "{text}");
    assert_eq!(harness.journal().positions().await.unwrap().damage, None);
}

fn fence(number: u32) -> Fence {
    Fence { target: FenceTarget::Document(change(number).document_id()), version: change(number).version }
}

async fn tombstone(state: &dyn TargetState, number: u32) -> Option<Version> {
    state.of(&[fence(number).target]).await.unwrap()[0]
}

/// Tombstones and audit positions of one target are those of no other.
pub async fn targets_have_states_of_their_own(harness: &dyn CatalogHarness) {
    let targets = harness.targets();
    let plain = targets.target(&name("documents").target(1), true);
    let (one, two) = (targets.target(&target(1), false), targets.target(&target(2), false));
    let states = [&*plain, &*one, &*two];
    for (number, state) in (1..).zip(states) {
        state.raise(&[fence(number)]).await.unwrap();
        state.save_audit(Some(&format!("place {number}"))).await.unwrap();
    }
    for (own, state) in (1..).zip(states) {
        for number in 1..=3 {
            assert_eq!(tombstone(state, number).await.is_some(), number == own, "{own}: {number}");
        }
        assert_eq!(state.audit().await.unwrap(), Some(format!("place {own}")));
    }
    // The plain target is the one that was there before the catalog.
    assert_eq!(harness.tombstones().of(&[fence(1).target]).await.unwrap(), [Some(change(1).version)]);
    assert_eq!(harness.journal().audit().await.unwrap().as_deref(), Some("place 1"));
}

/// Everything that is stored of a target is deleted in pages, and nothing of another one.
pub async fn forgotten_target_leaves_nothing(harness: &dyn CatalogHarness) {
    const TOMBSTONES: u32 = 2_500;
    save(harness, &[(name("tickets"), Some(index("tickets", 2)))]).await;
    let targets = harness.targets();
    let (one, two) = (targets.target(&target(1), false), targets.target(&target(2), false));
    for state in [&*one, &*two] {
        state.raise(&(1..=TOMBSTONES).map(fence).collect::<Vec<_>>()).await.unwrap();
        state.save_audit(Some("place")).await.unwrap();
        state.collection("collection", true).await.unwrap();
    }
    lose(harness, &target(1), "the embedder is unreachable").await;
    let catalog = harness.catalog();
    let mut pages = 1;
    while catalog.forget(&target(1)).await.unwrap() {
        pages += 1;
        assert!(pages <= TOMBSTONES, "every page removes something");
    }
    assert!(!catalog.forget(&target(1)).await.unwrap(), "a repetition finds nothing");
    for number in [1, TOMBSTONES] {
        assert_eq!(tombstone(&*one, number).await, None, "{number}");
        assert_eq!(tombstone(&*two, number).await, Some(change(number).version), "{number}");
    }
    assert_eq!((one.audit().await.unwrap(), two.audit().await.unwrap().as_deref()), (None, Some("place")));
    assert_eq!(lost(harness).await, []);
    one.collection("collection", false).await.unwrap();
    assert_eq!(lost(harness).await, [], "its collection is not known any more");
}
