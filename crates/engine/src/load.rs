//! Loads a model, or what stands for one.

use std::path::PathBuf;
use std::sync::Arc;

use crate::hash::HashEngine;
use crate::model::{Description, LoadError};
use crate::select::{self, Kernel};
use crate::{Engine, Precision};

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A directory in the form of sentence-transformers.
    Directory(PathBuf),
    /// No model: vectors of this many dimensions from a hash of the text.
    Hash(usize),
}

/// Which model to load, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// The model.
    pub source: ModelSource,
    /// What people call it; the answer of `/info`. Empty: the directory's name.
    pub name: String,
    /// With which numbers to compute.
    pub precision: Precision,
    /// With which instructions to compute; `None` takes the fastest that this processor has.
    pub kernel: Option<Kernel>,
    /// Cores that one text may use ([`Engine::embed_one`]); 0 means all.
    pub threads: usize,
    /// Put in front of a search's text, instead of what the model's files say.
    pub query_prefix: Option<String>,
    /// Put in front of a document's text, instead of what the model's files say.
    pub passage_prefix: Option<String>,
}

impl ModelSpec {
    /// A model with default settings.
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

    /// The dimension if `model` is written `hash:DIM`, `None` if it is something else.
    ///
    /// # Errors
    /// It begins with `hash:`, but no dimension follows.
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
/// A file is missing or malformed, or the model is of a kind that is not known; the message says which, and what to do.
pub fn load(spec: &ModelSpec) -> Result<Arc<dyn Engine>, LoadError> {
    match &spec.source {
        ModelSource::Hash(dimension) => Ok(Arc::new(HashEngine::new(*dimension))),
        ModelSource::Directory(directory) => select::load(spec, &Description::read(directory)?, spec.kernel),
    }
}
