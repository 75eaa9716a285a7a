//! Limits of every Qdrant, checked before a request is sent.
//!
//! A server, or a proxy in front of it, answers such a request with whatever its decoder fails with. That does not
//! always name the document at fault, nor say that a retry is useless.

use prost::Message;
use qdrant_client::qdrant::UpsertPoints;
use tidewheel_core::error::{Cause, PortError, Server};
use tidewheel_core::json::levels;
use tidewheel_core::ports::DocumentPoints;
use tonic::Status;

/// Levels of objects and arrays inside one another, below the document itself. Qdrant's write-ahead log and payload
/// storage read little more.
const MAX_LEVELS: usize = 120;

/// Bytes of the largest request.
const MAX_REQUEST: usize = 64 << 20;

/// Fails for a document that nests deeper than Qdrant stores.
///
/// # Errors
/// Poison, naming the field.
pub(super) fn check_levels(documents: &[&DocumentPoints]) -> Result<(), PortError> {
    for document in documents {
        for (field, value) in &document.fields {
            let found = levels(value);
            if found > MAX_LEVELS {
                let message = format!(
                    "field {field:?} nests {found} levels of objects and arrays, Qdrant stores at most {MAX_LEVELS}"
                );
                return Err(PortError::poison(message)
                    .because(Server::Qdrant, Cause::Refused)
                    .with_hint(format!("exclude {field:?} from the payload with payload.exclude, or nest it less")));
            }
        }
    }
    Ok(())
}

/// Fails for a request that holds a single point and is still too large.
///
/// # Errors
/// The status that a server answers to such a request.
pub(super) fn check_size(request: &UpsertPoints) -> Result<(), Status> {
    // Requests of several points are kept small by how they are packed.
    if request.points.len() != 1 {
        return Ok(());
    }
    let bytes = request.encoded_len();
    if bytes <= MAX_REQUEST {
        return Ok(());
    }
    Err(Status::out_of_range(format!("the point takes {bytes} bytes, a request at most {MAX_REQUEST}")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};
    use tidewheel_core::error::ErrorClass;
    use tidewheel_core::identity::{DocumentId, Namespace};
    use tidewheel_core::version::Version;

    use super::*;

    fn document(fields: Value) -> DocumentPoints {
        let Value::Object(fields) = fields else { panic!("an object") };
        let document = DocumentId::new(&Namespace::new("shop", "tickets"), "1");
        DocumentPoints { document, version: Version::default(), fields, excerpt: None, points: Vec::new() }
    }

    fn nested(levels: usize, wrap: fn(Value) -> Value) -> Value {
        (0..levels).fold(json!(1), |inner, _| wrap(inner))
    }

    #[test]
    fn document_deeper_than_qdrant_stores_is_poison_that_names_the_field() {
        for wrap in [
            (|inner| json!([inner])) as fn(Value) -> Value,
            |inner| json!({"a": inner}),
            |inner| json!({"a": [1, {"b": inner}]}),
        ] {
            let fits = document(json!({"title": "x", "body": nested(MAX_LEVELS / 3, wrap)}));
            assert!(check_levels(&[&fits]).is_ok());
            let deep = document(json!({"title": "x", "body": nested(MAX_LEVELS + 1, wrap)}));
            let error = check_levels(&[&fits, &deep]).unwrap_err();
            assert_eq!(error.class, ErrorClass::Poison);
            assert!(error.message.contains("\"body\"") && error.message.contains("at most 120"), "{error}");
        }
        let exactly =
            |levels| document(Value::Object(Map::from_iter([("a".to_owned(), nested(levels, |v| json!([v])))])));
        assert!(check_levels(&[&exactly(MAX_LEVELS)]).is_ok());
        assert!(check_levels(&[&exactly(MAX_LEVELS + 1)]).is_err());
    }

    #[test]
    fn single_point_larger_than_a_request_is_refused() {
        let request = |text: usize| {
            let payload = [("a".to_owned(), "x".repeat(text).into())].into();
            let point = qdrant_client::qdrant::PointStruct { payload, ..Default::default() };
            UpsertPoints { points: vec![point], ..UpsertPoints::default() }
        };
        assert!(check_size(&request(MAX_REQUEST / 2)).is_ok());
        let status = check_size(&request(MAX_REQUEST)).unwrap_err();
        assert_eq!(status.code(), tonic::Code::OutOfRange, "which is poison");
    }
}
