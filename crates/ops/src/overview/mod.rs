//! The overview: sync state, bottleneck, cause, ETA and remedy in one value.
//!
//! `status`, `monitor` and the console show the same [`Overview`]. An unreachable server is reported as unknown, never as zero.
//! Services publish their own status in Redis every few seconds. Problems, verdict and the states of indexes are derived from
//! the numbers alone.
//!
//! ```text
//!  Redis, MongoDB, Qdrant, embedder ──Looker::look──▶ Overview ──Overview::judged──▶ with problems and verdict
//!                                      rates over the last ten seconds
//! ```

mod figures;
mod index_problems;
mod indexes;
mod look;
mod problems;
pub(crate) mod rates;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
#[cfg(test)]
mod tests;
mod thresholds;
mod verdict;

use serde::Serialize;
use tidewheel_core::catalog::{IndexName, TargetId};
use tidewheel_core::ports::StageStatus;

use crate::Probe;

pub use self::indexes::{
    Declared, GenerationOverview, IndexOverview, MissingEmbedding, MovedAlias, Operation, ServingOverview,
};
pub use self::look::{EmbedderClient, IndexPorts, Looker, OverviewPorts, QueuePorts, ServerNames, TIMEOUT};
pub use self::problems::{CODES, INDEX_CODES, Problem, Severity};
pub use self::thresholds::Thresholds;
pub use self::verdict::{SyncState, SyncVerdict};

/// The pipeline at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// Time in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The sync verdict.
    pub verdict: SyncVerdict,
    /// Problems, worst first.
    pub problems: Vec<Problem>,
    /// Stage 1 and stage 2.
    pub stages: [Probe<StageOverview>; 2],
    /// MongoDB and the position in it.
    pub source: Probe<Source>,
    /// Redis.
    pub redis: Probe<Redis>,
    /// The collection in Qdrant that searches of the first index read.
    pub collection: Probe<Collection>,
    /// The embedder.
    pub embedder: Probe<Embedder>,
    /// Commit-to-searchable latency within the last minute; `None` if no change became searchable.
    pub latency: Option<Latency>,
    /// The last audit of the first index; `None` if the active producer has not finished one.
    pub audit: Option<Audit>,
    /// Tokens embedded and saved since the running processors started.
    pub tokens: Option<Tokens>,
    /// Services of all reporting processes.
    pub services: Vec<Service>,
    /// The indexes, by name. Before a catalog is applied, the one of the local settings.
    pub indexes: Vec<IndexOverview>,
}

impl Overview {
    /// Derives problems, verdict and the states of indexes from the numbers.
    #[must_use]
    pub fn judged(mut self, thresholds: &Thresholds) -> Self {
        self.problems = problems::problems(&self, thresholds);
        self.verdict = verdict::verdict(&self, &self.problems);
        let states: Vec<SyncState> = self.indexes.iter().map(|index| verdict::state(&self, index)).collect();
        for (index, state) in self.indexes.iter_mut().zip(states) {
            index.state = state;
        }
        self
    }

    /// The index of this name.
    pub fn index(&self, name: &str) -> Option<&IndexOverview> {
        self.indexes.iter().find(|index| index.name.as_str() == name)
    }

    /// Leaves out other indexes and their problems. The verdict stays that of all.
    #[must_use]
    pub fn restricted(mut self, name: &IndexName) -> Self {
        self.indexes.retain(|index| index.name == *name);
        self.problems.retain(|problem| problem.index.as_ref().is_none_or(|index| index == name));
        self
    }

    /// The last audit of each index. That of the first one is the audit of the overview.
    fn audits(&self) -> impl Iterator<Item = (Option<&IndexOverview>, &Audit)> {
        let first = self.audit.as_ref().map(|audit| (self.indexes.first(), audit));
        let others = self.indexes.iter().skip(1).filter_map(|index| Some((Some(index), index.drift.as_ref()?)));
        first.into_iter().chain(others)
    }

    /// Whether every server answered.
    pub fn complete(&self) -> bool {
        self.stages.iter().all(|stage| stage.error().is_none())
            && self.source.known().is_some_and(|source| source.error.is_none())
            && self.redis.error().is_none()
            && self.collection.error().is_none()
            && self.embedder.error().is_none()
    }
}

/// A stream with its consumer group.
#[derive(Clone, Debug, Serialize)]
pub struct StageOverview {
    /// Numbers from Redis.
    #[serde(flatten)]
    pub status: StageStatus,
    /// Unacknowledged entries: undelivered plus pending. If Redis does not know the lag, the length counts as undelivered.
    pub backlog: u64,
    /// Entries appended per second; `None` before the second sample.
    pub in_per_second: Option<f64>,
    /// Entries acknowledged per second; `None` before the second sample.
    pub out_per_second: Option<f64>,
    /// Seconds until the backlog is cleared at these rates; `None` if it is not shrinking or unknown.
    pub eta_seconds: Option<f64>,
    /// Seconds that a backlog has existed without an acknowledgement; 0 without a backlog. Counts from this process's first sample.
    pub stalled_seconds: f64,
    /// Consumers active within the last minute.
    pub alive: u64,
}

