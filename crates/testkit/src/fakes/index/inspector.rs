//! The fake collection from an operator's point of view.

use async_trait::async_trait;
use tidewheel_core::ports::{CollectionState, IndexInspector, IndexState, PortResult};

use super::{FakeIndex, has_vector};

#[async_trait]
impl IndexInspector for FakeIndex {
    async fn index_state(&self) -> PortResult<IndexState> {
        let look = || {
            let state = self.state();
            let collection = state.collection.as_ref().map(|collection| CollectionState {
                status: "green".to_owned(),
                points: collection.points.len() as u64,
                indexed_vectors: collection.points.values().filter(|point| has_vector(point)).count() as u64,
                dimension: Some(collection.dimension as u64),
            });
            Ok(IndexState { version: "1.19.0".to_owned(), collection })
        };
        self.faults.around("index_state", look).await
    }
}
