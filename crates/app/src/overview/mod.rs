//! The overview: sync state, bottleneck, cause, ETA and remedy in one value.
//!
//! `status`, `monitor` and the console show the same [`Overview`]. It is gathered from MongoDB, Redis, Qdrant and the embedder
//! with the settings alone; services publish their own status in Redis every few seconds. An unreachable server is reported as
//! unknown, never as zero.
//!
//! ```text
//!  Redis, MongoDB, Qdrant, embedder ──Looker::look──▶ Overview ──problems (pure)──▶ problems ──verdict (pure)──▶ verdict
//!                                      rates over the last ten seconds
//! ```

pub(crate) mod gauges;
mod look;
mod problems;
mod rates;
mod report;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
mod text;
mod verdict;
mod view;

use serde::Serialize;
use tidewheel_core::ports::StageStatus;

use crate::probe::Probe;

pub(crate) use look::Looker;
pub(crate) use problems::{CODES, Problem, Severity, duration, estimate, none_of, thousands};
pub(crate) use verdict::{State, Verdict};
pub(crate) use view::{History, Paint, draw};

/// The pipeline at one moment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Overview {
    /// Time in milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
    /// The sync verdict.
    pub(crate) verdict: Verdict,
    /// Problems, worst first.
    pub(crate) problems: Vec<Problem>,
    /// Stage 1 and stage 2.
    pub(crate) stages: [Probe<Stage>; 2],
    /// MongoDB and the position in it.
    pub(crate) source: Probe<Source>,
    /// Redis.
    pub(crate) redis: Probe<Redis>,
    /// The collection in Qdrant.
    pub(crate) collection: Probe<Collection>,
    /// The embedder.
    pub(crate) embedder: Probe<Embedder>,
    /// Commit-to-searchable latency within the last minute; `None` if no change became searchable.
    pub(crate) latency: Option<Latency>,
    /// The last audit; `None` if the active producer has not finished one.
    pub(crate) audit: Option<Audit>,
    /// Tokens embedded and saved since the running processors started.
    pub(crate) tokens: Option<Tokens>,
    /// Services of all reporting processes.
    pub(crate) services: Vec<Service>,
}

/// A stream with its consumer group.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stage {
    /// Numbers from Redis.
    #[serde(flatten)]
    pub(crate) status: StageStatus,
    /// Unacknowledged entries: undelivered plus pending. If Redis does not know the lag, the length counts as undelivered.
    pub(crate) backlog: u64,
    /// Entries appended per second; `None` before the second sample.
    pub(crate) in_per_second: Option<f64>,
    /// Entries acknowledged per second; `None` before the second sample.
    pub(crate) out_per_second: Option<f64>,
    /// Seconds until the backlog is cleared at these rates; `None` if it is not shrinking or unknown.
    pub(crate) eta_seconds: Option<f64>,
    /// Seconds that a backlog has existed without an acknowledgement; 0 without a backlog. Counts from this process's first sample.
    pub(crate) stalled_seconds: f64,
    /// Consumers active within the last minute.
    pub(crate) alive: u64,
}

/// MongoDB and the position in it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Source {
    /// The database; `None` if the settings on this machine do not name one.
    pub(crate) database: Option<String>,
    /// Why MongoDB is unreachable; the other fields come from Redis.
    pub(crate) error: Option<String>,
    /// Seconds of history in the oplog; `None` if it is not readable.
    pub(crate) oplog_window_seconds: Option<u64>,
    /// Seconds until the oplog no longer reaches back to the checkpoint, if the checkpoint does not advance.
    pub(crate) oplog_time_to_loss_seconds: Option<u64>,
    /// Cluster time of the last change read, in seconds since the Unix epoch; `None` before the first start.
    pub(crate) read_until: Option<u32>,
    /// Cluster time up to which all changes are known to be searchable, in seconds since the Unix epoch.
    pub(crate) searchable_until: Option<u32>,
    /// Seconds since the last checkpoint.
    pub(crate) checkpoint_age_seconds: Option<f64>,
    /// The snapshot.
    pub(crate) snapshot: Option<Snapshot>,
    /// Detected data loss that is being repaired.
    pub(crate) damage: Option<String>,
    /// The database's collections, if the index is empty and none of them is selected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) passed_over: Vec<String>,
}

