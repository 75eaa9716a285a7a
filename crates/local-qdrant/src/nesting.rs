//! The limit on the nesting of payloads.

use qdrant_edge::{JsonPath, Payload};
use serde_json::{Map, Value};

use super::error::ApiError;

/// Maximum levels of objects and lists below the payload itself. A real Qdrant stores 120; its write-ahead log and its
/// payload storage read little more.
pub(crate) const MAX_NESTING: usize = 120;

/// Rejects a payload that nests too deep when it is set at `key`.
pub(crate) fn check(payload: &Payload, key: Option<&JsonPath>) -> Result<(), ApiError> {
    let above = key.map_or(0, |key| key.to_string().split(['.', '[']).count());
    let deep = above + fields(&payload.0);
    if deep <= MAX_NESTING {
        return Ok(());
    }
    Err(ApiError::BadInput(format!("the payload nests {deep} levels, the maximum is {MAX_NESTING}")))
}

fn fields(fields: &Map<String, Value>) -> usize {
    fields.values().map(levels).max().unwrap_or(0)
}

fn levels(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(levels).max().unwrap_or(0),
        Value::Object(nested) => 1 + fields(nested),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn check_counts_levels_of_payload_and_key() {
        let deep =
            |levels: usize| Payload(Map::from_iter([("a".to_owned(), (0..levels).fold(json!(1), |v, _| json!([v])))]));
        assert!(check(&deep(MAX_NESTING), None).is_ok());
        assert!(check(&deep(MAX_NESTING + 1), None).is_err());
        let key: JsonPath = "b.c[0]".parse().unwrap();
        assert!(check(&deep(MAX_NESTING - 3), Some(&key)).is_ok());
        assert!(check(&deep(MAX_NESTING - 2), Some(&key)).is_err());
    }
}
