//! The state of a collection that its requests, its writer thread and its index build share.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

use qdrant_edge::EdgeShard;

use super::config::CollectionConfig;

/// Limits index builds to one at a time in the process.
pub(crate) type BuildSlot = Arc<AtomicBool>;

/// State shared by the requests, the writer and the index build.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) shard: EdgeShard,
    pub(crate) config: RwLock<CollectionConfig>,
    pub(crate) optimizing: AtomicBool,
    pub(crate) builds: BuildSlot,
}

impl Shared {
    pub(crate) fn config(&self) -> CollectionConfig {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the size of the unindexed vectors in multiples of the indexing threshold.
    pub(crate) fn unindexed_over_threshold(&self) -> usize {
        let config = self.config();
        let Some(threshold_kb) = config.indexing_threshold_kb() else { return 0 };
        let info = self.shard.info();
        let vectors = info.points_count * config.vectors.iter().count();
        let unindexed = vectors.saturating_sub(info.indexed_vectors_count) / config.vectors.iter().count().max(1);
        unindexed * config.vector_bytes() / (threshold_kb.max(1) * 1024)
    }
}
