//! Arguments of the read-only commands.

use std::time::Duration;

use clap::Args;
use tidewheel_core::catalog::IndexName;

use super::OutputArgs;
use super::output::{index, span};

/// `search`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel search \"parcel never arrived\"
  tidewheel search \"invoice\" --limit 3 --filter '{\"must\": [{\"key\": \"product\", \"match\": {\"value\": \"Atlas\"}}]}'
  tidewheel search \"invoice\" --output json | jq '.[0].document'
  tidewheel search \"invoice\" --index tickets

Exit codes:
  0  at least one document found
  1  no document found
  2  error")]
pub(crate) struct SearchArgs {
    /// Text to search for
    pub(crate) text: String,
    /// Index to search [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = index)]
    pub(crate) index: Option<IndexName>,
    /// Maximum number of documents to show
    #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) limit: u64,
    /// Qdrant filter as JSON
    #[arg(long, value_name = "JSON")]
    pub(crate) filter: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel status
  tidewheel status --watch
  tidewheel status --output json | jq '.stages[].pending'
  tidewheel status --watch --output json | jq --unbuffered .verdict.summary  # one line per second

Exit codes:
  0  every server answered
  2  a server did not answer")]
pub(crate) struct StatusArgs {
    /// Refresh every second until q or Ctrl-C; as JSON or without a terminal, print one status per second
    #[arg(long, short)]
    pub(crate) watch: bool,
    /// Only this index, with its generations [default: all]
    #[arg(long, value_name = "NAME", value_parser = index)]
    pub(crate) index: Option<IndexName>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `monitor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel monitor
  tidewheel monitor --set monitor.interval=10s --set monitor.stage_1_entries=5000
  TIDEWHEEL__MONITOR__WEBHOOK=https://hooks.example.com/tidewheel tidewheel monitor
  */5 * * * * tidewheel monitor --once || mail -s 'tidewheel' oncall@example.com      (cron)

The interval is monitor.interval (default: 30s); the thresholds are the other settings of the table `monitor`. The \
webhook receives JSON with the fields text, event (problem or resolved), problem, verdict and at_ms. --once does not \
post to the webhook.

Exit codes with --once:
  0  no problem
  1  at least one problem
  2  unknown: a server did not answer")]
pub(crate) struct MonitorArgs {
    /// Check once and exit
    #[arg(long)]
    pub(crate) once: bool,
    /// Only problems of this index and of the whole installation [default: all]
    #[arg(long, value_name = "NAME", value_parser = index)]
    pub(crate) index: Option<IndexName>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel check
  tidewheel check --output json | jq '.[] | select(.verdict == \"wrong\")'

Exit codes:
  0  no check failed
  1  at least one check failed
  2  invalid settings")]
pub(crate) struct CheckArgs {
    /// Check only the embedder and the collection of this index [default: all]
    #[arg(long, value_name = "NAME", value_parser = index)]
    pub(crate) index: Option<IndexName>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `inspect`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel inspect 65f000000000000000000001
  tidewheel inspect 7 --namespace shop.tickets
  tidewheel inspect '{\"$numberLong\": \"7\"}' --output json | jq '.documents[].verdict'

The _id is an ObjectId (24 hexadecimal digits), a number of any type, a UUID, a string, or extended JSON, which is \
unambiguous. The output shows which type matched.

Exit codes:
  0  searchable and up to date, or deleted in both MongoDB and the index
  1  in flight, parked, missing, stale or unknown
  2  a server did not answer")]
pub(crate) struct InspectArgs {
    /// _id of the document
    pub(crate) id: String,
    /// Look only into this index [default: all]
    #[arg(long, value_name = "NAME", value_parser = index)]
    pub(crate) index: Option<IndexName>,
    /// Collection of the document, such as shop.tickets or tickets [default: every selected collection]
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Number of newest entries to scan in each stage
    #[arg(long, value_name = "ENTRIES", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) scan: u64,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `wait`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel wait && tidewheel search \"the ticket I just wrote\"
  tidewheel wait --since 1763842213.7 --timeout 10s
  tidewheel wait --output json | jq .waited_ms
  tidewheel wait --index tickets                              while the first snapshot of another index runs
  curl '127.0.0.1:9090/searchable?since=now&timeout=10s'      the same, from the operations server

Drivers report the cluster time of the last write as operationTime of the session; pass it as seconds.increment.

Exit codes:
  0  everything committed up to that time is searchable, except parked or refused changes
  1  timed out
  2  error")]
pub(crate) struct WaitArgs {
    /// Wait for everything committed up to this time: `now`, a cluster time such as 1763842213.7, a timestamp such as
    /// 2026-05-01T12:00:00Z, or an age such as 90s
    #[arg(long, value_name = "TIME", default_value = "now")]
    pub(crate) since: String,
    /// Wait only for this index [default: all]
    #[arg(long, value_name = "NAME", value_parser = index)]
    pub(crate) index: Option<IndexName>,
    /// Maximum time to wait
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = span)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `audit-log`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel audit-log
  tidewheel audit-log --since 7d --output json | jq '.[] | select(.action == \"dead-letters drop\")'

The log covers retried and dropped dead letters, replays, repairs, takeovers, applied declarations and rollbacks from \
the console and the command line. It is the Redis stream {raw_document_changes}:audit_log, capped at about 10,000 entries.

Exit codes:
  0  log printed, even if empty
  2  error")]
pub(crate) struct AuditLogArgs {
    /// Only actions since this time: a timestamp such as 2026-05-01T12:00:00Z, or an age such as 90m or 7d
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Maximum number of actions to show, newest last
    #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) limit: u64,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
