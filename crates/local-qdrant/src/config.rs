//! A collection's configuration: stored with its data, returned by both APIs, converted for the engine.
//!
//! The engine applies the vectors, the quantization, the placement of vectors and payloads, and the parameters of the
//! index and the optimiser. While it runs it accepts changes of the last two only; the others apply from the next start
//! of the server. Numbers of shards and replicas and strict mode are stored and reported: this server has one shard in
//! one copy, and enforces no limits.

mod changes;
mod strict_mode;

use std::collections::BTreeMap;

use qdrant_edge::{
    Distance, EdgeConfig, EdgeOptimizersConfig, EdgeVectorParams, HnswIndexConfig, QuantizationConfig,
    VectorStorageDatatype,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use self::changes::{
    ConfigChanges, Disabled, HnswDiff, NewCollection, OptimizersDiff, ParamsDiff, QuantizationChange, VectorDiff,
};
pub(crate) use self::strict_mode::StrictMode;
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
    /// Rejected when set, rather than silently ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) multivector_config: Option<Value>,
    /// Replaces the collection's quantization for this vector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quantization_config: Option<QuantizationConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) datatype: Option<VectorStorageDatatype>,
}

impl VectorParams {
    /// Bytes of one stored vector.
    fn bytes(&self) -> usize {
        match self.datatype.unwrap_or_default() {
            VectorStorageDatatype::Float32 => self.size * size_of::<f32>(),
            VectorStorageDatatype::Float16 => self.size * 2,
            VectorStorageDatatype::Uint8 => self.size,
            VectorStorageDatatype::Turbo4 => self.size.div_ceil(2),
        }
    }
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
        self.iter().find_map(|(known, params)| (known == name).then_some(params)).ok_or_else(|| no_vector(name))
    }

    fn get_mut(&mut self, name: &str) -> Result<&mut VectorParams, ApiError> {
        let params = match self {
            Self::Single(params) => (name == UNNAMED).then_some(params),
            Self::Named(named) => named.get_mut(name),
        };
        params.ok_or_else(|| no_vector(name))
    }
}

fn no_vector(name: &str) -> ApiError {
    ApiError::BadInput(format!("Not existing vector name error: {name}"))
}

/// Shards and replicas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shards {
    pub(crate) shard_number: u32,
    pub(crate) replication_factor: u32,
    pub(crate) write_consistency_factor: u32,
}

impl Default for Shards {
    fn default() -> Self {
        Self { shard_number: 1, replication_factor: 1, write_consistency_factor: 1 }
    }
}

