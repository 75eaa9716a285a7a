//! Arguments of the commands that change indexes.

use std::time::Duration;

use clap::Args;
use tidewheel_core::catalog::IndexName;

use super::OutputArgs;
use super::output::{index, span};

/// `plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel plan                               compare the settings with what was applied
  tidewheel plan --index tickets --sample 5000
  tidewheel plan --output json | jq '.indexes[] | select(.action != \"none\")'

A plan changes nothing. Documents, texts and tokens are estimated from a sample; the time is that of the embedder at its \
present throughput, if it is one of this installation.

Exit codes:
  0  nothing to do
  1  something to do
  2  unknown: a server did not answer, or a declaration was refused")]
pub(crate) struct PlanArgs {
    /// Only this index (repeatable) [default: all]
    #[arg(long = "index", value_name = "NAME", value_parser = index)]
    pub(crate) indexes: Vec<IndexName>,
    /// Number of documents to sample for each estimate
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SAMPLE, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) sample: u32,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Documents to sample for each estimate.
pub(crate) const DEFAULT_SAMPLE: u32 = 500;

/// `apply`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel apply                              show the plan, ask, and show the progress
  tidewheel apply --yes --timeout 6h
  tidewheel apply --index tickets --generation --yes    fill a new collection for a change of text
  tidewheel apply --index tickets --accept-missing 3    switch although 3 documents are dead letters
  tidewheel apply --yes --output json | jq -c '{index, step, documents, of}'

The active producer does the work; an interrupted command can be run again to show the progress. Searches are answered \
throughout: a new generation is filled and compared before the alias moves to it. `tidewheel rollback` moves it back.

Exit codes:
  0  done, or nothing to do
  1  not confirmed, interrupted, or timed out: what was submitted continues in the services
  2  error")]
pub(crate) struct ApplyArgs {
    /// Only this index (repeatable) [default: all]
    #[arg(long = "index", value_name = "NAME", value_parser = index)]
    pub(crate) indexes: Vec<IndexName>,
    /// Apply the plan; without this flag it is printed, and confirmed on a terminal
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Fill a new generation of each index that differs, and of each index in --index
    #[arg(long)]
    pub(crate) generation: bool,
    /// Leave the alias where it is when a new generation is ready, until `apply` runs without this flag
    #[arg(long)]
    pub(crate) hold: bool,
    /// Switch to a generation that differs from MongoDB in at most this many documents
    #[arg(long, value_name = "N")]
    pub(crate) accept_missing: Option<u64>,
    /// Delete the generations that are kept for a rollback
    #[arg(long)]
    pub(crate) drop_kept: bool,
    /// Apply although processes of an earlier release are running, which then stop
    #[arg(long)]
    pub(crate) force: bool,
    /// Exit after the submission; the services continue
    #[arg(long)]
    pub(crate) detach: bool,
    /// Maximum time to show the progress; the services continue
    #[arg(long, value_name = "DURATION", value_parser = span, conflicts_with = "detach")]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `rollback`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel rollback tickets                   show the plan, and ask
  tidewheel rollback tickets --yes

The previous generation is kept up for `keep` (default: 24h) after a switch, so that a rollback takes seconds. The \
generation that served before the rollback is kept in turn; `tidewheel apply` switches to it again.

Exit codes:
  0  switched
  1  not confirmed, interrupted, or no generation is kept
  2  error")]
pub(crate) struct RollbackArgs {
    /// Name of the index
    #[arg(value_name = "NAME", value_parser = index)]
    pub(crate) index: IndexName,
    /// Apply the plan; without this flag it is printed, and confirmed on a terminal
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
