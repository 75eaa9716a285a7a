//! `dead-letters`: which of them, and what is to become of them.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::OutputArgs;
use super::output::span;

/// `dead-letters`.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List them, newest last
    List(LettersListArgs),
    /// Show one with its document
    Show(LettersShowArgs),
    /// Put them back into their stage, to be worked on once more
    #[command(after_help = "\
Examples:
  tidewheel dead-letters retry --all                       what would be done
  tidewheel dead-letters retry --all --yes
  tidewheel dead-letters retry --id 65f000000000000000000001 --yes
  tidewheel dead-letters retry --reason timeout --newer-than 1d --yes

A change that is tried again keeps its version: a newer state of its document wins. What cannot be read stays.
Exit code: 0 done, or the plan was printed; 1 nothing matches, or some stayed; 2 could not.")]
    Retry(LettersActArgs),
    /// Delete them
    #[command(after_help = "\
Examples:
  tidewheel dead-letters drop --id 1763842213007-0         asks first
  tidewheel dead-letters drop --older-than 30d --yes

Their documents stay as the index has them, missing or in an older state, until they change; `tidewheel verify` lists
such documents, and `tidewheel verify --repair` sends them again.
Exit code: 0 done, or the plan was printed; 1 nothing matches, or you said no; 2 could not.")]
    Drop(LettersActArgs),
}

/// Which dead letters.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LettersFilterArgs {
    /// Only of this stage
    #[arg(long, value_enum)]
    pub(crate) stage: Option<StageName>,
    /// Only these: ids of dead letters, or _ids of documents; may be given several times
    #[arg(long = "id", value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Only those whose reason has this text in it
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Only those that were parked longer ago than this, such as 90m or 7d
    #[arg(long, value_name = "AGE", value_parser = span)]
    pub(crate) older_than: Option<Duration>,
    /// Only those that were parked since then
    #[arg(long, value_name = "AGE", value_parser = span)]
    pub(crate) newer_than: Option<Duration>,
}

impl LettersFilterArgs {
    /// Whether all letters are meant.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { stage, ids, reason, older_than, newer_than } = self;
        stage.is_none() && ids.is_empty() && reason.is_none() && older_than.is_none() && newer_than.is_none()
    }
}

/// A stage of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StageName {
    /// Stage 1, raw_document_changes
    Raw,
    /// Stage 2, embedded_documents
    Embedded,
}

impl StageName {
    /// As it is written on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Embedded => "embedded",
        }
    }

    /// As it is called in sentences.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Raw => "stage 1",
            Self::Embedded => "stage 2",
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

Exit code: 0 the list was printed, even if it is empty; 2 could not read them.")]
pub(crate) struct LettersListArgs {
    #[command(flatten)]
    pub(crate) filter: LettersFilterArgs,
    /// The most to show
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

Exit code: 0 there is one, 1 there is none, 2 could not read them.")]
pub(crate) struct LettersShowArgs {
    /// The dead letter's id, or its document's _id
    pub(crate) id: String,
    /// Only of this stage
    #[arg(long, value_enum)]
    pub(crate) stage: Option<StageName>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `dead-letters retry` and `drop`: at least one condition, so that nobody means all of them by accident.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["ids", "reason", "older_than", "newer_than", "all"]))]
pub(crate) struct LettersActArgs {
    #[command(flatten)]
    pub(crate) filter: LettersFilterArgs,
    /// All of them
    #[arg(long)]
    pub(crate) all: bool,
    /// Do it; without this only the plan is printed, and `drop` asks where a person is at the terminal
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
