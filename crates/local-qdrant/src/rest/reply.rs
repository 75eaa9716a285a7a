//! Responses in Qdrant's form: `{"result": …, "status": "ok", "time": 0.001}`.

use std::time::Instant;

use axum::Json;
use axum::response::{IntoResponse, Response};
use qdrant_edge::{FacetResponse, FacetValue, Record, ScoredPoint, VectorInternal, VectorStructInternal};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::FLUSH_INTERVAL;
use super::super::collection::{Info, Outcome};
use super::super::config::Vectors;
use super::super::error::ApiError;

#[derive(Serialize)]
struct Reply {
    result: Value,
    status: &'static str,
    /// Seconds.
    time: f64,
}

/// Returns a successful response.
pub(super) fn ok(started: Instant, result: Value) -> Response {
    Json(Reply { result, status: "ok", time: started.elapsed().as_secs_f64() }).into_response()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"status": {"error": self.to_string()}, "time": 0.0});
        (self.http_status(), Json(body)).into_response()
    }
}

pub(super) fn outcome_out(outcome: Outcome) -> Value {
    let status = if outcome.completed { "completed" } else { "acknowledged" };
    json!({"operation_id": outcome.operation_id, "status": status})
}

fn dense_out(vector: VectorInternal) -> Value {
    match vector {
        VectorInternal::Dense(dense) => json!(dense),
        // Other kinds are not supported.
        VectorInternal::Sparse(sparse) => json!({"indices": sparse.indices, "values": sparse.values}),
        VectorInternal::MultiDense(multi) => {
            json!(multi.flattened_vectors.chunks(multi.dim).collect::<Vec<_>>())
        }
    }
}

fn vector_out(vector: VectorStructInternal) -> Value {
    match vector {
        VectorStructInternal::Single(dense) => json!(dense),
        VectorStructInternal::MultiDense(multi) => dense_out(VectorInternal::MultiDense(multi)),
        VectorStructInternal::Named(named) => {
            Value::Object(named.into_iter().map(|(name, vector)| (name, dense_out(vector))).collect())
        }
    }
}

pub(super) fn record_out(record: Record) -> Value {
    let mut fields = Map::new();
    fields.insert("id".to_owned(), json!(record.id));
    if let Some(payload) = record.payload {
        fields.insert("payload".to_owned(), Value::Object(payload.0));
    }
    if let Some(vector) = record.vector {
        fields.insert("vector".to_owned(), vector_out(vector));
    }
    if let Some(order_value) = record.order_value {
        fields.insert("order_value".to_owned(), json!(order_value));
    }
    Value::Object(fields)
}

pub(super) fn scored_out(point: ScoredPoint) -> Value {
    let mut fields = Map::new();
    fields.insert("id".to_owned(), json!(point.id));
    fields.insert("version".to_owned(), json!(point.version));
    fields.insert("score".to_owned(), json!(point.score));
    if let Some(payload) = point.payload {
        fields.insert("payload".to_owned(), Value::Object(payload.0));
    }
    if let Some(vector) = point.vector {
        fields.insert("vector".to_owned(), vector_out(vector));
    }
    if let Some(order_value) = point.order_value {
        fields.insert("order_value".to_owned(), json!(order_value));
    }
    Value::Object(fields)
}

pub(super) fn facet_out(response: FacetResponse) -> Value {
    let hits = response.hits.into_iter().map(|hit| {
        let value = match hit.value {
            FacetValue::Keyword(keyword) => json!(keyword),
            FacetValue::Int(integer) => json!(integer),
            FacetValue::Bool(flag) => json!(flag),
            FacetValue::Uuid(uuid) => json!(uuid::Uuid::from_u128(uuid)),
        };
        json!({"value": value, "count": hit.count})
    });
    json!({"hits": hits.collect::<Vec<_>>()})
}

pub(super) fn aliases_out(aliases: Vec<(String, String)>) -> Value {
    let aliases = aliases.into_iter().map(|(alias, to)| json!({"alias_name": alias, "collection_name": to}));
    json!({"aliases": aliases.collect::<Vec<_>>()})
}

pub(super) fn info_out(info: &Info) -> Value {
    let config = &info.config;
    let vectors = match &config.vectors {
        Vectors::Single(params) => json!(params),
        Vectors::Named(named) => json!(named),
    };
    let (optimizers, shards) = (&config.optimizers, &config.shards);
    let schema = info.payload_schema.iter().map(|(path, index)| (path.to_string(), json!(index)));
    let mut answer = json!({
        "status": if info.optimizing { "yellow" } else { "green" },
        "optimizer_status": "ok",
        "indexed_vectors_count": info.indexed_vectors,
        "points_count": info.points,
        "segments_count": info.segments,
        "config": {
            "params": {
                "vectors": vectors,
                "shard_number": shards.shard_number,
                "replication_factor": shards.replication_factor,
                "write_consistency_factor": shards.write_consistency_factor,
                "on_disk_payload": config.on_disk_payload,
            },
            "hnsw_config": config.hnsw,
            "optimizer_config": {
                "deleted_threshold": optimizers.deleted_threshold,
                "vacuum_min_vector_number": optimizers.vacuum_min_vector_number,
                "default_segment_number": optimizers.default_segment_number,
                "max_segment_size": optimizers.max_segment_size,
                "memmap_threshold": optimizers.memmap_threshold,
                "indexing_threshold": optimizers.indexing_threshold,
                "flush_interval_sec": optimizers.flush_interval_sec.unwrap_or(FLUSH_INTERVAL.as_secs()),
                "max_optimization_threads": optimizers.max_optimization_threads,
                "prevent_unoptimized": optimizers.prevent_unoptimized,
            },
            "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1},
            "quantization_config": config.quantization,
        },
        "payload_schema": schema.collect::<Map<_, _>>(),
    });
    if let Some(strict_mode) = &config.strict_mode {
        answer["config"]["strict_mode_config"] = json!(strict_mode);
    }
    // Absent without metadata, as in Qdrant.
    if !config.metadata.is_empty() {
        answer["config"]["metadata"] = Value::Object(config.metadata.clone());
    }
    answer
}
