//! Known vectors, and payload-only writes.

use tidewheel_core::fingerprint::Fingerprints;
use tidewheel_core::payload::fingerprint_of;

use super::{DIMENSION, IndexHarness, at, holds, payload_of, ticket, write};
use crate::fakes::embedder::vector_of;

/// A payload-only write applies to older points with the same fingerprint.
pub async fn refresh_updates_payloads_of_older_points_with_same_fingerprint(harness: &dyn IndexHarness) {
    let index = harness.index();
    let mut same = ticket("same", at(1), &["a", "b"]);
    let changed = ticket("changed", at(1), &["a", "b"]);
    let newer = ticket("newer", at(3), &["a"]);
    write(&*index, &[same.clone(), changed.clone(), newer.clone()]).await;

    let mut other = ticket("same", at(2), &["a", "b"]);
    // Only the payload is written; the vector is ignored.
    other.points[0].vector = vector_of("something else", DIMENSION);
    other.fields.insert("state".to_owned(), "open".into());
    let half = ticket("changed", at(2), &["a", "c"]);
    let late = ticket("newer", at(2), &["a"]);
    let absent = ticket("absent", at(2), &["a"]);
    let answers = index.refresh(&[&other, &half, &late, &absent]).await.unwrap();
    assert_eq!(answers, [true, false, true, false]);

    for (old, new) in same.points.iter_mut().zip(&other.points) {
        old.payload = payload_of(&other, new);
    }
    let mut mixed = changed.clone();
    mixed.points[0].payload = payload_of(&half, &half.points[0]);
    holds(&*index, &[&same, &mixed, &newer]).await;
    let known = harness.known().known(&[same.points[0].id]).await.unwrap();
    assert_eq!(known[0].vector, same.points[0].vector);
    assert_eq!(index.refresh(&[&other]).await.unwrap(), [true], "a repetition changes nothing");
}

/// A full write completes a partial refresh.
pub async fn upsert_completes_a_partial_refresh(harness: &dyn IndexHarness) {
    let index = harness.index();
    let old = ticket("1", at(1), &["a", "b"]);
    assert_eq!(index.refresh(&[&old]).await.unwrap(), [false], "the collection does not exist yet");
    assert_eq!(index.count().await.unwrap(), None);
    write(&*index, &[old]).await;
    let new = ticket("1", at(2), &["a", "c"]);
    assert_eq!(index.refresh(&[&new]).await.unwrap(), [false]);
    write(&*index, std::slice::from_ref(&new)).await;
    holds(&*index, &[&new]).await;
    let known = harness.known().known(&[new.points[0].id, new.points[1].id]).await.unwrap();
    for point in &new.points {
        let known = known.iter().find(|known| known.id == point.id).unwrap();
        assert_eq!(known.vector, point.vector);
    }
}

/// Vectors are returned unchanged, with their fingerprints.
pub async fn known_vectors_include_fingerprints(harness: &dyn IndexHarness) {
    let (index, known) = (harness.index(), harness.known());
    let mut documents: Vec<_> = (0..300).map(|key| ticket(&key.to_string(), at(1), &["a", "b"])).collect();
    let ids: Vec<_> = documents.iter().flat_map(|document| &document.points).map(|point| point.id).collect();
    assert!(known.known(&ids).await.unwrap().is_empty(), "the collection does not exist yet");
    // A point of an earlier version of tidewheel.
    let stamp = documents[299].points[1].payload.get_mut("_tidewheel").unwrap();
    stamp.as_object_mut().unwrap().remove("fingerprint");
    write(&*index, &documents).await;
    let found = known.known(&ids).await.unwrap();
    assert_eq!(found.len(), ids.len() - 1);
    let fingerprints = Fingerprints::new("fake:4", "1", DIMENSION);
    for point in documents.iter().flat_map(|document| &document.points).take(ids.len() - 1) {
        let found = found.iter().find(|found| found.id == point.id).unwrap();
        assert_eq!(found.vector, point.vector);
        assert_eq!(Some(found.fingerprint.as_str()), fingerprint_of(&point.payload));
        assert!([fingerprints.of("a"), fingerprints.of("b")].contains(&found.fingerprint));
    }
    assert!(known.known(&[]).await.unwrap().is_empty());
}
