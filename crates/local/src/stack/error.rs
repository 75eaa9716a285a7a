//! Why a server or the stack cannot be run.

use std::path::PathBuf;

use crate::{ServerKind, provision::ProvisionError};

/// A server, or the stack, does not run. The message says what failed and why; [`hint`](Self::hint) says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StackError {
    /// A part could not be provided.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// Somebody else listens on the server's port.
    #[error("{server} cannot listen on port {port} of 127.0.0.1: it is taken{}", by(holder.as_deref()))]
    PortTaken {
        /// The server that wanted it.
        server: ServerKind,
        /// The port.
        port: u16,
        /// Who holds it, where the system tells.
        holder: Option<String>,
    },
    /// Another stack runs on the same data directory.
    #[error("the data directory {} is in use by another stack{}", path.display(), by(holder.as_deref()))]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// Who holds it, where it is known.
        holder: Option<String>,
    },
    /// There is no Qdrant to start.
    #[error("missing a Qdrant server: neither tidewheel-local-qdrant beside this program nor qdrant on PATH")]
    NoQdrant,
    /// The local Qdrant could not be built.
    #[error("failed to build {package}: {reason}")]
    Build {
        /// Its package.
        package: &'static str,
        /// The manifest of that.
        manifest: PathBuf,
        /// Cargo's last words.
        reason: String,
    },
    /// The server's process could not be started.
    #[error("cannot start {server} ({}): {source}", program.display())]
    Spawn {
        /// Which server.
        server: ServerKind,
        /// Its executable.
        program: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The server ended while it was starting.
    #[error("{server} ended while starting ({status}): {tail}")]
    Exited {
        /// Which server.
        server: ServerKind,
        /// How it ended.
        status: String,
        /// The end of its log.
        tail: String,
        /// Its log file.
        log: PathBuf,
    },
    /// The server runs, but does not answer as it should.
    #[error("{server} is not ready after {seconds} s: {reason}")]
    NotReady {
        /// Which server.
        server: ServerKind,
        /// How long it was waited for.
        seconds: u64,
        /// What the last attempt said.
        reason: String,
        /// Its log file.
        log: PathBuf,
    },
    /// The server was stopped before it was ready.
    #[error("{server} was stopped while starting")]
    Interrupted {
        /// Which server.
        server: ServerKind,
    },
    /// The server was asked about, but does not run.
    #[error("{server} does not run")]
    NotRunning {
        /// Which server.
        server: ServerKind,
    },
    /// The data directory cannot be used.
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

impl StackError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Provision(error) => error.hint(),
            Self::PortTaken { server, .. } => {
                format!("stop the process that holds it, or give {server} another port (0 picks a free one)")
            }
            Self::Locked { .. } => "stop the other stack, or give another data directory".into(),
            Self::NoQdrant => {
                "install Qdrant so that `qdrant` is on PATH, or set `qdrant.url` to your own server".into()
            }
            Self::Build { package, manifest, .. } => {
                format!(
                    "run `cargo build --package {package} --manifest-path {}` to see all errors",
                    manifest.display()
                )
            }
            Self::Spawn { .. } => "check that the file exists and may be executed".into(),
            Self::Exited { log, .. } | Self::NotReady { log, .. } => format!("its log is {}", log.display()),
            Self::NotRunning { .. } | Self::Interrupted { .. } => "start it first".into(),
            Self::Io { .. } => "check the permissions and the free space of the data directory".into(),
        }
    }

    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

fn by(holder: Option<&str>) -> String {
    holder.map(|holder| format!(" by {holder}")).unwrap_or_default()
}
