//! Semantic search over the index: documents, ranked by their best chunk.

mod nearest;

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};
use tidewheel_core::filter::Filter;
use tidewheel_core::payload::RESERVED;
use tidewheel_core::ports::{Embedder, PortResult, Purpose, Searcher};

use self::nearest::{Nearest, Payloads};

/// The ports of a search.
#[derive(Clone)]
pub struct SearchPorts {
    /// The embedder of the text.
    pub embedder: Arc<dyn Embedder>,
    /// The index.
    pub index: Arc<dyn Searcher>,
}

/// A search result: a document with its best chunk.
#[derive(Debug, Serialize)]
pub struct Found {
    /// Cosine similarity of its best chunk.
    pub score: f32,
    /// Point id of that chunk.
    pub point: String,
    /// `database.collection`.
    pub namespace: Value,
    /// Canonical extended JSON of `_id`.
    pub key: Value,
    /// Number of the chunk, from 0.
    pub chunk: Value,
    /// The chunk's text.
    pub text: String,
    /// The document as stored in the index.
    pub document: Map<String, Value>,
}

/// Embeds the text and searches the index.
///
/// # Errors
/// If the embedder or the index fails, or the index rejects the filter.
pub async fn find(ports: &SearchPorts, text: &str, limit: usize, filter: Option<&Filter>) -> PortResult<Vec<Found>> {
    let index = &*ports.index;
    let vectors = ports.embedder.embed(&[text.to_owned()], Purpose::Query).await?;
    let nearest = nearest::documents(index, vectors.into_values(), limit, filter).await?;
    let mut payloads = nearest::payloads(index, &nearest).await?;
    Ok(nearest.iter().map(|nearest| found(nearest, &mut payloads)).collect())
}

/// Builds a search result from the point of the best chunk and the point with the document's fields.
fn found(nearest: &Nearest, payloads: &mut Payloads) -> Found {
    let mut document = payloads.of_document(nearest);
    let first = document.shift_remove(RESERVED);
    // Points of other writers match too.
    let stamp = payloads.of_chunk(nearest).shift_remove(RESERVED).or(first).unwrap_or_default();
    let get = |name: &str| stamp.get(name).cloned().unwrap_or_default();
    // Qdrant does not keep the order of fields; sort them for stable output.
    document.sort_keys();
    document.values_mut().for_each(Value::sort_all_objects);
    Found {
        score: nearest.score,
        point: nearest.chunk.to_string(),
        namespace: get("namespace"),
        key: get("key"),
        chunk: get("chunk"),
        text: get("text").as_str().unwrap_or_default().to_owned(),
        document,
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::identity::Namespace;
    use tidewheel_core::ports::IndexWriter as _;
    use tidewheel_core::version::Version;
    use tidewheel_testkit::contracts::index::document;
    use tidewheel_testkit::fakes::embedder::FakeEmbedder;
    use tidewheel_testkit::fakes::faults::Fault;
    use tidewheel_testkit::fakes::index::FakeIndex;

    use super::*;

    /// Dimension of the sample documents.
    const DIMENSION: usize = 4;

    async fn servers() -> (FakeEmbedder, FakeIndex, SearchPorts) {
        let (embedder, index) = (FakeEmbedder::new(DIMENSION), FakeIndex::new());
        index.prepare(DIMENSION).await.unwrap();
        for (key, text) in [("1", "parcel"), ("2", "invoice")] {
            let document = document(&Namespace::new("shop", "tickets"), key, Version::default(), &[text]);
            let _ = index.upsert(&[&document]).await.unwrap();
        }
        let ports = SearchPorts { embedder: Arc::new(embedder.clone()), index: Arc::new(index.clone()) };
        (embedder, index, ports)
    }

    #[tokio::test]
    async fn nearest_document_comes_first_with_its_fields_and_text() {
        let (_, _, ports) = servers().await;
        let found = find(&ports, "parcel", 2, None).await.unwrap();
        assert_eq!((found.len(), &found[0].key, &found[0].chunk), (2, &"1".into(), &0.into()));
        assert_eq!((found[0].text.as_str(), &found[0].document["_id"]), ("parcel", &"1".into()));
        assert!(!found[0].document.contains_key(RESERVED), "{:?}", found[0].document);
        assert_eq!(find(&ports, "parcel", 1, None).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn unreachable_server_fails_the_search() {
        let (embedder, index, ports) = servers().await;
        index.faults().once("search", Fault::unreachable());
        assert!(find(&ports, "parcel", 2, None).await.is_err());
        embedder.faults().once("embed", Fault::unreachable());
        assert!(find(&ports, "parcel", 2, None).await.is_err());
    }
}