/// MongoDB and the position in it.
#[derive(Clone, Debug, Serialize)]
pub struct Source {
    /// The database; `None` if the settings on this machine do not name one.
    pub database: Option<String>,
    /// Why MongoDB is unreachable; the other fields come from Redis.
    pub error: Option<String>,
    /// Seconds of history in the oplog; `None` if it is not readable.
    pub oplog_window_seconds: Option<u64>,
    /// Seconds until the oplog no longer reaches back to the checkpoint, if the checkpoint does not advance.
    pub oplog_time_to_loss_seconds: Option<u64>,
    /// Cluster time of the last change read, in seconds since the Unix epoch; `None` before the first start.
    pub read_until: Option<u32>,
    /// Cluster time up to which all changes are known to be searchable, in seconds since the Unix epoch.
    pub searchable_until: Option<u32>,
    /// Seconds since the last checkpoint.
    pub checkpoint_age_seconds: Option<f64>,
    /// The snapshot.
    pub snapshot: Option<Snapshot>,
    /// Detected data loss that is being repaired.
    pub damage: Option<String>,
    /// The database's collections, if the index is empty and none of them is selected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
}

/// Progress of a snapshot.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// `running`, `sweeping` or `done`.
    pub state: &'static str,
    /// Documents read.
    pub rows: u64,
    /// Estimated total; `None` if the producer does not report it.
    pub of: Option<u64>,
    /// Documents read per second.
    pub rows_per_second: Option<f64>,
    /// Seconds until all are read.
    pub eta_seconds: Option<f64>,
    /// The targets that it fills; empty before a catalog is applied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scope: Vec<TargetId>,
}

/// Redis.
#[derive(Clone, Debug, Serialize)]
pub struct Redis {
    /// Host and port.
    pub address: String,
    /// Server version.
    pub version: String,
    /// Bytes in use.
    pub memory_bytes: u64,
    /// Memory limit in bytes; `None` if unlimited.
    pub memory_limit_bytes: Option<u64>,
}

/// The collection in Qdrant.
#[derive(Clone, Debug, Serialize)]
pub struct Collection {
    /// URL of Qdrant.
    pub url: String,
    /// The collection's name, or its alias.
    pub name: String,
    /// Qdrant's version.
    pub version: String,
    /// Whether it exists.
    pub exists: bool,
    /// Qdrant's status: `green`, `yellow`, `grey` or `red`.
    pub status: Option<String>,
    /// Points in it; an estimate above one million.
    pub points: Option<u64>,
    /// Indexed vectors; the others are scanned.
    pub indexed_vectors: Option<u64>,
    /// Vector dimension.
    pub dimension: Option<u64>,
}

/// The embedder.
#[derive(Clone, Debug, Serialize)]
pub struct Embedder {
    /// Its URL.
    pub url: String,
    /// The model.
    pub model: String,
    /// Vector dimension.
    pub dimension: usize,
    /// Maximum tokens per text.
    pub max_tokens: usize,
    /// Tokens embedded per second; `None` if not reported, or before the second sample.
    pub tokens_per_second: Option<f64>,
    /// Queued tokens; `None` if not reported.
    pub queued_tokens: Option<u64>,
    /// Tokens embedded since its start; `None` if not reported.
    pub tokens: Option<u64>,
}

/// Commit-to-searchable latency.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Changes that became searchable within the last minute.
    pub changes: u64,
    /// Median in seconds.
    pub p50_seconds: f64,
    /// 95th percentile in seconds.
    pub p95_seconds: f64,
    /// 99th percentile in seconds.
    pub p99_seconds: f64,
}

/// Drift between the index and MongoDB found by a full comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Audit {
    /// Age in seconds.
    pub seconds_ago: f64,
    /// Documents without a point.
    pub missing: u64,
    /// Documents whose points are out of date.
    pub stale: u64,
    /// Documents missing in MongoDB.
    pub extra: u64,
    /// Documents with surplus points.
    pub surplus: u64,
}

impl Audit {
    /// Total number of drifted documents.
    pub fn drift(&self) -> u64 {
        self.missing + self.stale + self.extra + self.surplus
    }

    /// Drifted documents that `parked` changes do not explain: a parked document is missing or stale.
    pub fn unexplained(&self, parked: u64) -> u64 {
        self.extra + self.surplus + (self.missing + self.stale).saturating_sub(parked)
    }
}

/// Tokens embedded and saved.
#[derive(Clone, Debug, Serialize)]
pub struct Tokens {
    /// Embedded.
    pub embedded: u64,
    /// Not embedded: superseded by a newer version, or the embedded text is unchanged.
    pub saved: u64,
}

/// A service of a reporting process.
#[derive(Clone, Debug, Serialize)]
pub struct Service {
    /// `producer`, `embedder`, `processor` or `upserter`.
    pub service: String,
    /// The process: host, process id and a random suffix.
    pub process: String,
    /// Address of its operations server, if enabled.
    pub operations: Option<String>,
    /// Uptime in seconds.
    pub up_seconds: f64,
    /// Seconds since its last report.
    pub silent_seconds: f64,
    /// Whether it is ready.
    pub ready: bool,
    /// Why it is not ready.
    pub reasons: Vec<String>,
    /// Its version, if that reports figures in another format, which are missing in this overview.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign_version: Option<String>,
}
