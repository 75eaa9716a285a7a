//! Finds the nearest documents: ranked by their best chunk, without duplicates, and read only after ranking.
//!
//! A long document can account for thousands of the nearest points. Points are therefore ranked without their payload, documents
//! that were already found are excluded from the next query, and fields are read only for the documents that are returned.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};
use tidewheel_core::excerpt::OMITTED;
use tidewheel_core::filter::{Condition, Filter, Match, PointId, Values};
use tidewheel_core::identity::DocumentId;
use tidewheel_core::payload::{DOCUMENT, RESERVED};
use tidewheel_core::ports::{Hit, IndexReader, IndexedPoint, PortResult, Searcher};
use uuid::Uuid;

/// Maximum number of points per query.
const MOST_POINTS: usize = 20_000;

/// A document and its best chunk.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Nearest {
    /// Cosine similarity of that chunk.
    pub(super) score: f32,
    /// Point id of that chunk.
    pub(super) chunk: Uuid,
    /// The document; `None` for a point of another writer.
    document: Option<DocumentId>,
}

impl Nearest {
    fn of(hit: &Hit) -> Self {
        let document = hit.payload.get(RESERVED).and_then(|stamp| stamp.get("document")).and_then(Value::as_str);
        let document = document.and_then(|text| Uuid::parse_str(text).ok()).map(DocumentId::from_uuid);
        Self { score: hit.score, chunk: hit.id, document }
    }

    /// The point with all fields of the document.
    fn first(&self) -> Uuid {
        self.document.map_or(self.chunk, |document| document.point(0))
    }
}

/// Up to `limit` documents, best first.
pub(super) async fn documents(
    index: &dyn Searcher,
    vector: Vec<f32>,
    limit: usize,
    filter: Option<&Filter>,
) -> PortResult<Vec<Nearest>> {
    let mut nearest: Vec<Nearest> = Vec::new();
    let mut seen = HashSet::new();
    let mut points = limit.saturating_mul(2).clamp(1, MOST_POINTS);
    // Every round finds a new document or reaches the end.
    while nearest.len() < limit {
        let others = others(filter, &nearest);
        let hits = index.search(vector.clone(), points, others.as_ref(), &[DOCUMENT]).await?;
        let end = hits.len() < points;
        nearest.extend(hits.iter().map(Nearest::of).filter(|nearest| seen.insert(nearest.first())));
        if end {
            break;
        }
        points = points.saturating_mul(4).min(MOST_POINTS);
    }
    nearest.sort_by(|a, b| b.score.total_cmp(&a.score));
    nearest.truncate(limit);
    Ok(nearest)
}

/// The filter, excluding documents that were already found.
fn others(filter: Option<&Filter>, found: &[Nearest]) -> Option<Filter> {
    if found.is_empty() {
        return filter.cloned();
    }
    let (mut ours, mut foreign) = (Vec::new(), Vec::new());
    for nearest in found {
        match nearest.document {
            Some(document) => ours.push(document.to_string()),
            None => foreign.push(PointId::Uuid(nearest.chunk)),
        }
    }
    let mut must_not = Vec::new();
    if !ours.is_empty() {
        must_not.push(Condition::matches(DOCUMENT, Match::Any(Values::Keywords(ours))));
    }
    if !foreign.is_empty() {
        must_not.push(Condition::HasId(foreign));
    }
    let must = filter.cloned().map(Condition::Filter).into_iter().collect();
    Some(Filter { must, must_not, ..Filter::default() })
}

/// Payloads of the points of documents.
#[derive(Debug, Default)]
pub(super) struct Payloads {
    documents: HashMap<Uuid, Map<String, Value>>,
    chunks: HashMap<Uuid, Map<String, Value>>,
}

impl Payloads {
    /// The document's fields, and the stamp of the point that holds them.
    pub(super) fn of_document(&mut self, nearest: &Nearest) -> Map<String, Value> {
        self.documents.remove(&nearest.first()).or_else(|| self.chunks.get(&nearest.chunk).cloned()).unwrap_or_default()
    }

    /// The stamp of the best chunk; empty if it is the point of [`Payloads::of_document`].
    pub(super) fn of_chunk(&mut self, nearest: &Nearest) -> Map<String, Value> {
        self.chunks.remove(&nearest.chunk).unwrap_or_default()
    }
}

