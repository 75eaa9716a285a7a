//! The report that each process publishes, for operators.
//!
//! A report is a few kilobytes of JSON. Its envelope, which [`ProcessReport`] describes, is the same in all releases; its
//! figures belong to a [`FORMAT`]. Of a process that reports another format only the envelope is read: it is listed with its
//! readiness, and its figures are unknown.

use serde::{Deserialize, Serialize};

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

/// What the services of a process measured. Times are in seconds since the Unix epoch.
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
}

/// What a producer measured. On standby all values may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProducerReport {
    /// When it last saved a checkpoint.
    pub checkpoint_saved_at: Option<f64>,
    /// Estimated number of documents that its snapshot reads.
    pub snapshot_expected: Option<u64>,
    /// When its last audit ended.
    pub audited_at: Option<f64>,
    /// What that audit found.
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
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn report_survives_serialisation() {
        let figures = Figures {
            producer: Some(ProducerReport {
                checkpoint_saved_at: Some(1.5),
                snapshot_expected: Some(7),
                audited_at: Some(2.5),
                drift: Some(DriftReport { missing: 1, stale: 2, extra: 3, surplus: 4 }),
            }),
            processor: Some(ProcessorReport { progressed_at: 3.5, tokens_saved: 8 }),
            upserter: Some(UpserterReport {
                progressed_at: 4.5,
                latency: LatencyReport { changes: 2, buckets: vec![Bucket { le: 0.5, changes: 1 }] },
            }),
            embedder: Some(EmbedderReport { tokens: 9, queued_tokens: 1 }),
        };
        let report = ProcessReport {
            format: FORMAT,
            version: "1".into(),
            layout: Some(2),
            up_seconds: 2.0,
            operations: Some("127.0.0.1:9090".into()),
            services: vec![ServiceReport { service: "producer".into(), ready: false, reasons: vec!["why".into()] }],
            figures: Some(figures.clone()),
        };
        let text = serde_json::to_string(&report).unwrap();
        let read: ProcessReport = serde_json::from_str(&text).unwrap();
        assert_eq!(read.figures, Some(figures));
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }

    #[test]
    fn replay_report_survives_serialisation_and_keeps_its_field_names() {
        let report = ReplayReport {
            format: REPLAY_FORMAT,
            from: "stage 1".into(),
            into: "stage 1".into(),
            process: "host-1-replay".into(),
            state: ReplayState::Running,
            progress: ReplayProgress { read: 4, of: Some(9), replayed: 3, skipped: 1 },
            began_ms: 1_700_000_000_000,
            seconds: 2.0,
            per_second: 2.0,
            problem: None,
        };
        let json = json!({
            "format": 1, "from": "stage 1", "into": "stage 1", "process": "host-1-replay", "state": "running",
            "progress": {"read": 4, "of": 9, "replayed": 3, "skipped": 1},
            "began_ms": 1_700_000_000_000_u64, "seconds": 2.0, "per_second": 2.0, "problem": null,
        });
        assert_eq!(serde_json::to_value(&report).unwrap(), json);
        assert_eq!(ReplayReport::parse(&json.to_string()), Some(report));
    }

    #[test]
    fn replay_report_without_format_is_one_of_the_previous_release() {
        let text = r#"{"from": "stage 2", "into": "Qdrant", "process": "a", "state": "failed", "progress": {"read": 1,
            "of": null, "replayed": 0, "skipped": 1}, "began_ms": 7, "seconds": 1.5, "per_second": 0.7, "problem": "why"}"#;
        let report = ReplayReport::parse(text).unwrap();
        assert_eq!((report.format, report.state), (1, ReplayState::Failed));
        assert_eq!(report.problem.as_deref(), Some("why"));
        assert_eq!(ReplayReport::parse("{}"), None);
    }

    #[test]
    fn replay_report_of_a_newer_format_is_unknown_and_names_both_formats() {
        let text = json!({"format": REPLAY_FORMAT + 1, "process": "a", "began_ms": 7, "state": ["paused"]}).to_string();
        let report = ReplayReport::parse(&text).unwrap();
        assert_eq!((report.process.as_str(), report.began_ms, report.state), ("a", 7, ReplayState::Unknown));
        let problem = "unsupported format 2 of the report: this release reads formats up to 1";
        assert_eq!(report.problem.as_deref(), Some(problem));
    }

    #[test]
    fn report_of_the_previous_release_has_services_and_no_figures() {
        let text = json!({
            "version": "0.0.9",
            "up_seconds": 3.0,
            "operations": null,
            "services": [{"service": "upserter", "ready": true, "reasons": []}],
            "measured": {"tidewheel_embedder_tokens_total": 5.0},
            "minute": {"tidewheel_commit_to_searchable_seconds_bucket{le=\"+Inf\"}": 5.0},
        });
        let report: ProcessReport = serde_json::from_value(text).unwrap();
        assert_eq!((report.version.as_str(), report.layout, report.up_seconds), ("0.0.9", None, 3.0));
        assert_eq!(report.services[0].service, "upserter");
        assert!(report.figures.is_none());
    }

    #[test]
    fn report_of_a_later_release_is_read_as_far_as_its_format_allows() {
        let of = |format: u32, figures: serde_json::Value| {
            let text = json!({"format": format, "version": "9", "figures": figures, "color": "red"});
            serde_json::from_value::<ProcessReport>(text).unwrap()
        };
        let figures = json!({"embedder": {"tokens": 5, "watts": 7}, "reranker": {}});
        let same = of(FORMAT, figures.clone()).figures.unwrap();
        assert_eq!(same.embedder, Some(EmbedderReport { tokens: 5, queued_tokens: 0 }));
        assert!(of(FORMAT + 1, figures).figures.is_none());
    }
}
