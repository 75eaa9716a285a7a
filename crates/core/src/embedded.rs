//! A change with its vectors, as stage 2 carries it.

use crate::change::Change;

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
}

impl Embedded {
    /// Approximate size in bytes.
    pub fn bytes(&self) -> usize {
        self.change.document.as_ref().map_or(0, String::len)
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
        }
    }
}
