//! Why a part could not be provided.

use std::path::PathBuf;

use crate::Part;

/// A part is not available. The message says what failed and on what; [`hint`](Self::hint) says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// There is no directory to keep downloads in.
    #[error("no cache directory: none of TIDEWHEEL_CACHE, XDG_CACHE_HOME and HOME is set")]
    NoCacheDirectory,
    /// The path that the user gave is not what it should be.
    #[error("{part} at {}: {reason}", path.display())]
    Given {
        /// What it should be.
        part: Part,
        /// The path as given.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing to fetch exists for this machine.
    #[error("no {part} to fetch for {platform}")]
    Unsupported {
        /// What was wanted.
        part: Part,
        /// Operating system and architecture.
        platform: String,
    },
    /// A program that fetching needs is missing.
    #[error("cannot fetch {part}: {tool} is not installed")]
    NoTool {
        /// What was to be fetched.
        part: Part,
        /// The missing program.
        tool: &'static str,
    },
    /// A program that fetching needs failed.
    #[error("cannot fetch {part}: {step} failed: {output}")]
    Tool {
        /// What was to be fetched.
        part: Part,
        /// The step, as a person would name it.
        step: String,
        /// The end of what the program wrote.
        output: String,
    },
    /// A download is not the file that it should be.
    #[error("{file}, fetched for {part}, has the SHA-256 sum {found} instead of {expected}")]
    Checksum {
        /// What was fetched.
        part: Part,
        /// The file's name.
        file: String,
        /// The pinned sum.
        expected: String,
        /// The sum of what came.
        found: String,
    },
    /// A download lacks what it should hold, or cannot be unpacked.
    #[error("{file}, fetched for {part}, cannot be unpacked: {reason}")]
    Unpack {
        /// What was fetched.
        part: Part,
        /// The archive's name.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The fetched program does not run on this machine.
    #[error("{part} was fetched, but does not run here: {reason}")]
    DoesNotRun {
        /// What was fetched.
        part: Part,
        /// What the attempt said.
        reason: String,
    },
    /// The program is older than tidewheel needs.
    #[error("{} is {part} {found}, but {needed} or newer is needed", path.display())]
    TooOld {
        /// What it is.
        part: Part,
        /// Where it lies.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The oldest version that will do.
        needed: String,
    },
    /// The name is neither a directory nor of the form `owner/name`.
    #[error("`{name}` is neither a directory nor a model id such as sentence-transformers/all-MiniLM-L6-v2")]
    NotAModel {
        /// The name as given.
        name: String,
    },
    /// The model hub did not give the model.
    #[error("cannot fetch model {id} from {endpoint}: {reason}")]
    Hub {
        /// The model's id.
        id: String,
        /// The hub that was asked.
        endpoint: String,
        /// What came back, or why nothing did.
        reason: String,
    },
    /// A cached model lacks files that an older release did not fetch.
    #[error("the cached model lacks files")]
    Incomplete,
    /// The cache cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl ProvisionError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NoCacheDirectory => "set TIDEWHEEL_CACHE to a directory that you can write to".into(),
            Self::Given { part: Part::Model, .. } => {
                "give the directory of a sentence-transformers model, or a Hugging Face id".into()
            }
            Self::Given { part, .. } => format!("give the path of a {part} that runs on this machine"),
            Self::Unsupported { part, .. } | Self::NoTool { part, .. } | Self::DoesNotRun { part, .. } => {
                by_hand(*part).into()
            }
            Self::Tool { part, .. } => format!("check the network, or provide it yourself: {}", by_hand(*part)),
            Self::Checksum { .. } => "do not use it; ask whoever runs the package mirror that you use".into(),
            Self::Unpack { .. } => "check that the disk is not full, then try again".into(),
            Self::TooOld { part, needed, .. } => format!("install {part} {needed} or newer"),
            Self::NotAModel { .. } => {
                "check the spelling; a directory must exist, an id is owner/name or owner/name@revision".into()
            }
            Self::Hub { .. } => {
                "check the id and the network (HF_ENDPOINT chooses the hub, HF_TOKEN opens private models), or give a \
                 directory that holds the model"
                    .into()
            }
            Self::Incomplete => "delete the model's directory in the cache".into(),
            Self::Io { .. } => "check the permissions and the free space, or set TIDEWHEEL_CACHE".into(),
        }
    }

    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

const fn by_hand(part: Part) -> &'static str {
    match part {
        Part::Mongod => "install MongoDB 6.0 or newer so that `mongod` is on PATH, or point to a server of yours",
        Part::RedisServer => {
            "install Redis 7.0 or newer so that `redis-server` is on PATH, or point to a server of yours"
        }
        Part::Promtool | Part::Prometheus => "install Debian's package prometheus",
        Part::Model => "download the model yourself and give its directory",
        Part::Chromium => "install Debian's chromium so that it is on PATH",
        Part::Tmux => "install Debian's tmux so that it is on PATH",
    }
}
