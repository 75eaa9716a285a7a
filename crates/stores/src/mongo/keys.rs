//! Identities and positions as text, read back.

use bson::{Bson, Document};
use tidewheel_core::error::PortError;

/// The `_id` that this canonical extended JSON stands for, with its exact type.
pub(super) fn parse_key(key: &str) -> Result<Bson, PortError> {
    let value: serde_json::Value = serde_json::from_str(key).map_err(|error| unreadable(key, &error))?;
    Bson::try_from(value).map_err(|error| unreadable(key, &error))
}

fn unreadable(key: &str, error: &dyn std::fmt::Display) -> PortError {
    PortError::fatal(format!("the key {key} is not canonical extended JSON: {error}"))
        .with_hint("a saved snapshot position is damaged: start the snapshot again")
}

/// The document that a resume token is.
pub(super) fn parse_token(token: &str) -> Option<Document> {
    match parse_key(token).ok()? {
        Bson::Document(document) => Some(document),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mongo::extjson::{self, Form};

    #[test]
    fn keys_come_back_with_their_type() {
        let keys = [
            Bson::Int32(1),
            Bson::Int64(1),
            Bson::Double(1.0),
            Bson::Double(f64::NEG_INFINITY),
            Bson::String("1".into()),
            Bson::Null,
            Bson::Boolean(true),
            Bson::DateTime(bson::DateTime::from_millis(-62_135_596_800_000)),
            Bson::ObjectId(bson::oid::ObjectId::from_bytes([7; 12])),
            Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![9; 16] }),
            Bson::Document(bson::doc! {"b": 1_i64, "a": {"c": 1.5}}),
            Bson::Decimal128("1.10".parse().unwrap()),
        ];
        for key in keys {
            let bytes = bson::doc! {"_id": key.clone()}.to_vec().unwrap();
            let element = super::super::event::id_of(&bytes).unwrap();
            let text = extjson::value(&element, Form::Canonical).unwrap();
            assert_eq!(parse_key(&text).unwrap(), key, "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "{", r#"{"$oid":"short"}"#] {
            assert!(parse_key(text).is_err(), "{text:?}");
        }
        assert_eq!(parse_token("7"), None);
        assert!(parse_token(r#"{"_data":"8265"}"#).is_some());
    }
}
