//! Qdrant's fixed limits, checked before a request is sent.
//!
//! A server, or a proxy in front of it, reports its decoder's error for such a request. That error does not always
//! identify the document or show that a retry is pointless.

use prost::Message;
use qdrant_client::qdrant::UpsertPoints;
use tidewheel_core::error::{Cause, PortError};
use tidewheel_core::json::levels;
use tidewheel_core::ports::DocumentPoints;
use tonic::Status;

use super::error::SERVER;

/// Maximum nesting of objects and arrays below the document itself. Qdrant's write-ahead log and payload storage read
/// little more.
const MAX_LEVELS: usize = 120;

/// Maximum bytes of a request.
const MAX_REQUEST: usize = 64 << 20;

/// Fails for a document with deeper nesting than Qdrant stores.
///
/// # Errors
/// Poison, naming the field.
pub(super) fn check_levels(documents: &[&DocumentPoints]) -> Result<(), PortError> {
    for document in documents {
        for (field, value) in &document.fields {
            let found = levels(value);
            if found > MAX_LEVELS {
                let message = format!(
                    "field {field:?} has {found} levels of nested objects and arrays, Qdrant stores at most {MAX_LEVELS}"
                );
                return Err(PortError::poison(message).because(SERVER, Cause::Refused).with_hint(format!(
                    "exclude {field:?} from the payload with payload.exclude, or reduce its nesting"
                )));
            }
        }
    }
    Ok(())
}

/// Fails for a single-point request that is too large.
///
/// # Errors
/// The status that a server returns for such a request.
pub(super) fn check_size(request: &UpsertPoints) -> Result<(), Status> {
    // Packing keeps requests of several points small.
    if request.points.len() != 1 {
        return Ok(());
    }
    let bytes = request.encoded_len();
    if bytes <= MAX_REQUEST {
        return Ok(());
    }
    Err(Status::out_of_range(format!("the point has {bytes} bytes, a request holds at most {MAX_REQUEST}")))
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
    fn too_deep_document_is_poison_and_names_field() {
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
    fn single_point_larger_than_a_request_is_rejected() {
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
