//! Converts collection configurations between protobuf and storage.

use std::collections::BTreeMap;

use qdrant_client::qdrant::max_optimization_threads::{Setting, Variant};
use qdrant_client::qdrant::{self as proto, vectors_config, vectors_config_diff};
use qdrant_edge::{Distance, VectorStorageDatatype};
use serde_json::{Value, json};

use super::super::FLUSH_INTERVAL;
use super::super::config::{
    CollectionConfig, ConfigChanges, HnswDiff, NewCollection, OptimizersDiff, ParamsDiff, StrictMode, UNNAMED,
    VectorDiff, VectorParams, Vectors,
};
use super::super::error::ApiError;
use super::quantization::{quantization_change_in, quantization_in, quantization_out};
use super::query::count;
use super::value::{object_in, object_out, required};

type Result<T> = std::result::Result<T, ApiError>;

#[allow(deprecated, reason = "current clients send `on_disk_payload`")]
pub(super) fn config_in(request: proto::CreateCollection) -> Result<CollectionConfig> {
    let vectors = match required(request.vectors_config.and_then(|vectors| vectors.config), "vectors_config")? {
        vectors_config::Config::Params(params) => Vectors::Single(vector_in(params)?),
        vectors_config::Config::ParamsMap(map) => {
            let named = map.map.into_iter().map(|(name, params)| Ok((name, vector_in(params)?)));
            Vectors::Named(named.collect::<Result<BTreeMap<_, _>>>()?)
        }
    };
    let sparse = request.sparse_vectors_config.map(|sparse| sparse.map.into_keys());
    let sharding = request.sharding_method.map(proto::ShardingMethod::try_from);
    let new = NewCollection {
        vectors: Some(vectors),
        sparse_vectors: sparse.map(|names| names.map(|name| (name, Value::Null)).collect()),
        quantization_config: request.quantization_config.map(quantization_in).transpose()?,
        hnsw_config: request.hnsw_config.map(hnsw_in),
        optimizers_config: request.optimizers_config.map(optimizers_in),
        on_disk_payload: request.on_disk_payload,
        shard_number: request.shard_number,
        replication_factor: request.replication_factor,
        write_consistency_factor: request.write_consistency_factor,
        sharding_method: sharding.map(|method| match method {
            Ok(proto::ShardingMethod::Auto) => "auto".to_owned(),
            _ => "custom".to_owned(),
        }),
        strict_mode_config: request.strict_mode_config.map(StrictMode::from),
        metadata: Some(object_in(request.metadata)),
    };
    new.into_config()
}

#[allow(deprecated, reason = "current clients send the plain flags")]
pub(super) fn changes_in(request: proto::UpdateCollection) -> Result<ConfigChanges> {
    let vectors = match request.vectors_config.and_then(|vectors| vectors.config) {
        None => BTreeMap::new(),
        Some(vectors_config_diff::Config::Params(diff)) => {
            BTreeMap::from([(UNNAMED.to_owned(), vector_diff_in(diff)?)])
        }
        Some(vectors_config_diff::Config::ParamsMap(map)) => {
            let named = map.map.into_iter().map(|(name, diff)| Ok((name, vector_diff_in(diff)?)));
            named.collect::<Result<BTreeMap<_, _>>>()?
        }
    };
    Ok(ConfigChanges {
        hnsw_config: request.hnsw_config.map(hnsw_in),
        optimizers_config: request.optimizers_config.map(optimizers_in),
        params: request.params.map(|params| ParamsDiff {
            replication_factor: params.replication_factor,
            write_consistency_factor: params.write_consistency_factor,
            on_disk_payload: params.on_disk_payload,
        }),
        vectors: Some(vectors),
        quantization_config: request.quantization_config.map(quantization_change_in).transpose()?,
        strict_mode_config: request.strict_mode_config.map(StrictMode::from),
        metadata: Some(object_in(request.metadata)),
    })
}

#[allow(deprecated, reason = "current clients send `on_disk`")]
fn vector_in(params: proto::VectorParams) -> Result<VectorParams> {
    let distance = match params.distance() {
        proto::Distance::Cosine => Distance::Cosine,
        proto::Distance::Euclid => Distance::Euclid,
        proto::Distance::Dot => Distance::Dot,
        proto::Distance::Manhattan => Distance::Manhattan,
        proto::Distance::UnknownDistance => return Err(ApiError::BadInput("unknown distance".to_owned())),
    };
    Ok(VectorParams {
        size: count(params.size),
        distance,
        on_disk: params.on_disk,
        multivector_config: params.multivector_config.map(|_| Value::Bool(true)),
        quantization_config: params.quantization_config.map(quantization_in).transpose()?,
        datatype: params.datatype.map(datatype_in).transpose()?.flatten(),
    })
}

fn datatype_in(datatype: i32) -> Result<Option<VectorStorageDatatype>> {
    Ok(match proto::Datatype::try_from(datatype) {
        Ok(proto::Datatype::Default | proto::Datatype::Float32) => None,
        Ok(proto::Datatype::Float16) => Some(VectorStorageDatatype::Float16),
        Ok(proto::Datatype::Uint8) => Some(VectorStorageDatatype::Uint8),
        Ok(proto::Datatype::Turbo4) => Some(VectorStorageDatatype::Turbo4),
        Ok(other) => return Err(ApiError::Unsupported(format!("datatype {}", other.as_str_name()))),
        Err(unknown) => return Err(ApiError::BadInput(format!("unknown datatype: {unknown}"))),
    })
}

fn datatype_out(datatype: VectorStorageDatatype) -> proto::Datatype {
    match datatype {
        VectorStorageDatatype::Float32 => proto::Datatype::Float32,
        VectorStorageDatatype::Float16 => proto::Datatype::Float16,
        VectorStorageDatatype::Uint8 => proto::Datatype::Uint8,
        VectorStorageDatatype::Turbo4 => proto::Datatype::Turbo4,
    }
}

