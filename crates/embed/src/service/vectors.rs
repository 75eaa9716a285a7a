//! Serialization of vectors in responses.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};

/// Content type of binary responses: count × dimension little-endian `f32`, vector after vector.
pub(crate) const BINARY: &str = "application/octet-stream";
/// Header of a binary response: values per vector.
pub(crate) const X_DIMENSION: HeaderName = HeaderName::from_static("x-dimension");
/// Header of a binary response: number of vectors.
pub(crate) const X_COUNT: HeaderName = HeaderName::from_static("x-count");
/// Header of a binary response: the model and its revision, so that clients detect a replaced model.
pub(crate) const X_MODEL: HeaderName = HeaderName::from_static("x-model");

/// Returns the value of [`X_MODEL`]. Characters that are invalid in a header are replaced.
pub(crate) fn header_form(model: &str, revision: &str) -> String {
    let plain = |sign: char| if sign.is_ascii_graphic() || sign == ' ' { sign } else { '?' };
    format!("{model}@{revision}").chars().map(plain).collect()
}

/// Approximate maximum bytes of a value and its comma in JSON, to allocate the response once.
const JSON_BYTES_PER_VALUE: usize = 14;

/// Whether the client accepts a binary response.
pub(super) fn wants_binary(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains(BINARY))
}

/// Returns the values as little-endian bytes.
pub(super) fn little_endian(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * 4];
    for (bytes, value) in bytes.chunks_exact_mut(4).zip(values) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// Returns a binary response.
pub(super) fn binary(values: &[f32], dimension: usize, model: &HeaderValue) -> Response {
    let count = values.len() / dimension.max(1);
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(BINARY)),
        (X_DIMENSION, HeaderValue::from(dimension)),
        (X_COUNT, HeaderValue::from(count)),
        (X_MODEL, model.clone()),
    ];
    (headers, little_endian(values)).into_response()
}

/// Returns a JSON response. `values` is the expected number of values, for its allocation.
pub(super) fn json(body: &impl Serialize, values: usize) -> Response {
    let mut bytes = Vec::with_capacity(values * JSON_BYTES_PER_VALUE + 256);
    match serde_json::to_writer(&mut bytes, body) {
        Ok(()) => ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response(),
        Err(cause) => {
            super::error::ApiError::internal(format!("failed to serialize response: {cause}")).into_response()
        }
    }
}

/// Vectors as a JSON array of arrays. Every number is the shortest that parses back to the same `f32`.
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) dimension: usize,
}

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.values.chunks_exact(self.dimension.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_numbers_are_shortest_and_round_trip() {
        let values = [0.1, -2.0, f32::MIN_POSITIVE, 0.333_333_34];
        let text = serde_json::to_string(&Rows { values: &values, dimension: 2 }).unwrap();
        assert!(text.starts_with("[[0.1,-2.0],"), "{text}");
        let back: Vec<Vec<f32>> = serde_json::from_str(&text).unwrap();
        assert_eq!(back.concat(), values);
    }
}
