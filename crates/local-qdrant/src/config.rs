//! A collection's configuration: stored with its data, returned by both APIs, converted for the engine.

use std::collections::BTreeMap;

use qdrant_edge::{Distance, EdgeConfig, EdgeOptimizersConfig, EdgeVectorParams, HnswIndexConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::ApiError;

/// The engine's name of the single unnamed vector of a collection.
pub(crate) const UNNAMED: &str = "";

/// Qdrant's maximum vector size.
const MAX_VECTOR_SIZE: usize = 65_536;

/// Parameters of one dense vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct VectorParams {
    pub(crate) size: usize,
    pub(crate) distance: Distance,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) on_disk: Option<bool>,
    /// Rejected when set, like the next two, rather than silently ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) multivector_config: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quantization_config: Option<Value>,
    /// Only `float32`, the default, is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) datatype: Option<String>,
}

/// One unnamed vector, or several named ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Vectors {
    Single(VectorParams),
    Named(BTreeMap<String, VectorParams>),
}

impl Vectors {
    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = (&str, &VectorParams)> + '_> {
        match self {
            Self::Single(params) => Box::new(std::iter::once((UNNAMED, params))),
            Self::Named(named) => Box::new(named.iter().map(|(name, params)| (name.as_str(), params))),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Result<&VectorParams, ApiError> {
        self.iter()
            .find_map(|(known, params)| (known == name).then_some(params))
            .ok_or_else(|| ApiError::BadInput(format!("Not existing vector name error: {name}")))
    }
}

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
}

/// Changes to a collection's configuration.
#[derive(Debug, Default)]
pub(crate) struct ConfigChanges {
    pub(crate) hnsw: HnswDiff,
    pub(crate) optimizers: OptimizersDiff,
    pub(crate) metadata: Map<String, Value>,
}

/// A collection's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CollectionConfig {
    pub(crate) vectors: Vectors,
    pub(crate) hnsw: HnswIndexConfig,
    pub(crate) optimizers: OptimizersDiff,
    pub(crate) on_disk_payload: bool,
    /// User metadata.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(crate) metadata: Map<String, Value>,
}

impl CollectionConfig {
    /// Validates the vectors and fills in Qdrant's defaults.
    pub(crate) fn new(vectors: Vectors) -> Result<Self, ApiError> {
        if matches!(&vectors, Vectors::Named(named) if named.is_empty()) {
            return Err(ApiError::Unsupported("a collection without dense vectors".to_owned()));
        }
        for (name, params) in vectors.iter() {
            let unsupported = [
                ("multivector_config", params.multivector_config.is_some()),
                ("quantization_config", params.quantization_config.is_some()),
                ("datatype", params.datatype.as_deref().is_some_and(|datatype| datatype != "float32")),
            ];
            if let Some((setting, _)) = unsupported.iter().find(|(_, set)| *set) {
                return Err(ApiError::Unsupported(format!("{setting} (vector `{name}`)")));
            }
            if params.size == 0 || params.size > MAX_VECTOR_SIZE {
                return Err(ApiError::BadInput(format!(
                    "Vector size must be between 1 and {MAX_VECTOR_SIZE}, got {}",
                    params.size
                )));
            }
        }
        Ok(Self {
            vectors,
            hnsw: HnswIndexConfig {
                m: 16,
                ef_construct: 100,
                full_scan_threshold: 10_000,
                max_indexing_threads: 0,
                on_disk: Some(false),
                payload_m: None,
                inline_storage: None,
            },
            optimizers: OptimizersDiff {
                deleted_threshold: Some(0.2),
                vacuum_min_vector_number: Some(1000),
                default_segment_number: Some(0),
                max_segment_size: None,
                indexing_threshold: Some(INDEXING_THRESHOLD_KB),
            },
            on_disk_payload: true,
            metadata: Map::new(),
        })
    }

    pub(crate) fn apply_hnsw(&mut self, diff: &HnswDiff) {
        let hnsw = &mut self.hnsw;
        hnsw.m = diff.m.unwrap_or(hnsw.m);
        hnsw.ef_construct = diff.ef_construct.unwrap_or(hnsw.ef_construct);
        hnsw.full_scan_threshold = diff.full_scan_threshold.unwrap_or(hnsw.full_scan_threshold);
        hnsw.max_indexing_threads = diff.max_indexing_threads.unwrap_or(hnsw.max_indexing_threads);
        hnsw.on_disk = diff.on_disk.or(hnsw.on_disk);
        hnsw.payload_m = diff.payload_m.or(hnsw.payload_m);
    }

    pub(crate) fn apply_optimizers(&mut self, diff: &OptimizersDiff) {
        let own = &mut self.optimizers;
        own.deleted_threshold = diff.deleted_threshold.or(own.deleted_threshold);
        own.vacuum_min_vector_number = diff.vacuum_min_vector_number.or(own.vacuum_min_vector_number);
        own.default_segment_number = diff.default_segment_number.or(own.default_segment_number);
        own.max_segment_size = diff.max_segment_size.or(own.max_segment_size);
        own.indexing_threshold = diff.indexing_threshold.or(own.indexing_threshold);
    }

    /// Merges metadata into the stored metadata; null removes an entry.
    pub(crate) fn apply_metadata(&mut self, metadata: Map<String, Value>) {
        for (key, value) in metadata {
            if value.is_null() {
                self.metadata.remove(&key);
            } else {
                self.metadata.insert(key, value);
            }
        }
    }

    /// Returns the size of unindexed vectors, in KiB, from which an index is built. `None`: indexing is off.
    pub(crate) fn indexing_threshold_kb(&self) -> Option<usize> {
        match self.optimizers.indexing_threshold {
            None => Some(INDEXING_THRESHOLD_KB),
            Some(0) => None,
            Some(kb) => Some(kb),
        }
    }

    /// Returns the size of one point's dense vectors, in bytes.
    pub(crate) fn vector_bytes(&self) -> usize {
        self.vectors.iter().map(|(_, params)| params.size * size_of::<f32>()).sum()
    }

    pub(crate) fn engine_hnsw(&self) -> HnswIndexConfig {
        let mut hnsw = self.hnsw;
        if hnsw.max_indexing_threads == 0 {
            // Half of the cores, so that index builds never starve writers of CPU.
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            hnsw.max_indexing_threads = (cores / 2).clamp(1, 8);
        }
        hnsw
    }

    pub(crate) fn engine_optimizers(&self) -> EdgeOptimizersConfig {
        EdgeOptimizersConfig {
            deleted_threshold: self.optimizers.deleted_threshold,
            vacuum_min_vector_number: self.optimizers.vacuum_min_vector_number,
            default_segment_number: self.optimizers.default_segment_number,
            max_segment_size: self.optimizers.max_segment_size,
            indexing_threshold: self.optimizers.indexing_threshold,
            prevent_unoptimized: None,
        }
    }

    pub(crate) fn to_engine(&self) -> EdgeConfig {
        let vectors = self
            .vectors
            .iter()
            .map(|(name, params)| {
                let vector = EdgeVectorParams {
                    size: params.size,
                    distance: params.distance,
                    on_disk: params.on_disk,
                    multivector_config: None,
                    datatype: None,
                    quantization_config: None,
                    hnsw_config: None,
                };
                (name.to_owned(), vector)
            })
            .collect();
        EdgeConfig {
            on_disk_payload: self.on_disk_payload,
            vectors,
            hnsw_config: self.engine_hnsw(),
            optimizers: self.engine_optimizers(),
            ..EdgeConfig::default()
        }
    }
}

/// Qdrant's own default.
const INDEXING_THRESHOLD_KB: usize = 10_000;
