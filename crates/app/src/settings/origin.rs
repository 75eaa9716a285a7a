//! The origin of a value.

use std::fmt;
use std::path::PathBuf;

/// The origin of a value. Later variants override earlier ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The default.
    Default,
    /// A line of the settings file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A command-line flag.
    Flag(String),
    /// The local stack, which sets the addresses of its servers.
    LocalStack,
}

impl Origin {
    /// Whether this is a standard variable of OpenTelemetry.
    pub(crate) fn is_otel(&self) -> bool {
        matches!(self, Self::Environment(name) if name.starts_with("OTEL_"))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "${name}"),
            Self::Flag(name) => f.write_str(name),
            Self::LocalStack => f.write_str("local stack"),
        }
    }
}
