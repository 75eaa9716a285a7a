//! The contract of [`Index`]. Runs on the fake and on a real server, so that the fake behaves like the server.

mod fencing;
mod known;
mod reading;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tidewheel_core::error::ErrorClass;
use tidewheel_core::fingerprint::Fingerprints;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::payload::{RESERVED, Stamp, digest};
use tidewheel_core::ports::{
    DocumentPoints, Fence, FenceTarget, Index, IndexInspector, KnownVectors, Point, Searcher, Written,
};
use tidewheel_core::version::{ClusterTime, Version};
use uuid::Uuid;

use crate::fakes::embedder::vector_of;
pub use fencing::*;
pub use known::*;
pub use reading::*;

/// Dimension of all vectors here.
pub const DIMENSION: usize = 4;

/// A server with room for one collection, which does not exist yet.
#[async_trait]
pub trait IndexHarness: Send + Sync {
    /// The collection. Every call returns another handle to the same one.
    fn index(&self) -> Box<dyn Index>;

    /// Searches of it.
    fn searcher(&self) -> Box<dyn Searcher>;

    /// The vectors of the same collection.
    fn known(&self) -> Box<dyn KnownVectors>;

    /// The same collection for operators.
    fn inspector(&self) -> Box<dyn IndexInspector>;

    /// Deletes the collection externally, as an operator may.
    async fn drop_collection(&self);
}

/// The whole payload of one of the document's points, as the index stores it.
pub fn payload_of(document: &DocumentPoints, point: &Point) -> Map<String, Value> {
    let mut payload = document.fields_of(point).clone();
    payload.extend(point.payload.clone());
    payload
}

/// Generates one test per clause of the contract. `$harness` is an expression that returns a new harness and may await.
#[macro_export]
macro_rules! index_contract {
    ($harness:expr) => {
        $crate::index_contract!(@ $harness;
            prepare_is_idempotent_and_rejects_another_dimension,
            only_newer_versions_replace,
            batch_write_fences_each_document_by_its_own_version,
            versions_are_compared_exactly,
            missing_point_is_inserted_regardless_of_version,
            remove_deletes_only_older_points_by_id,
            stored_returns_version_and_surplus_in_order,
            fence_deletes_only_older_points,
            namespace_fence_keeps_other_namespaces,
            one_delete_accepts_many_fences,
            write_larger_than_a_request_is_complete,
            document_larger_than_a_request_is_complete,
            newest_of_concurrent_writes_wins,
            search_returns_nearest_points_that_match_the_filter,
            filter_compares_numbers_by_value,
            pages_return_every_point_once_in_order,
            payload_is_stored_unchanged,
            every_point_has_its_document_fields,
            large_values_are_only_on_the_first_point,
            empty_calls_do_nothing,
            deleted_collection_is_reported,
            replayed_change_replaces_itself_but_nothing_newer,
            points_returns_requested_points_and_fields,
            random_writes_match_a_model,
            refresh_updates_payloads_of_older_points_with_same_fingerprint,
            upsert_completes_a_partial_refresh,
            known_vectors_include_fingerprints,
            point_without_vector_matches_filters_but_no_search,
            index_state_follows_the_collection,
        );
    };
    (@ $harness:expr; $($name:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let harness = $harness;
                $crate::contracts::index::$name(&harness).await;
            }
        )*
    };
}

/// A document with one chunk per text, as written by the upserter.
pub fn document(namespace: &Namespace, key: &str, version: Version, texts: &[&str]) -> DocumentPoints {
    let id = DocumentId::new(namespace, key);
    let digest = digest(&texts.concat());
    let fingerprints = Fingerprints::new("fake:4", "1", DIMENSION);
    let stamp = Stamp {
        digest: &digest,
        key,
        namespace: namespace.as_str(),
        document: id,
        version,
        model: "fake:4",
        fingerprints: &fingerprints,
        chunks: texts.len() as u32,
    };
    let point = |(chunk, text): (u32, &&str)| {
        let mut payload = Map::new();
        payload.insert("_id".to_owned(), Value::from(key));
        payload.insert("subject".to_owned(), Value::from(texts.concat()));
        payload.insert(RESERVED.to_owned(), stamp.value(chunk, text));
        Point { id: id.point(chunk), vector: vector_of(text, DIMENSION), payload }
    };
    let points = (0..).zip(texts).map(point).collect();
    DocumentPoints { document: id, version, fields: Map::new(), excerpt: None, points }
}

fn tickets() -> Namespace {
    Namespace::new("shop", "tickets")
}

fn ticket(key: &str, version: Version, texts: &[&str]) -> DocumentPoints {
    document(&tickets(), key, version, texts)
}

fn version(seconds: u32, increment: u32, ordinal: u32) -> Version {
    Version { epoch: 0, time: ClusterTime { seconds, increment }, ordinal, replay: 0 }
}

fn at(seconds: u32) -> Version {
    version(seconds, 1, 1)
}

fn fence(document: &DocumentPoints, version: Version) -> Fence {
    Fence { target: FenceTarget::Document(document.document), version }
}