/// Reads, for each document, the point with all fields and the stamp of the best chunk.
pub(super) async fn payloads(index: &dyn IndexReader, nearest: &[Nearest]) -> PortResult<Payloads> {
    let firsts: Vec<Uuid> = nearest.iter().map(Nearest::first).collect();
    let others = nearest.iter().filter(|nearest| nearest.chunk != nearest.first());
    let others: Vec<Uuid> = others.map(|nearest| nearest.chunk).collect();
    let (firsts, others) = tokio::try_join!(index.points(&firsts, &[]), index.points(&others, &[RESERVED]))?;
    let mut payloads = Payloads { documents: by_id(firsts), chunks: by_id(others) };
    // The first point can be missing while its document is being written: fall back to the payload of the chunk.
    let alone = nearest.iter().filter(|nearest| !payloads.documents.contains_key(&nearest.first()));
    let alone: Vec<Uuid> = alone.map(|nearest| nearest.chunk).collect();
    payloads.chunks.extend(by_id(index.points(&alone, &[]).await?));
    for payload in payloads.chunks.values_mut() {
        if let Some(Value::Object(stamp)) = payload.get_mut(RESERVED) {
            stamp.shift_remove(OMITTED);
        }
    }
    Ok(payloads)
}

fn by_id(points: Vec<IndexedPoint>) -> HashMap<Uuid, Map<String, Value>> {
    points.into_iter().map(|point| (point.id, point.payload)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidewheel_core::filter::Scalar;
    use tidewheel_core::identity::Namespace;
    use tidewheel_core::ports::IndexWriter as _;
    use tidewheel_core::ports::Point;
    use tidewheel_core::version::Version;
    use tidewheel_testkit::contracts::index::document;
    use tidewheel_testkit::fakes::embedder::vector_of;
    use tidewheel_testkit::fakes::index::FakeIndex;

    use super::*;

    const DIMENSION: usize = 4;

    async fn index(documents: &[(&str, usize)]) -> FakeIndex {
        let index = FakeIndex::new();
        index.prepare(DIMENSION).await.unwrap();
        for (key, chunks) in documents {
            let texts: Vec<String> = (0..*chunks).map(|chunk| format!("{key} {chunk}")).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let mut document = document(&Namespace::new("shop", "tickets"), key, Version::default(), &texts);
            for (chunk, point) in document.points.iter_mut().enumerate() {
                // All chunks of a document point in about the same direction; the first chunk ranks last.
                let axis = if key.starts_with("long") { 0 } else { 1 };
                point.vector = vec![0.0; DIMENSION];
                point.vector[axis] = 1.0;
                point.vector[2] = 0.5 - chunk as f32 * 1e-4;
            }
            let _ = index.upsert(&[&document]).await.unwrap();
        }
        index
    }

    #[tokio::test]
    async fn search_finds_documents_ranked_after_thousands_of_other_chunks() {
        let index = index(&[("long1", 3_000), ("long2", 2_000), ("a", 1), ("b", 2), ("c", 1)]).await;
        let query = vec![1.0, 0.1, 0.0, 0.0];
        let found = documents(&index, query.clone(), 4, None).await.unwrap();
        assert_eq!(found.len(), 4);
        assert!(found.is_sorted_by(|a, b| a.score >= b.score));
        assert!(index.calls("search") <= 4, "{} queries", index.calls("search"));
        let all = documents(&index, query, 100, None).await.unwrap();
        assert_eq!(all.len(), 5);
        assert_eq!(all[..4], found[..]);
    }

    #[tokio::test]
    async fn filter_applies_to_every_round() {
        let index = index(&[("long1", 500), ("a", 1), ("b", 1)]).await;
        let a = Condition::matches("_id", Match::Value(Scalar::Keyword("a".to_owned())));
        let filter = Filter { must_not: vec![a], ..Filter::default() };
        let found = documents(&index, vec![1.0, 0.1, 0.0, 0.0], 5, Some(&filter)).await.unwrap();
        assert_eq!(found.len(), 2);
    }

    #[tokio::test]
    async fn points_of_other_writers_count_as_documents() {
        let index = index(&[("a", 2)]).await;
        for number in 0..20 {
            let payload = Map::from_iter([("number".to_owned(), json!(number))]);
            index.put(Point { id: Uuid::from_u128(number), vector: vector_of("x", DIMENSION), payload });
        }
        let found = documents(&index, vec![1.0, 0.1, 0.0, 0.0], 21, None).await.unwrap();
        assert_eq!(found.len(), 21);
        let mut payloads = payloads(&index, &found).await.unwrap();
        let foreign = found.iter().find(|nearest| nearest.document.is_none()).unwrap();
        assert!(payloads.of_document(foreign).contains_key("number"));
    }

    #[tokio::test]
    async fn result_has_fields_of_the_first_point_and_text_of_the_best_chunk() {
        let index = index(&[("long1", 50)]).await;
        let found = documents(&index, vec![1.0, 0.0, -1.0, 0.0], 1, None).await.unwrap();
        assert_ne!(found[0].chunk, found[0].first());
        let mut read = payloads(&index, &found).await.unwrap();
        assert_eq!(read.of_document(&found[0])["_id"], "long1");
        assert_eq!(read.of_chunk(&found[0])[RESERVED]["text"], "long1 49");
        // Without the first point the payload of the chunk is returned.
        assert!(index.remove(found[0].first()));
        let mut read = payloads(&index, &found).await.unwrap();
        assert_eq!(read.of_document(&found[0])["_id"], "long1");
    }
}
