//! The subset of Qdrant's filters that the fake index supports: `must`, `should` and `must_not` with `match` (`value`,
//! `any`, `except`) and `range` of numbers on a dotted key, and `has_id`. A list matches if one of its values does, as
//! in Qdrant.

use serde_json::{Map, Value};
use tidewheel_core::error::PortError;
use tidewheel_core::ports::PortResult;
use uuid::Uuid;

/// Whether the point with this id and payload matches the filter.
///
/// # Errors
/// Poison, if the filter is unsupported.
pub(super) fn matches(filter: &Value, id: Uuid, payload: &Map<String, Value>) -> PortResult<bool> {
    for (name, conditions) in filter.as_object().ok_or_else(|| unknown(filter))? {
        let conditions = conditions.as_array().ok_or_else(|| unknown(conditions))?;
        let results =
            conditions.iter().map(|condition| holds(condition, id, payload)).collect::<PortResult<Vec<_>>>()?;
        let passes = match name.as_str() {
            "must" => results.into_iter().all(|holds| holds),
            "should" => results.is_empty() || results.into_iter().any(|holds| holds),
            "must_not" => !results.into_iter().any(|holds| holds),
            _ => return Err(unknown(filter)),
        };
        if !passes {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds(condition: &Value, id: Uuid, payload: &Map<String, Value>) -> PortResult<bool> {
    if let Some(ids) = condition.get("has_id").and_then(Value::as_array) {
        return Ok(ids.contains(&Value::from(id.to_string())));
    }
    let Some(key) = condition.get("key").and_then(Value::as_str) else {
        return matches(condition, id, payload);
    };
    let mut path = key.split('.');
    let first = path.next().and_then(|name| payload.get(name));
    let found = path.fold(first, |value, name| value.and_then(|value| value.get(name)));
    let values = match found {
        Some(Value::Array(values)) => values.iter().collect(),
        other => other.into_iter().collect::<Vec<_>>(),
    };
    if let Some(wanted) = condition.pointer("/match/value") {
        Ok(values.into_iter().any(|value| equal(value, wanted)))
    } else if let Some(wanted) = condition.pointer("/match/any").and_then(Value::as_array) {
        Ok(values.into_iter().any(|value| wanted.iter().any(|wanted| equal(value, wanted))))
    } else if let Some(unwanted) = condition.pointer("/match/except").and_then(Value::as_array) {
        Ok(values.into_iter().any(|value| !unwanted.iter().any(|unwanted| equal(value, unwanted))))
    } else if let Some(range) = condition.get("range").and_then(Value::as_object) {
        let inside = |value: &&Value| {
            value.as_f64().is_some_and(|value| range.iter().all(|(name, bound)| within(value, name, bound)))
        };
        Ok(values.iter().any(inside))
    } else {
        Err(unknown(condition))
    }
}

/// Numbers are equal by value, regardless of notation.
fn equal(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Number(value), Value::Number(wanted)) if value.as_i64().is_none() || wanted.as_i64().is_none() => {
            value.as_f64() == wanted.as_f64()
        }
        _ => value == wanted,
    }
}

fn within(value: f64, name: &str, bound: &Value) -> bool {
    bound.as_f64().is_some_and(|bound| match name {
        "lt" => value < bound,
        "lte" => value <= bound,
        "gt" => value > bound,
        "gte" => value >= bound,
        _ => false,
    })
}

fn unknown(json: &Value) -> PortError {
    PortError::poison(format!("unsupported filter: {json}"))
}
