//! Converts payload indexes between protobuf and the engine.
//!
//! Parameters go through the engine's JSON form, whose field names are those of the protobuf messages.

use qdrant_client::qdrant::{self as proto, payload_index_params::IndexParams};
use qdrant_edge::{CreateIndex, PayloadFieldSchema, PayloadIndexInfo, PayloadSchemaParams, PayloadSchemaType};
use serde_json::{Value, json};

use super::super::error::ApiError;
use super::value::path_in;

type Result<T> = std::result::Result<T, ApiError>;

pub(super) fn create_index_in(
    field: &str,
    kind: Option<i32>,
    params: Option<proto::PayloadIndexParams>,
) -> Result<CreateIndex> {
    let field_schema = match (params.and_then(|params| params.index_params), kind) {
        (Some(params), _) => PayloadFieldSchema::FieldParams(params_in(params)?),
        (None, Some(kind)) => PayloadFieldSchema::FieldType(kind_in(kind)?),
        (None, None) => return Err(ApiError::BadInput(format!("field type of the index on `{field}` is missing"))),
    };
    Ok(CreateIndex { field_name: path_in(field)?, field_schema: Some(field_schema) })
}

fn kind_in(kind: i32) -> Result<PayloadSchemaType> {
    use proto::FieldType as F;
    Ok(match F::try_from(kind).map_err(|_| ApiError::BadInput(format!("unknown field type {kind}")))? {
        F::Keyword => PayloadSchemaType::Keyword,
        F::Integer => PayloadSchemaType::Integer,
        F::Float => PayloadSchemaType::Float,
        F::Geo => PayloadSchemaType::Geo,
        F::Text => PayloadSchemaType::Text,
        F::Bool => PayloadSchemaType::Bool,
        F::Datetime => PayloadSchemaType::Datetime,
        F::Uuid => PayloadSchemaType::Uuid,
    })
}

#[allow(deprecated, reason = "the engine and current clients use `on_disk`")]
fn params_in(params: IndexParams) -> Result<PayloadSchemaParams> {
    let mut json = match params {
        IndexParams::KeywordIndexParams(p) => json!({
            "type": "keyword", "is_tenant": p.is_tenant, "on_disk": p.on_disk, "enable_hnsw": p.enable_hnsw,
        }),
        IndexParams::UuidIndexParams(p) => json!({
            "type": "uuid", "is_tenant": p.is_tenant, "on_disk": p.on_disk, "enable_hnsw": p.enable_hnsw,
        }),
        IndexParams::IntegerIndexParams(p) => json!({
            "type": "integer", "lookup": p.lookup, "range": p.range, "is_principal": p.is_principal,
            "on_disk": p.on_disk, "enable_hnsw": p.enable_hnsw,
        }),
        IndexParams::FloatIndexParams(p) => json!({
            "type": "float", "is_principal": p.is_principal, "on_disk": p.on_disk, "enable_hnsw": p.enable_hnsw,
        }),
        IndexParams::DatetimeIndexParams(p) => json!({
            "type": "datetime", "is_principal": p.is_principal, "on_disk": p.on_disk, "enable_hnsw": p.enable_hnsw,
        }),
        IndexParams::GeoIndexParams(p) => {
            json!({"type": "geo", "on_disk": p.on_disk, "enable_hnsw": p.enable_hnsw})
        }
        IndexParams::BoolIndexParams(p) => {
            json!({"type": "bool", "on_disk": p.on_disk, "enable_hnsw": p.enable_hnsw})
        }
        IndexParams::TextIndexParams(p) => {
            if p.stemmer.is_some() || p.stopwords.is_some() || p.scoring.is_some() {
                return Err(ApiError::Unsupported("stemmer, stopwords and scoring of a text index".to_owned()));
            }
            let tokenizer = match p.tokenizer() {
                proto::TokenizerType::Prefix => "prefix",
                proto::TokenizerType::Whitespace => "whitespace",
                proto::TokenizerType::Unknown | proto::TokenizerType::Word => "word",
                proto::TokenizerType::Multilingual => "multilingual",
                proto::TokenizerType::Code => return Err(ApiError::Unsupported("the code tokenizer".to_owned())),
            };
            json!({
                "type": "text", "tokenizer": tokenizer, "lowercase": p.lowercase, "min_token_len": p.min_token_len,
                "max_token_len": p.max_token_len, "on_disk": p.on_disk, "phrase_matching": p.phrase_matching,
                "ascii_folding": p.ascii_folding, "enable_hnsw": p.enable_hnsw,
            })
        }
    };
    if let Value::Object(fields) = &mut json {
        fields.retain(|_, value| !value.is_null());
    }
    serde_json::from_value(json).map_err(|error| ApiError::BadInput(format!("index parameters: {error}")))
}

/// Converts one index for collection info. Omits the parameters: clients only read the type.
pub(super) fn index_out(info: &PayloadIndexInfo) -> proto::PayloadSchemaInfo {
    use proto::PayloadSchemaType as T;
    let data_type = match info.data_type {
        PayloadSchemaType::Keyword => T::Keyword,
        PayloadSchemaType::Integer => T::Integer,
        PayloadSchemaType::Float => T::Float,
        PayloadSchemaType::Geo => T::Geo,
        PayloadSchemaType::Text => T::Text,
        PayloadSchemaType::Bool => T::Bool,
        PayloadSchemaType::Datetime => T::Datetime,
        PayloadSchemaType::Uuid => T::Uuid,
    };
    proto::PayloadSchemaInfo { data_type: data_type.into(), params: None, points: Some(info.points as u64) }
}
