//! Warnings about valid but suspicious input: settings without effect, misspelt variables, and secrets that every user of the
//! machine can read.

use std::fmt;

use super::address;
use super::layers::{Given, Layers};
use super::names::{self, Family};
use super::origin::Origin;
use super::otel;
use super::value::Value;

/// Required similarity of a variable without our prefix.
const ALMOST: f64 = 0.85;

/// Required similarity of a variable with our prefix.
const SIMILAR: f64 = 0.6;

/// tidewheel's variables that are not settings.
const OTHER_VARIABLES: [&str; 2] = ["TIDEWHEEL_CONFIG", "TIDEWHEEL_CACHE"];

/// A warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Warning {
    /// A secret in a flag, which `ps` shows to every user of the machine.
    OnCommandLine {
        /// The key.
        key: String,
        /// The flag.
        flag: String,
    },
    /// An unknown environment variable that looks like a setting.
    UnknownVariable {
        /// Its name.
        name: String,
        /// The likely intended variable.
        nearest: Option<String>,
    },
    /// A setting without effect because of another one.
    NoEffect {
        /// The key.
        key: String,
        /// Its origin.
        origin: Origin,
        /// The reason.
        because: String,
    },
    /// A standard variable of OpenTelemetry that is invalid or unsupported.
    IgnoredVariable {
        /// Its name.
        name: &'static str,
        /// The reason.
        because: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnCommandLine { key, flag } => {
                write!(f, "{key} holds a secret and is set with {flag}, which every user of this machine can read")
            }
            Self::UnknownVariable { name, .. } => write!(f, "unknown variable ${name} has no effect"),
            Self::NoEffect { key, origin, because } => write!(f, "{key} ({origin}) has no effect: {because}"),
            Self::IgnoredVariable { name, because } => write!(f, "${name} has no effect: {because}"),
        }
    }
}

impl Warning {
    /// Returns the remedy.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::OnCommandLine { key, .. } => {
                let file = format!("{key}_file");
                let file = if names::find(&file).is_some() { format!(" or {file}") } else { String::new() };
                format!("set {}{file} instead", names::variable(key))
            }
            Self::UnknownVariable { nearest: Some(nearest), .. } => format!("did you mean {nearest}?"),
            Self::UnknownVariable { .. } => format!("settings are named {}TABLE__KEY", names::PREFIX),
            Self::NoEffect { key, .. } => format!("remove {key}, or correct the other setting"),
            Self::IgnoredVariable { name, .. } => format!("unset {name}, or configure traces with settings"),
        }
    }
}

/// Returns all warnings.
pub(super) fn warnings(given: &Given, layers: &Layers) -> Vec<Warning> {
    let mut warnings: Vec<Warning> = given.environment.iter().filter_map(|(name, _)| unknown_variable(name)).collect();
    let ignored = otel::read(&given.environment).1.into_iter();
    warnings.extend(
        ignored.map(|otel::Ignored { variable, because }| Warning::IgnoredVariable { name: variable, because }),
    );
    let names = layers.names();
    let set = || names.iter().filter_map(|name| Some((name, layers.get(name)?)));
    warnings.extend(set().filter_map(|(key, sourced)| match (&sourced.origin, &sourced.value) {
        (Origin::Flag(flag), Value::Secret(_)) => Some(Warning::OnCommandLine { key: key.clone(), flag: flag.clone() }),
        (Origin::Flag(flag), Value::Address(address)) if address::holds_secret(address.reveal()) => {
            Some(Warning::OnCommandLine { key: key.clone(), flag: flag.clone() })
        }
        _ => None,
    }));
    // OpenTelemetry's variables may be meant for other programs.
    let own = |origin: &Origin| *origin != Origin::Default && !origin.is_otel();
    warnings.extend(set().filter(|(_, sourced)| own(&sourced.origin)).filter_map(|(key, sourced)| {
        let because = ineffective(key, layers)?;
        Some(Warning::NoEffect { key: key.clone(), origin: sourced.origin.clone(), because })
    }));
    warnings
}

/// Returns why a key has no effect, or `None`.
fn ineffective(key: &str, layers: &Layers) -> Option<String> {
    let unset = |names: &[&str]| names.iter().all(|name| layers.get(name).is_none());
    if key.starts_with("embedding.") {
        let (table, relative) = key.rsplit_once('.')?;
        return without_effect_on(relative, table, layers);
    }
    if let Some((Family::Index, table, relative)) = names::split(key) {
        let template = Family::Index.full(table, "text.template");
        let replaced = matches!(relative, "text.fields" | "text.exclude") && !unset(&[&template]);
        return replaced.then(|| format!("{template} is set"));
    }
    match key {
        "documents.fields" => (!unset(&["documents.template"])).then_some("documents.template is set"),
        name if name.starts_with("traces.") => unset(&["traces.endpoint"]).then_some("traces.endpoint is not set"),
        name if name.starts_with("monitor.webhook_") => {
            unset(&["monitor.webhook", "monitor.webhook_file"]).then_some("monitor.webhook is not set")
        }
        _ => None,
    }
    .map(str::to_owned)
}

/// Returns why a key of this embedding has no effect with its provider, or `None`.
fn without_effect_on(key: &str, table: &str, layers: &Layers) -> Option<String> {
    let own = match layers.get(&format!("{table}.provider")).map(|sourced| &sourced.value) {
        Some(Value::Text(provider)) => provider == "tidewheel",
        _ => true,
    };
    match key {
        "api_key"
        | "api_key_file"
        | "dimensions"
        | "max_tokens"
        | "batch"
        | "concurrency"
        | "requests_per_minute"
        | "tokens_per_minute" => own.then(|| format!("{table}.provider is \"tidewheel\"")),
        "token" | "token_file" => {
            (!own).then(|| format!("{table}.provider is not \"tidewheel\"; other providers use {table}.api_key"))
        }
        "precision" => (!own).then(|| format!("{table}.provider is not \"tidewheel\"")),
        _ => None,
    }
}

fn unknown_variable(name: &str) -> Option<Warning> {
    if name.starts_with(names::PREFIX) || OTHER_VARIABLES.contains(&name) || is_of_kubernetes(name) {
        return None;
    }
    let upper = name.to_ascii_uppercase();
    let ours = upper.starts_with("TIDEWHEEL_");
    // Skip the similarity search for clearly unrelated variables.
    if !ours && !upper.contains("WHEEL") && !upper.starts_with("TID") {
        return None;
    }
    let nearest = names::nearest_variable(name, if ours { SIMILAR } else { ALMOST });
    (ours || nearest.is_some()).then(|| Warning::UnknownVariable { name: name.to_owned(), nearest })
}

/// Whether Kubernetes sets the variable for a service named `tidewheel…`.
fn is_of_kubernetes(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| rest.starts_with(|digit: char| digit.is_ascii_digit()))
}
