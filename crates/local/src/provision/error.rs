//! Provisioning errors.

use std::path::PathBuf;

use crate::Part;

/// A part is not available. [`hint`](Self::hint) returns the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// No cache directory is configured.
    #[error("no cache directory: none of TIDEWHEEL_CACHE, XDG_CACHE_HOME and HOME is set")]
    NoCacheDirectory,
    /// The path that the user gave is invalid.
    #[error("invalid path {} for {part}: {reason}", path.display())]
    Given {
        /// The expected part.
        part: Part,
        /// The path as given.
        path: PathBuf,
        /// Why it is invalid.
        reason: String,
    },
    /// No download exists for this platform.
    #[error("unsupported platform {platform}: no {part} to fetch")]
    Unsupported {
        /// The part.
        part: Part,
        /// Operating system and architecture.
        platform: String,
    },
    /// A program required for fetching is missing.
    #[error("failed to fetch {part}: {tool} is not installed")]
    NoTool {
        /// The part.
        part: Part,
        /// The missing program.
        tool: &'static str,
    },
    /// A program required for fetching failed.
    #[error("failed to fetch {part}: {step} failed: {output}")]
    Tool {
        /// The part.
        part: Part,
        /// Display name of the step.
        step: String,
        /// The end of the program's output.
        output: String,
    },
    /// A download does not match its pinned checksum.
    #[error("checksum mismatch in {file} of {part}: expected SHA-256 {expected}, got {found}")]
    Checksum {
        /// The part.
        part: Part,
        /// The file's name.
        file: String,
        /// The pinned checksum.
        expected: String,
        /// The checksum of the download.
        found: String,
    },
    /// A download cannot be unpacked or lacks a file.
    #[error("failed to unpack {file} of {part}: {reason}")]
    Unpack {
        /// The part.
        part: Part,
        /// The archive's name.
        file: String,
        /// Why it cannot be unpacked.
        reason: String,
    },
    /// The fetched program does not run on this machine.
    #[error("fetched {part} does not run on this machine: {reason}")]
    DoesNotRun {
        /// The part.
        part: Part,
        /// The error of the attempt.
        reason: String,
    },
    /// The program is older than the oldest supported version.
    #[error("unsupported {part} {found} at {}: {needed} or newer is required", path.display())]
    TooOld {
        /// The part.
        part: Part,
        /// The executable.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The oldest supported version.
        needed: String,
    },
    /// The name is neither a directory nor of the form `owner/name`.
    #[error(
        "invalid model `{name}`: expected a directory or a model id such as sentence-transformers/all-MiniLM-L6-v2"
    )]
    NotAModel {
        /// The name as given.
        name: String,
    },
    /// The model hub did not return the model.
    #[error("failed to fetch model {id} from {endpoint}: {reason}")]
    Hub {
        /// The model's id.
        id: String,
        /// The hub's URL.
        endpoint: String,
        /// The hub's response, or the request error.
        reason: String,
    },
    /// A cached model lacks files that an older release did not fetch.
    #[error("the cached model lacks files")]
    Incomplete,
    /// The cache cannot be read or written.
    #[error("failed to {action} {}: {source}", path.display())]
    Io {
        /// The attempted action.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
}

impl ProvisionError {
    /// Returns the remedy, in the imperative.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NoCacheDirectory => "set TIDEWHEEL_CACHE to a writable directory".into(),
            Self::Given { part: Part::MODEL, .. } => {
                "set the directory of a sentence-transformers model, or a Hugging Face id".into()
            }
            Self::Given { part, .. } => format!("set the path of a {part} that runs on this machine"),
            Self::Unsupported { part, .. } | Self::NoTool { part, .. } | Self::DoesNotRun { part, .. } => {
                part.by_hand.into()
            }
            Self::Tool { part, .. } => format!("check the network, or provide {part} manually: {}", part.by_hand),
            Self::Checksum { .. } => "do not use the file; report it to the operator of your package mirror".into(),
            Self::Unpack { .. } => "check that the disk is not full, then retry".into(),
            Self::TooOld { part, needed, .. } => format!("install {part} {needed} or newer"),
            Self::NotAModel { .. } => {
                "check the spelling; a directory must exist, an id is owner/name or owner/name@revision".into()
            }
            Self::Hub { .. } => {
                "check the id and the network (HF_ENDPOINT selects the hub, HF_TOKEN grants access to private models), \
                or set a directory that contains the model"
                    .into()
            }
            Self::Incomplete => "delete the model's directory in the cache".into(),
            Self::Io { .. } => "check the permissions and the free space, or set TIDEWHEEL_CACHE".into(),
        }
    }

    /// Wraps the error of a file operation.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
