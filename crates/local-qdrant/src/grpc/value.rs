//! Converts ids, payload values, vectors and selectors between protobuf and the engine.

use std::collections::HashMap;

use qdrant_client::qdrant::{self as proto, point_id::PointIdOptions, value::Kind};
use qdrant_edge::{
    JsonPath, OrderValue, Payload, PayloadSelector, PayloadSelectorExclude, PayloadSelectorInclude, PointId,
    PointStructPersisted, PointVectorsPersisted, Record, ScoredPoint, VectorInternal, VectorPersisted,
    VectorStructInternal, VectorStructPersisted, WithPayloadInterface, WithVector,
};
use serde_json::{Map, Number, Value};

use super::super::error::ApiError;

type Result<T> = std::result::Result<T, ApiError>;

fn bad(what: impl Into<String>) -> ApiError {
    ApiError::BadInput(what.into())
}

/// Returns a required message field.
pub(super) fn required<T>(field: Option<T>, name: &str) -> Result<T> {
    field.ok_or_else(|| bad(format!("{name} is missing")))
}

pub(super) fn id_in(id: proto::PointId) -> Result<PointId> {
    match required(id.point_id_options, "point id")? {
        PointIdOptions::Num(number) => Ok(PointId::NumId(number)),
        PointIdOptions::Uuid(text) => {
            let uuid = text.parse().map_err(|_| bad(format!("Unable to parse UUID: {text}")))?;
            Ok(PointId::Uuid(uuid))
        }
    }
}

pub(super) fn ids_in(ids: Vec<proto::PointId>) -> Result<Vec<PointId>> {
    ids.into_iter().map(id_in).collect()
}

pub(super) fn id_out(id: PointId) -> proto::PointId {
    let options = match id {
        PointId::NumId(number) => PointIdOptions::Num(number),
        PointId::Uuid(uuid) => PointIdOptions::Uuid(uuid.to_string()),
    };
    proto::PointId { point_id_options: Some(options) }
}

pub(super) fn path_in(path: &str) -> Result<JsonPath> {
    path.parse().map_err(|()| bad(format!("Invalid json path: '{path}'")))
}

pub(super) fn paths_in(paths: &[String]) -> Result<Vec<JsonPath>> {
    paths.iter().map(|path| path_in(path)).collect()
}

fn value_in(value: proto::Value) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(flag)) => Value::Bool(flag),
        Some(Kind::IntegerValue(number)) => Value::Number(number.into()),
        // JSON has neither NaN nor infinity; Qdrant stores null for them.
        Some(Kind::DoubleValue(number)) => Number::from_f64(number).map_or(Value::Null, Value::Number),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(value_in).collect()),
        Some(Kind::StructValue(fields)) => Value::Object(object_in(fields.fields)),
    }
}

pub(super) fn object_in(fields: HashMap<String, proto::Value>) -> Map<String, Value> {
    fields.into_iter().map(|(key, value)| (key, value_in(value))).collect()
}

pub(super) fn payload_in(payload: HashMap<String, proto::Value>) -> Payload {
    Payload(object_in(payload))
}

fn value_out(value: Value) -> proto::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(flag),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Kind::IntegerValue(integer),
            None => Kind::DoubleValue(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Kind::StringValue(text),
        Value::Array(values) => {
            Kind::ListValue(proto::ListValue { values: values.into_iter().map(value_out).collect() })
        }
        Value::Object(fields) => Kind::StructValue(proto::Struct { fields: object_out(fields) }),
    };
    proto::Value { kind: Some(kind) }
}

pub(super) fn object_out(fields: Map<String, Value>) -> HashMap<String, proto::Value> {
    fields.into_iter().map(|(key, value)| (key, value_out(value))).collect()
}

fn payload_out(payload: Option<Payload>) -> HashMap<String, proto::Value> {
    payload.map(|payload| object_out(payload.0)).unwrap_or_default()
}

/// Reads a vector: clients before 1.13 set the plain fields, later ones the `vector` message.
#[allow(deprecated, reason = "current clients still send the plain fields")]
fn vector_in(vector: proto::Vector) -> Result<VectorPersisted> {
    use proto::vector::Vector as V;
    match vector.vector {
        Some(V::Dense(dense)) => Ok(VectorPersisted::Dense(dense.data)),
        Some(V::Sparse(_)) => Err(bad("Wrong usage of sparse vectors")),
        Some(V::MultiDense(_)) => Err(bad("Wrong usage of multi vectors")),
        Some(V::Document(_) | V::Image(_) | V::Object(_)) => {
            Err(ApiError::Unsupported("inference on the server".to_owned()))
        }
        None if vector.indices.is_some() => Err(bad("Wrong usage of sparse vectors")),
        None if vector.vectors_count.is_some() => Err(bad("Wrong usage of multi vectors")),
        None => Ok(VectorPersisted::Dense(vector.data)),
    }
}

