//! Writes and deletes fenced by versions.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::ports::{Fence, FenceTarget, Stored};
use tidewheel_core::version::Version;
use uuid::Uuid;

use super::{DIMENSION, IndexHarness, all, at, document, fence, holds, ticket, tickets, version, write};

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

/// One batch mixes documents newer than, older than and equal to the stored ones.
pub async fn batch_write_fences_each_document_by_its_own_version(harness: &dyn IndexHarness) {
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
    // Each is newer than its predecessor by the smallest possible step.
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

/// The gap that tombstones and [`IndexWriter::stored`](tidewheel_core::ports::IndexWriter::stored) close.
pub async fn missing_point_is_inserted_regardless_of_version(harness: &dyn IndexHarness) {
    let index = harness.index();
    index.prepare(DIMENSION).await.unwrap();
    let (short, long) = (ticket("1", at(2), &["a"]), ticket("1", at(1), &["a", "b", "c"]));
    write(&*index, std::slice::from_ref(&short)).await;
    write(&*index, std::slice::from_ref(&long)).await;
    // Chunk 0 is unchanged; the other chunks of the late version were missing, and exist now.
    assert_eq!(index.count().await.unwrap(), Some(3));
    let stored = index.stored(&[(short.document, 1), (short.document, 2)]).await.unwrap();
    assert_eq!(stored, [Stored { version: None, surplus: true }, Stored { version: Some(at(2)), surplus: true }]);
    index.delete(&[fence(&short, at(2))]).await.unwrap();
    holds(&*index, &[&short]).await;
}

/// Regardless of their document; newer ones are kept.
pub async fn remove_deletes_only_older_points_by_id(harness: &dyn IndexHarness) {
    let index = harness.index();
    index.remove(&[Uuid::from_u128(7)], at(9)).await.expect("nothing to remove");
    let (first, second) = (ticket("1", at(1), &["a", "b"]), ticket("2", at(3), &["c"]));
    write(&*index, &[first.clone(), second.clone()]).await;
    index.remove(&[first.points[1].id, second.points[0].id, Uuid::from_u128(7)], at(2)).await.unwrap();
    let left: Vec<_> = index.page(None, 10, &[]).await.unwrap().into_iter().map(|point| point.id).collect();
    let mut expected = [first.points[0].id, second.points[0].id];
    expected.sort_unstable();
    assert_eq!(left, expected);
}

/// The check after a write relies on this.
pub async fn stored_returns_version_and_surplus_in_order(harness: &dyn IndexHarness) {
    let index = harness.index();
    let (first, second) = (ticket("1", at(1), &["a", "b"]), ticket("2", at(2), &["c"]));
    let unknown = ticket("3", at(3), &["d"]);
    let ask = [(second.document, 2), (unknown.document, 2), (first.document, 1), (first.document, 2)];
    let nothing = Stored { version: None, surplus: false };
    assert_eq!(index.stored(&ask).await.unwrap(), [nothing; 4], "the collection does not exist yet");
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
pub async fn fence_deletes_only_older_points(harness: &dyn IndexHarness) {
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
pub async fn namespace_fence_keeps_other_namespaces(harness: &dyn IndexHarness) {
    let index = harness.index();
    let other = document(&Namespace::new("shop", "orders"), "1", at(1), &["a"]);
    let (old, new) = (ticket("1", at(1), &["a", "b"]), ticket("2", at(3), &["c"]));
    write(&*index, &[other.clone(), old, new.clone()]).await;
    index.delete(&[Fence { target: FenceTarget::Namespace(tickets()), version: at(2) }]).await.unwrap();
    holds(&*index, &[&other, &new]).await;
}

/// More fences than fit into one request, with distinct and shared versions.
pub async fn one_delete_accepts_many_fences(harness: &dyn IndexHarness) {
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

/// The same version, embedded again.
pub async fn replayed_change_replaces_itself_but_nothing_newer(harness: &dyn IndexHarness) {
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

/// Writes and deletes in a seeded order, compared with a map that follows the rules of the port.
pub async fn random_writes_match_a_model(harness: &dyn IndexHarness) {
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
