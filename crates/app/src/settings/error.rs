//! Settings errors. Each names the key, the given value, its origin and the expected form.

use std::fmt;
use std::path::PathBuf;

use super::names::{self, Family};
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
        /// The remedy.
        hint: String,
    },
    /// The value is not of the key's kind.
    #[error("invalid {key} {given} ({origin}): expected {expected}")]
    Invalid {
        /// The key.
        key: String,
        /// The value as given, redacted if secret.
        given: String,
        /// Its origin.
        origin: Origin,
        /// The expected form.
        expected: String,
    },
    /// The value has the form of the key's kind, but its content is invalid or unsupported.
    #[error("invalid {key} ({origin}): {cause}")]
    Rejected {
        /// The key.
        key: String,
        /// Its origin.
        origin: Origin,
        /// What is invalid, and what is expected.
        cause: String,
    },
    /// A value of an index or an embedding that the settings file does not declare.
    #[error("unknown {} `{}` ({origin})", family.name(), shown_name(name))]
    Undeclared {
        /// The table.
        family: Family,
        /// The name as given.
        name: String,
        /// The declared ones.
        declared: Vec<String>,
        /// The origin of the value.
        origin: Origin,
    },
    /// Two tables with one name.
    #[error("{} `{name}` is declared twice ({first} and {second})", family.name())]
    Declared {
        /// The table.
        family: Family,
        /// The name.
        name: String,
        /// The first one's origin.
        first: Origin,
        /// The second one's origin.
        second: Origin,
    },
    /// An `[[index]]` without a name.
    #[error("[[index]] has no name ({origin})")]
    Nameless {
        /// Its origin.
        origin: Origin,
    },
    /// An override of the name of an index.
    #[error("the name of index `{}` cannot be overridden ({origin})", shown_name(name))]
    NotOverridable {
        /// The index.
        name: String,
        /// The origin of the override.
        origin: Origin,
    },
    /// A variable that overrides a setting of several tables.
    #[error("${variable} overrides a setting of several indexes or embeddings")]
    Ambiguous {
        /// The variable.
        variable: String,
    },
    /// Both spellings of a key are set.
    #[error("{key} is set twice ({first} and {second})")]
    Twice {
        /// The key.
        key: String,
        /// The first origin.
        first: Origin,
        /// The second origin.
        second: Origin,
    },
    /// A key of the short form beside `[[index]]`.
    #[error("{key} ({origin}) has no effect with [[index]]")]
    Replaced {
        /// The key.
        key: &'static str,
        /// Its origin.
        origin: Origin,
        /// The key of `[[index]]`.
        by: &'static str,
    },
    /// A `--set` without `=`. Its text may be a secret and is not repeated.
    #[error("invalid --set: expected key=value")]
    NotAnAssignment,
    /// Both a secret and its file are set.
    #[error("both {key} ({first}) and {file_key} ({second}) are set")]
    Both {
        /// The key of the value itself.
        key: String,
        /// Its origin.
        first: Origin,
        /// The key of its file.
        file_key: String,
        /// Its origin.
        second: Origin,
    },
    /// The file of a secret cannot be read.
    #[error("failed to read {} for {key} ({origin}): {cause}", path.display())]
    SecretFile {
        /// The key that names the file.
        key: String,
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
        key: String,
        /// What requires it.
        needed_by: String,
    },
}

impl Problem {
    /// An unknown key.
    pub(super) fn unknown(name: &str, origin: &Origin) -> Self {
        let hint = match names::nearest(name) {
            _ if name.starts_with("index.") && names::split(name).is_none() => {
                "settings of an index are named index.NAME.key".into()
            }
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "run `tidewheel config example` to list every setting".into(),
        };
        Self::Unknown { name: name.to_owned(), origin: origin.clone(), hint }
    }

    /// The key of an invalid value.
    pub(super) fn invalid_key(&self) -> Option<&str> {
        match self {
            Self::Invalid { key, .. } | Self::Rejected { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Returns the remedy.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Unreadable { .. } => {
                "check the path given by --config or TIDEWHEEL_CONFIG, and its permissions".into()
            }
            Self::NotToml { .. } => "compare with `tidewheel config example`".into(),
            Self::Unknown { hint, .. } => hint.clone(),
            Self::Invalid { key, .. } | Self::Rejected { key, .. } => {
                format!("see {} in the output of `tidewheel config example`", names::documented(key))
            }
            Self::Undeclared { family, name, declared, .. } => undeclared(*family, name, declared),
            Self::Declared { family, .. } => format!("rename or remove one {}", family.name()),
            Self::Nameless { .. } => "add `name`, under which searches find the index".into(),
            Self::NotOverridable { .. } => "change `name` in tidewheel.toml".into(),
            Self::Ambiguous { .. } => "use --set, which takes the exact name".into(),
            Self::Twice { .. } => {
                "remove one: [embedding.default] is [embedding], and qdrant.NAME_config of an index is qdrant.NAME"
                    .into()
            }
            Self::Replaced { key, by, .. } => format!("remove {key}, and set `{by}` in [[index]]"),
            Self::NotAnAssignment => "for example: --set mongodb.database=shop".into(),
            Self::Both { key, file_key, .. } => format!("remove {key} or {file_key}"),
            Self::SecretFile { .. } => "check that the file exists and is readable by this user".into(),
            Self::Missing { key, .. } => {
                format!("set it in tidewheel.toml, with {}=…, or with --set {key}=…", names::variable(key))
            }
        }
    }
}

fn undeclared(family: Family, name: &str, declared: &[String]) -> String {
    if let Some(nearest) = names::nearest_of(name, declared.iter().map(String::as_str)) {
        return format!("did you mean {} `{nearest}`?", family.name());
    }
    let table = match family {
        Family::Index => "[[index]]",
        Family::Embedding => "[embedding.NAME]",
    };
    format!("declare it as {table} in tidewheel.toml, which alone can declare one")
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