fn vectors_in(vectors: Option<proto::Vectors>) -> Result<VectorStructPersisted> {
    use proto::vectors::VectorsOptions as O;
    match vectors.and_then(|vectors| vectors.vectors_options) {
        None => Err(bad("Expected some vectors")),
        Some(O::Vector(vector)) => match vector_in(vector)? {
            VectorPersisted::Dense(dense) => Ok(VectorStructPersisted::Single(dense)),
            other @ (VectorPersisted::Sparse(_) | VectorPersisted::MultiDense(_)) => {
                Ok(VectorStructPersisted::Named(HashMap::from([(String::new(), other)])))
            }
        },
        Some(O::Vectors(named)) => {
            let named = named.vectors.into_iter().map(|(name, vector)| Ok((name, vector_in(vector)?)));
            Ok(VectorStructPersisted::Named(named.collect::<Result<_>>()?))
        }
    }
}

pub(super) fn point_in(point: proto::PointStruct) -> Result<PointStructPersisted> {
    Ok(PointStructPersisted {
        id: id_in(required(point.id, "point id")?)?,
        vector: vectors_in(point.vectors)?,
        payload: Some(payload_in(point.payload)),
    })
}

pub(super) fn point_vectors_in(point: proto::PointVectors) -> Result<PointVectorsPersisted> {
    Ok(PointVectorsPersisted { id: id_in(required(point.id, "point id")?)?, vector: vectors_in(point.vectors)? })
}

/// Sets the plain fields, which every client reads.
#[allow(deprecated, reason = "current clients read the plain fields")]
fn vector_out(vector: VectorInternal) -> proto::VectorOutput {
    let data = match vector {
        VectorInternal::Dense(dense) => dense,
        // Other kinds are not supported.
        VectorInternal::Sparse(sparse) => sparse.values,
        VectorInternal::MultiDense(multi) => multi.flattened_vectors,
    };
    proto::VectorOutput { data, ..proto::VectorOutput::default() }
}

fn vectors_out(vectors: VectorStructInternal) -> proto::VectorsOutput {
    use proto::vectors_output::VectorsOptions as O;
    let options = match vectors {
        VectorStructInternal::Single(dense) => O::Vector(vector_out(VectorInternal::Dense(dense))),
        VectorStructInternal::MultiDense(multi) => O::Vector(vector_out(VectorInternal::MultiDense(multi))),
        VectorStructInternal::Named(named) => O::Vectors(proto::NamedVectorsOutput {
            vectors: named.into_iter().map(|(name, vector)| (name, vector_out(vector))).collect(),
        }),
    };
    proto::VectorsOutput { vectors_options: Some(options) }
}

fn order_value_out(value: OrderValue) -> proto::OrderValue {
    use proto::order_value::Variant;
    let variant = match value {
        OrderValue::Int(integer) => Variant::Int(integer),
        OrderValue::Float(float) => Variant::Float(float),
    };
    proto::OrderValue { variant: Some(variant) }
}

pub(super) fn record_out(record: Record) -> proto::RetrievedPoint {
    proto::RetrievedPoint {
        id: Some(id_out(record.id)),
        payload: payload_out(record.payload),
        vectors: record.vector.map(vectors_out),
        shard_key: None,
        order_value: record.order_value.map(order_value_out),
    }
}

pub(super) fn scored_out(point: ScoredPoint) -> proto::ScoredPoint {
    proto::ScoredPoint {
        id: Some(id_out(point.id)),
        payload: payload_out(point.payload),
        score: point.score,
        version: point.version,
        vectors: point.vector.map(vectors_out),
        shard_key: None,
        order_value: point.order_value.map(order_value_out),
    }
}

/// Converts the payload selection; `default` if the request has none.
pub(super) fn with_payload_in(
    selector: Option<proto::WithPayloadSelector>,
    default: bool,
) -> Result<WithPayloadInterface> {
    use proto::with_payload_selector::SelectorOptions as O;
    Ok(match selector.and_then(|selector| selector.selector_options) {
        None => WithPayloadInterface::Bool(default),
        Some(O::Enable(enable)) => WithPayloadInterface::Bool(enable),
        Some(O::Include(include)) => {
            let include = paths_in(&include.fields)?;
            WithPayloadInterface::Selector(PayloadSelector::Include(PayloadSelectorInclude { include }))
        }
        Some(O::Exclude(exclude)) => {
            let exclude = paths_in(&exclude.fields)?;
            WithPayloadInterface::Selector(PayloadSelector::Exclude(PayloadSelectorExclude { exclude }))
        }
    })
}

pub(super) fn with_vectors_in(selector: Option<proto::WithVectorsSelector>) -> WithVector {
    use proto::with_vectors_selector::SelectorOptions as O;
    match selector.and_then(|selector| selector.selector_options) {
        None => WithVector::Bool(false),
        Some(O::Enable(enable)) => WithVector::Bool(enable),
        Some(O::Include(include)) => WithVector::Selector(include.names),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn payload_values_round_trip_exactly() {
        let object = json!({
            "int": i64::MIN, "float": 0.1, "whole": 2.0, "null": null, "yes": true,
            "text": "\u{1f30a} ünïcode", "list": [1, [2.5, null], {}], "deep": {"a": {"b": []}},
        });
        let Value::Object(fields) = object.clone() else { panic!("an object") };
        assert_eq!(Value::Object(object_in(object_out(fields))), object);
    }
}
