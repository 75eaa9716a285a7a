//! Logs: to stderr, as text on a terminal and as JSON otherwise.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::escape::{Escaping, Form};
use crate::settings::Log;

/// Starts logging. `usual_level` is the level where nobody set one.
pub(crate) fn start(log: &Log, usual_level: &str) {
    let terminal = std::io::stderr().is_terminal();
    let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let form = match log.json.unwrap_or(!terminal) {
        true => Form::Json,
        false if colours => Form::Coloured,
        false => Form::Plain,
    };
    let writer = move || Escaping::new(std::io::stderr(), form);
    let builder = tracing_subscriber::fmt().with_env_filter(filter(log, usual_level)).with_writer(writer);
    if form == Form::Json {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).init();
    } else {
        builder.with_ansi(colours).with_target(false).init();
    }
}

/// A level alone is for our own crates; the libraries say warnings and errors only.
fn filter(log: &Log, usual_level: &str) -> EnvFilter {
    let from_environment = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty() && !log.level_is_set);
    if let Some(directives) = from_environment {
        return EnvFilter::new(directives);
    }
    let level = if log.level_is_set { log.level.as_str() } else { usual_level };
    EnvFilter::new(directives(level))
}

/// The directives of `log.level`. A level alone is for our own crates.
pub(crate) fn directives(level: &str) -> String {
    if level.contains(['=', ',']) { level.to_owned() } else { format!("warn,tidewheel={level}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_alone_does_not_wake_the_libraries() {
        assert_eq!(directives("debug"), "warn,tidewheel=debug");
        assert_eq!(directives("info,redis=debug"), "info,redis=debug");
    }
}
