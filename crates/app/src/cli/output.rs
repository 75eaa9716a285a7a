//! What several commands share: how data is printed, and how a span of time is written.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::settings::parse_duration;

/// Reads a span of time.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "a span of time is written like 30s, 90m, 12h or 7d".to_owned())
}

/// How data is printed.
#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}
