//! A change with its vectors, as stage 2 carries it.

use std::borrow::Cow;

use crate::catalog::{Fp, TargetId};
use crate::change::Change;
use crate::error::{Cause, PortError, Server};

/// Vectors of one dimension, one after another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vectors {
    dimension: usize,
    values: Vec<f32>,
}

impl Vectors {
    /// Splits `values` into vectors of `dimension` numbers each; `None` if the length does not match.
    pub fn new(dimension: usize, values: Vec<f32>) -> Option<Self> {
        let whole = if dimension == 0 { values.is_empty() } else { values.len().is_multiple_of(dimension) };
        whole.then_some(Self { dimension, values })
    }

    /// Dimension of each vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.dimension).unwrap_or(0)
    }

    /// Whether there are no vectors.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The vectors in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.dimension.max(1))
    }

    /// All numbers, vector after vector.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All numbers, vector after vector.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }
}

/// Rejects vectors that would corrupt an index: not finite, or zero, which has no direction. `values` are vectors of
/// `dimension` numbers each, one after another; `first` is the index of the first one in the caller's list.
///
/// # Errors
/// Poison, with the index of the text whose vector is invalid.
pub fn check_vectors(values: &[f32], dimension: usize, first: usize) -> Result<(), PortError> {
    for (place, vector) in values.chunks_exact(dimension.max(1)).enumerate() {
        let (what, cause) = if vector.iter().any(|value| !value.is_finite()) {
            ("is not finite", Cause::NotFinite)
        } else if vector.iter().all(|value| *value == 0.0) {
            ("is zero", Cause::Zero)
        } else {
            continue;
        };
        let index = first + place;
        let message = format!("the embedder's vector for the text at index {index} {what}");
        return Err(PortError::poison(message).because(Server::EMBEDDER, cause));
    }
    Ok(())
}

/// Returns the input of the embedder for a chunk: the prefix of its document, if it has one, on a line of its own, and
/// the text.
pub fn input<'a>(prefix: &str, chunk: &'a str) -> Cow<'a, str> {
    if prefix.is_empty() { Cow::Borrowed(chunk) } else { Cow::Owned([prefix, chunk].join("\n")) }
}

/// The target of a record of stage 2, and what the record was made by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The revision of the catalog that the processor worked from; at least that of the change.
    pub catalog: u64,
    /// The target.
    pub id: TargetId,
    /// Fingerprint of the declaration's text and chunks: see [`Made`](crate::catalog::Made).
    pub made: Fp,
}

/// A change ready for the index, with its chunks and one vector per chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// The unmodified change.
    pub change: Change,
    /// The model that computed the vectors. Empty without vectors.
    pub model: String,
    /// Its revision: see [`EmbedderInfo`](crate::ports::EmbedderInfo).
    pub revision: String,
    /// The texts of the chunks, in order. A document always has at least one, which may be empty; a delete has none.
    pub chunks: Vec<String>,
    /// One vector per chunk; zeros for a chunk without text.
    pub vectors: Vectors,
    /// Whether the index already held all these vectors at these points when the change was processed: then only the
    /// payload has to be written, unless another write came in between. The record is complete either way.
    pub unchanged: bool,
    /// Its target; `None` for the one target of an installation without an applied catalog.
    pub target: Option<Target>,
    /// The text in front of every chunk in the input of the embedder. The chunks do not contain it.
    pub prefix: String,
}

impl Embedded {
    /// Approximate size in bytes.
    pub fn bytes(&self) -> usize {
        self.change.document.as_ref().map_or(0, String::len)
            + self.prefix.len()
            + self.chunks.iter().map(String::len).sum::<usize>()
            + size_of_val(self.vectors.values())
    }

    /// A change that needs no vector: a delete, or a change of a whole collection.
    pub fn without_vectors(change: Change) -> Self {
        Self {
            change,
            model: String::new(),
            revision: String::new(),
            chunks: Vec::new(),
            vectors: Vectors::default(),
            unchanged: false,
            target: None,
            prefix: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorClass;

    #[test]
    fn invalid_vector_error_names_text_index() {
        assert_eq!(check_vectors(&[1.0, 0.0, 0.0, -1.0], 2, 0), Ok(()));
        let bad =
            [([f32::NAN, 1.0], Cause::NotFinite), ([1.0, f32::INFINITY], Cause::NotFinite), ([0.0, -0.0], Cause::Zero)];
        for (bad, cause) in bad {
            let error = check_vectors(&[1.0, 0.0, bad[0], bad[1]], 2, 10).unwrap_err();
            assert_eq!((error.class, error.cause), (ErrorClass::Poison, cause));
            assert!(error.message.contains("index 11"), "{}", error.message);
        }
    }
}
