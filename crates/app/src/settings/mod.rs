//! Settings: defaults, then OpenTelemetry's variables, then `tidewheel.toml`, then `TIDEWHEEL__TABLE__KEY`, then flags.
//!
//! Guarantees: every value has its origin; an unknown key is rejected with the nearest known one; an invalid value is rejected with
//! its key, origin and expected form; secrets are never shown. All problems are reported together.
//!
//! [`keys`] defines every key and [`names`] addresses them, also those of `[[index]]` and `[embedding.NAME]`. [`layers`] holds the
//! given values, [`resolved`] the typed settings, and [`declarations`] the indexes. [`resolve`] converts the values to the others.

pub(crate) mod address;
mod collection;
mod declarations;
mod embeddings;
mod error;
mod file;
mod filter;
mod input;
mod keys;
mod layers;
mod names;
mod origin;
mod otel;
mod reader;
#[cfg(test)]
mod reference;
mod resolve;
mod resolved;
mod shape;
#[cfg(test)]
mod tests;
mod units;
mod value;
mod warning;

pub(crate) use embeddings::reachable;
pub(crate) use error::{Problem, SettingsError};
pub(crate) use file::USUAL_PLACES;
pub(crate) use keys::SHORT_FORM;
pub(crate) use layers::{Given, Layers};
pub(crate) use names::{DEFAULT_EMBEDDING, Family, split as split_name, variable};
pub(crate) use origin::Origin;
pub(crate) use resolved::{Console, Consumer, Embedder, Embedding, Listen, Provider, Serving, Settings, Webhook};
pub(crate) use units::parse_duration;
pub(crate) use warning::Warning;

/// The example file, with every key, its meaning and its default.
pub(crate) const EXAMPLE: &str = include_str!("../../../../tidewheel.example.toml");

/// Settings with the origin of each value.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// The given values.
    pub(crate) layers: Layers,
    /// The typed settings.
    pub(crate) settings: Settings,
    /// Valid but suspicious settings.
    pub(crate) warnings: Vec<Warning>,
}

/// Gathers and resolves the settings.
pub(crate) fn load(given: &Given) -> Result<Loaded, SettingsError> {
    let (layers, problems) = Layers::gather(given);
    let warnings = warning::warnings(given, &layers);
    finish(layers, problems, warnings)
}

impl Loaded {
    /// Returns the settings with overrides by the local stack.
    pub(crate) fn with(&self, overrides: &[(&str, String)]) -> Result<Self, SettingsError> {
        let mut layers = self.layers.clone();
        let mut problems = Vec::new();
        for (name, text) in overrides {
            layers.set_text(name, text, Origin::LocalStack, &mut problems);
        }
        finish(layers, problems, self.warnings.clone())
    }

    /// Whether this key is set explicitly.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.layers.get(name).is_some_and(|sourced| sourced.origin != Origin::Default)
    }
}

fn finish(layers: Layers, mut problems: Vec<Problem>, warnings: Vec<Warning>) -> Result<Loaded, SettingsError> {
    let settings = resolve::resolve(&layers, &mut problems);
    if problems.is_empty() { Ok(Loaded { layers, settings, warnings }) } else { Err(SettingsError(problems)) }
}
