//! What can be wrong with settings. Every problem says which key, what was given, where, and what is right.

use std::fmt;
use std::path::PathBuf;

use super::keys;
use super::origin::Origin;

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// A file of settings was named, but cannot be read.
    #[error("cannot read the settings in {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        cause: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line} is not valid TOML: {cause}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The parser's answer.
        cause: String,
    },
    /// There is no such key.
    #[error("unknown setting `{}` ({origin})", shown_name(name))]
    Unknown {
        /// The key as given.
        name: String,
        /// Where.
        origin: Origin,
    },
    /// The value is not of the key's kind.
    #[error("invalid {key} {given} ({origin}): expected {expected}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// The value as given, hidden if it is secret.
        given: String,
        /// Where.
        origin: Origin,
        /// What is right.
        expected: String,
    },
    /// A `--set` without `=`. Its text is not repeated: it may be a secret.
    #[error("invalid --set: expected key=value")]
    NotAnAssignment,
    /// Both a secret and the file that it should come from are set.
    #[error("both {key} ({first}) and {file_key} ({second}) are set")]
    Both {
        /// The key of the value itself.
        key: &'static str,
        /// Where.
        first: Origin,
        /// The key of its file.
        file_key: &'static str,
        /// Where.
        second: Origin,
    },
    /// The file of a secret cannot be read.
    #[error("cannot read {} for {key} ({origin}): {cause}", path.display())]
    SecretFile {
        /// The key that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Where the key was set.
        origin: Origin,
        /// The system's answer.
        cause: std::io::Error,
    },
    /// A key that a command needs is not set.
    #[error("{key} is not set, and {needed_by} needs it")]
    Missing {
        /// The key.
        key: &'static str,
        /// Who needs it.
        needed_by: &'static str,
    },
}

impl Problem {
    /// What to do about it.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Unreadable { .. } => {
                "check the path given by --config or TIDEWHEEL_CONFIG, and its permissions".into()
            }
            Self::NotToml { .. } => "compare with the example: tidewheel config example".into(),
            Self::Unknown { name, .. } => match keys::nearest(name) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => "tidewheel config example lists every setting".into(),
            },
            Self::Invalid { key, .. } => format!("`tidewheel config example` shows how {key} is written"),
            Self::NotAnAssignment => "for example: --set mongodb.database=shop".into(),
            Self::Both { key, file_key, .. } => format!("remove {key} or {file_key}"),
            Self::SecretFile { .. } => "check that the file exists and that this user may read it".into(),
            Self::Missing { key, .. } => {
                format!("set it in tidewheel.toml, with {}=…, or with --set {key}=…", keys::variable(key))
            }
        }
    }
}

/// The name of a key as given. What cannot be one may be a secret in a place where a key should be.
fn shown_name(name: &str) -> &str {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    if name.chars().all(plain) { name } else { "***" }
}

/// Everything that is wrong with the settings; at least one thing.
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
