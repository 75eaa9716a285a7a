//! Why a model could not be loaded.

use std::path::{Path, PathBuf};

/// Why a model could not be loaded. None of these heals by itself: the settings or the directory must change.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file of the model cannot be read.
    #[error(
        "cannot read {path}: {cause}; the directory must hold a sentence-transformers model (config.json, tokenizer.json, model.safetensors)"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// A file is there, but its content is not what its name promises.
    #[error("{path} cannot be understood: {cause}; fetch the model again")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The model is sound, but of a kind that this engine does not compute.
    #[error(
        "{model} has {what}, which the built-in engine does not know: {known}. Serve this model with another embedder, and set embedding.provider and embedding.url to it"
    )]
    Unsupported {
        /// The model's directory.
        model: PathBuf,
        /// What it has, for example `model_type "mpnet"`.
        what: String,
        /// What the engine knows in its place.
        known: &'static str,
    },
    /// A kernel was asked for that this processor cannot run.
    #[error("this processor has no {0} instructions; leave the choice of the kernel to tidewheel")]
    NoKernel(&'static str),
    /// `hash:DIM` with something else than a number of dimensions.
    #[error("embedder.model {0:?} is not hash:DIM with a dimension between 1 and 65536; write for example hash:384")]
    BadHash(String),
}

impl LoadError {
    pub(crate) fn io(path: &Path, cause: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), cause }
    }

    pub(crate) fn malformed(path: &Path, cause: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), cause: cause.into() }
    }
}
