//! The settings file.

use std::path::{Path, PathBuf};

use tidewheel_core::catalog::IndexName;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Problem;
use super::input::Input;
use super::layers::{Given, Layers};
use super::names::{self, DEFAULT_EMBEDDING, Family};
use super::origin::Origin;
use super::value::{Kind, shown_text};

/// Default paths of the settings file.
pub(crate) const USUAL_PLACES: [&str; 2] = ["tidewheel.toml", "/etc/tidewheel/tidewheel.toml"];

/// Finds the settings file: the given one, which must exist, or the first of the default paths.
pub(super) fn find(given: &Given) -> Result<Option<(PathBuf, String)>, Problem> {
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

/// Reads the file into the layers. Adds every problem.
pub(super) fn read(path: &Path, text: &str, layers: &mut Layers, problems: &mut Vec<Problem>) {
    match DeTable::parse(text) {
        Ok(table) => Reader { path, text, layers, problems }.table("", table.get_ref()),
        Err(cause) => {
            // The error's display text quotes the line, which may contain a secret.
            let line = line_of(text, cause.span().map_or(0, |span| span.start));
            problems.push(Problem::NotToml { path: path.to_owned(), line, cause: cause.message().to_owned() });
        }
    }
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    layers: &'a mut Layers,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn origin(&self, byte: usize) -> Origin {
        Origin::File { path: self.path.to_owned(), line: line_of(self.text, byte) }
    }

    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        // The parser's table does not preserve the order of the file.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            let full = format!("{prefix}{}", name.get_ref());
            let origin = self.origin(name.span().start);
            match value.get_ref() {
                DeValue::Array(items) if full == Family::Index.name() => self.indexes(items),
                other if full == Family::Index.name() => {
                    let (given, expected) = (format!("({})", other.type_str()), "tables [[index]]".to_owned());
                    self.problems.push(Problem::Invalid { key: full, given, origin, expected });
                }
                DeValue::Table(inner) if names::find(&full).is_none() => self.inner(&full, inner, origin),
                DeValue::Table(_) if is_embedding_key(&full) => {
                    let expected = "a value, or an embedding with a name that is not that of a setting".to_owned();
                    self.problems.push(Problem::Invalid { key: full, given: "(table)".into(), origin, expected });
                }
                value => self.layers.set(&full, Input::Toml(value), origin, self.problems),
            }
        }
    }

    /// A table that is not a value.
    fn inner(&mut self, full: &str, table: &DeTable<'_>, origin: Origin) {
        match full.strip_prefix("embedding.") {
            Some(DEFAULT_EMBEDDING) => self.table("embedding.", table),
            Some(name) if !name.contains('.') => self.embedding(name, table, origin),
            // An unknown table is one problem, not one per key.
            _ if !names::is_table(full) => {
                let first = table.keys().next().map(|key| format!("{full}.{}", key.get_ref()));
                self.problems.push(Problem::unknown(first.as_deref().unwrap_or(full), &origin));
            }
            _ => self.table(&format!("{full}."), table),
        }
    }

    fn embedding(&mut self, name: &str, table: &DeTable<'_>, origin: Origin) {
        if IndexName::new(name).is_err() {
            return self.invalid_name("embedding.NAME", name, origin);
        }
        if self.layers.declare(Family::Embedding, name, origin, self.problems) {
            self.table(&format!("embedding.{name}."), table);
        }
    }

    fn indexes(&mut self, items: &[Spanned<DeValue<'_>>]) {
        for item in items {
            let origin = self.origin(item.span().start);
            let DeValue::Table(table) = item.get_ref() else {
                let (key, given) = (Family::Index.name().to_owned(), format!("({})", item.get_ref().type_str()));
                let expected = "tables [[index]]".to_owned();
                self.problems.push(Problem::Invalid { key, given, origin, expected });
                continue;
            };
            let given = table.iter().find(|(key, _)| key.get_ref() == "name");
            let Some((key, value)) = given else {
                self.problems.push(Problem::Nameless { origin });
                continue;
            };
            let at_name = self.origin(key.span().start);
            match value.get_ref().as_str().map(str::trim) {
                Some(name) if IndexName::new(name).is_ok() => {
                    if self.layers.declare(Family::Index, name, at_name, self.problems) {
                        self.table(&format!("index.{name}."), table);
                    }
                }
                Some(name) => self.invalid_name("index.NAME.name", name, at_name),
                None => {
                    let given = format!("({})", value.get_ref().type_str());
                    let (key, expected) = ("index.NAME.name".to_owned(), Kind::Name.expected());
                    self.problems.push(Problem::Invalid { key, given, origin: at_name, expected });
                }
            }
        }
    }

    fn invalid_name(&mut self, key: &str, name: &str, origin: Origin) {
        let (key, given, expected) = (key.to_owned(), shown_text(name), Kind::Name.expected());
        self.problems.push(Problem::Invalid { key, given, origin, expected });
    }
}

/// Whether this is a setting of `[embedding]`, and so not the name of an embedding.
fn is_embedding_key(full: &str) -> bool {
    full.strip_prefix("embedding.").is_some_and(|key| !key.contains('.'))
}

fn line_of(text: &str, byte: usize) -> usize {
    1 + text[..byte].bytes().filter(|byte| *byte == b'\n').count()
}
