//! Conversion between JSON and Qdrant's protobuf values.
//!
//! Integers stay integers if they fit into an `i64`; larger ones become the nearest double, as in Qdrant's own JSON
//! parser.

use std::collections::HashMap;

use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::{ListValue, NullValue, Struct, Value as Proto};
use serde_json::{Map, Number, Value};

/// Converts a payload to protobuf.
pub(super) fn to_payload(fields: &Map<String, Value>) -> HashMap<String, Proto> {
    fields.iter().map(|(name, value)| (name.clone(), to_proto(value))).collect()
}

/// Converts a payload from protobuf.
pub(super) fn from_payload(fields: HashMap<String, Proto>) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name, from_proto(value))).collect()
}

fn to_proto(value: &Value) -> Proto {
    let kind = match value {
        Value::Null => Kind::NullValue(NullValue::NullValue.into()),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Kind::IntegerValue(integer),
            None => Kind::DoubleValue(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(to_proto).collect() }),
        Value::Object(fields) => Kind::StructValue(Struct { fields: to_payload(fields) }),
    };
    Proto { kind: Some(kind) }
}

fn from_proto(value: Proto) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::IntegerValue(integer)) => Value::from(integer),
        Some(Kind::DoubleValue(double)) => Number::from_f64(double).map_or(Value::Null, Value::Number),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(from_proto).collect()),
        Some(Kind::StructValue(fields)) => Value::Object(from_payload(fields.fields)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn payload_round_trips() {
        let payload = json!({
            "null": null, "true": true, "text": "ü", "list": [1, [2.5, {}], []], "nested": {"a": {"b": -1}},
            "largest": i64::MAX, "smallest": i64::MIN, "whole": 1.0, "tiny": 5e-324,
        });
        let Value::Object(fields) = payload else { unreachable!() };
        assert_eq!(from_payload(to_payload(&fields)), fields);
    }

    #[test]
    fn integer_above_i64_becomes_a_double() {
        let Value::Object(fields) = json!({"n": u64::MAX}) else { unreachable!() };
        assert_eq!(from_payload(to_payload(&fields))["n"], json!(18_446_744_073_709_551_615_f64));
    }
}
