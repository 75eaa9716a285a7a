//! Errors of model loading.

use std::path::{Path, PathBuf};

/// An error of model loading. Not transient: the settings or the directory must change.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file of the model cannot be read.
    #[error("failed to read {path}: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        cause: std::io::Error,
    },
    /// A file exists, but its content is invalid.
    #[error("invalid {path}: {cause}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: String,
    },
    /// The model is valid, but unsupported by this engine.
    #[error("unsupported model {model}: {}", problems.join("; "))]
    Unsupported {
        /// The model's directory.
        model: PathBuf,
        /// Every unsupported setting, with its file, key and value.
        problems: Vec<String>,
    },
    /// The CPU does not support the requested kernel.
    #[error("this CPU does not support {0} instructions")]
    NoKernel(&'static str),
    /// `hash:DIM` with an invalid dimension.
    #[error(
        "invalid embedder.model {0:?}: expected hash:DIM with a dimension between 1 and 65536, for example hash:384"
    )]
    BadHash(String),
}

impl LoadError {
    /// Returns a hint for the user.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } => {
                "use a sentence-transformers directory with config.json, tokenizer.json and model.safetensors"
            }
            Self::Malformed { .. } => "compare the file with the original and replace it if it differs",
            Self::Unsupported { .. } => {
                "choose another model, or serve this one with another embedder and set embedding.provider and \
                 embedding.url"
            }
            Self::NoKernel(_) => "leave the kernel unset to select it automatically",
            Self::BadHash(_) => "set embedder.model to a value like hash:384",
        }
    }

    pub(crate) fn io(path: &Path, cause: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), cause }
    }

    pub(crate) fn malformed(path: &Path, cause: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), cause: cause.into() }
    }

    pub(crate) fn unsupported(model: &Path, problem: impl Into<String>) -> Self {
        Self::Unsupported { model: model.to_owned(), problems: vec![problem.into()] }
    }
}
