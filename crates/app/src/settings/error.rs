//! Settings errors. Each names the key, the given value, its origin and the expected form.

use std::fmt;
use std::path::PathBuf;

use super::keys;
use super::origin::Origin;

/// A settings error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// A given settings file cannot be read.
    #[error("failed to read settings from {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        cause: std::io::Error,
    },
    /// The file is not TOML.
    #[error("invalid TOML in {}:{line}: {cause}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The parser's message.
        cause: String,
    },
    /// Unknown key.
    #[error("unknown setting `{}` ({origin})", shown_name(name))]
    Unknown {
        /// The key as given.
        name: String,
        /// Its origin.
        origin: Origin,
    },
    /// The value is not of the key's kind.
    #[error("invalid {key} {given} ({origin}): expected {expected}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// The value as given, redacted if secret.
        given: String,
        /// Its origin.
        origin: Origin,
        /// The expected form.
        expected: String,
    },
    /// A `--set` without `=`. Its text may be a secret and is not repeated.
    #[error("invalid --set: expected key=value")]
    NotAnAssignment,
    /// Both a secret and its file are set.
    #[error("both {key} ({first}) and {file_key} ({second}) are set")]
    Both {
        /// The key of the value itself.
        key: &'static str,
        /// Its origin.
        first: Origin,
        /// The key of its file.
        file_key: &'static str,
        /// Its origin.
        second: Origin,
    },
    /// The file of a secret cannot be read.
    #[error("failed to read {} for {key} ({origin}): {cause}", path.display())]
    SecretFile {
        /// The key that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The key's origin.
        origin: Origin,
        /// The I/O error.
        cause: std::io::Error,
    },
    /// A required key is not set.
    #[error("{key} is not set, but required by {needed_by}")]
    Missing {
        /// The key.
        key: &'static str,
        /// What requires it.
        needed_by: &'static str,
    },
}

impl Problem {
    /// Returns the remedy.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Unreadable { .. } => {
                "check the path given by --config or TIDEWHEEL_CONFIG, and its permissions".into()
            }
            Self::NotToml { .. } => "compare with `tidewheel config example`".into(),
            Self::Unknown { name, .. } => match keys::nearest(name) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => "run `tidewheel config example` to list every setting".into(),
            },
            Self::Invalid { key, .. } => format!("see {key} in the output of `tidewheel config example`"),
            Self::NotAnAssignment => "for example: --set mongodb.database=shop".into(),
            Self::Both { key, file_key, .. } => format!("remove {key} or {file_key}"),
            Self::SecretFile { .. } => "check that the file exists and is readable by this user".into(),
            Self::Missing { key, .. } => {
                format!("set it in tidewheel.toml, with {}=…, or with --set {key}=…", keys::variable(key))
            }
        }
    }
}

/// Returns the key as given, redacted unless it is well-formed: it may be a misplaced secret.
fn shown_name(name: &str) -> &str {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    if name.chars().all(plain) { name } else { "***" }
}

/// All settings errors; at least one.
#[derive(Debug)]
pub(crate) struct SettingsError(pub(crate) Vec<Problem>);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingsError {}

impl From<Problem> for SettingsError {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}