/// A collection's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CollectionConfig {
    pub(crate) vectors: Vectors,
    pub(crate) hnsw: HnswIndexConfig,
    pub(crate) optimizers: OptimizersDiff,
    pub(crate) on_disk_payload: bool,
    /// For vectors without a quantization of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quantization: Option<QuantizationConfig>,
    #[serde(default)]
    pub(crate) shards: Shards,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) strict_mode: Option<StrictMode>,
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
            if params.multivector_config.is_some() {
                return Err(ApiError::Unsupported(format!("multivector_config (vector `{name}`)")));
            }
            if params.size == 0 || params.size > MAX_VECTOR_SIZE {
                return Err(ApiError::BadInput(format!(
                    "Vector size must be between 1 and {MAX_VECTOR_SIZE}, got {}",
                    params.size
                )));
            }
            check_quantization(params.quantization_config.as_ref())?;
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
                ..OptimizersDiff::default()
            },
            on_disk_payload: true,
            quantization: None,
            shards: Shards::default(),
            strict_mode: None,
            metadata: Map::new(),
        })
    }

    /// Applies changes. On an error the configuration is unusable.
    pub(crate) fn apply(&mut self, changes: ConfigChanges) -> Result<(), ApiError> {
        if let Some(diff) = changes.hnsw_config {
            self.apply_hnsw(&diff);
        }
        if let Some(diff) = changes.optimizers_config {
            self.apply_optimizers(diff);
        }
        if let Some(diff) = changes.params {
            self.apply_params(&diff)?;
        }
        for (name, diff) in changes.vectors.unwrap_or_default() {
            let params = self.vectors.get_mut(&name)?;
            params.on_disk = diff.on_disk.or(params.on_disk);
            if let Some(change) = diff.quantization_config {
                params.quantization_config = change.into_config();
                check_quantization(params.quantization_config.as_ref())?;
            }
        }
        if let Some(change) = changes.quantization_config {
            self.quantization = change.into_config();
            check_quantization(self.quantization.as_ref())?;
        }
        if let Some(changes) = changes.strict_mode_config {
            self.strict_mode.get_or_insert_default().merge(&changes);
        }
        self.apply_metadata(changes.metadata.unwrap_or_default());
        Ok(())
    }

    fn apply_hnsw(&mut self, diff: &HnswDiff) {
        let hnsw = &mut self.hnsw;
        hnsw.m = diff.m.unwrap_or(hnsw.m);
        hnsw.ef_construct = diff.ef_construct.unwrap_or(hnsw.ef_construct);
        hnsw.full_scan_threshold = diff.full_scan_threshold.unwrap_or(hnsw.full_scan_threshold);
        hnsw.max_indexing_threads = diff.max_indexing_threads.unwrap_or(hnsw.max_indexing_threads);
        hnsw.on_disk = diff.on_disk.or(hnsw.on_disk);
        hnsw.payload_m = diff.payload_m.or(hnsw.payload_m);
        hnsw.inline_storage = diff.inline_storage.or(hnsw.inline_storage);
    }

    fn apply_optimizers(&mut self, diff: OptimizersDiff) {
        let own = &mut self.optimizers;
        own.deleted_threshold = diff.deleted_threshold.or(own.deleted_threshold);
        own.vacuum_min_vector_number = diff.vacuum_min_vector_number.or(own.vacuum_min_vector_number);
        own.default_segment_number = diff.default_segment_number.or(own.default_segment_number);
        own.max_segment_size = diff.max_segment_size.or(own.max_segment_size);
        own.indexing_threshold = diff.indexing_threshold.or(own.indexing_threshold);
        own.memmap_threshold = diff.memmap_threshold.or(own.memmap_threshold);
        own.flush_interval_sec = diff.flush_interval_sec.or(own.flush_interval_sec);
        own.max_optimization_threads = diff.max_optimization_threads.or(own.max_optimization_threads.take());
        own.prevent_unoptimized = diff.prevent_unoptimized.or(own.prevent_unoptimized);
    }

    fn apply_params(&mut self, diff: &ParamsDiff) -> Result<(), ApiError> {
        let shards = &mut self.shards;
        shards.replication_factor = diff.replication_factor.unwrap_or(shards.replication_factor);
        shards.write_consistency_factor = diff.write_consistency_factor.unwrap_or(shards.write_consistency_factor);
        self.on_disk_payload = diff.on_disk_payload.unwrap_or(self.on_disk_payload);
        for (name, number) in [
            ("shard_number", shards.shard_number),
            ("replication_factor", shards.replication_factor),
            ("write_consistency_factor", shards.write_consistency_factor),
        ] {
            if number == 0 {
                return Err(ApiError::BadInput(format!("{name}: value 0 invalid, must be 1 or larger")));
            }
        }
        Ok(())
    }

    /// Merges metadata into the stored metadata; null removes an entry.
    fn apply_metadata(&mut self, metadata: Map<String, Value>) {
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
        self.vectors.iter().map(|(_, params)| params.bytes()).sum()
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
                    datatype: params.datatype,
                    quantization_config: params.quantization_config.clone(),
                    hnsw_config: None,
                };
                (name.to_owned(), vector)
            })
            .collect();
        EdgeConfig {
            on_disk_payload: self.on_disk_payload,
            vectors,
            hnsw_config: self.engine_hnsw(),
            quantization_config: self.quantization.clone(),
            optimizers: self.engine_optimizers(),
            ..EdgeConfig::default()
        }
    }
}

/// Qdrant's own default.
const INDEXING_THRESHOLD_KB: usize = 10_000;

fn check_quantization(config: Option<&QuantizationConfig>) -> Result<(), ApiError> {
    if let Some(QuantizationConfig::Scalar(config)) = config
        && let Some(quantile) = config.scalar.quantile
        && !(0.5..=1.0).contains(&quantile)
    {
        return Err(ApiError::BadInput(format!("quantization_config.scalar.quantile: {quantile} is not in 0.5..=1.0")));
    }
    Ok(())
}
