//! Filters: MongoDB queries in extended JSON.

use mongodb::bson::Bson;
use serde_json::Value as Json;
use tidewheel_core::ports::SourceFilter;
use tidewheel_stores::mongo::Query;

/// Returns the query in canonical extended JSON, so that equal filters are equal texts.
///
/// # Errors
///
/// The query is invalid or unsupported; the text completes "invalid filter: ".
pub(super) fn canonical(query: &Json) -> Result<SourceFilter, String> {
    let document = match Bson::try_from(query.clone()) {
        Ok(Bson::Document(document)) => document,
        Ok(_) => return Err("expected a query, found a single value of extended JSON".into()),
        Err(error) => return Err(format!("invalid extended JSON: {error}")),
    };
    Query::parse(&document).map_err(|error| error.to_string())?;
    Ok(SourceFilter(Bson::Document(document).into_canonical_extjson().to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_filters_are_equal_texts() {
        let canonical = |query: Json| canonical(&query).unwrap().0;
        assert_eq!(canonical(json!({"a": {"$gt": 1}})), r#"{"a":{"$gt":{"$numberInt":"1"}}}"#);
        assert_eq!(canonical(json!({"a": {"$gt": {"$numberInt": "1"}}})), canonical(json!({"a": {"$gt": 1}})));
        assert_eq!(
            canonical(json!({"at": {"$date": "2024-03-01T07:00:00Z"}})),
            canonical(json!({"at": {"$date": {"$numberLong": "1709276400000"}}})),
        );
        assert!(canonical(json!({"_id": {"$oid": "507f1f77bcf86cd799439011"}})).contains("$oid"));
    }

    #[test]
    fn unsupported_query_is_rejected_by_name() {
        for (query, part) in [
            (json!({"$where": "sleep(1)"}), "$where"),
            (json!({"a": {"$near": [1, 2]}}), "$near"),
            (json!({"$expr": {"$eq": ["$a", 1]}}), "$expr"),
            (json!({"a": {"$regex": "(?=x)"}}), "(?=x)"),
            (json!({"a": {"$oid": "short"}}), "extended JSON"),
            (json!({"$oid": "507f1f77bcf86cd799439011"}), "single value"),
        ] {
            let error = canonical(&query).unwrap_err();
            assert!(error.contains(part), "{query}: {error}");
        }
    }
}
