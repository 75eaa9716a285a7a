//! What a point states about itself, and its vector.

use bson::Bson;
use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::{RetrievedPoint, vector_output, vectors_output};
use serde_json::Value;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::row::Place;

/// Tolerance per element of a normalised vector: Qdrant normalises in its own way.
const TOLERANCE: f32 = 1e-4;

/// A document: its namespace and its `_id` in canonical extended JSON.
pub(super) type Owner = (String, String);

/// A point's id and its place among the points of its document.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) id: String,
    pub(super) chunk: u64,
    chunks: u64,
    version: (u64, u64),
}

impl Identity {
    pub(super) fn place(&self) -> Place<(u64, u64)> {
        Place { chunk: self.chunk, chunks: self.chunks, version: self.version }
    }
}

/// The identity in a point's payload; `None` if it is missing or contradicts the point's id.
pub(super) fn identify(point: &RetrievedPoint) -> Option<(Owner, Identity)> {
    let id = uuid_of(point)?;
    let reserved = point.payload.get("_tidewheel")?.clone().into_json();
    let (key, namespace) = (reserved.get("key")?.as_str()?, reserved.get("namespace")?.as_str()?);
    let number = |value: &Value, name: &str| value.get(name)?.as_u64();
    let version = reserved.get("version")?;
    let chunk = number(&reserved, "chunk")?;
    let expected = DocumentId::new(&Namespace::parse(namespace)?, key).point(u32::try_from(chunk).ok()?);
    if expected.to_string() != id {
        return None;
    }
    // Parsed and serialised by MongoDB's own library, so that only the value counts, not the notation. The form is
    // kept: a key in an older form does not belong to any document. Escaped bytes of an invalid string are not JSON.
    let value = match key.contains("\\udc") {
        true => key.to_owned(),
        false => canonical(Bson::try_from(serde_json::from_str::<Value>(key).ok()?).ok()?),
    };
    let owner = (namespace.to_owned(), value);
    let identity = Identity {
        id,
        chunk,
        chunks: number(&reserved, "chunks")?,
        version: (number(version, "high")?, number(version, "low")?),
    };
    Some((owner, identity))
}

/// An `_id` in canonical extended JSON.
pub(super) fn canonical(id: Bson) -> String {
    id.into_canonical_extjson().to_string()
}

pub(super) fn uuid_of(point: &RetrievedPoint) -> Option<String> {
    match point.id.as_ref()?.point_id_options.as_ref()? {
        PointIdOptions::Uuid(id) => Some(id.clone()),
        PointIdOptions::Num(_) => None,
    }
}

/// The unnamed vector of a point; `None` if it has none.
pub(super) fn vector_of(point: &RetrievedPoint) -> Option<Vec<f32>> {
    let vector = match point.vectors.clone()?.vectors_options? {
        vectors_output::VectorsOptions::Vector(vector) => match vector.into_vector() {
            vector_output::Vector::Dense(dense) => dense.data,
            _ => return None,
        },
        vectors_output::VectorsOptions::Vectors(_) => return None,
    };
    (!vector.is_empty()).then_some(vector)
}

/// Fails unless both vectors have the same direction.
pub(super) fn compare_vectors(expected: Vec<f32>, found: Vec<f32>) -> Result<(), String> {
    if expected.len() != found.len() {
        return Err(format!("expected {} elements, found {}", expected.len(), found.len()));
    }
    let (expected, found) = (normalised(expected), normalised(found));
    let furthest = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    if furthest <= TOLERANCE { Ok(()) } else { Err(format!("an element differs by {furthest}")) }
}

fn normalised(mut vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|value| *value /= norm);
    }
    vector
}
