//! Commands that ask and change nothing.

use std::time::Duration;

use clap::Args;

use super::OutputArgs;
use super::output::span;

/// `search`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel search \"parcel never arrived\"
  tidewheel search \"invoice\" --limit 3 --filter '{\"must\": [{\"key\": \"product\", \"match\": {\"value\": \"Atlas\"}}]}'
  tidewheel search \"invoice\" --output json | jq '.[0].document'

Exit code: 0 found something, 1 found nothing, 2 could not search.")]
pub(crate) struct SearchArgs {
    /// What to look for
    pub(crate) text: String,
    /// The most documents to show
    #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) limit: u64,
    /// A filter in Qdrant's JSON form
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
  tidewheel status --watch --output json | jq --unbuffered .verdict.summary      one document in a line, each second

Exit code: 0 everything answered, 2 something did not.")]
pub(crate) struct StatusArgs {
    /// Show it every second until q or Ctrl-C; where there is no terminal, and as JSON, one after the other
    #[arg(long, short)]
    pub(crate) watch: bool,
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

Thresholds are the settings in the table `monitor`. What is posted is JSON with the fields text, event (problem or resolved),
problem, verdict and at_ms. With --once nothing is posted.
Exit code with --once: 0 no problem, 1 there is one, 2 could not tell.")]
pub(crate) struct MonitorArgs {
    /// Look once, and end with an exit code
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel check
  tidewheel check --output json | jq '.[] | select(.verdict == \"wrong\")'

Exit code: 0 nothing is wrong, 1 something is.")]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `trace`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel trace 65f000000000000000000001
  tidewheel trace 7 --namespace shop.tickets
  tidewheel trace '{\"$numberLong\": \"7\"}' --output json | jq '.documents[].verdict'

An _id is read as people type it: 24 hexadecimal digits as an ObjectId, a number of each type, a UUID, a text, or extended
JSON, which says exactly what is meant. The output tells which reading was found.
Exit code: 0 it is searchable as MongoDB has it, or deleted on both sides; 1 it is on its way, parked, missing, stale, or
nobody knows it; 2 a server did not answer.")]
pub(crate) struct TraceArgs {
    /// The document's _id
    pub(crate) id: String,
    /// Its collection, such as shop.tickets or tickets [default: every selected one]
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// How many of the newest entries of each stage are looked at
    #[arg(long, value_name = "ENTRIES", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) scan: u64,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `wait`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel wait && tidewheel search \"the ticket that I have just written\"
  tidewheel wait --since 1763842213.7 --timeout 10s
  tidewheel wait --output json | jq .waited_ms
  curl '127.0.0.1:9090/searchable?since=now&timeout=10s'      the same, from the operations server

A driver knows the cluster time of its last write: operationTime of its session, written seconds.increment.
Exit code: 0 everything committed up to then is searchable, what was parked or refused apart; 1 not within the timeout;
2 could not tell.")]
pub(crate) struct WaitArgs {
    /// Everything that was committed up to then: `now`, a cluster time such as 1763842213.7, a time such as
    /// 2026-05-01T12:00:00Z, or how long ago
    #[arg(long, value_name = "TIME", default_value = "now")]
    pub(crate) since: String,
    /// How long to wait
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span)]
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

It records retried and dropped dead letters, replays, repairs and take-overs from the console and
the command line in the Redis stream {raw_document_changes}:audit_log, about 10,000 entries.
Exit code: 0 the log was printed, even if it is empty; 2 could not read it.")]
pub(crate) struct AuditLogArgs {
    /// Only from then on: a time such as 2026-05-01T12:00:00Z, or how long ago, such as 90m or 7d
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// The most to show, newest last
    #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) limit: u64,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
