//! The embedder.

use std::sync::Arc;

use async_trait::async_trait;

use super::PortResult;
use crate::embedded::Vectors;
use crate::tokens::Tokens;

/// What a text is for. Some models want a prefix that depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// It goes into the index.
    Passage,
    /// It is searched for.
    Query,
}

/// What an embedder says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedderInfo {
    /// The model's name.
    pub model: String,
    /// Stands for everything else that a document's vector depends on: weights, prefix, pooling. Two models of one name and
    /// revision give a text the same vector, but for rounding; where it is not known, nothing tells them apart.
    pub revision: String,
    /// Numbers in a vector.
    pub dimension: usize,
    /// Most tokens of a text that count, without the special tokens; what is beyond them is not embedded.
    pub max_tokens: usize,
}

/// Turns texts into vectors.
#[async_trait]
pub trait Embedder: Send + Sync {
    /// The model's name and limits.
    async fn info(&self) -> PortResult<EmbedderInfo>;

    /// How vectors are computed and why so, in a line for people. `None`: there was no choice, or it is unknown.
    async fn details(&self) -> PortResult<Option<String>> {
        Ok(None)
    }

    /// The model's tokeniser, or the best estimate of it.
    async fn tokens(&self) -> PortResult<Arc<dyn Tokens>>;

    /// One vector for each text, in order. Fails with [`crate::error::ErrorClass::Poison`] if a text can never be embedded; the
    /// answer always has as many vectors as there are texts, all finite.
    async fn embed(&self, texts: &[String], purpose: Purpose) -> PortResult<Vectors>;
}
