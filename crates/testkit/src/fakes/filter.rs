//! The subset of filters that the fake index supports: `must`, `should` and `must_not` with `match` (`value`, `any`,
//! `except`) and `range` of numbers on a dotted key, and `has_id`. A list matches if one of its values does, as in
//! Qdrant.

use std::fmt::Debug;

use serde_json::{Map, Number, Value};
use tidewheel_core::error::PortError;
use tidewheel_core::filter::{Condition, Field, Filter, Match, PointId, Range, Scalar, Values};
use tidewheel_core::ports::PortResult;
use uuid::Uuid;

/// Whether the point with this id and payload matches the filter.
///
/// # Errors
/// Poison, if the filter is unsupported.
pub(super) fn matches(filter: &Filter, id: Uuid, payload: &Map<String, Value>) -> PortResult<bool> {
    let Filter { must, should, must_not, min_should: None } = filter else { return Err(unsupported(filter)) };
    let results = |conditions: &[Condition]| {
        conditions.iter().map(|condition| holds(condition, id, payload)).collect::<PortResult<Vec<_>>>()
    };
    let (must, should, must_not) = (results(must)?, results(should)?, results(must_not)?);
    Ok(!must.contains(&false) && (should.is_empty() || should.contains(&true)) && !must_not.contains(&true))
}

fn holds(condition: &Condition, id: Uuid, payload: &Map<String, Value>) -> PortResult<bool> {
    match condition {
        Condition::Field(field) => field_holds(field, payload),
        Condition::HasId(ids) => Ok(ids.contains(&PointId::Uuid(id))),
        Condition::Filter(filter) => matches(filter, id, payload),
        Condition::IsEmpty(_) | Condition::IsNull(_) | Condition::HasVector(_) | Condition::Nested { .. } => {
            Err(unsupported(condition))
        }
    }
}

fn field_holds(field: &Field, payload: &Map<String, Value>) -> PortResult<bool> {
    let Field {
        key,
        matches,
        range,
        values_count: None,
        bounding_box: None,
        circle: None,
        polygon: None,
        is_empty: None,
        is_null: None,
    } = field
    else {
        return Err(unsupported(field));
    };
    let values = values(key, payload);
    match (matches, range) {
        (Some(Match::Value(wanted)), None) => Ok(values.into_iter().any(|value| equals(wanted, value))),
        (Some(Match::Any(wanted)), None) => Ok(values.into_iter().any(|value| contain(wanted, value))),
        (Some(Match::Except(unwanted)), None) => Ok(values.into_iter().any(|value| !contain(unwanted, value))),
        (None, Some(Range::Numbers(bounds))) => {
            Ok(values.into_iter().filter_map(Value::as_f64).any(|value| bounds.contains(&value)))
        }
        _ => Err(unsupported(field)),
    }
}

/// The values of the field at this path: the items of a list, or a single one.
fn values<'a>(key: &str, payload: &'a Map<String, Value>) -> Vec<&'a Value> {
    let mut path = key.split('.');
    let first = path.next().and_then(|name| payload.get(name));
    match path.fold(first, |value, name| value.and_then(|value| value.get(name))) {
        Some(Value::Array(values)) => values.iter().collect(),
        other => other.into_iter().collect(),
    }
}

fn equals(wanted: &Scalar, value: &Value) -> bool {
    match (wanted, value) {
        (Scalar::Keyword(wanted), Value::String(value)) => wanted == value,
        (Scalar::Boolean(wanted), Value::Bool(value)) => wanted == value,
        (Scalar::Number(wanted), Value::Number(value)) => same(wanted, value),
        _ => false,
    }
}

fn contain(list: &Values, value: &Value) -> bool {
    match (list, value) {
        (Values::Keywords(list), Value::String(value)) => list.contains(value),
        (Values::Numbers(list), Value::Number(value)) => list.iter().any(|number| same(number, value)),
        _ => false,
    }
}

/// Numbers are equal by value, regardless of notation.
fn same(a: &Number, b: &Number) -> bool {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a == b,
        _ => a.as_f64() == b.as_f64(),
    }
}

fn unsupported(part: &impl Debug) -> PortError {
    PortError::poison(format!("unsupported filter: {part:?}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidewheel_core::error::ErrorClass;

    use super::*;

    #[test]
    fn unsupported_condition_is_rejected() {
        for json in [
            json!({"must": [{"key": "a", "match": {"text": "b"}}]}),
            json!({"must": [{"key": "a", "range": {"gt": "2024-03-12T10:00:00Z"}}]}),
            json!({"must": [{"key": "a", "match": {"value": 1}, "is_null": true}]}),
            json!({"must_not": [{"is_empty": {"key": "a"}}]}),
            json!({"should": [{"must": [{"has_vector": ""}]}]}),
            json!({"min_should": {"conditions": [], "min_count": 1}}),
        ] {
            let filter = Filter::parse(&json).unwrap();
            let error = matches(&filter, Uuid::nil(), &Map::new()).unwrap_err();
            assert_eq!(error.class, ErrorClass::Poison, "{json}");
        }
    }
}
