//! Why a model could not be loaded.

use std::path::{Path, PathBuf};

/// Why a model could not be loaded. Only a change of the settings or of the directory helps.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file of the model cannot be read.
    #[error("failed to read {path}: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        cause: std::io::Error,
    },
    /// A file exists, but its content is invalid.
    #[error("invalid {path}: {cause}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The model is sound, but of a kind that this engine does not compute.
    #[error("unsupported model {model}: {}", problems.join("; "))]
    Unsupported {
        /// The model's directory.
        model: PathBuf,
        /// Every setting that is unsupported, each with its file, its key and its value.
        problems: Vec<String>,
    },
    /// A kernel was asked for that this processor cannot run.
    #[error("this processor has no {0} instructions")]
    NoKernel(&'static str),
    /// `hash:DIM` with something else than a number of dimensions.
    #[error(
        "invalid embedder.model {0:?}: expected hash:DIM with a dimension between 1 and 65536, for example hash:384"
    )]
    BadHash(String),
}

impl LoadError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } => {
                "give a directory of a sentence-transformers model: config.json, tokenizer.json, model.safetensors"
            }
            Self::Malformed { .. } => "compare the file with the original, and replace it if it differs",
            Self::Unsupported { .. } => {
                "choose another model, or serve this one with another embedder and set embedding.provider and \
                 embedding.url"
            }
            Self::NoKernel(_) => "leave the choice of the kernel to tidewheel",
            Self::BadHash(_) => "write for example hash:384",
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
