//! Commands that send documents through the pipeline once more.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::OutputArgs;
use super::output::span;

/// `replay`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel replay source                              what would be done
  tidewheel replay source --yes                        read and send every document anew
  tidewheel replay source --filter '{\"status\": \"open\"}' --yes
  tidewheel replay raw --since 2h --yes                send the changes of the last two hours anew
  tidewheel replay embedded --yes                      write again what stage 2 still holds, without embedding
  tidewheel replay source --into documents_2 --yes     fill a new collection and switch the alias to it

It is safe while everything runs: newer changes always win. It may be interrupted and run again.
Exit code: 0 done, or the plan was printed; 1 interrupted; 2 could not.")]
pub(crate) struct ReplayArgs {
    /// From where: `embedded` (stage 2, with its vectors), `raw` (stage 1, processed anew), `source` (MongoDB)
    #[arg(value_enum)]
    pub(crate) from: ReplayFrom,
    /// Only from then on: a time such as 2026-05-01T12:00:00Z, or how long ago, such as 90m or 7d
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only documents that match this query of MongoDB (with `source`)
    #[arg(long, value_name = "JSON", conflicts_with = "since")]
    pub(crate) filter: Option<String>,
    /// Into this new collection instead of the live one; at the end the alias in qdrant.collection is switched to it
    #[arg(long, value_name = "NAME")]
    pub(crate) into: Option<String>,
    /// Do it; without this only the plan is printed
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel verify                                    every document and every point, both ways
  tidewheel verify --sample 5%
  tidewheel verify --namespace shop.tickets --from 65f000000000000000000000
  tidewheel verify --repair                           send what differs through the pipeline again
  tidewheel verify --output json | jq '.differences[] | select(.kind == \"missing\").key'

What differs is looked at again when everything that was committed before has arrived. It is safe while everything runs.
Exit code: 0 the index equals MongoDB, or does so after the repair; 1 it does not; 2 could not tell.")]
pub(crate) struct VerifyArgs {
    /// Send what differs through the pipeline again, and look whether that has helped
    #[arg(long)]
    pub(crate) repair: bool,
    /// Only some documents and points, taken at random: a number, such as 1000, or a part, such as 5%
    #[arg(long, value_name = "N|N%")]
    pub(crate) sample: Option<String>,
    /// Only documents with this _id or a greater one of its type
    #[arg(long, value_name = "ID", conflicts_with = "sample")]
    pub(crate) from: Option<String>,
    /// Only documents with this _id or a smaller one of its type
    #[arg(long, value_name = "ID", conflicts_with = "sample")]
    pub(crate) to: Option<String>,
    /// Only this collection, such as shop.tickets or tickets; may be given several times
    #[arg(long = "namespace", value_name = "NAME")]
    pub(crate) namespaces: Vec<String>,
    /// Compare digests alone instead of every field
    #[arg(long)]
    pub(crate) quick: bool,
    /// How long to wait until what was committed before has arrived
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = span)]
    pub(crate) settle: Duration,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Where a replay begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReplayFrom {
    /// Stage 2
    Embedded,
    /// Stage 1
    Raw,
    /// MongoDB
    Source,
}
