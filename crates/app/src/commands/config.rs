//! `tidewheel config`: shows and validates the settings.

use serde::Serialize;

use crate::cli::{ConfigCommand, Output};
use crate::exit::{Answer, Failure};
use crate::printer::{self, DIM, GOOD, STRONG, styled};
use crate::settings::{
    self, EXAMPLE, Family, Given, Layers, Loaded, Origin, SHORT_FORM, Settings, SettingsError, USUAL_PLACES,
};

/// Runs a subcommand of `config`.
pub(crate) fn run(command: &ConfigCommand, given: &Given) -> Result<Answer, Failure> {
    match command {
        ConfigCommand::Show { output } => {
            let loaded = settings::load(given)?;
            match output.output {
                Output::Text => show(&loaded),
                Output::Json => printer::json(&rows(&loaded.layers)),
            }
            loaded.warnings.iter().for_each(|warning| printer::warning(warning, warning.hint()));
            Ok(Answer::Fine)
        }
        ConfigCommand::Check => Ok(check(settings::load(given))),
        ConfigCommand::Path => Ok(path(&settings::load(given)?.layers)),
        ConfigCommand::Example => {
            printer::raw(EXAMPLE);
            Ok(Answer::Fine)
        }
    }
}

/// A setting as JSON.
#[derive(Serialize)]
struct Row {
    key: String,
    /// TOML value with secrets redacted; `None` if unset.
    value: Option<String>,
    origin: String,
    variable: String,
}

fn rows(layers: &Layers) -> Vec<Row> {
    // Beside declared indexes these keys are errors in a settings file.
    let replaced = |key: &str| {
        !layers.declared(Family::Index).is_empty() && SHORT_FORM.iter().any(|(replaced, _)| *replaced == key)
    };
    let row = |key: String| {
        let sourced = layers.get(&key);
        Row {
            value: sourced.map(|sourced| sourced.value.shown()),
            origin: sourced.map_or(&Origin::Default, |sourced| &sourced.origin).to_string(),
            variable: settings::variable(&key),
            key,
        }
    };
    layers.names().into_iter().filter(|key| !replaced(key)).map(row).collect()
}

/// The table of a setting, its header in TOML, and the name of the setting in it.
fn place(key: &str) -> (&str, String, &str) {
    if let Some((Family::Index, _, name)) = settings::split_name(key) {
        let table = key.strip_suffix(name).unwrap_or(key);
        return (table, "[[index]]".to_owned(), name);
    }
    let (table, name) = key.rsplit_once('.').expect("every key belongs to a table");
    (table, format!("[{table}]"), name)
}

/// Prints valid TOML, so that the output can be used as a settings file.
fn show(loaded: &Loaded) {
    let mut table = String::new();
    for row in rows(&loaded.layers) {
        let (of_row, header, name) = place(&row.key);
        if of_row != table {
            let gap = if table.is_empty() { "" } else { "\n" };
            printer::exactly(format_args!("{gap}{}", styled(STRONG, header)));
            of_row.clone_into(&mut table);
        }
        match row.value {
            Some(value) => {
                let assignment = format!("{name} = {value}");
                printer::exactly(format_args!("{assignment:<48} {}", styled(DIM, format_args!("# {}", row.origin))));
            }
            None => printer::exactly(styled(DIM, format_args!("# {name} is unset"))),
        }
    }
}

fn check(loaded: Result<Loaded, SettingsError>) -> Answer {
    match loaded {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|warning| printer::warning(warning, warning.hint()));
            let file = loaded.layers.file.map_or_else(|| "no settings file".into(), |file| file.display().to_string());
            printer::data(format_args!("{} settings are valid ({file})", styled(GOOD, "✔")));
            declared(&loaded.settings);
            Answer::Fine
        }
        Err(SettingsError(problems)) => {
            for problem in problems {
                printer::problem(&problem.to_string(), Some(&problem.hint()));
            }
            Answer::No
        }
    }
}

/// Lists the declared indexes and the embeddings that they can name.
fn declared(settings: &Settings) {
    if settings.is_declared() {
        let indexes: Vec<String> = settings.declarations().iter().map(|index| index.name.to_string()).collect();
        let embeddings: Vec<&str> = settings.embedding_names().collect();
        printer::data(format_args!("  indexes: {}\n  embeddings: {}", indexes.join(", "), embeddings.join(", ")));
    }
}

fn path(layers: &Layers) -> Answer {
    match &layers.file {
        Some(file) => {
            let shown = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            printer::exactly(shown.display());
            Answer::Fine
        }
        None => {
            printer::message(format_args!("no settings file found; searched {}", USUAL_PLACES.join(" and ")));
            Answer::No
        }
    }
}
