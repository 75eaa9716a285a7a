//! A change with its vectors, as stage 2 carries it.

use crate::change::Change;

/// Vectors of one dimension, one after another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vectors {
    dimension: usize,
    values: Vec<f32>,
}

impl Vectors {
    /// `values` holds whole vectors of `dimension` numbers each; `None` if it does not.
    pub fn new(dimension: usize, values: Vec<f32>) -> Option<Self> {
        let whole = if dimension == 0 { values.is_empty() } else { values.len().is_multiple_of(dimension) };
        whole.then_some(Self { dimension, values })
    }

    /// Numbers in each vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// How many vectors there are.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.dimension).unwrap_or(0)
    }

    /// Whether there is none.
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

/// A change that is ready for the index: its chunks and one vector for each.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// The change itself, passed on as it came.
    pub change: Change,
    /// The model that made the vectors. Empty when there are none.
    pub model: String,
    /// Its revision: see [`EmbedderInfo`](crate::ports::EmbedderInfo).
    pub revision: String,
    /// The texts of the chunks, in order. A document always has at least one, which may be empty; a delete has none.
    pub chunks: Vec<String>,
    /// One vector for each chunk; zeros for a chunk without any text, which has none.
    pub vectors: Vectors,
    /// Whether the index had all these vectors in these places when the change was processed: then its payload is all that
    /// has to be written, unless something has come in between. The record is whole nevertheless.
    pub unchanged: bool,
}

impl Embedded {
    /// About how many bytes it takes.
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
