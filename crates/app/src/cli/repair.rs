//! Arguments of the commands that send documents through the pipeline again.

use std::time::Duration;

use clap::{Args, ValueEnum};
use tidewheel_core::catalog::IndexName;
use tidewheel_ops::replay::Origin;

use super::OutputArgs;
use super::output::{index, span};

/// `replay`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel replay source                              show the plan
  tidewheel replay source --yes                        read and send every document again
  tidewheel replay source --filter '{\"status\": \"open\"}' --yes
  tidewheel replay raw --since 2h --yes                replay the changes of the last two hours
  tidewheel replay embedded --yes                      write stage 2 again, without embedding
  tidewheel replay source --index tickets --yes
  tidewheel replay source --into documents_2 --yes     fill a new collection, switch the alias

A replay is safe on a running pipeline: newer changes win. It can be interrupted and run again.

Exit codes:
  0  done, or plan printed
  1  interrupted
  2  error")]
pub(crate) struct ReplayArgs {
    /// Where to replay from: `embedded` (stage 2, including vectors), `raw` (stage 1, processed again), `source` (MongoDB)
    #[arg(value_enum)]
    pub(crate) from: ReplayFrom,
    /// Only changes since this time: a timestamp such as 2026-05-01T12:00:00Z, or an age such as 90m or 7d
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only documents that match this MongoDB query (with `source`)
    #[arg(long, value_name = "JSON", conflicts_with = "since")]
    pub(crate) filter: Option<String>,
    /// Replay only into this index [default: all]
    #[arg(long, value_name = "NAME", value_parser = index, conflicts_with = "into")]
    pub(crate) index: Option<IndexName>,
    /// Write to this new collection instead of the live one, then switch the alias in qdrant.collection to it
    #[arg(long, value_name = "NAME")]
    pub(crate) into: Option<String>,
    /// Apply the plan; without this flag it is only printed
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel verify                                    compare all documents and points, both ways
  tidewheel verify --sample 5%
  tidewheel verify --index tickets
  tidewheel verify --namespace shop.tickets --from 65f000000000000000000000
  tidewheel verify --repair                           send differing documents again
  tidewheel verify --output json | jq '.differences[] | select(.kind == \"missing\").key'

With [[index]] and without --index the JSON is a list with one object per index.

`verify` is safe on a running pipeline: it waits for changes in flight, then checks each difference again.

An interrupted run starts over; compare a large collection in parts with --from and --to. The producer's own audit \
(audit.interval) resumes.

Exit codes:
  0  the index matches MongoDB, or does after the repair
  1  the index differs from MongoDB
  2  error")]
pub(crate) struct VerifyArgs {
    /// Send differing documents through the pipeline again, then compare them again
    #[arg(long)]
    pub(crate) repair: bool,
    /// Compare only this index [default: all]
    #[arg(long, value_name = "NAME", value_parser = index)]
    pub(crate) index: Option<IndexName>,
    /// Compare a random sample of documents and points: a number such as 1000, or a percentage such as 5%
    #[arg(long, value_name = "N|N%")]
    pub(crate) sample: Option<String>,
    /// Only documents with this _id or a greater one of the same type
    #[arg(long, value_name = "ID", conflicts_with = "sample")]
    pub(crate) from: Option<String>,
    /// Only documents with this _id or a smaller one of the same type
    #[arg(long, value_name = "ID", conflicts_with = "sample")]
    pub(crate) to: Option<String>,
    /// Only this collection, such as shop.tickets or tickets (repeatable)
    #[arg(long = "namespace", value_name = "NAME")]
    pub(crate) namespaces: Vec<String>,
    /// Compare only digests instead of every field
    #[arg(long)]
    pub(crate) quick: bool,
    /// Maximum time to wait for earlier changes to arrive
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = span)]
    pub(crate) settle: Duration,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Where a replay reads from.
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

impl From<ReplayFrom> for Origin {
    fn from(from: ReplayFrom) -> Self {
        match from {
            ReplayFrom::Embedded => Self::Embedded,
            ReplayFrom::Raw => Self::Raw,
            ReplayFrom::Source => Self::Source,
        }
    }
}
