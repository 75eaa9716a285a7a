//! Loads a model or the hash engine.

use std::sync::Arc;

use crate::Engine;
use crate::hash::HashEngine;
use crate::model::{Description, LoadError};
use crate::select;
use crate::spec::{ModelSource, ModelSpec};

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