#[allow(deprecated, reason = "current clients send `on_disk`")]
fn vector_diff_in(diff: proto::VectorParamsDiff) -> Result<VectorDiff> {
    Ok(VectorDiff {
        on_disk: diff.on_disk,
        quantization_config: diff.quantization_config.map(quantization_change_in).transpose()?,
    })
}

#[allow(deprecated, reason = "current clients send `on_disk`")]
fn hnsw_in(diff: proto::HnswConfigDiff) -> HnswDiff {
    HnswDiff {
        m: diff.m.map(count),
        ef_construct: diff.ef_construct.map(count),
        full_scan_threshold: diff.full_scan_threshold.map(count),
        max_indexing_threads: diff.max_indexing_threads.map(count),
        on_disk: diff.on_disk,
        payload_m: diff.payload_m.map(count),
        inline_storage: diff.inline_storage,
    }
}

fn optimizers_in(diff: proto::OptimizersConfigDiff) -> OptimizersDiff {
    let threads = diff.max_optimization_threads.and_then(|threads| threads.variant);
    OptimizersDiff {
        deleted_threshold: diff.deleted_threshold,
        vacuum_min_vector_number: diff.vacuum_min_vector_number.map(count),
        default_segment_number: diff.default_segment_number.map(count),
        max_segment_size: diff.max_segment_size.map(count),
        indexing_threshold: diff.indexing_threshold.map(count),
        memmap_threshold: diff.memmap_threshold.map(count),
        flush_interval_sec: diff.flush_interval_sec,
        max_optimization_threads: threads.map(|threads| match threads {
            Variant::Value(number) => json!(number),
            Variant::Setting(_) => json!("auto"),
        }),
        prevent_unoptimized: diff.prevent_unoptimized,
    }
}

fn threads_out(threads: &Value) -> proto::MaxOptimizationThreads {
    let variant = match threads.as_u64() {
        Some(number) => Variant::Value(number),
        None => Variant::Setting(Setting::Auto.into()),
    };
    proto::MaxOptimizationThreads { variant: Some(variant) }
}

#[allow(deprecated, reason = "current clients read `on_disk`")]
fn vector_out(params: &VectorParams) -> proto::VectorParams {
    let distance = match params.distance {
        Distance::Cosine => proto::Distance::Cosine,
        Distance::Euclid => proto::Distance::Euclid,
        Distance::Dot => proto::Distance::Dot,
        Distance::Manhattan => proto::Distance::Manhattan,
    };
    proto::VectorParams {
        size: params.size as u64,
        distance: distance.into(),
        on_disk: params.on_disk,
        quantization_config: params.quantization_config.as_ref().map(quantization_out),
        datatype: params.datatype.map(|datatype| datatype_out(datatype).into()),
        ..proto::VectorParams::default()
    }
}

#[allow(deprecated, reason = "current clients read the plain flags")]
pub(super) fn config_out(config: &CollectionConfig) -> proto::CollectionConfig {
    let wide = |value: usize| Some(value as u64);
    let vectors = match &config.vectors {
        Vectors::Single(params) => vectors_config::Config::Params(vector_out(params)),
        Vectors::Named(named) => vectors_config::Config::ParamsMap(proto::VectorParamsMap {
            map: named.iter().map(|(name, params)| (name.clone(), vector_out(params))).collect(),
        }),
    };
    let hnsw = &config.hnsw;
    let optimizers = &config.optimizers;
    proto::CollectionConfig {
        params: Some(proto::CollectionParams {
            shard_number: config.shards.shard_number,
            on_disk_payload: config.on_disk_payload,
            vectors_config: Some(proto::VectorsConfig { config: Some(vectors) }),
            replication_factor: Some(config.shards.replication_factor),
            write_consistency_factor: Some(config.shards.write_consistency_factor),
            ..proto::CollectionParams::default()
        }),
        hnsw_config: Some(proto::HnswConfigDiff {
            m: wide(hnsw.m),
            ef_construct: wide(hnsw.ef_construct),
            full_scan_threshold: wide(hnsw.full_scan_threshold),
            max_indexing_threads: wide(hnsw.max_indexing_threads),
            on_disk: hnsw.on_disk,
            payload_m: hnsw.payload_m.and_then(wide),
            inline_storage: hnsw.inline_storage,
            ..proto::HnswConfigDiff::default()
        }),
        optimizer_config: Some(proto::OptimizersConfigDiff {
            deleted_threshold: optimizers.deleted_threshold,
            vacuum_min_vector_number: optimizers.vacuum_min_vector_number.and_then(wide),
            default_segment_number: optimizers.default_segment_number.and_then(wide),
            max_segment_size: optimizers.max_segment_size.and_then(wide),
            indexing_threshold: optimizers.indexing_threshold.and_then(wide),
            memmap_threshold: optimizers.memmap_threshold.and_then(wide),
            flush_interval_sec: Some(optimizers.flush_interval_sec.unwrap_or(FLUSH_INTERVAL.as_secs())),
            max_optimization_threads: optimizers.max_optimization_threads.as_ref().map(threads_out),
            prevent_unoptimized: optimizers.prevent_unoptimized,
            ..proto::OptimizersConfigDiff::default()
        }),
        wal_config: Some(proto::WalConfigDiff {
            wal_capacity_mb: Some(32),
            wal_segments_ahead: Some(0),
            wal_retain_closed: Some(1),
        }),
        quantization_config: config.quantization.as_ref().map(quantization_out),
        strict_mode_config: config.strict_mode.as_ref().map(proto::StrictModeConfig::from),
        metadata: object_out(config.metadata.clone()),
    }
}