/// Writes documents, and creates a missing collection first.
async fn write(index: &dyn Index, documents: &[DocumentPoints]) {
    let documents: Vec<_> = documents.iter().collect();
    if index.upsert(&documents).await.unwrap() == Written::NoCollection {
        index.prepare(DIMENSION).await.unwrap();
        assert_eq!(index.upsert(&documents).await.unwrap(), Written::Durably);
    }
}

/// All points by id, read in small pages.
async fn all(index: &dyn Index) -> BTreeMap<Uuid, Map<String, Value>> {
    let mut points = BTreeMap::new();
    loop {
        let after = points.last_key_value().map(|(id, _)| *id);
        let page = index.page(after, 100, &[]).await.unwrap();
        if page.is_empty() {
            return points;
        }
        points.extend(page.into_iter().map(|point| (point.id, point.payload)));
    }
}

/// Asserts that the index holds exactly these documents.
async fn holds(index: &dyn Index, documents: &[&DocumentPoints]) {
    let points = documents.iter().flat_map(|document| &document.points);
    let expected: BTreeMap<_, _> = points.map(|point| (point.id, point.payload.clone())).collect();
    assert_eq!(all(index).await, expected);
}

/// Several upserters may prepare at once; a collection for another model stops them.
pub async fn prepare_is_idempotent_and_rejects_another_dimension(harness: &dyn IndexHarness) {
    let index = harness.index();
    assert_eq!(index.count().await.unwrap(), None);
    let (first, second) = (harness.index(), harness.index());
    let (first, second) = tokio::join!(first.prepare(DIMENSION), second.prepare(DIMENSION));
    assert_eq!([first.unwrap(), second.unwrap()].iter().filter(|created| **created).count(), 1, "one was first");
    assert!(!index.prepare(DIMENSION).await.unwrap());
    assert_eq!(index.count().await.unwrap(), Some(0));
    let error = index.prepare(DIMENSION + 3).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.message.contains('4') && error.message.contains('7') && error.hint.is_some(), "{error}");
    let mut other = ticket("1", at(1), &["a"]);
    other.points[0].vector.push(0.5);
    assert_eq!(index.upsert(&[&other]).await.unwrap_err().class, ErrorClass::Fatal);
    assert_eq!(index.count().await.unwrap(), Some(0));
}

/// More documents than fit into one request.
pub async fn write_larger_than_a_request_is_complete(harness: &dyn IndexHarness) {
    let index = harness.index();
    let texts: Vec<_> = (0..700).map(|key| format!("text {key}")).collect();
    let documents: Vec<_> = texts.iter().map(|text| ticket(text, at(1), &[text, "b", "c"])).collect();
    write(&*index, &documents).await;
    holds(&*index, &documents.iter().collect::<Vec<_>>()).await;
}

/// More chunks than fit into one request.
pub async fn document_larger_than_a_request_is_complete(harness: &dyn IndexHarness) {
    let index = harness.index();
    let texts: Vec<_> = (0..600).map(|chunk| format!("chunk {chunk}")).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let (large, small) = (ticket("1", at(1), &texts), ticket("2", at(1), &["b"]));
    write(&*index, &[large.clone(), small.clone()]).await;
    holds(&*index, &[&large, &small]).await;
}

/// Writers race for the same documents, and for who creates the collection.
pub async fn newest_of_concurrent_writes_wins(harness: &dyn IndexHarness) {
    let keys = ["1", "2", "3"];
    let batch = |seconds: u32| -> Vec<DocumentPoints> {
        keys.iter().map(|key| ticket(key, at(seconds), &[&format!("{seconds}")])).collect()
    };
    let writers = (1..=20u32).map(|seconds| {
        let index = harness.index();
        let documents = batch(seconds);
        async move { write(&*index, &documents).await }
    });
    futures::future::join_all(writers).await;
    let newest = batch(20);
    holds(&*harness.index(), &newest.iter().collect::<Vec<_>>()).await;
}

/// Empty calls do not even create the collection.
pub async fn empty_calls_do_nothing(harness: &dyn IndexHarness) {
    let index = harness.index();
    assert_eq!(index.upsert(&[]).await.unwrap(), Written::Durably);
    index.delete(&[]).await.unwrap();
    assert!(index.stored(&[]).await.unwrap().is_empty());
    assert_eq!(index.count().await.unwrap(), None);
}

/// The next write reports it and does not create it; a delete succeeds.
pub async fn deleted_collection_is_reported(harness: &dyn IndexHarness) {
    let index = harness.index();
    assert!(!index.exists().await.unwrap());
    index.prepare(DIMENSION).await.unwrap();
    assert!(index.exists().await.unwrap());
    write(&*index, &[ticket("1", at(1), &["a"])]).await;
    harness.drop_collection().await;
    assert!(!index.exists().await.unwrap());
    assert_eq!(index.count().await.unwrap(), None);
    let second = ticket("2", at(2), &["b"]);
    index.delete(&[fence(&second, at(1))]).await.unwrap();
    assert_eq!(index.upsert(&[&second]).await.unwrap(), Written::NoCollection);
    assert!(!index.exists().await.unwrap());
    write(&*index, std::slice::from_ref(&second)).await;
    holds(&*index, &[&second]).await;
}
