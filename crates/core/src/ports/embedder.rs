//! The embedder.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::PortResult;
use crate::catalog::EmbeddingSpec;
use crate::embedded::Vectors;
use crate::tokens::Tokens;

/// The purpose of a text. Some models require a prefix that depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A text to index.
    Passage,
    /// A search query.
    Query,
}

/// The metadata of an embedder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedderInfo {
    /// The model's name.
    pub model: String,
    /// Identifies everything else that a document's vector depends on: weights, prefix, pooling. Two models of the same
    /// name and revision return the same vector for a text, except for rounding; without a revision they cannot be
    /// distinguished.
    pub revision: String,
    /// Dimension of a vector.
    pub dimension: usize,
    /// Maximum number of tokens of a text, without the special tokens; tokens beyond it are not embedded.
    pub max_tokens: usize,
    /// Its load when this was requested; `None` if it does not report it.
    pub load: Option<EmbedderLoad>,
}

/// The load of an embedder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbedderLoad {
    /// Tokens embedded since its start.
    pub tokens: u64,
    /// Queued tokens.
    pub queued_tokens: u64,
}

/// Converts texts into vectors.
#[async_trait]
pub trait Embedder: Send + Sync {
    /// The model's name and limits.
    async fn info(&self) -> PortResult<EmbedderInfo>;

    /// One line that describes how vectors are computed, and why. `None` if there was no choice or it is unknown.
    async fn details(&self) -> PortResult<Option<String>> {
        Ok(None)
    }

    /// The model's tokeniser, or the best available estimate.
    async fn tokens(&self) -> PortResult<Arc<dyn Tokens>>;

    /// One vector per text, in order. Fails with [`crate::error::ErrorClass::Poison`] if a text can never be embedded;
    /// a result always has as many vectors as texts, all finite.
    async fn embed(&self, texts: &[String], purpose: Purpose) -> PortResult<Vectors>;
}

/// The embedders of an installation.
pub trait Embedders: Send + Sync {
    /// The embedder of this specification; calls nothing. Equal specifications share one.
    ///
    /// # Errors
    /// Fatal if the settings here cannot reach such an embedder: its name is unknown, or its transport is incomplete.
    fn of(&self, spec: &EmbeddingSpec) -> PortResult<Arc<dyn Embedder>>;
}
