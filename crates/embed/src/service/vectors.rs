//! How vectors are written into an answer.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};

/// The form of an answer without JSON: count × dimension little-endian `f32`, vector after vector.
pub(crate) const BINARY: &str = "application/octet-stream";
/// Header of a binary answer: values in a vector.
pub(crate) const X_DIMENSION: HeaderName = HeaderName::from_static("x-dimension");
/// Header of a binary answer: how many vectors there are.
pub(crate) const X_COUNT: HeaderName = HeaderName::from_static("x-count");
/// Header of a binary answer: the model and its revision, so that a caller sees at once when it was replaced.
pub(crate) const X_MODEL: HeaderName = HeaderName::from_static("x-model");

/// A model and its revision as [`X_MODEL`] has them: signs that no header may have are replaced.
pub(crate) fn header_form(model: &str, revision: &str) -> String {
    let plain = |sign: char| if sign.is_ascii_graphic() || sign == ' ' { sign } else { '?' };
    format!("{model}@{revision}").chars().map(plain).collect()
}

/// About the longest that a value and its comma get in JSON, in bytes: the room for an answer is reserved at once.
const JSON_BYTES_PER_VALUE: usize = 14;

/// Whether the caller wants the binary form.
pub(super) fn wants_binary(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains(BINARY))
}

/// The values as bytes.
pub(super) fn little_endian(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * 4];
    for (bytes, value) in bytes.chunks_exact_mut(4).zip(values) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// The answer in the binary form.
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

/// The answer in JSON. `values` numbers are expected in it.
pub(super) fn json(body: &impl Serialize, values: usize) -> Response {
    let mut bytes = Vec::with_capacity(values * JSON_BYTES_PER_VALUE + 256);
    match serde_json::to_writer(&mut bytes, body) {
        Ok(()) => ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response(),
        Err(cause) => super::error::Refusal::internal(format!("cannot write the answer: {cause}")).into_response(),
    }
}

/// Vectors as a JSON array of arrays. Every number is the shortest that reads back as the same `f32`.
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
    fn numbers_are_short_and_read_back_as_they_were() {
        let values = [0.1, -2.0, f32::MIN_POSITIVE, 0.333_333_34];
        let text = serde_json::to_string(&Rows { values: &values, dimension: 2 }).unwrap();
        assert!(text.starts_with("[[0.1,-2.0],"), "{text}");
        let back: Vec<Vec<f32>> = serde_json::from_str(&text).unwrap();
        assert_eq!(back.concat(), values);
    }
}
