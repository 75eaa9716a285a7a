//! Packs points into requests.

use serde_json::{Map, Value};
use tidewheel_core::ports::{DocumentPoints, Point};

/// Size limits of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Maximum points per request, at least 1.
    pub(super) points: usize,
    /// Approximate maximum bytes per request. A single point may exceed it: it cannot be split.
    pub(super) bytes: usize,
}

/// Points of one document at one version that go into one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Part<'a> {
    pub(super) document: &'a DocumentPoints,
    pub(super) points: &'a [Point],
}

/// Packs documents into as few requests as the limits allow, in order. A document stays in one request unless it
/// exceeds one on its own; then its chunks are written in order, so that chunk 0 is never the last.
pub(super) fn requests<'a>(documents: &[&'a DocumentPoints], limits: Limits) -> Vec<Vec<Part<'a>>> {
    let mut packer = Packer { limits, requests: Vec::new(), open: Vec::new(), points: 0, bytes: 0 };
    for document in documents {
        let first = fields_size(&document.fields);
        let other = document.excerpt.as_ref().map_or(first, fields_size);
        let shared = std::iter::once(first).chain(std::iter::repeat(other));
        let sizes: Vec<usize> =
            document.points.iter().zip(shared).map(|(point, shared)| shared + point_size(point)).collect();
        if !packer.fits(sizes.len(), sizes.iter().sum()) {
            packer.close();
        }
        let mut first = 0;
        for (at, size) in sizes.iter().enumerate() {
            if !packer.fits(1, *size) {
                packer.push(document, first..at);
                packer.close();
                first = at;
            }
            packer.points += 1;
            packer.bytes += size;
        }
        packer.push(document, first..sizes.len());
    }
    packer.close();
    packer.requests
}

struct Packer<'a> {
    limits: Limits,
    requests: Vec<Vec<Part<'a>>>,
    open: Vec<Part<'a>>,
    points: usize,
    bytes: usize,
}

impl<'a> Packer<'a> {
    fn fits(&self, points: usize, bytes: usize) -> bool {
        self.points == 0 || (self.points + points <= self.limits.points && self.bytes + bytes <= self.limits.bytes)
    }

    fn push(&mut self, document: &'a DocumentPoints, range: std::ops::Range<usize>) {
        if !range.is_empty() {
            self.open.push(Part { document, points: &document.points[range] });
        }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.requests.push(std::mem::take(&mut self.open));
        }
        (self.points, self.bytes) = (0, 0);
    }
}

/// Approximate bytes of a point in a request, without its document's fields: the overhead per field is estimated.
fn point_size(point: &Point) -> usize {
    const ID_AND_FRAMES: usize = 64;
    ID_AND_FRAMES + point.vector.len() * size_of::<f32>() + fields_size(&point.payload)
}

fn fields_size(fields: &Map<String, Value>) -> usize {
    fields.iter().map(|(name, value)| 8 + name.len() + value_size(value)).sum()
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 2,
        Value::Number(_) => 9,
        Value::String(text) => 4 + text.len(),
        Value::Array(values) => 4 + values.iter().map(|value| 4 + value_size(value)).sum::<usize>(),
        Value::Object(fields) => 4 + fields_size(fields),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidewheel_core::identity::{DocumentId, Namespace};
    use tidewheel_core::version::Version;

    use super::*;

    fn document(key: usize, texts: &[usize]) -> DocumentPoints {
        let document = DocumentId::new(&Namespace::new("shop", "tickets"), &key.to_string());
        let point = |(chunk, length): (usize, &usize)| {
            let mut payload = Map::new();
            payload.insert("text".to_owned(), Value::String("x".repeat(*length)));
            Point { id: document.point(chunk as u32), vector: vec![0.0; 2], payload }
        };
        let points = texts.iter().enumerate().map(point).collect();
        DocumentPoints { document, version: Version::default(), fields: Map::new(), excerpt: None, points }
    }

    proptest! {
        #[test]
        fn requests_contain_every_point_once_in_order_within_limits(
            texts in prop::collection::vec(prop::collection::vec(0usize..400, 1..8), 0..20),
            points in 1usize..12,
            bytes in 1usize..2_000,
        ) {
            let documents: Vec<_> = texts.iter().enumerate().map(|(key, texts)| document(key, texts)).collect();
            let limits = Limits { points, bytes };
            let requests = requests(&documents.iter().collect::<Vec<_>>(), limits);
            let sent: Vec<_> = requests.iter().flatten().flat_map(|part| part.points).map(|point| point.id).collect();
            let given: Vec<_> = documents.iter().flat_map(|document| &document.points).map(|point| point.id).collect();
            prop_assert_eq!(sent, given);
            for request in &requests {
                let points: Vec<_> = request.iter().flat_map(|part| part.points).collect();
                prop_assert!(!points.is_empty() && points.len() <= limits.points);
                let bytes: usize = points.iter().map(|point| point_size(point)).sum();
                prop_assert!(points.len() == 1 || bytes <= limits.bytes);
            }
            for document in &documents {
                let bytes: usize = document.points.iter().map(point_size).sum();
                if document.points.len() <= limits.points && bytes <= limits.bytes {
                    let holds = |request: &&Vec<Part<'_>>| request.iter().any(|part| part.points == document.points);
                    prop_assert_eq!(requests.iter().filter(holds).count(), 1);
                }
            }
        }
    }
}
