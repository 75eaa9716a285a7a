//! The report that each process publishes, for operators.
//!
//! A report is a few kilobytes of JSON. Its envelope, which [`ProcessReport`] describes, is the same in all releases; its
//! figures belong to a [`FORMAT`]. Of a process that reports another format only the envelope is read: it is listed with its
//! readiness, and its figures are unknown.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::catalog::IndexName;

/// The format of [`Figures`]. Increase it when a field changes its meaning or type; a new field needs no new format.
///
/// Format 1, without a number, had metrics by name.
pub const FORMAT: u32 = 2;

/// The status of a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Envelope")]
pub struct ProcessReport {
    /// Format of the figures.
    pub format: u32,
    /// The version of tidewheel.
    pub version: String,
    /// The newest layout of stored keys that it can use; `None` of a release that can use only the first one.
    pub layout: Option<u32>,
    /// Uptime in seconds.
    pub up_seconds: f64,
    /// Address of its operations server, if enabled.
    pub operations: Option<String>,
    /// Its services.
    pub services: Vec<ServiceReport>,
    /// What its services measured; `None` if another version reports them in another format.
    pub figures: Option<Figures>,
}

/// Readiness of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// Its name.
    pub service: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Why it is not ready.
    pub reasons: Vec<String>,
}

/// What the services of a process measured, and what its settings declare. Times are in seconds since the Unix epoch.
/// Values by index are empty if the process runs an earlier release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// If the process runs a producer.
    pub producer: Option<ProducerReport>,
    /// If the process runs a processor.
    pub processor: Option<ProcessorReport>,
    /// If the process runs an upserter.
    pub upserter: Option<UpserterReport>,
    /// If the process runs an embedder.
    pub embedder: Option<EmbedderReport>,
    /// What its settings declare; `None` if an earlier release runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<SettingsReport>,
}

/// What the settings of a process declare. A declaration has no effect until it is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SettingsReport {
    /// The [fingerprint](crate::catalog::Declaration::fingerprint) of each declared index. Empty if the settings declare
    /// none, as those of a service may.
    pub indexes: BTreeMap<IndexName, String>,
    /// The names of the embeddings that they can reach.
    pub embeddings: BTreeSet<String>,
}

/// What a producer measured. On standby all values may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProducerReport {
    /// When it last saved a checkpoint.
    pub checkpoint_saved_at: Option<f64>,
    /// Estimated number of documents that its snapshot reads.
    pub snapshot_expected: Option<u64>,
    /// When its last audit of any index ended.
    pub audited_at: Option<f64>,
    /// What the last audits of all indexes found.
    pub drift: Option<DriftReport>,
    /// The last audit of each index.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub audits: BTreeMap<IndexName, AuditReport>,
}

/// The last audit of an index.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditReport {
    /// When it ended.
    pub audited_at: Option<f64>,
    /// What it found; `None` on standby.
    pub drift: Option<DriftReport>,
}

/// Documents that differed between the source and the index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DriftReport {
    /// Without a point.
    pub missing: u64,
    /// With outdated points.
    pub stale: u64,
    /// Missing in the source.
    pub extra: u64,
    /// With surplus points.
    pub surplus: u64,
}

/// What a processor measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessorReport {
    /// When it last finished a batch; 0 before the first.
    pub progressed_at: f64,
    /// Tokens of texts that it did not have to embed.
    pub tokens_saved: u64,
}

/// What an upserter measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpserterReport {
    /// When it last finished a batch; 0 before the first.
    pub progressed_at: f64,
    /// Commit-to-searchable latency within the last minute.
    pub latency: LatencyReport,
    /// The same of each index with changes in that minute.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub latencies: BTreeMap<IndexName, LatencyReport>,
}

/// The latency of changes as a histogram.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LatencyReport {
    /// Number of changes.
    pub changes: u64,
    /// Changes up to a latency, ascending.
    pub buckets: Vec<Bucket>,
}

/// The changes up to a latency.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Upper bound in seconds, inclusive.
    pub le: f64,
    /// Number of changes.
    pub changes: u64,
}

/// What an embedder measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EmbedderReport {
    /// Tokens embedded since its start.
    pub tokens: u64,
    /// Queued tokens.
    pub queued_tokens: u64,
}

/// The format of a [`ReplayReport`]. Increase it when a field changes its meaning or type; a new field needs no new format.
///
/// The previous release writes no number: its reports have format 1.
pub const REPLAY_FORMAT: u32 = 1;

/// The progress or the result of a replay. `format`, `process` and `began_ms` are the same in all formats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayReport {
    /// Format of the report.
    #[serde(default = "first_format")]
    pub format: u32,
    /// What is replayed.
    pub from: String,
    /// Where it is replayed to.
    pub into: String,
    /// The process that runs the replay.
    pub process: String,
    /// Its state.
    pub state: ReplayState,
    /// How far it is.
    pub progress: ReplayProgress,
    /// When it began, in milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// How long it has run, in seconds.
    pub seconds: f64,
    /// Entries or documents read per second.
    pub per_second: f64,
    /// Why it failed, or why its state is unknown.
    pub problem: Option<String>,
}

/// State of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayState {
    /// In progress.
    Running,
    /// Completed.
    Done,
    /// Stopped by a signal.
    Interrupted,
    /// Ended with an error.
    Failed,
    /// Reported in a newer format; never published.
    Unknown,
}

/// Progress of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayProgress {
    /// Entries or documents read.
    pub read: u64,
    /// Estimated total; `None` if unknown.
    pub of: Option<u64>,
    /// Changes appended or written.
    pub replayed: u64,
    /// Entries that could not be read or fail permanently.
    pub skipped: u64,
}

fn first_format() -> u32 {
    1
}

impl ReplayReport {
    /// Parses a report of any release; `None` if it is invalid. The state of a replay that reports a newer format is unknown,
    /// and the problem names both formats.
    pub fn parse(text: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Envelope {
            #[serde(default = "first_format")]
            format: u32,
            process: String,
            began_ms: u64,
        }
        let Envelope { format, process, began_ms } = serde_json::from_str(text).ok()?;
        if format <= REPLAY_FORMAT {
            return serde_json::from_str(text).ok();
        }
        let problem =
            format!("unsupported format {format} of the report: this release reads formats up to {REPLAY_FORMAT}");
        Some(Self {
            format,
            from: "unknown".to_owned(),
            into: "unknown".to_owned(),
            process,
            state: ReplayState::Unknown,
            progress: ReplayProgress::default(),
            began_ms,
            seconds: 0.0,
            per_second: 0.0,
            problem: Some(problem),
        })
    }
}

/// A report of any release.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Envelope {
    format: u32,
    version: String,
    layout: Option<u32>,
    up_seconds: f64,
    operations: Option<String>,
    services: Vec<ServiceReport>,
    figures: serde_json::Value,
}

impl From<Envelope> for ProcessReport {
    fn from(envelope: Envelope) -> Self {
        let Envelope { format, version, layout, up_seconds, operations, services, figures } = envelope;
        let figures = (format == FORMAT).then(|| serde_json::from_value(figures).ok()).flatten();
        Self { format, version, layout, up_seconds, operations, services, figures }
    }
}

#[cfg(test)]
mod tests;
