//! Arguments of `dead-letters`: filters and actions.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use tidewheel_core::catalog::IndexName;
use tidewheel_core::stage::Stage;
use tidewheel_ops::dead_letters::{Filter, OfIndex};

use super::OutputArgs;
use super::output::{index, span};

/// `dead-letters`.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List dead letters, newest last
    List(LettersListArgs),
    /// Show a dead letter with its document
    Show(LettersShowArgs),
    /// Put dead letters back into their stage for another attempt
    #[command(after_help = "\
Examples:
  tidewheel dead-letters retry --all                       show the plan
  tidewheel dead-letters retry --all --yes
  tidewheel dead-letters retry --id 65f000000000000000000001 --yes
  tidewheel dead-letters retry --reason timeout --newer-than 1d --yes

A retried change keeps its version, so a newer version of its document wins. Unreadable dead letters stay.

Exit codes:
  0  done, or plan printed
  1  no match, or some dead letters stayed
  2  error")]
    Retry(LettersActArgs),
    /// Delete dead letters
    #[command(after_help = "\
Examples:
  tidewheel dead-letters drop --id 1763842213007-0         ask for confirmation
  tidewheel dead-letters drop --older-than 30d --yes

The documents stay in the index as they are, missing or outdated, until they change; `tidewheel verify` lists \
them, and `tidewheel verify --repair` sends them again.

Exit codes:
  0  done, or plan printed
  1  no match, or not confirmed
  2  error")]
    Drop(LettersActArgs),
}

/// Filters for dead letters.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LettersFilterArgs {
    /// Only this stage
    #[arg(long, value_enum)]
    pub(crate) stage: Option<StageArg>,
    /// Only this index
    #[arg(long, value_name = "NAME", value_parser = index)]
    pub(crate) index: Option<IndexName>,
    /// Only this id of a dead letter or _id of a document (repeatable)
    #[arg(long = "id", value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Only dead letters whose reason contains this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Only dead letters older than this, such as 90m or 7d
    #[arg(long, value_name = "AGE", value_parser = span)]
    pub(crate) older_than: Option<Duration>,
    /// Only dead letters at most this old, such as 90m or 7d
    #[arg(long, value_name = "AGE", value_parser = span)]
    pub(crate) newer_than: Option<Duration>,
}

impl LettersFilterArgs {
    /// Whether no filter is set.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { stage, index, ids, reason, older_than, newer_than } = self;
        stage.is_none()
            && index.is_none()
            && ids.is_empty()
            && reason.is_none()
            && older_than.is_none()
            && newer_than.is_none()
    }
}

impl LettersFilterArgs {
    /// The filter, given the index of the catalog.
    pub(crate) fn of(&self, index: Option<OfIndex>) -> Filter {
        let Self { stage, index: _, ids, reason, older_than, newer_than } = self.clone();
        Filter { stage: stage.map(Into::into), index, ids, reason, older_than, newer_than }
    }
}

/// A stage of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StageArg {
    /// Stage 1, raw_document_changes
    Raw,
    /// Stage 2, embedded_documents
    Embedded,
}

impl From<StageArg> for Stage {
    fn from(stage: StageArg) -> Self {
        match stage {
            StageArg::Raw => Self::Raw,
            StageArg::Embedded => Self::Embedded,
        }
    }
}

/// `dead-letters list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel dead-letters list
  tidewheel dead-letters list --reason 422 --newer-than 1h
  tidewheel dead-letters list --output json | jq '.letters[].document_id'

Exit codes:
  0  list printed, even if empty
  2  error")]
pub(crate) struct LettersListArgs {
    #[command(flatten)]
    pub(crate) filter: LettersFilterArgs,
    /// Maximum number of dead letters to show
    #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) limit: u64,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `dead-letters show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel dead-letters show 1763842213007-0
  tidewheel dead-letters show 65f000000000000000000001 --output json | jq '.[0].reason'

Exit codes:
  0  found
  1  not found
  2  error")]
pub(crate) struct LettersShowArgs {
    /// Id of the dead letter, or _id of its document
    pub(crate) id: String,
    /// Only this stage
    #[arg(long, value_enum)]
    pub(crate) stage: Option<StageArg>,
    /// Only this index
    #[arg(long, value_name = "NAME", value_parser = index)]
    pub(crate) index: Option<IndexName>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `dead-letters retry` and `drop`: at least one filter or `--all`, so that a forgotten filter does not match everything.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["index", "ids", "reason", "older_than", "newer_than", "all"]))]
pub(crate) struct LettersActArgs {
    #[command(flatten)]
    pub(crate) filter: LettersFilterArgs,
    /// All dead letters
    #[arg(long)]
    pub(crate) all: bool,
    /// Apply the plan; without this flag it is only printed (on a terminal, `drop` asks for confirmation)
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
