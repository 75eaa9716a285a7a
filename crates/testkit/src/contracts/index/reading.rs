//! Reads and searches.

use serde_json::{Value, json};
use tidewheel_core::filter::Filter;
use tidewheel_core::payload::{RESERVED, STAMP, Stamped, digest};
use uuid::Uuid;

use super::{DIMENSION, IndexHarness, all, at, holds, payload_of, ticket, tickets, write};
use crate::fakes::embedder::vector_of;

/// Search by vector, with and without a filter.
pub async fn search_returns_nearest_points_that_match_the_filter(harness: &dyn IndexHarness) {
    let index = harness.index();
    index.prepare(DIMENSION).await.unwrap();
    assert!(harness.searcher().search(vector_of("a", DIMENSION), 3, None, &[]).await.unwrap().is_empty());
    let documents: Vec<_> = ["a", "b", "c", "d"].map(|text| ticket(text, at(1), &[text])).into();
    write(&*index, &documents).await;
    // The length of a vector does not matter: only its direction is compared.
    let twice: Vec<f32> = vector_of("c", DIMENSION).iter().map(|value| value * 2.0).collect();
    let hits = harness.searcher().search(twice.clone(), 3, None, &[]).await.unwrap();
    assert_eq!(hits.len(), 3);
    assert_eq!((hits[0].id, &hits[0].payload), (documents[2].points[0].id, &documents[2].points[0].payload));
    assert!((hits[0].score - 1.0).abs() < 1e-4, "{}", hits[0].score);
    assert!(hits.is_sorted_by(|a, b| a.score >= b.score));

    let filter = parsed(&json!({"must": [{"key": "subject", "match": {"any": ["a", "b"]}}]}));
    let hits = harness.searcher().search(twice.clone(), 3, Some(&filter), &[]).await.unwrap();
    let found: Vec<_> = hits.iter().map(|hit| hit.payload["subject"].as_str().unwrap()).collect();
    assert!(found.len() == 2 && found.contains(&"a") && found.contains(&"b"), "{found:?}");
    let filter = parsed(&json!({"must_not": [{"key": "_tidewheel.namespace", "match": {"value": "shop.tickets"}}]}));
    assert!(harness.searcher().search(twice, 3, Some(&filter), &[]).await.unwrap().is_empty());
}

fn parsed(filter: &Value) -> Filter {
    Filter::parse(filter).unwrap()
}

/// A vector of zeros, which has no direction, is not stored.
pub async fn point_without_vector_matches_filters_but_no_search(harness: &dyn IndexHarness) {
    let index = harness.index();
    let mut blank = ticket("blank", at(1), &[""]);
    blank.points[0].vector = vec![0.0; DIMENSION];
    let [other, more] = ["other", "more"].map(|key| ticket(key, at(1), &[key]));
    index.prepare(DIMENSION).await.unwrap();
    write(&*index, std::slice::from_ref(&blank)).await;
    assert!(harness.searcher().search(vector_of("a", DIMENSION), 10, None, &[]).await.unwrap().is_empty());
    write(&*index, &[other.clone(), more.clone()]).await;
    holds(&*index, &[&blank, &other, &more]).await;
    assert_eq!(harness.searcher().search(vector_of("a", DIMENSION), 10, None, &[]).await.unwrap().len(), 2);
    let ids = [blank.points[0].id, other.points[0].id];
    let known = harness.known().known(&ids).await.unwrap();
    assert_eq!(known.iter().map(|known| known.id).collect::<Vec<_>>(), [other.points[0].id]);

    // A text appears and disappears.
    let written = ticket("blank", at(2), &["text"]);
    write(&*index, std::slice::from_ref(&written)).await;
    assert_eq!(
        harness.searcher().search(vector_of("text", DIMENSION), 10, None, &[]).await.unwrap()[0].id,
        written.points[0].id
    );
    let mut blank = ticket("blank", at(3), &[""]);
    blank.points[0].vector = vec![0.0; DIMENSION];
    write(&*index, std::slice::from_ref(&blank)).await;
    holds(&*index, &[&blank, &other, &more]).await;
    assert_eq!(harness.searcher().search(vector_of("a", DIMENSION), 10, None, &[]).await.unwrap().len(), 2);
}

/// Numbers are compared by value: a JSON filter does not distinguish `3` from `3.0`, and neither does MongoDB.
pub async fn filter_compares_numbers_by_value(harness: &dyn IndexHarness) {
    const LARGE: i64 = 9_007_199_254_740_993;
    let index = harness.index();
    index.prepare(DIMENSION).await.unwrap();
    let stored =
        [json!(3), json!(3.0), json!(3.5), json!(-3), json!(LARGE), json!(LARGE - 1), json!([1, 3.0]), json!("3")];
    let documents: Vec<_> = (0..)
        .zip(stored)
        .map(|(key, value): (i32, _)| {
            let mut document = ticket(&key.to_string(), at(1), &["a"]);
            document.fields.insert("n".to_owned(), value);
            document
        })
        .collect();
    write(&*index, &documents).await;
    let found = async |filter: Value| {
        let filter = parsed(&json!({"must": [{"key": "n", "match": filter}]}));
        let hits = harness.searcher().search(vector_of("a", DIMENSION), 20, Some(&filter), &[]).await.unwrap();
        let mut keys: Vec<String> = hits.iter().map(|hit| hit.payload["_id"].as_str().unwrap().to_owned()).collect();
        keys.sort();
        keys.concat()
    };
    assert_eq!(found(json!({"value": 3})).await, "016");
    assert_eq!(found(json!({"value": 3.0})).await, "016");
    assert_eq!(found(json!({"value": 3.5})).await, "2");
    assert_eq!(found(json!({"value": -3.0})).await, "3");
    assert_eq!(found(json!({"value": LARGE})).await, "4", "no double represents it");
    assert_eq!(found(json!({"value": "3"})).await, "7");
    assert_eq!(found(json!({"any": [3.5, -3]})).await, "23");
    assert_eq!(found(json!({"any": [3, LARGE]})).await, "0146");
    assert_eq!(found(json!({"except": [3, -3.0]})).await, "24567");
}

