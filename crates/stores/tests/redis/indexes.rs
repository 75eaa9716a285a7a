//! The catalog and the keys of targets as an operator sees them, and lost replies of their scripts.

use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::catalog::{Catalog, Declaration, EmbeddingSpec, Generation, Index, IndexName, Selector, TargetId};
use tidewheel_core::embedded::Embedded;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{
    Acknowledge, Appended, AuditPosition, CatalogStore, EntryId, Fence, FenceTarget, Gap, Handover, Journal, Queue,
    Repair, StageInspector as _, TargetStates,
};
use tidewheel_core::stage::Stage;
use tidewheel_stores::redis::keys::{COLLECTION, COLLECTIONS, DAMAGE, EMBEDDED, INDEXES, LOST, RAW, TOMBSTONES};
use tidewheel_testkit::contracts::samples::{change, checkpoint, embedded};
use tidewheel_testkit::proxy::Weather;
use uuid::Uuid;

use super::server::{TestRedis, append, ids};

const NOW: Duration = Duration::ZERO;

fn name() -> IndexName {
    IndexName::new("tickets").unwrap()
}

fn target(text: &str) -> TargetId {
    text.parse().unwrap()
}

/// An index without generations.
fn index() -> Vec<(IndexName, Option<Index>)> {
    vec![(name(), Some(Index { serving: Some(3), ..Index::default() }))]
}

fn declaration() -> Declaration {
    let embedding = EmbeddingSpec::new("default", "tidewheel", "minilm");
    Declaration::new(name(), Selector::of_database("shop", &["tickets"]), embedding)
}

fn gap() -> Gap {
    Gap { target: target("tickets.g2"), reason: "the embedder is unreachable".into() }
}

