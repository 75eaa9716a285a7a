//! Settings: defaults, then OpenTelemetry's variables, then `tidewheel.toml`, then `TIDEWHEEL__TABLE__KEY`, then flags.
//!
//! Guarantees: every value has its origin; an unknown key is rejected with the nearest known one; an invalid value is rejected with
//! its key, origin and expected form; secrets are never shown. All problems are reported together.
//!
//! [`layers`] holds the given values, [`resolved`] the typed settings. [`resolve`] converts one to the other.

pub(crate) mod address;
mod error;
mod keys;
mod layers;
mod origin;
mod otel;
#[cfg(test)]
mod reference;
mod resolve;
mod resolved;
#[cfg(test)]
mod tests;
mod units;
mod value;
mod warning;

pub(crate) use error::{Problem, SettingsError};
pub(crate) use keys::{KEYS, Key, variable};
pub(crate) use layers::{Given, Layers, USUAL_PLACES};
pub(crate) use origin::Origin;
pub(crate) use resolve::reachable;
pub(crate) use resolved::{Console, Consumer, Embedder, Listen, Provider, Serving, Settings, Webhook};
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
            problems.extend(layers.set_text(name, text, Origin::LocalStack).err());
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
