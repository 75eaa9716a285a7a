//! Given settings, each with its origin. Later layers win.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::Problem;
use super::file;
use super::input::Input;
use super::keys::{KEYS, Key};
use super::names::{self, DEFAULT_EMBEDDING, Family};
use super::origin::Origin;
use super::otel;
use super::value::Value;

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

/// A `[[index]]` or an `[embedding.NAME]`. Only the settings file declares them; other layers override their values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    /// Its name.
    pub(crate) name: String,
    /// Where it is declared.
    pub(crate) origin: Origin,
}

/// All set values, by their full names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers {
    values: BTreeMap<String, Sourced>,
    indexes: Vec<Declared>,
    embeddings: Vec<Declared>,
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
                layers.set_text(key.name, default, Origin::Default, &mut problems);
            }
        }
        for otel::Given { key, text, variable } in otel::read(&given.environment).0 {
            layers.set_text(key, &text, Origin::Environment(variable), &mut problems);
        }
        match file::find(given) {
            Ok(Some((path, text))) => {
                file::read(&path, &text, &mut layers, &mut problems);
                layers.file = Some(path);
            }
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
        for (variable, text) in &given.environment {
            if let Some(rest) = variable.strip_prefix(names::PREFIX) {
                match layers.name_of_variable(rest) {
                    Some(name) => {
                        layers.set_text(&name, text, Origin::Environment(variable.clone()), &mut problems);
                    }
                    None => problems.push(Problem::Ambiguous { variable: variable.clone() }),
                }
            }
        }
        for assignment in &given.assignments {
            match assignment.split_once('=') {
                Some((name, text)) => {
                    layers.set_text(name.trim(), text, Origin::Flag("--set".into()), &mut problems);
                }
                None => problems.push(Problem::NotAnAssignment),
            }
        }
        for (flag, name, text) in &given.flags {
            layers.set_text(name, text, Origin::Flag(flag.clone()), &mut problems);
        }
        // The settings name a file with the headers instead.
        if layers.values.contains_key("traces.headers_file") {
            layers.values.retain(|key, sourced| key != "traces.headers" || !sourced.origin.is_otel());
        }
        (layers, problems)
    }

    /// Returns the value of a key, if set.
    pub(crate) fn get(&self, name: &str) -> Option<&Sourced> {
        self.values.get(name)
    }

    /// The declared tables of a family, in the order of the file. `[embedding]` is not among them.
    pub(crate) fn declared(&self, family: Family) -> &[Declared] {
        match family {
            Family::Index => &self.indexes,
            Family::Embedding => &self.embeddings,
        }
    }

    /// The full names of all settings: the fixed ones, those of each `[embedding.NAME]`, and those of each `[[index]]`.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = KEYS.iter().map(|key| key.name.to_owned()).collect();
        for family in [Family::Embedding, Family::Index] {
            for Declared { name, .. } in self.declared(family) {
                names.extend(family.keys().map(|(key, _)| family.full(name, key)));
            }
        }
        names
    }

    /// Declares a table with the defaults of its keys. Adds a problem if its name is taken.
    pub(super) fn declare(&mut self, family: Family, name: &str, origin: Origin, problems: &mut Vec<Problem>) -> bool {
        if let Some(first) = self.declared(family).iter().find(|declared| declared.name == name) {
            let (name, first) = (name.to_owned(), first.origin.clone());
            problems.push(Problem::Declared { family, name, first, second: origin });
            return false;
        }
        for (key, Key { kind, default, .. }) in family.keys() {
            if let Some(value) = default.and_then(|default| kind.read_text(default)) {
                self.values.insert(family.full(name, key), Sourced { value, origin: Origin::Default });
            }
        }
        let declared = Declared { name: name.to_owned(), origin };
        match family {
            Family::Index => self.indexes.push(declared),
            Family::Embedding => self.embeddings.push(declared),
        }
        true
    }

    /// Sets a key from plain text. An empty text unsets a key without a default.
    pub(crate) fn set_text(&mut self, name: &str, text: &str, origin: Origin, problems: &mut Vec<Problem>) {
        if let Some((Family::Index, table, "name")) = names::split(name) {
            problems.push(Problem::NotOverridable { name: table.to_owned(), origin });
            return;
        }
        self.set(name, Input::Text(text), origin, problems);
    }

    /// Sets a key. Adds every problem.
    pub(super) fn set(&mut self, name: &str, input: Input<'_>, origin: Origin, problems: &mut Vec<Problem>) {
        let (name, key) = match self.known(name, &origin) {
            Ok(known) => known,
            Err(problem) => return problems.push(problem),
        };
        let of_file = |origin: &Origin| matches!(origin, Origin::File { .. });
        // The file cannot repeat a key, but it can use both spellings of one.
        if let Some(first) = self.values.get(&name).map(|sourced| &sourced.origin)
            && of_file(first)
            && of_file(&origin)
        {
            return problems.push(Problem::Twice { key: name, first: first.clone(), second: origin });
        }
        if key.default.is_none() && input.is_empty() {
            self.values.remove(&name);
        } else if let Some(value) = input.read(key.kind, &name, &origin, problems) {
            self.values.insert(name, Sourced { value, origin });
        }
    }

    /// Returns the name under which a value is stored, and its key.
    fn known(&self, name: &str, origin: &Origin) -> Result<(String, &'static Key), Problem> {
        if let Some((family, table, _)) = names::split(name)
            && (family, table) != (Family::Embedding, DEFAULT_EMBEDDING)
            && !self.declared(family).iter().any(|declared| declared.name == table)
        {
            let declared = self.declared(family).iter().map(|declared| declared.name.clone()).collect();
            return Err(Problem::Undeclared { family, name: table.to_owned(), declared, origin: origin.clone() });
        }
        match names::find(name) {
            Some(key) => Ok((names::canonical(name).into_owned(), key)),
            None => Err(Problem::unknown(name, origin)),
        }
    }

    /// Returns the name of the setting that an environment variable overrides, from the text after the prefix; `None` if it could be
    /// that of several tables, whose names differ in capitals and hyphens only.
    fn name_of_variable(&self, rest: &str) -> Option<String> {
        let name = rest.to_ascii_lowercase().replace("__", ".");
        let variable = format!("{}{}", names::PREFIX, rest.to_ascii_uppercase());
        let mut found = None;
        for family in [Family::Index, Family::Embedding] {
            for Declared { name: table, .. } in self.declared(family) {
                let prefix = names::variable(&family.full(table, ""));
                let Some(key) = variable.strip_prefix(&prefix) else { continue };
                let full = family.full(table, &key.to_ascii_lowercase().replace("__", "."));
                // The name of a table may contain two underscores.
                if names::find(&full).is_some() && found.replace(full).is_some() {
                    return None;
                }
            }
        }
        Some(found.unwrap_or(name))
    }
}
