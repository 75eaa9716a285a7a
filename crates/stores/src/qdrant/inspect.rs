//! The state of the server and the collection, for operators.

use async_trait::async_trait;
use tidewheel_core::ports::{CollectionState, IndexInspector, IndexState, PortResult};

use super::QdrantIndex;

#[async_trait]
impl IndexInspector for QdrantIndex {
    async fn index_state(&self) -> PortResult<IndexState> {
        let facts = self.inspect().await?;
        let collection = facts.collection.map(|collection| CollectionState {
            status: collection.status,
            points: collection.points,
            indexed_vectors: collection.indexed_vectors,
            dimension: collection.dimension,
        });
        Ok(IndexState { version: facts.version, collection })
    }
}
