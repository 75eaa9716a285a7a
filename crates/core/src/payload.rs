//! The payload of a point: the user's document as plain JSON, and `_tidewheel`.
//!
//! Qdrant filters and indexes plain JSON, so MongoDB's types become the JSON type that a person would write in a
//! filter: an ObjectId its hexadecimal digits, a date RFC 3339 in UTC, and so on.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize as _;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use uuid::Uuid;

use crate::catalog::Made;
use crate::fingerprint::Fingerprints;
use crate::hex::hex;
use crate::identity::{DocumentId, Namespace};
use crate::json;
use crate::time::rfc3339;
use crate::version::Version;

/// The reserved key of the payload.
pub const RESERVED: &str = "_tidewheel";
/// Path of the payload field with [`Version::high`].
pub const VERSION_HIGH: &str = "_tidewheel.version.high";
/// Path of the payload field with [`Version::low`].
pub const VERSION_LOW: &str = "_tidewheel.version.low";
/// Path of the payload field with [`Version::replay`]; absent if that is 0.
pub const VERSION_REPLAY: &str = "_tidewheel.version.replay";
/// Path of the payload field with the document's [`DocumentId`].
pub const DOCUMENT: &str = "_tidewheel.document";
/// Path of the payload field with the namespace.
pub const NAMESPACE: &str = "_tidewheel.namespace";
/// Path of the payload field with the fingerprint of the vector's input: see [`Fingerprints`].
pub const FINGERPRINT: &str = "_tidewheel.fingerprint";
/// Field of `_tidewheel` with what the point was [made](Made) by; absent before a catalog is applied.
pub const MADE: &str = "made";

/// Paths of the payload fields that [`Stamped::read`] reads.
pub const STAMP: &[&str] = &[
    "_tidewheel.key",
    "_tidewheel.namespace",
    "_tidewheel.document",
    "_tidewheel.version",
    "_tidewheel.chunk",
    "_tidewheel.chunks",
    "_tidewheel.digest",
    "_tidewheel.made",
];

/// A document that is not a JSON object.
#[derive(Debug, Error)]
pub enum PayloadError {
    /// The text is not valid JSON.
    #[error("invalid document: {0}")]
    NotJson(#[from] serde_json::Error),
    /// The JSON value is not an object.
    #[error("invalid document: expected a JSON object")]
    NotAnObject,
}

/// Converts a document from extended JSON, relaxed or canonical, to plain JSON.
pub fn plain_document(extended: &str) -> Result<Map<String, Value>, PayloadError> {
    match json::parse(extended)? {
        Value::Object(document) => Ok(plain_fields(document)),
        _ => Err(PayloadError::NotAnObject),
    }
}

/// The fields of `_tidewheel` that all points of a document share.
#[derive(Clone, Debug)]
pub struct Stamp<'a> {
    /// Canonical extended JSON of the document's `_id`.
    pub key: &'a str,
    /// `database.collection`.
    pub namespace: &'a str,
    /// The document's identity, which all its points share.
    pub document: DocumentId,
    /// The document's version.
    pub version: Version,
    /// The model that computed the vectors.
    pub model: &'a str,
    /// Computes the fingerprints of the chunks.
    pub fingerprints: &'a Fingerprints,
    /// Number of chunks of the document at this version.
    pub chunks: u32,
    /// The [`digest`] of the document.
    pub digest: &'a str,
}

impl Stamp<'_> {
    /// The value of `_tidewheel` for chunk number `chunk` (from 0) with this text.
    pub fn value(&self, chunk: u32, text: &str) -> Value {
        serde_json::json!({
            "key": self.key,
            "namespace": self.namespace,
            "document": self.document.to_string(),
            "version": version_value(self.version),
            "digest": self.digest,
            "model": self.model,
            "fingerprint": self.fingerprints.of(text),
            "chunk": chunk,
            "chunks": self.chunks,
            "text": text,
        })
    }
}

fn version_value(version: Version) -> Value {
    let mut value = serde_json::json!({ "high": version.high(), "low": version.low() });
    if version.replay > 0 {
        value["replay"] = version.replay.into();
    }
    value
}

/// The `_tidewheel` metadata of a stored point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// `database.collection`.
    pub namespace: Namespace,
    /// Canonical extended JSON of the document's `_id`.
    pub key: String,
    /// The document's identity, by which its points are deleted; `None` if it is unreadable.
    pub document: Option<DocumentId>,
    /// The document's version.
    pub version: Version,
    /// Number of the chunk, from 0.
    pub chunk: u32,
    /// Number of chunks of the document.
    pub chunks: u32,
    /// The [`digest`] of the document; empty if missing.
    pub digest: String,
    /// What its text and payload were made by; `None` if missing.
    pub made: Option<Made>,
}

impl Stamped {
    /// Parses a payload; `None` if tidewheel did not write it.
    pub fn read(payload: &Map<String, Value>) -> Option<Self> {
        let stamp = payload.get(RESERVED)?;
        let text = |name: &str| stamp.get(name).and_then(Value::as_str);
        let number = |name: &str| u32::try_from(stamp.get(name)?.as_u64()?).ok();
        Some(Self {
            namespace: Namespace::parse(text("namespace")?)?,
            key: text("key")?.to_owned(),
            document: text("document").and_then(|text| Uuid::parse_str(text).ok()).map(DocumentId::from_uuid),
            version: version_of(payload)?,
            chunk: number("chunk")?,
            chunks: number("chunks")?,
            digest: text("digest").unwrap_or_default().to_owned(),
            made: stamp.get(MADE).and_then(|made| Made::deserialize(made).ok()),
        })
    }
}

