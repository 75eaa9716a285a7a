//! Requests that create a collection or change its configuration. Field names are those of Qdrant's REST API.

use std::collections::BTreeMap;

use qdrant_edge::QuantizationConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::error::ApiError;
use super::{CollectionConfig, StrictMode, Vectors};

/// Changes to the index parameters; absent fields keep their value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct HnswDiff {
    #[serde(default)]
    pub(crate) m: Option<usize>,
    #[serde(default)]
    pub(crate) ef_construct: Option<usize>,
    #[serde(default)]
    pub(crate) full_scan_threshold: Option<usize>,
    #[serde(default)]
    pub(crate) max_indexing_threads: Option<usize>,
    #[serde(default)]
    pub(crate) on_disk: Option<bool>,
    #[serde(default)]
    pub(crate) payload_m: Option<usize>,
    #[serde(default)]
    pub(crate) inline_storage: Option<bool>,
}

/// Changes to the optimiser's parameters; absent fields keep their value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OptimizersDiff {
    #[serde(default)]
    pub(crate) deleted_threshold: Option<f64>,
    #[serde(default)]
    pub(crate) vacuum_min_vector_number: Option<usize>,
    #[serde(default)]
    pub(crate) default_segment_number: Option<usize>,
    #[serde(default)]
    pub(crate) max_segment_size: Option<usize>,
    #[serde(default)]
    pub(crate) indexing_threshold: Option<usize>,
    /// Stored and reported, like the next three: the engine has no such parameter, or would hide points that it has
    /// not indexed yet.
    #[serde(default)]
    pub(crate) memmap_threshold: Option<usize>,
    #[serde(default)]
    pub(crate) flush_interval_sec: Option<u64>,
    /// A number, or `auto`.
    #[serde(default)]
    pub(crate) max_optimization_threads: Option<Value>,
    #[serde(default)]
    pub(crate) prevent_unoptimized: Option<bool>,
}

/// Changes to the parameters of a collection; absent fields keep their value.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct ParamsDiff {
    #[serde(default)]
    pub(crate) replication_factor: Option<u32>,
    #[serde(default)]
    pub(crate) write_consistency_factor: Option<u32>,
    #[serde(default)]
    pub(crate) on_disk_payload: Option<bool>,
}

/// Changes to a vector's parameters; absent fields keep their value.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct VectorDiff {
    #[serde(default)]
    pub(crate) on_disk: Option<bool>,
    #[serde(default)]
    pub(crate) quantization_config: Option<QuantizationChange>,
}

/// A change of the quantization.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum QuantizationChange {
    /// Turns it off.
    Off(Disabled),
    /// Replaces it.
    To(QuantizationConfig),
}

/// The word that turns quantization off.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(crate) enum Disabled {
    Disabled,
}

impl QuantizationChange {
    pub(crate) fn into_config(self) -> Option<QuantizationConfig> {
        match self {
            Self::Off(Disabled::Disabled) => None,
            Self::To(config) => Some(config),
        }
    }
}

/// `PATCH /collections/NAME`; absent fields keep their value.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ConfigChanges {
    #[serde(default)]
    pub(crate) hnsw_config: Option<HnswDiff>,
    #[serde(default)]
    pub(crate) optimizers_config: Option<OptimizersDiff>,
    #[serde(default)]
    pub(crate) params: Option<ParamsDiff>,
    /// By vector name.
    #[serde(default)]
    pub(crate) vectors: Option<BTreeMap<String, VectorDiff>>,
    #[serde(default)]
    pub(crate) quantization_config: Option<QuantizationChange>,
    #[serde(default)]
    pub(crate) strict_mode_config: Option<StrictMode>,
    #[serde(default)]
    pub(crate) metadata: Option<Map<String, Value>>,
}

/// `PUT /collections/NAME`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct NewCollection {
    #[serde(default)]
    pub(crate) vectors: Option<Vectors>,
    #[serde(default)]
    pub(crate) sparse_vectors: Option<Map<String, Value>>,
    #[serde(default)]
    pub(crate) quantization_config: Option<QuantizationConfig>,
    #[serde(default)]
    pub(crate) hnsw_config: Option<HnswDiff>,
    #[serde(default)]
    pub(crate) optimizers_config: Option<OptimizersDiff>,
    #[serde(default)]
    pub(crate) on_disk_payload: Option<bool>,
    #[serde(default)]
    pub(crate) shard_number: Option<u32>,
    #[serde(default)]
    pub(crate) replication_factor: Option<u32>,
    #[serde(default)]
    pub(crate) write_consistency_factor: Option<u32>,
    /// `auto` or `custom`.
    #[serde(default)]
    pub(crate) sharding_method: Option<String>,
    #[serde(default)]
    pub(crate) strict_mode_config: Option<StrictMode>,
    #[serde(default)]
    pub(crate) metadata: Option<Map<String, Value>>,
}

impl NewCollection {
    /// Validates the request and fills in Qdrant's defaults.
    pub(crate) fn into_config(self) -> Result<CollectionConfig, ApiError> {
        if self.sparse_vectors.is_some_and(|sparse| !sparse.is_empty()) {
            return Err(ApiError::Unsupported("sparse vectors".to_owned()));
        }
        if self.sharding_method.is_some_and(|method| method != "auto") {
            return Err(ApiError::Unsupported("custom sharding".to_owned()));
        }
        let vectors = self.vectors.ok_or_else(|| ApiError::BadBody("missing field `vectors`".to_owned()))?;
        let mut config = CollectionConfig::new(vectors)?;
        config.shards.shard_number = self.shard_number.unwrap_or(config.shards.shard_number);
        config.apply(ConfigChanges {
            hnsw_config: self.hnsw_config,
            optimizers_config: self.optimizers_config,
            params: Some(ParamsDiff {
                replication_factor: self.replication_factor,
                write_consistency_factor: self.write_consistency_factor,
                on_disk_payload: self.on_disk_payload,
            }),
            vectors: None,
            quantization_config: self.quantization_config.map(QuantizationChange::To),
            strict_mode_config: self.strict_mode_config,
            metadata: self.metadata,
        })?;
        Ok(config)
    }
}