#[tokio::test]
async fn catalog_is_a_readable_hash() {
    let redis = TestRedis::start().await;
    redis.store.save(Uuid::new_v4(), 0, 1_764_489_600_123, &index(), None).await.unwrap();
    assert_eq!(redis.command::<String>(&["HGET", INDEXES, "#revision"]).await, "1764489600123");
    let json: String = redis.command(&["HGET", INDEXES, "tickets"]).await;
    assert!(json.contains(r#""serving":3"#), "{json}");
}

/// An operator who deletes the hash returns to the short form.
#[tokio::test]
async fn indexes_without_a_revision_are_ignored() {
    let redis = TestRedis::start().await;
    redis.command::<u64>(&["HSET", INDEXES, "tickets", "no JSON"]).await;
    assert_eq!(CatalogStore::load(&redis.store).await.unwrap().0, Catalog::default());
}

#[tokio::test]
async fn invalid_index_error_names_the_field() {
    let redis = TestRedis::start().await;
    redis.command::<u64>(&["HSET", INDEXES, "#revision", "7", "tickets", "no JSON"]).await;
    let error = CatalogStore::load(&redis.store).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.message.contains("field tickets of {raw_document_changes}:indexes"), "{error}");
    assert!(error.hint.unwrap().contains("HSET"));
}

#[tokio::test]
async fn change_of_the_catalog_with_lost_reply_is_saved_once() {
    let redis = TestRedis::start().await;
    let (proxy, store) = redis.through_proxy().await;
    assert_eq!(store.revision().await.unwrap(), 0);
    store.save(Uuid::new_v4(), 0, 7, &[], None).await.unwrap();
    proxy.set(Weather::CutInsteadOfAnswer(1));
    let saved = store.save(Uuid::new_v4(), 7, 8, &index(), None).await.unwrap();
    assert_eq!((saved, proxy.broken()), (Appended::Saved, 1));
    assert_eq!(CatalogStore::load(&store).await.unwrap().0.revision, 8);
}

/// The repetition finds its entries acknowledged, and records no second loss.
#[tokio::test]
async fn gaps_with_lost_reply_are_recorded_once() {
    let redis = TestRedis::start().await;
    let (proxy, store) = redis.through_proxy().await;
    append(&store, [1, 2]).await;
    let read = redis.stage_1("a").read(10, NOW).await.unwrap();
    store.hand_over(&[embedded(1)], &ids(&read[..1])).await.unwrap();
    proxy.set(Weather::CutInsteadOfAnswer(1));
    store.hand_over_with_gaps(&[], &ids(&read[1..]), &[gap()]).await.unwrap_err();
    let first = store.lost().await.unwrap();
    assert_eq!((first.len(), &first[0].0), (1, &gap().target));
    store.hand_over_with_gaps(&[], &ids(&read[1..]), &[gap()]).await.unwrap();
    assert_eq!(store.lost().await.unwrap(), first);

    let queue = store.queue::<Embedded>(Stage::Embedded, "b");
    let read = queue.read(10, NOW).await.unwrap();
    // Loads the script, so that its next reply is that of its execution.
    queue.skip(&[EntryId::zero()], &[gap()]).await.unwrap();
    proxy.set(Weather::CutInsteadOfAnswer(1));
    queue.skip(&ids(&read), &[gap()]).await.unwrap_err();
    let second = store.lost().await.unwrap();
    assert_ne!(second, first);
    queue.skip(&ids(&read), &[gap()]).await.unwrap();
    assert_eq!(store.lost().await.unwrap(), second);
    assert_eq!(redis.store.status(Stage::Embedded).await.unwrap().pending, 0);
}

/// A stream that is gone has no pending entries, and nothing of it was left out.
#[tokio::test]
async fn gaps_of_a_deleted_stream_are_ignored() {
    let redis = TestRedis::start().await;
    append(&redis.store, [1]).await;
    let queue = redis.stage_1("a");
    let read = ids(&queue.read(10, NOW).await.unwrap());
    redis.command::<u64>(&["DEL", RAW]).await;
    queue.skip(&read, &[gap()]).await.unwrap();
    redis.store.hand_over_with_gaps(&[], &read, &[gap()]).await.unwrap();
    assert_eq!(redis.store.lost().await.unwrap(), []);
    assert_eq!(redis.command::<u64>(&["EXISTS", EMBEDDED]).await, 0);
}

/// The fields of other clients do not stop the producer.
#[tokio::test]
async fn losses_of_unknown_form_are_ignored() {
    let redis = TestRedis::start().await;
    redis.command::<u64>(&["HSET", LOST, "tickets", "x", "tickets.g2", "skipped at 1.000000"]).await;
    let expected = [(target("tickets.g2"), "skipped at 1.000000".to_owned())];
    assert_eq!(redis.store.lost().await.unwrap(), expected);
    assert_eq!(redis.store.positions().await.unwrap().lost, expected);
}

/// Repairs of the streams concern no target.
#[tokio::test]
async fn losses_survive_a_restart_of_everything() {
    let redis = TestRedis::start().await;
    append(&redis.store, [1]).await;
    redis.command::<u64>(&["HSET", LOST, "tickets.g2", "skipped at 1.000000"]).await;
    let saved = checkpoint(1);
    let restarted = redis.store.restart(Some(&saved), &[], &[], &checkpoint(2), Repair::Everything).await.unwrap();
    assert_eq!(restarted, Appended::Saved);
    assert_eq!(redis.store.lost().await.unwrap().len(), 1);
}

/// The plain target keeps its keys when a catalog names it, and its losses are those of a target from then on.
#[tokio::test]
async fn plain_target_is_named_once_a_catalog_is_applied() {
    let redis = TestRedis::start().await;
    let id = target("documents.g1");
    let plain = redis.store.target(&id, true);
    plain.collection("documents", true).await.unwrap();
    plain.collection("documents", false).await.unwrap();
    assert!(redis.store.positions().await.unwrap().damage.is_some(), "without a catalog");
    redis.store.save(Uuid::new_v4(), 0, 7, &[], None).await.unwrap();
    redis.command::<u64>(&["DEL", DAMAGE]).await;
    plain.collection("documents", true).await.unwrap();
    assert_eq!(redis.command::<String>(&["GET", COLLECTION]).await, "documents");
    plain.collection("documents", false).await.unwrap();
    let positions = redis.store.positions().await.unwrap();
    assert_eq!((positions.damage, positions.lost.len(), &positions.lost[0].0), (None, 1, &id));
}

/// All keys of a target are deleted, and the hashes of all targets lose its field. Those of the plain target too.
#[tokio::test]
async fn forgotten_target_leaves_no_key() {
    let redis = TestRedis::start().await;
    let (first, second) = (target("tickets.g1"), target("tickets.g2"));
    let mut generation = Generation::new(&first, Arc::new(declaration()), 7);
    generation.collection = "tickets".into();
    let index = Index { generations: [(1, generation)].into(), ..Index::default() };
    redis.store.save(Uuid::new_v4(), 0, 7, &[(name(), Some(index))], None).await.unwrap();
    let fence = Fence { target: FenceTarget::Document(change(1).document_id()), version: change(1).version };
    for (target, plain) in [(&first, true), (&second, false)] {
        let state = redis.store.target(target, plain);
        state.raise(std::slice::from_ref(&fence)).await.unwrap();
        state.save_audit(Some("place")).await.unwrap();
        state.collection("tickets", true).await.unwrap();
    }
    let keys: Vec<String> = redis.command(&["KEYS", "*tickets.g2"]).await;
    assert_eq!(keys.len(), 3, "{keys:?}");
    for target in [&first, &second] {
        while redis.store.forget(target).await.unwrap() {}
    }
    let mut keys: Vec<String> = redis.command(&["KEYS", "*"]).await;
    keys.sort_unstable();
    assert_eq!(keys, [INDEXES], "{COLLECTIONS}, {TOMBSTONES} and the others are gone");
    assert_eq!(redis.store.audit().await.unwrap(), None);
}

/// A catalog is changed and a target is skipped also to let a full Redis drain.
#[tokio::test]
async fn catalog_and_losses_are_recorded_at_maxmemory() {
    let redis = TestRedis::start().await;
    append(&redis.store, 1..=3).await;
    let queue = redis.stage_1("a");
    let read = ids(&queue.read(10, NOW).await.unwrap());
    redis.fill_memory().await;
    let error = redis.store.set_plain(&declaration()).await.unwrap_err();
    assert!(error.message.contains("OOM"), "{error}");
    assert_eq!(redis.store.save(Uuid::new_v4(), 0, 7, &index(), Some(2)).await.unwrap(), Appended::Saved);
    redis.store.hand_over_with_gaps(&[embedded(1)], &read[..1], &[gap()]).await.unwrap();
    queue.skip(&read[1..], &[gap()]).await.unwrap();
    assert_eq!(redis.store.status(Stage::Raw).await.unwrap().pending, 0);
    let state = redis.store.target(&gap().target, false);
    state.collection("tickets.g2", true).await.unwrap();
    state.collection("tickets.g2", false).await.unwrap();
    let lost = redis.store.lost().await.unwrap();
    assert!(lost.len() == 1 && lost[0].1.contains("is missing"), "{lost:?}");
    redis.store.found(&lost[0].0, &lost[0].1).await.unwrap();
    while redis.store.forget(&gap().target).await.unwrap() {}
    assert_eq!(redis.store.lost().await.unwrap(), []);
}
