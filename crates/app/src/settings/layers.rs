//! Given settings, each with its origin. Later layers win.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::address;
use super::error::Problem;
use super::keys::{self, KEYS, Key};
use super::origin::Origin;
use super::otel;
use super::value::{Kind, Value, quoted};

/// Input besides the settings file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// `--config`.
    pub(crate) config: Option<PathBuf>,
    /// The environment.
    pub(crate) environment: Vec<(String, String)>,
    /// `--set`, as written.
    pub(crate) assignments: Vec<String>,
    /// Named flags: the flag, the key, and the value.
    pub(crate) flags: Vec<(String, String, String)>,
}

/// A value with its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sourced {
    /// The value.
    pub(crate) value: Value,
    /// Its origin.
    pub(crate) origin: Origin,
}

/// All set values, by key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers {
    values: BTreeMap<&'static str, Sourced>,
    /// The settings file, if one was read.
    pub(crate) file: Option<PathBuf>,
}

impl Layers {
    /// Applies defaults, OpenTelemetry's variables, the file, the environment and the flags. Returns all problems, not only the first.
    pub(crate) fn gather(given: &Given) -> (Self, Vec<Problem>) {
        let mut layers = Self::default();
        let mut problems = Vec::new();
        for key in KEYS {
            if let Some(default) = key.default {
                problems.extend(layers.set_text(key.name, default, Origin::Default).err());
            }
        }
        for otel::Given { key, text, variable } in otel::read(&given.environment).0 {
            problems.extend(layers.set_text(key, &text, Origin::Environment(variable)).err());
        }
        match find_file(given) {
            Ok(Some((path, text))) => {
                layers.read_file(&path, &text, &mut problems);
                layers.file = Some(path);
            }
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
        for (variable, text) in &given.environment {
            if let Some(name) = variable.strip_prefix(keys::PREFIX) {
                let name = name.to_ascii_lowercase().replace("__", ".");
                problems.extend(layers.set_text(&name, text, Origin::Environment(variable.clone())).err());
            }
        }
        for assignment in &given.assignments {
            match assignment.split_once('=') {
                Some((name, text)) => {
                    problems.extend(layers.set_text(name.trim(), text, Origin::Flag("--set".into())).err());
                }
                None => problems.push(Problem::NotAnAssignment),
            }
        }
        for (flag, name, text) in &given.flags {
            problems.extend(layers.set_text(name, text, Origin::Flag(flag.clone())).err());
        }
        // The settings name a file with the headers instead.
        if layers.values.contains_key("traces.headers_file") {
            layers.values.retain(|key, sourced| *key != "traces.headers" || !sourced.origin.is_otel());
        }
        (layers, problems)
    }

    /// Returns the value of a key, if set.
    pub(crate) fn get(&self, name: &str) -> Option<&Sourced> {
        self.values.get(name)
    }

    /// Sets a key from plain text. An empty text unsets a key without a default.
    pub(crate) fn set_text(&mut self, name: &str, text: &str, origin: Origin) -> Result<(), Problem> {
        let key = known(name, &origin)?;
        if text.trim().is_empty() && key.default.is_none() {
            self.values.remove(key.name);
            return Ok(());
        }
        let value = key.kind.read_text(text).ok_or_else(|| {
            let (given, expected) = (shown(key.kind, text), key.kind.expected());
            Problem::Invalid { key: key.name, given, origin: origin.clone(), expected }
        })?;
        self.values.insert(key.name, Sourced { value, origin });
        Ok(())
    }

    fn read_file(&mut self, path: &Path, text: &str, problems: &mut Vec<Problem>) {
        match DeTable::parse(text) {
            Ok(table) => self.read_table(path, text, "", table.get_ref(), problems),
            Err(cause) => {
                // The error's display text quotes the line, which may contain a secret.
                let line = line_of(text, cause.span().map_or(0, |span| span.start));
                problems.push(Problem::NotToml { path: path.to_owned(), line, cause: cause.message().to_owned() });
            }
        }
    }

    fn read_table(&mut self, path: &Path, text: &str, prefix: &str, table: &DeTable<'_>, problems: &mut Vec<Problem>) {
        // The parser's table does not preserve the order of the file.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            let full = format!("{prefix}{}", name.get_ref());
            let origin = Origin::File { path: path.to_owned(), line: line_of(text, name.span().start) };
            match value.get_ref() {
                DeValue::Table(inner) if keys::find(&full).is_none() => {
                    let inside = format!("{full}.");
                    // An unknown table is one problem, not one per key.
                    if KEYS.iter().any(|key| key.name.starts_with(&inside)) {
                        self.read_table(path, text, &inside, inner, problems);
                    } else {
                        let first = inner.keys().next().map(|key| format!("{inside}{}", key.get_ref()));
                        problems.push(Problem::Unknown { name: first.unwrap_or(full), origin });
                    }
                }
                value => problems.extend(self.set_toml(&full, value, origin).err()),
            }
        }
    }

    fn set_toml(&mut self, name: &str, value: &DeValue<'_>, origin: Origin) -> Result<(), Problem> {
        let key = known(name, &origin)?;
        if key.default.is_none() && value.as_str() == Some("") {
            self.values.remove(key.name);
            return Ok(());
        }
        let value = key.kind.read_toml(value).ok_or_else(|| {
            let given = match value {
                DeValue::String(text) => shown(key.kind, text),
                DeValue::Integer(number) => number.as_str().to_owned(),
                DeValue::Float(number) => number.as_str().to_owned(),
                DeValue::Boolean(switch) => switch.to_string(),
                other => format!("({})", other.type_str()),
            };
            Problem::Invalid { key: key.name, given, origin: origin.clone(), expected: key.kind.expected() }
        })?;
        self.values.insert(key.name, Sourced { value, origin });
        Ok(())
    }
}

fn known(name: &str, origin: &Origin) -> Result<&'static Key, Problem> {
    keys::find(name).ok_or_else(|| Problem::Unknown { name: name.to_owned(), origin: origin.clone() })
}

/// Formats an invalid value for a message, redacted if it is or may contain a secret.
fn shown(kind: Kind, text: &str) -> String {
    match kind {
        Kind::Secret => quoted("***"),
        Kind::Address => quoted(&address::shown(text)),
        _ if text.contains("://") || text.contains('@') => quoted(&address::shown(text)),
        _ => quoted(text),
    }
}

fn line_of(text: &str, byte: usize) -> usize {
    1 + text[..byte].bytes().filter(|byte| *byte == b'\n').count()
}

/// Finds the settings file: the given one, which must exist, or the first of the default paths.
fn find_file(given: &Given) -> Result<Option<(PathBuf, String)>, Problem> {
    let variable = given.environment.iter().find(|(name, value)| name == "TIDEWHEEL_CONFIG" && !value.is_empty());
    let named = given.config.clone().or_else(|| variable.map(|(_, value)| PathBuf::from(value)));
    if let Some(path) = named {
        return match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some((path, text))),
            Err(cause) => Err(Problem::Unreadable { path, cause }),
        };
    }
    for path in USUAL_PLACES.map(PathBuf::from) {
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(Some((path, text))),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
            Err(cause) => return Err(Problem::Unreadable { path, cause }),
        }
    }
    Ok(None)
}

/// Default paths of the settings file.
pub(crate) const USUAL_PLACES: [&str; 2] = ["tidewheel.toml", "/etc/tidewheel/tidewheel.toml"];
