//! What every [`Index`] must do. Run on the fake and on a real server, so that the fake stays honest.

mod known;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tidewheel_core::error::ErrorClass;
use tidewheel_core::fingerprint::Fingerprints;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::payload::{RESERVED, STAMP, Stamp, Stamped, digest};
use tidewheel_core::ports::{DocumentPoints, Fence, FenceTarget, Index, KnownVectors, Point, Stored, Written};
use tidewheel_core::version::{ClusterTime, Version};
use uuid::Uuid;

use crate::fakes::embedder::vector_of;
pub use known::*;

/// Numbers in the vectors of all points here.
pub const DIMENSION: usize = 4;

/// A server with room for one collection, which does not exist yet.
#[async_trait]
pub trait IndexHarness: Send + Sync {
    /// The collection. Every call gives another handle to the same one.
    fn index(&self) -> Box<dyn Index>;

    /// The vectors of the same collection.
    fn known(&self) -> Box<dyn KnownVectors>;

    /// Deletes the collection behind the index's back, as an operator may.
    async fn drop_collection(&self);
}

/// Makes one test of each part of the contract. `$harness` is an expression that gives a fresh harness and may await.
#[macro_export]
macro_rules! index_contract {
    ($harness:expr) => {
        $crate::index_contract!(@ $harness;
            preparing_twice_is_fine_and_another_dimension_is_fatal,
            only_newer_versions_replace,
            each_document_of_a_batch_is_judged_by_its_own_version,
            versions_are_compared_exactly,
            a_missing_point_is_inserted_whatever_its_version,
            stored_tells_version_and_surplus_in_order,
            a_fence_deletes_what_is_older_and_nothing_else,
            a_fence_around_a_namespace_leaves_others_alone,
            many_fences_work_in_one_call,
            a_write_larger_than_a_request_is_whole,
            a_document_larger_than_a_request_is_whole,
            the_newest_of_concurrent_writes_stays,
            searches_give_the_nearest_that_pass_the_filter,
            pages_give_every_point_once_in_order,
            payloads_come_back_as_they_were_written,
            every_point_carries_the_fields_of_its_document,
            empty_calls_do_nothing,
            a_collection_that_was_deleted_is_reported,
            a_replayed_change_replaces_itself_and_nothing_newer,
            chosen_points_come_with_chosen_fields,
            random_writes_end_as_in_a_model,
            a_refresh_writes_payloads_of_what_is_older_and_made_from_the_same,
            an_upsert_completes_what_a_refresh_could_not,
            known_vectors_say_what_they_were_made_from,
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

/// A document with one chunk for each text, as the upserter writes it.
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
    DocumentPoints { document: id, version, fields: Map::new(), points: (0..).zip(texts).map(point).collect() }
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

/// Writes, and makes the collection first if there is none.
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

/// The index holds exactly these documents.
async fn holds(index: &dyn Index, documents: &[&DocumentPoints]) {
    let points = documents.iter().flat_map(|document| &document.points);
    let expected: BTreeMap<_, _> = points.map(|point| (point.id, point.payload.clone())).collect();
    assert_eq!(all(index).await, expected);
}

/// Several upserters may prepare at once; a collection for another model stops them.
pub async fn preparing_twice_is_fine_and_another_dimension_is_fatal(harness: &dyn IndexHarness) {
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

/// The fence on writes.
pub async fn only_newer_versions_replace(harness: &dyn IndexHarness) {
    let index = harness.index();
    index.prepare(DIMENSION).await.unwrap();
    let first = ticket("1", at(10), &["first"]);
    write(&*index, std::slice::from_ref(&first)).await;
    for older in [at(9), at(10)] {
        write(&*index, &[ticket("1", older, &["older"])]).await;
        holds(&*index, &[&first]).await;
    }
    let newer = ticket("1", at(11), &["newer"]);
    write(&*index, std::slice::from_ref(&newer)).await;
    holds(&*index, &[&newer]).await;
}

/// One batch mixes documents that are newer, older and as old as what is stored.
pub async fn each_document_of_a_batch_is_judged_by_its_own_version(harness: &dyn IndexHarness) {
    let index = harness.index();
    index.prepare(DIMENSION).await.unwrap();
    let old = [at(10), at(20), at(30), at(40)];
    let keys = ["1", "2", "3", "4"];
    let stored: Vec<_> = keys.iter().zip(old).map(|(key, version)| ticket(key, version, &["old", "x"])).collect();
    write(&*index, &stored).await;
    let new = [at(11), at(19), at(30), at(41)];
    let batch: Vec<_> = keys.iter().zip(new).map(|(key, version)| ticket(key, version, &["new", "y"])).collect();
    write(&*index, &batch).await;
    holds(&*index, &[&batch[0], &stored[1], &stored[2], &batch[3]]).await;
}

/// Neither half of a version may lose its last bit on the way through JSON and floats.
pub async fn versions_are_compared_exactly(harness: &dyn IndexHarness) {
    let index = harness.index();
    index.prepare(DIMENSION).await.unwrap();
    let epoch = |version: Version, epoch: u32| Version { epoch, ..version };
    // Each is newer than the one before it, by as little as one part can be.
    let rising = [
        version(1, 1, 0),
        version(1, 1, 1),
        version(1, 2, 0),
        version(1, u32::MAX - 1, 7),
        version(1, u32::MAX, 6),
        version(1, u32::MAX, 7),
        version(2, 1, 1),
        version(u32::MAX, u32::MAX, 8),
        epoch(version(0, 0, 0), 1),
        epoch(version(u32::MAX, u32::MAX, 8), tidewheel_core::version::MAX_EPOCH),
        epoch(version(u32::MAX, u32::MAX, 9), tidewheel_core::version::MAX_EPOCH),
    ];
    for pair in rising.windows(2) {
        let (older, newer) = (ticket("1", pair[0], &["a"]), ticket("1", pair[1], &["b"]));
        write(&*index, std::slice::from_ref(&newer)).await;
        write(&*index, std::slice::from_ref(&older)).await;
        holds(&*index, &[&newer]).await;
        index.delete(&[fence(&newer, pair[0]), fence(&newer, pair[1])]).await.unwrap();
        holds(&*index, &[&newer]).await;
    }
}

/// The gap that tombstones and [`Index::stored`] are there for.
pub async fn a_missing_point_is_inserted_whatever_its_version(harness: &dyn IndexHarness) {
    let index = harness.index();
    index.prepare(DIMENSION).await.unwrap();
    let (short, long) = (ticket("1", at(2), &["a"]), ticket("1", at(1), &["a", "b", "c"]));
    write(&*index, std::slice::from_ref(&short)).await;
    write(&*index, std::slice::from_ref(&long)).await;
    // Chunk 0 stayed as it was; the other chunks of the late version were missing, and are there now.
    assert_eq!(index.count().await.unwrap(), Some(3));
    let stored = index.stored(&[(short.document, 1), (short.document, 2)]).await.unwrap();
    assert_eq!(stored, [Stored { version: None, surplus: true }, Stored { version: Some(at(2)), surplus: true }]);
    index.delete(&[fence(&short, at(2))]).await.unwrap();
    holds(&*index, &[&short]).await;
}

/// What the check after a write rests on.
pub async fn stored_tells_version_and_surplus_in_order(harness: &dyn IndexHarness) {
    let index = harness.index();
    let (first, second) = (ticket("1", at(1), &["a", "b"]), ticket("2", at(2), &["c"]));
    let unknown = ticket("3", at(3), &["d"]);
    let ask = [(second.document, 2), (unknown.document, 2), (first.document, 1), (first.document, 2)];
    let nothing = Stored { version: None, surplus: false };
    assert_eq!(index.stored(&ask).await.unwrap(), [nothing; 4], "there is no collection yet");
    write(&*index, &[first, second]).await;
    assert_eq!(
        index.stored(&ask).await.unwrap(),
        [
            Stored { version: Some(at(2)), surplus: false },
            nothing,
            Stored { version: None, surplus: true },
            Stored { version: Some(at(1)), surplus: false },
        ]
    );
}

/// The fence on deletes.
pub async fn a_fence_deletes_what_is_older_and_nothing_else(harness: &dyn IndexHarness) {
    let index = harness.index();
    let (first, second) = (ticket("1", at(10), &["a", "b"]), ticket("2", at(10), &["c"]));
    index.delete(&[fence(&first, at(99))]).await.unwrap();
    write(&*index, &[first.clone(), second.clone()]).await;
    for not_newer in [at(9), at(10)] {
        index.delete(&[fence(&first, not_newer)]).await.unwrap();
        holds(&*index, &[&first, &second]).await;
    }
    index.delete(&[fence(&first, at(11)), fence(&second, at(10))]).await.unwrap();
    holds(&*index, &[&second]).await;
}

/// A dropped collection.
pub async fn a_fence_around_a_namespace_leaves_others_alone(harness: &dyn IndexHarness) {
    let index = harness.index();
    let other = document(&Namespace::new("shop", "orders"), "1", at(1), &["a"]);
    let (old, new) = (ticket("1", at(1), &["a", "b"]), ticket("2", at(3), &["c"]));
    write(&*index, &[other.clone(), old, new.clone()]).await;
    index.delete(&[Fence { target: FenceTarget::Namespace(tickets()), version: at(2) }]).await.unwrap();
    holds(&*index, &[&other, &new]).await;
}

/// More fences than fit into one request, with versions of their own and shared ones.
pub async fn many_fences_work_in_one_call(harness: &dyn IndexHarness) {
    let index = harness.index();
    let documents: Vec<_> = (0..600).map(|key| ticket(&key.to_string(), at(10 + key), &["a"])).collect();
    write(&*index, &documents).await;
    // Every other one is behind its fence; half of the fences share a version.
    let fences: Vec<_> = (0..)
        .zip(&documents)
        .map(|(key, document)| {
            fence(
                document,
                if key % 2 == 1 {
                    at(10 + key)
                } else if key < 300 {
                    at(1_000)
                } else {
                    at(11 + key)
                },
            )
        })
        .collect();
    index.delete(&fences).await.unwrap();
    let left: Vec<_> = documents.iter().skip(1).step_by(2).collect();
    holds(&*index, &left).await;
}

/// More documents than fit into one request.
pub async fn a_write_larger_than_a_request_is_whole(harness: &dyn IndexHarness) {
    let index = harness.index();
    let texts: Vec<_> = (0..700).map(|key| format!("text {key}")).collect();
    let documents: Vec<_> = texts.iter().map(|text| ticket(text, at(1), &[text, "b", "c"])).collect();
    write(&*index, &documents).await;
    holds(&*index, &documents.iter().collect::<Vec<_>>()).await;
}

/// More chunks than fit into one request.
pub async fn a_document_larger_than_a_request_is_whole(harness: &dyn IndexHarness) {
    let index = harness.index();
    let texts: Vec<_> = (0..600).map(|chunk| format!("chunk {chunk}")).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let (large, small) = (ticket("1", at(1), &texts), ticket("2", at(1), &["b"]));
    write(&*index, &[large.clone(), small.clone()]).await;
    holds(&*index, &[&large, &small]).await;
}

/// Writers race for the same documents, and for who creates the collection.
pub async fn the_newest_of_concurrent_writes_stays(harness: &dyn IndexHarness) {
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

/// Search by vector, with and without a filter.
pub async fn searches_give_the_nearest_that_pass_the_filter(harness: &dyn IndexHarness) {
    let index = harness.index();
    index.prepare(DIMENSION).await.unwrap();
    assert!(index.search(vector_of("a", DIMENSION), 3, None).await.unwrap().is_empty());
    let documents: Vec<_> = ["a", "b", "c", "d"].map(|text| ticket(text, at(1), &[text])).into();
    write(&*index, &documents).await;
    // The length of a vector does not matter: it is its direction that is compared.
    let twice: Vec<f32> = vector_of("c", DIMENSION).iter().map(|value| value * 2.0).collect();
    let hits = index.search(twice.clone(), 3, None).await.unwrap();
    assert_eq!(hits.len(), 3);
    assert_eq!((hits[0].id, &hits[0].payload), (documents[2].points[0].id, &documents[2].points[0].payload));
    assert!((hits[0].score - 1.0).abs() < 1e-4, "{}", hits[0].score);
    assert!(hits.is_sorted_by(|a, b| a.score >= b.score));

    let filter = json!({"must": [{"key": "subject", "match": {"any": ["a", "b"]}}]});
    let hits = index.search(twice.clone(), 3, Some(&filter)).await.unwrap();
    let found: Vec<_> = hits.iter().map(|hit| hit.payload["subject"].as_str().unwrap()).collect();
    assert!(found.len() == 2 && found.contains(&"a") && found.contains(&"b"), "{found:?}");
    let filter = json!({"must_not": [{"key": "_tidewheel.namespace", "match": {"value": "shop.tickets"}}]});
    assert!(index.search(twice.clone(), 3, Some(&filter)).await.unwrap().is_empty());
    let wrong = index.search(twice, 3, Some(&json!({"must": [{"kee": 1}]}))).await.unwrap_err();
    assert_eq!(wrong.class, ErrorClass::Poison);
}

/// What a comparison of index and source rests on.
pub async fn pages_give_every_point_once_in_order(harness: &dyn IndexHarness) {
    let index = harness.index();
    assert!(index.page(None, 10, &[]).await.unwrap().is_empty(), "there is no collection yet");
    let documents: Vec<_> = (0..50).map(|key| ticket(&key.to_string(), at(1), &["a", "b"])).collect();
    write(&*index, &documents).await;
    let mut expected: Vec<_> = documents.iter().flat_map(|document| &document.points).map(|point| point.id).collect();
    expected.sort_unstable();
    let mut seen: Vec<Uuid> = Vec::new();
    loop {
        let page = index.page(seen.last().copied(), 7, &[]).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 7);
        seen.extend(page.iter().map(|point| point.id));
    }
    assert_eq!(seen, expected);
    assert!(index.page(Some(Uuid::max()), 7, &[]).await.unwrap().is_empty());
}

/// Every JSON type, odd names and long texts.
pub async fn payloads_come_back_as_they_were_written(harness: &dyn IndexHarness) {
    let index = harness.index();
    let mut written = ticket("1", at(1), &["zürich 日本 \u{0} \u{1f600}"]);
    let user = json!({
        "null": null, "true": true, "number": -7, "largest": i64::MAX, "smallest": i64::MIN, "ratio": 0.1,
        "whole": 3.0, "tiny": 5e-324, "empty": {}, "none": [], "": "empty name", "a.b": {"$c": [1, [2.5, {"d": null}]]},
        "long": "x".repeat(100_000),
    });
    let Value::Object(user) = user else { unreachable!("it is an object") };
    written.points[0].payload.extend(user);
    write(&*index, std::slice::from_ref(&written)).await;
    holds(&*index, &[&written]).await;
}

/// Beside what is its own.
pub async fn every_point_carries_the_fields_of_its_document(harness: &dyn IndexHarness) {
    let index = harness.index();
    let mut written = ticket("1", at(1), &["a", "b"]);
    written.fields.insert("product".to_owned(), json!({"name": "Atlas"}));
    write(&*index, std::slice::from_ref(&written)).await;
    let points = all(&*index).await;
    for point in &written.points {
        assert_eq!(points[&point.id], written.payload_of(point));
        assert_eq!(points[&point.id]["product"]["name"], "Atlas");
    }
}

/// Not even create the collection.
pub async fn empty_calls_do_nothing(harness: &dyn IndexHarness) {
    let index = harness.index();
    assert_eq!(index.upsert(&[]).await.unwrap(), Written::Durably);
    index.delete(&[]).await.unwrap();
    assert!(index.stored(&[]).await.unwrap().is_empty());
    assert_eq!(index.count().await.unwrap(), None);
}

/// By the next write, which makes nothing; a delete finds nothing to do.
pub async fn a_collection_that_was_deleted_is_reported(harness: &dyn IndexHarness) {
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

/// The same version embedded anew.
pub async fn a_replayed_change_replaces_itself_and_nothing_newer(harness: &dyn IndexHarness) {
    let index = harness.index();
    let replayed = |version: Version, replay: u32| Version { replay, ..version };
    let rising = [at(1), replayed(at(1), 5), replayed(at(1), 6), at(2), replayed(at(2), 1)];
    for pair in rising.windows(2) {
        let (older, newer) = (ticket("1", pair[0], &["a"]), ticket("1", pair[1], &["b"]));
        write(&*index, std::slice::from_ref(&older)).await;
        write(&*index, std::slice::from_ref(&newer)).await;
        holds(&*index, &[&newer]).await;
        write(&*index, std::slice::from_ref(&older)).await;
        index.delete(&[fence(&newer, pair[0]), fence(&newer, pair[1])]).await.unwrap();
        holds(&*index, &[&newer]).await;
        assert_eq!(index.stored(&[(newer.document, 2)]).await.unwrap()[0].version, Some(pair[1]));
    }
}

/// What a comparison with the source reads.
pub async fn chosen_points_come_with_chosen_fields(harness: &dyn IndexHarness) {
    let index = harness.index();
    let known = ticket("1", at(3), &["a", "b"]);
    let ids = [known.points[1].id, ticket("2", at(1), &["c"]).points[0].id];
    assert!(index.points(&ids, STAMP).await.unwrap().is_empty(), "there is no collection yet");
    write(&*index, std::slice::from_ref(&known)).await;
    let found = index.points(&ids, STAMP).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id, ids[0]);
    assert_eq!(found[0].payload.keys().collect::<Vec<_>>(), [RESERVED]);
    assert!(found[0].payload[RESERVED].get("text").is_none());
    let stamp =
        Stamped { namespace: tickets(), key: "1".into(), version: at(3), chunk: 1, chunks: 2, digest: digest("ab") };
    assert_eq!(Stamped::read(&found[0].payload), Some(stamp.clone()));
    let page = index.page(None, 10, STAMP).await.unwrap();
    assert!(page.iter().any(|point| Stamped::read(&point.payload).as_ref() == Some(&stamp)));
    assert!(page.iter().all(|point| !point.payload.contains_key("subject")));
    assert_eq!(index.points(&ids, &[]).await.unwrap()[0].payload, known.points[1].payload);
    assert!(index.points(&[], &[]).await.unwrap().is_empty());
}

/// Writes and deletes in an order drawn by a seed, against a map that follows the rules of the port.
pub async fn random_writes_end_as_in_a_model(harness: &dyn IndexHarness) {
    let index = harness.index();
    index.prepare(DIMENSION).await.unwrap();
    let mut model: BTreeMap<Uuid, (DocumentId, Version, Map<String, Value>)> = BTreeMap::new();
    let mut state = 0x5eed_u32;
    let mut draw = |below: u32| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state % below
    };
    for step in 0..150 {
        let version = version(1 + draw(4), 1 + draw(4), draw(3));
        if draw(4) == 0 {
            let documents = [draw(6), draw(6)].map(|key| ticket(&key.to_string(), version, &["x"]));
            index.delete(&documents.each_ref().map(|document| fence(document, version))).await.unwrap();
            model.retain(|_, (document, stored, _)| {
                !documents.iter().any(|behind| behind.document == *document && *stored < version)
            });
        } else {
            let first = draw(6);
            let texts: Vec<String> = (0..=draw(3)).map(|chunk| format!("{step} {chunk}")).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let documents = [first, (first + 1) % 6].map(|key| ticket(&key.to_string(), version, &texts));
            write(&*index, &documents).await;
            for document in documents {
                for point in document.points {
                    let newer = model.get(&point.id).is_none_or(|(_, stored, _)| *stored < version);
                    if newer {
                        model.insert(point.id, (document.document, version, point.payload));
                    }
                }
            }
        }
        let expected: BTreeMap<_, _> = model.iter().map(|(id, (_, _, payload))| (*id, payload.clone())).collect();
        assert_eq!(all(&*index).await, expected, "after step {step}");
    }
}
