//! Logging to stderr, as text on a terminal and as JSON otherwise.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::escape::{Escaping, Form};

/// Format and level of the log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Unset: text on a terminal, JSON otherwise.
    pub json: Option<bool>,
    /// A level, or directives as in `RUST_LOG`.
    pub level: String,
    /// Whether the level is set explicitly.
    pub level_is_set: bool,
}

/// Starts logging. `default_level` applies if no level is set.
pub fn start(log: &LogOptions, default_level: &str) {
    let terminal = std::io::stderr().is_terminal();
    let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let form = match log.json.unwrap_or(!terminal) {
        true => Form::Json,
        false if colours => Form::Coloured,
        false => Form::Plain,
    };
    let writer = move || Escaping::new(std::io::stderr(), form);
    let builder = tracing_subscriber::fmt().with_env_filter(filter(log, default_level)).with_writer(writer);
    if form == Form::Json {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).init();
    } else {
        builder.with_ansi(colours).with_target(false).init();
    }
}

/// The filter. A plain level applies to tidewheel's own crates; dependencies log warnings and errors only.
fn filter(log: &LogOptions, default_level: &str) -> EnvFilter {
    let from_environment = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty() && !log.level_is_set);
    if let Some(directives) = from_environment {
        return EnvFilter::new(directives);
    }
    let level = if log.level_is_set { log.level.as_str() } else { default_level };
    EnvFilter::new(directives(level))
}

/// The directives of `log.level`. A plain level applies to tidewheel's own crates.
pub fn directives(level: &str) -> String {
    if level.contains(['=', ',']) { level.to_owned() } else { format!("warn,tidewheel={level}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_level_applies_to_own_crates_only() {
        assert_eq!(directives("debug"), "warn,tidewheel=debug");
        assert_eq!(directives("info,redis=debug"), "info,redis=debug");
    }
}