/// Progress of a snapshot.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Snapshot {
    /// `running`, `sweeping` or `done`.
    pub(crate) state: &'static str,
    /// Documents read.
    pub(crate) rows: u64,
    /// Estimated total; `None` if the producer does not report it.
    pub(crate) of: Option<u64>,
    /// Documents read per second.
    pub(crate) rows_per_second: Option<f64>,
    /// Seconds until all are read.
    pub(crate) eta_seconds: Option<f64>,
}

/// Redis.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Redis {
    /// Host and port.
    pub(crate) address: String,
    /// Server version.
    pub(crate) version: String,
    /// Bytes in use.
    pub(crate) memory_bytes: u64,
    /// Memory limit in bytes; `None` if unlimited.
    pub(crate) memory_limit_bytes: Option<u64>,
}

/// The collection in Qdrant.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Collection {
    /// URL of Qdrant.
    pub(crate) url: String,
    /// The collection's name, or its alias.
    pub(crate) name: String,
    /// Qdrant's version.
    pub(crate) version: String,
    /// Whether it exists.
    pub(crate) exists: bool,
    /// Qdrant's status: `green`, `yellow`, `grey` or `red`.
    pub(crate) status: Option<String>,
    /// Points in it; an estimate above one million.
    pub(crate) points: Option<u64>,
    /// Indexed vectors; the others are scanned.
    pub(crate) indexed_vectors: Option<u64>,
    /// Vector dimension.
    pub(crate) dimension: Option<u64>,
}

/// The embedder.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Embedder {
    /// Its URL.
    pub(crate) url: String,
    /// The model.
    pub(crate) model: String,
    /// Vector dimension.
    pub(crate) dimension: usize,
    /// Maximum tokens per text.
    pub(crate) max_tokens: usize,
    /// Tokens embedded per second; `None` if not reported, or before the second sample.
    pub(crate) tokens_per_second: Option<f64>,
    /// Queued tokens; `None` if not reported.
    pub(crate) queued_tokens: Option<u64>,
    /// Tokens embedded since its start; `None` if not reported.
    pub(crate) tokens: Option<u64>,
}

/// Commit-to-searchable latency.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Latency {
    /// Changes that became searchable within the last minute.
    pub(crate) changes: u64,
    /// Median in seconds.
    pub(crate) p50_seconds: f64,
    /// 95th percentile in seconds.
    pub(crate) p95_seconds: f64,
    /// 99th percentile in seconds.
    pub(crate) p99_seconds: f64,
}

/// Drift between the index and MongoDB found by a full comparison.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Audit {
    /// Age in seconds.
    pub(crate) seconds_ago: f64,
    /// Documents without a point.
    pub(crate) missing: u64,
    /// Documents whose points are out of date.
    pub(crate) stale: u64,
    /// Documents missing in MongoDB.
    pub(crate) extra: u64,
    /// Documents with surplus points.
    pub(crate) surplus: u64,
}

impl Audit {
    /// Total number of drifted documents.
    pub(crate) fn drift(&self) -> u64 {
        self.missing + self.stale + self.extra + self.surplus
    }

    /// Drifted documents that `parked` changes do not explain: a parked document is missing or stale.
    pub(crate) fn unexplained(&self, parked: u64) -> u64 {
        self.extra + self.surplus + (self.missing + self.stale).saturating_sub(parked)
    }
}

/// Tokens embedded and saved.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Tokens {
    /// Embedded.
    pub(crate) embedded: u64,
    /// Not embedded: superseded by a newer version, or the embedded text is unchanged.
    pub(crate) saved: u64,
}

/// A service of a reporting process.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Service {
    /// `producer`, `embedder`, `processor` or `upserter`.
    pub(crate) service: String,
    /// The process: host, process id and a random suffix.
    pub(crate) process: String,
    /// Address of its operations server, if enabled.
    pub(crate) operations: Option<String>,
    /// Uptime in seconds.
    pub(crate) up_seconds: f64,
    /// Seconds since its last report.
    pub(crate) silent_seconds: f64,
    /// Whether it is ready.
    pub(crate) ready: bool,
    /// Why it is not ready.
    pub(crate) reasons: Vec<String>,
    /// Its version, if that reports figures in another format, which are missing in this overview.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) foreign_version: Option<String>,
}
