//! Loads a model or the hash engine.

use std::path::PathBuf;
use std::sync::Arc;

use crate::hash::HashEngine;
use crate::model::{Description, LoadError};
use crate::select::{self, Kernel};
use crate::{Engine, Precision};

/// The source of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A sentence-transformers directory.
    Directory(PathBuf),
    /// No model: hash-based vectors of this dimension.
    Hash(usize),
}

/// Options for loading a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// The model.
    pub source: ModelSource,
    /// Name shown in `/info`. Empty: the directory's name.
    pub name: String,
    /// Number format of the computation.
    pub precision: Precision,
    /// Instruction set; `None` selects the fastest that this CPU supports.
    pub kernel: Option<Kernel>,
    /// Cores that one text may use ([`Engine::embed_one`]); 0 means all.
    pub threads: usize,
    /// Prefix of search queries; overrides the model's files.
    pub query_prefix: Option<String>,
    /// Prefix of document texts; overrides the model's files.
    pub passage_prefix: Option<String>,
}

impl ModelSpec {
    /// Creates options with default settings.
    #[must_use]
    pub fn new(source: ModelSource) -> Self {
        Self {
            source,
            name: String::new(),
            precision: Precision::Auto,
            kernel: None,
            threads: 0,
            query_prefix: None,
            passage_prefix: None,
        }
    }

    /// Parses `hash:DIM`. Returns `None` for any other model name.
    ///
    /// # Errors
    /// The dimension after `hash:` is invalid.
    pub fn hash_dimension(model: &str) -> Result<Option<usize>, LoadError> {
        let Some(dimension) = model.strip_prefix("hash:") else { return Ok(None) };
        match dimension.parse() {
            // Qdrant's own limit.
            Ok(dimension @ 1..=65_536) => Ok(Some(dimension)),
            _ => Err(LoadError::BadHash(model.to_owned())),
        }
    }
}

/// Loads a model.
///
/// # Errors
/// A file is missing or malformed, or the model is unsupported; the message names the cause.
pub fn load(spec: &ModelSpec) -> Result<Arc<dyn Engine>, LoadError> {
    match &spec.source {
        ModelSource::Hash(dimension) => Ok(Arc::new(HashEngine::new(*dimension))),
        ModelSource::Directory(directory) => select::load(spec, &Description::read(directory)?, spec.kernel),
    }
}