/// The comparison of index and source relies on this.
pub async fn pages_return_every_point_once_in_order(harness: &dyn IndexHarness) {
    let index = harness.index();
    assert!(index.page(None, 10, &[]).await.unwrap().is_empty(), "the collection does not exist yet");
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

/// Every JSON type, unusual names and long texts.
pub async fn payload_is_stored_unchanged(harness: &dyn IndexHarness) {
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

/// In addition to its own fields.
pub async fn every_point_has_its_document_fields(harness: &dyn IndexHarness) {
    let index = harness.index();
    let mut written = ticket("1", at(1), &["a", "b"]);
    written.fields.insert("product".to_owned(), json!({"name": "Atlas"}));
    write(&*index, std::slice::from_ref(&written)).await;
    let points = all(&*index).await;
    for point in &written.points {
        assert_eq!(points[&point.id], payload_of(&written, point));
        assert_eq!(points[&point.id]["product"]["name"], "Atlas");
    }
}

/// With both kinds of write; filters on small values match every point.
pub async fn large_values_are_only_on_the_first_point(harness: &dyn IndexHarness) {
    let index = harness.index();
    let mut written = ticket("1", at(1), &["a", "b", "c"]);
    written.fields.insert("content".to_owned(), "x".repeat(100_000).into());
    written.fields.insert("product".to_owned(), json!({"name": "Atlas"}));
    let mut excerpt = written.fields.clone();
    excerpt.shift_remove("content");
    written.excerpt = Some(excerpt);
    write(&*index, std::slice::from_ref(&written)).await;
    let mut refreshed = ticket("1", at(2), &["a", "b", "c"]);
    (refreshed.fields, refreshed.excerpt) = (written.fields.clone(), written.excerpt.clone());
    for document in [&written, &refreshed] {
        if document.version > written.version {
            assert_eq!(index.refresh(&[document]).await.unwrap(), [true]);
        }
        let points = all(&*index).await;
        let has =
            |name: &str| document.points.iter().map(|point| points[&point.id].contains_key(name)).collect::<Vec<_>>();
        assert_eq!(has("content"), [true, false, false]);
        assert_eq!(has("product"), [true, true, true]);
    }
    let filter = parsed(&json!({"must": [{"key": "product.name", "match": {"value": "Atlas"}}]}));
    let hits = harness
        .searcher()
        .search(vector_of("b", DIMENSION), 10, Some(&filter), &["_tidewheel.document"])
        .await
        .unwrap();
    assert_eq!(hits.len(), 3);
    let expected = json!({RESERVED: {"document": written.document.to_string()}});
    assert!(hits.iter().all(|hit| json!(hit.payload) == expected), "{:?}", hits[0].payload);
    let others = parsed(&json!({"must_not": [{"has_id": [written.points[1].id.to_string()]}]}));
    let hits = harness.searcher().search(vector_of("b", DIMENSION), 10, Some(&others), &[RESERVED]).await.unwrap();
    assert_eq!(hits.len(), 2);
}

/// The comparison with the source relies on this.
pub async fn points_returns_requested_points_and_fields(harness: &dyn IndexHarness) {
    let index = harness.index();
    let known = ticket("1", at(3), &["a", "b"]);
    let ids = [known.points[1].id, ticket("2", at(1), &["c"]).points[0].id];
    assert!(index.points(&ids, STAMP).await.unwrap().is_empty(), "the collection does not exist yet");
    write(&*index, std::slice::from_ref(&known)).await;
    let found = index.points(&ids, STAMP).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id, ids[0]);
    assert_eq!(found[0].payload.keys().collect::<Vec<_>>(), [RESERVED]);
    assert!(found[0].payload[RESERVED].get("text").is_none());
    let stamp = Stamped {
        namespace: tickets(),
        key: "1".into(),
        document: Some(known.document),
        version: at(3),
        chunk: 1,
        chunks: 2,
        digest: digest("ab"),
        made: None,
    };
    assert_eq!(Stamped::read(&found[0].payload), Some(stamp.clone()));
    let page = index.page(None, 10, STAMP).await.unwrap();
    assert!(page.iter().any(|point| Stamped::read(&point.payload).as_ref() == Some(&stamp)));
    assert!(page.iter().all(|point| !point.payload.contains_key("subject")));
    assert_eq!(index.points(&ids, &[]).await.unwrap()[0].payload, known.points[1].payload);
    assert!(index.points(&[], &[]).await.unwrap().is_empty());
}

/// Without a collection, with an empty one, with a point, and after its deletion.
pub async fn index_state_follows_the_collection(harness: &dyn IndexHarness) {
    let (index, inspector) = (harness.index(), harness.inspector());
    let state = inspector.index_state().await.unwrap();
    assert!(state.collection.is_none() && !state.version.is_empty(), "{state:?}");
    index.prepare(DIMENSION).await.unwrap();
    let collection = inspector.index_state().await.unwrap().collection.expect("a collection");
    assert_eq!((collection.dimension, collection.points), (Some(DIMENSION as u64), 0));
    assert!(["green", "yellow", "grey"].contains(&collection.status.as_str()), "{collection:?}");
    write(&*index, &[ticket("1", at(1), &["one"])]).await;
    assert_eq!(inspector.index_state().await.unwrap().collection.expect("a collection").points, 1);
    harness.drop_collection().await;
    assert!(inspector.index_state().await.unwrap().collection.is_none());
}
