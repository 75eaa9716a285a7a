//! Semantic search over the index: documents, ranked by their best chunk.

mod nearest;
mod resolve;

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};
use tidewheel_core::catalog::IndexName;
use tidewheel_core::filter::Filter;
use tidewheel_core::payload::RESERVED;
use tidewheel_core::ports::{Collections, PortResult, Purpose};
use tidewheel_pipeline::targets::Targets;

use self::nearest::{Nearest, Payloads};
use self::resolve::{Resolved, resolve};

/// The ports of a search.
#[derive(Clone)]
pub struct SearchPorts {
    /// The indexes, with the embedders of their points.
    pub targets: Arc<Targets>,
    /// The collections.
    pub collections: Arc<dyn Collections>,
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

/// Embeds the text and searches this index, or else the only one.
///
/// # Errors
/// If the embedder or the index fails, the index rejects the filter, there is no such index, or there are several and none
/// is given.
pub async fn find(
    ports: &SearchPorts,
    index: Option<&IndexName>,
    text: &str,
    limit: usize,
    filter: Option<&Filter>,
) -> PortResult<Vec<Found>> {
    let resolved = resolve(ports, index).await?;
    let found = find_in(&resolved, text, limit, filter).await;
    if resolved.is_final(found.is_ok()) {
        return found;
    }
    match resolve(ports, index).await {
        Ok(again) if again.target != resolved.target => find_in(&again, text, limit, filter).await,
        _ => found,
    }
}

async fn find_in(resolved: &Resolved, text: &str, limit: usize, filter: Option<&Filter>) -> PortResult<Vec<Found>> {
    let index = &*resolved.collection;
    let vectors = resolved.embedder.embed(&[text.to_owned()], Purpose::Query).await?;
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
    use tidewheel_core::catalog::{Catalog, EmbeddingSpec, Generation, Provider, State};
    use tidewheel_core::error::ErrorClass;
    use tidewheel_core::identity::Namespace;
    use tidewheel_core::ports::IndexWriter as _;
    use tidewheel_core::version::Version;
    use tidewheel_testkit::contracts::index::document;
    use tidewheel_testkit::fakes::embedder::FakeEmbedder;
    use tidewheel_testkit::fakes::faults::{Fault, Gate};

    use super::*;
    use crate::samples::{DIMENSION, Servers, catalog, declaration, index};

    /// Writes two documents into a collection, with vectors of this model.
    async fn fill(servers: &Servers, collection: &str, embedder: &FakeEmbedder) {
        let index = servers.collections.index(collection);
        index.prepare(embedder.vector("").len()).await.unwrap();
        for (key, text) in [("1", "parcel"), ("2", "invoice")] {
            let mut document = document(&Namespace::new("shop", "tickets"), key, Version::default(), &[text]);
            document.points[0].vector = embedder.vector(text);
            let _ = index.upsert(&[&document]).await.unwrap();
        }
    }

    fn ports(servers: &Servers) -> SearchPorts {
        SearchPorts { targets: servers.targets(), collections: Arc::new(servers.collections.clone()) }
    }

    async fn parcel(ports: &SearchPorts, name: Option<&str>) -> PortResult<Value> {
        let found = find(ports, name.map(index).as_ref(), "parcel", 1, None).await?;
        Ok(found[0].key.clone())
    }

    #[tokio::test]
    async fn nearest_document_comes_first_with_its_fields_and_text() {
        let servers = Servers::new();
        fill(&servers, "documents", &servers.embedder).await;
        let ports = ports(&servers);
        let found = find(&ports, None, "parcel", 2, None).await.unwrap();
        assert_eq!((found.len(), &found[0].key, &found[0].chunk), (2, &"1".into(), &0.into()));
        assert_eq!((found[0].text.as_str(), &found[0].document["_id"]), ("parcel", &"1".into()));
        assert!(!found[0].document.contains_key(RESERVED), "{:?}", found[0].document);
        assert_eq!(find(&ports, None, "parcel", 1, None).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn unreachable_server_fails_the_search() {
        let servers = Servers::new();
        fill(&servers, "documents", &servers.embedder).await;
        let ports = ports(&servers);
        servers.collections.index("documents").faults().once("search", Fault::unreachable());
        assert!(find(&ports, None, "parcel", 2, None).await.is_err());
        servers.embedder.faults().once("embed", Fault::unreachable());
        assert!(find(&ports, None, "parcel", 2, None).await.is_err());
        servers.streams.faults().always("revision", Fault::unreachable());
        assert!(find(&ports, None, "parcel", 2, None).await.is_ok(), "local settings suffice");
    }

    #[tokio::test]
    async fn search_of_several_indexes_requires_a_name() {
        let servers = Servers::new();
        servers.apply(&catalog(7, &[("tickets", State::Serving), ("notes", State::Serving)])).await;
        fill(&servers, "tickets.g1", &servers.embedder).await;
        let ports = ports(&servers);
        assert_eq!(parcel(&ports, Some("tickets")).await.unwrap(), "1");
        let error = parcel(&ports, None).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Fatal);
        assert!(error.message.contains("expected one of notes, tickets"), "{error}");
    }

    /// The index `tickets`, whose second generation has another model.
    fn two_models(revision: u64, serving: u32, other: &FakeEmbedder) -> Catalog {
        let mut catalog = catalog(revision, &[("tickets", State::Kept)]);
        let mut declaration = declaration("tickets");
        declaration.embedding = EmbeddingSpec::new("default", Provider::own(), other.model());
        let tickets = catalog.indexes.get_mut(&index("tickets")).unwrap();
        tickets.serving = Some(serving);
        let second = index("tickets").target(2);
        tickets.generations.insert(2, Generation::new(&second, Arc::new(declaration), revision));
        tickets.generations.get_mut(&serving).unwrap().state = State::Serving;
        catalog
    }

    #[tokio::test]
    async fn switch_to_another_model_does_not_mix_vectors() {
        let (servers, other) = (Servers::new(), FakeEmbedder::named("other", 2 * DIMENSION));
        servers.embedders.serve(other.clone());
        fill(&servers, "tickets.g1", &servers.embedder).await;
        fill(&servers, "tickets.g2", &other).await;
        let ports = ports(&servers);
        servers.apply(&two_models(7, 1, &other)).await;
        assert_eq!(parcel(&ports, None).await.unwrap(), "1");
        servers.apply(&two_models(8, 2, &other)).await;
        assert_eq!(parcel(&ports, None).await.unwrap(), "1", "at the next request");
    }

    #[tokio::test(start_paused = true)]
    async fn search_continues_in_the_generation_that_replaced_its_collection() {
        let (servers, other) = (Servers::new(), FakeEmbedder::named("other", 2 * DIMENSION));
        servers.embedders.serve(other.clone());
        fill(&servers, "tickets.g1", &servers.embedder).await;
        fill(&servers, "tickets.g2", &other).await;
        servers.apply(&two_models(7, 1, &other)).await;
        let (ports, gate, first) = (ports(&servers), Gate::closed(), servers.collections.index("tickets.g1"));
        first.faults().once("search", Fault::Held(gate.clone()));
        let searching = tokio::spawn(async move { parcel(&ports, None).await });
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        servers.apply(&two_models(8, 2, &other)).await;
        first.drop_collection();
        gate.open();
        assert_eq!(searching.await.unwrap().unwrap(), "1");
    }
}
