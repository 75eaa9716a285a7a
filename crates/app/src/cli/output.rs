//! Arguments shared by several commands: output format, durations and names of indexes.

use std::time::Duration;

use clap::{Args, ValueEnum};
use tidewheel_core::catalog::IndexName;

use crate::settings::parse_duration;

/// Parses a duration.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a duration such as 30s, 90m, 12h or 7d".to_owned())
}

/// Accepts the name of an index. Whether there is such an index is known later.
pub(super) fn index(text: &str) -> Result<IndexName, String> {
    if text.is_empty() {
        return Err("expected the name of an index".to_owned());
    }
    Ok(IndexName::of_collection(text))
}

/// Output format.
#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Output format
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Human-readable text
    Text,
    /// JSON
    Json,
}