/// The version in a payload; `None` if it is missing or invalid.
pub fn version_of(payload: &Map<String, Value>) -> Option<Version> {
    let version = payload.get(RESERVED)?.get("version")?;
    let number = |name: &str| version.get(name)?.as_u64();
    let replay = u32::try_from(number("replay").unwrap_or(0)).ok()?;
    Version::from_halves(number("high")?, number("low")?, replay).ok()
}

/// The fingerprint in a payload; `None` if it is missing.
pub fn fingerprint_of(payload: &Map<String, Value>) -> Option<&str> {
    payload.get(RESERVED)?.get("fingerprint")?.as_str()
}

/// Returns the digest that detects changes of a document: the first 128 bits of SHA-256 of its relaxed extended JSON,
/// in hexadecimal.
pub fn digest(document: &str) -> String {
    hex(&Sha256::digest(document.as_bytes())[..16])
}

fn plain_fields(document: Map<String, Value>) -> Map<String, Value> {
    document.into_iter().map(|(name, value)| (name, plain(value))).collect()
}

/// Converts one value of extended JSON to plain JSON.
pub fn plain(value: Value) -> Value {
    match value {
        Value::Array(values) => Value::Array(values.into_iter().map(plain).collect()),
        Value::Object(fields) => match typed(&fields) {
            Some(value) => value,
            None => Value::Object(plain_fields(fields)),
        },
        other => other,
    }
}

/// Converts an object that represents a MongoDB type; `None` for an ordinary object, and for types without a plain form
/// (regular expression, timestamp, min and max key), which stay unchanged.
fn typed(fields: &Map<String, Value>) -> Option<Value> {
    let (name, value) = fields.iter().next()?;
    if fields.len() != 1 || !name.starts_with('$') {
        return None;
    }
    match (name.as_str(), value) {
        ("$oid" | "$uuid" | "$numberDecimal" | "$symbol", Value::String(_)) => Some(value.clone()),
        ("$date", Value::String(text)) => Some(Value::String(text.clone())),
        ("$date", Value::Object(millis)) => {
            let millis = millis.get("$numberLong")?.as_str()?.parse().ok()?;
            // A year outside the range of relaxed extended JSON.
            Some(Value::String(rfc3339(millis)))
        }
        ("$binary", Value::Object(binary)) => {
            let base64 = binary.get("base64")?.as_str()?;
            let uuid = (binary.get("subType")?.as_str()? == "04")
                .then(|| BASE64_STANDARD.decode(base64).ok())
                .flatten()
                .and_then(|bytes| Uuid::from_slice(&bytes).ok());
            Some(Value::String(uuid.map_or_else(|| base64.to_owned(), |uuid| uuid.to_string())))
        }
        ("$numberInt" | "$numberLong", Value::String(text)) => Some(Value::from(text.parse::<i64>().ok()?)),
        // JSON has no NaN and no infinities: they become null.
        ("$numberDouble", Value::String(text)) => Some(match text.as_str() {
            "NaN" | "Infinity" | "-Infinity" => Value::Null,
            number => Value::from(number.parse::<f64>().ok()?),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_type_becomes_filterable_plain_json() {
        let extended = json!({
            "_id": {"$oid": "65f000000000000000000001"},
            "at": {"$date": "2024-03-12T10:00:00.5Z"},
            "old": {"$date": {"$numberLong": "-62135596800000"}},
            "uuid": {"$binary": {"base64": "AAECAwQFBgcICQoLDA0ODw==", "subType": "04"}},
            "bytes": {"$binary": {"base64": "AAEC", "subType": "00"}},
            "price": {"$numberDecimal": "9.99"},
            "count": {"$numberLong": "9007199254740993"},
            "small": {"$numberInt": "-3"},
            "ratio": {"$numberDouble": "0.5"},
            "broken": {"$numberDouble": "NaN"},
            "endless": {"$numberDouble": "-Infinity"},
            "pattern": {"$regularExpression": {"pattern": "^a", "options": "i"}},
            "nested": {"list": [1, null, {"$oid": "65f000000000000000000002"}], "text": "ü"},
            "two": {"$oid": "x", "other": 1},
        });
        let plain = plain_document(&extended.to_string()).unwrap();
        assert_eq!(
            Value::Object(plain),
            json!({
                "_id": "65f000000000000000000001",
                "at": "2024-03-12T10:00:00.5Z",
                "old": "0001-01-01T00:00:00Z",
                "uuid": "00010203-0405-0607-0809-0a0b0c0d0e0f",
                "bytes": "AAEC",
                "price": "9.99",
                "count": 9_007_199_254_740_993_i64,
                "small": -3,
                "ratio": 0.5,
                "broken": null,
                "endless": null,
                "pattern": {"$regularExpression": {"pattern": "^a", "options": "i"}},
                "nested": {"list": [1, null, "65f000000000000000000002"], "text": "ü"},
                "two": {"$oid": "x", "other": 1},
            })
        );
    }

    #[test]
    fn invalid_document_is_rejected() {
        assert!(matches!(plain_document("{"), Err(PayloadError::NotJson(_))));
        assert!(matches!(plain_document("[1]"), Err(PayloadError::NotAnObject)));
    }
}
