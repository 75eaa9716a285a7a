//! Errors of servers and of the stack.

use std::path::PathBuf;

use crate::{ServerKind, provision::ProvisionError};

/// A server, or the stack, does not run. [`hint`](Self::hint) returns the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StackError {
    /// A part could not be provided.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// Another process listens on the server's port.
    #[error("{server} cannot listen on 127.0.0.1:{port}: port in use{}", by(holder.as_deref()))]
    PortTaken {
        /// The server.
        server: ServerKind,
        /// The port.
        port: u16,
        /// The process that holds it, if known.
        holder: Option<String>,
    },
    /// Another stack uses the same data directory.
    #[error("data directory {} is locked by another stack{}", path.display(), with(holder.as_deref()))]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// The process that holds it, if known.
        holder: Option<String>,
    },
    /// No Qdrant to start.
    #[error("missing Qdrant: found neither tidewheel-local-qdrant next to this executable nor qdrant on PATH")]
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
    #[error("failed to start {server} ({}): {source}", program.display())]
    Spawn {
        /// The server.
        server: ServerKind,
        /// Its executable.
        program: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// The server exited during startup.
    #[error("{server} exited during startup ({status}): {tail}")]
    Exited {
        /// The server.
        server: ServerKind,
        /// Exit status.
        status: String,
        /// The end of its log.
        tail: String,
        /// Its log file.
        log: PathBuf,
    },
    /// The server runs, but is not ready.
    #[error("{server} is not ready after {seconds} s: {reason}")]
    NotReady {
        /// The server.
        server: ServerKind,
        /// Time waited.
        seconds: u64,
        /// The error of the last attempt.
        reason: String,
        /// Its log file.
        log: PathBuf,
    },
    /// The server was stopped before it was ready.
    #[error("{server} was stopped during startup")]
    Interrupted {
        /// The server.
        server: ServerKind,
    },
    /// The server does not run.
    #[error("{server} is not running")]
    NotRunning {
        /// The server.
        server: ServerKind,
    },
    /// The data directory cannot be used.
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

impl StackError {
    /// Returns the remedy, in the imperative.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Provision(error) => error.hint(),
            Self::PortTaken { server, .. } => {
                format!("stop the process that holds the port, or set another port for {server} (0 picks a free one)")
            }
            Self::Locked { .. } => "stop the other stack, or set another data directory".into(),
            Self::NoQdrant => "install Qdrant with `qdrant` on PATH, or set qdrant.url to an existing server".into(),
            Self::Build { package, manifest, .. } => {
                format!("run `cargo build --package {package} --manifest-path {}` for all errors", manifest.display())
            }
            Self::Spawn { .. } => "check that the file exists and is executable".into(),
            Self::Exited { log, .. } | Self::NotReady { log, .. } => format!("see its log {}", log.display()),
            Self::NotRunning { .. } | Self::Interrupted { .. } => "start the server first".into(),
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

fn with(holder: Option<&str>) -> String {
    holder.map(|holder| format!(" ({holder})")).unwrap_or_default()
}
