//! Derives problems and their remedies from the numbers. Pure.

use serde::Serialize;
use tidewheel_core::catalog::IndexName;
use tidewheel_core::stage::Stage;

use super::{Overview, Probe, StageOverview, Thresholds, index_problems};
use crate::text::{FAR_SECONDS, duration, entries, none_of, outlook, thousands};

/// Severity of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Progress is blocked, searches are affected, or data is about to be lost.
    Critical,
    /// Needs attention.
    Warning,
}

/// A detected problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its severity.
    pub severity: Severity,
    /// Stable code, for programs and the runbook.
    pub code: &'static str,
    /// The affected component: `mongodb`, `redis`, `qdrant`, `embedder`, `settings`, a stream, a service or a
    /// collection.
    pub subject: String,
    /// The affected index; `None` for a problem of the whole installation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexName>,
    /// Human-readable description.
    pub message: String,
    /// The remedy.
    pub action: String,
}

/// Every problem code, in the order of the runbook.
pub const CODES: &[&str] = &[
    "redis-unreachable",
    "mongodb-unreachable",
    "qdrant-unreachable",
    "embedder-unreachable",
    "service-not-ready",
    "no-consumer",
    "no-producer",
    "nothing-selected",
    "no-progress",
    "stage-1-behind",
    "stage-2-behind",
    "latency",
    "oplog-window",
    "history-damaged",
    "drift",
    "redis-memory",
    "dead-letters",
    "collection-unhealthy",
    "declaration-differs",
    "generation-stuck",
    "index-lost",
    "alias-moved",
    "embedding-missing",
];

/// The codes of problems that each concern one index. Some also concern the whole installation.
pub const INDEX_CODES: &[&str] = &[
    "latency",
    "drift",
    "collection-unhealthy",
    "declaration-differs",
    "generation-stuck",
    "index-lost",
    "alias-moved",
    "embedding-missing",
];

/// Returns the problems in these numbers, worst first.
pub(super) fn problems(overview: &Overview, thresholds: &Thresholds) -> Vec<Problem> {
    let mut found = Found(Vec::new());
    servers(overview, &mut found);
    services(overview, &mut found);
    let limits = [thresholds.stage_1, thresholds.stage_2];
    for ((stage, state), limit) in Stage::ALL.into_iter().zip(&overview.stages).zip(limits) {
        if let Probe::Known(state) = state {
            of_stage(stage, state, limit, thresholds, &mut found);
        }
    }
    source(overview, thresholds, &mut found);
    index_problems::drift(overview, &mut found);
    redis_memory(overview, thresholds, &mut found);
    index_problems::latency(overview, thresholds, &mut found);
    index_problems::collections(overview, &mut found);
    for index in &overview.indexes {
        index_problems::of_index(index, overview, &mut found);
    }
    found.0.sort_by_key(|problem| problem.severity);
    found.0
}

/// The problems found so far.
pub(super) struct Found(Vec<Problem>);

impl Found {
    /// Adds a problem, and returns it.
    pub(super) fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        subject: &str,
        message: String,
        action: impl Into<String>,
    ) -> &mut Problem {
        debug_assert!(CODES.contains(&code), "{code} is missing from CODES");
        let (subject, action) = (subject.to_owned(), action.into());
        self.0.push(Problem { severity, code, subject, index: None, message, action });
        self.0.last_mut().expect("one was just added")
    }
}

/// Unreachable servers.
fn servers(overview: &Overview, found: &mut Found) {
    use Severity::{Critical, Warning};
    if let Some(error) = overview.redis.error() {
        let message = format!("Redis is unreachable: {error}");
        let action = "start Redis, or set `redis.url`; MongoDB's oplog buffers changes meanwhile";
        found.add(Critical, "redis-unreachable", "redis", message, action);
    }
    if let Probe::Known(source) = &overview.source
        && let Some(error) = &source.error
    {
        let message = format!("MongoDB is unreachable: {error}");
        found.add(Critical, "mongodb-unreachable", "mongodb", message, "start MongoDB, or set `mongodb.uri`");
    }
    if let Some(error) = overview.collection.error() {
        let message = format!("Qdrant is unreachable: {error}");
        let action = "start Qdrant, or set `qdrant.url`; stage 2 buffers changes meanwhile";
        found.add(Critical, "qdrant-unreachable", "qdrant", message, action);
    }
    if let Some(error) = overview.embedder.error() {
        let waits = overview.stages[0].known().is_some_and(|stage| stage.backlog > 0);
        let message = format!("the embedder is unreachable: {error}");
        let action = "start `tidewheel embedder`, or set `embedding.url`; stage 1 buffers changes meanwhile";
        found.add(if waits { Critical } else { Warning }, "embedder-unreachable", "embedder", message, action);
    }
}

/// Services that report not ready, and a missing producer.
fn services(overview: &Overview, found: &mut Found) {
    for service in &overview.services {
        // A starting service gets a grace period.
        if service.ready || service.up_seconds < 15.0 {
            continue;
        }
        let message =
            format!("the {} {} is not ready: {}", service.service, service.process, service.reasons.join("; "));
        let action = "fix the cause; the service recovers automatically";
        found.add(Severity::Critical, "service-not-ready", &service.service, message, action);
    }
    let producing = overview.services.iter().any(|service| service.service == "producer");
    let started = overview.source.known().is_some_and(|source| source.read_until.is_some());
    let idle = overview.source.known().and_then(|source| source.checkpoint_age_seconds).is_none_or(|age| age > 60.0);
    if overview.redis.known().is_some() && started && !producing && idle {
        let message = "no producer is running: MongoDB changes are not read".to_owned();
        found.add(Severity::Critical, "no-producer", "producer", message, "start `tidewheel producer`");
    }
}

fn of_stage(stage: Stage, state: &StageOverview, limit: u64, thresholds: &Thresholds, found: &mut Found) {
    let (worker, code, more) = match stage {
        Stage::Raw => {
            ("processor", "stage-1-behind", "start more processors, or give the embedder more or faster cores")
        }
        Stage::Embedded => ("upserter", "stage-2-behind", "start more upserters, or check Qdrant's load"),
    };
    let (title, stream) = (stage.title(), stage.name());
    let waiting = entries(state.backlog);
    if state.backlog > 0 && state.alive == 0 {
        let message = format!("no {worker} is running: {waiting} waiting in {title} ({stream})");
        found.add(Severity::Critical, "no-consumer", stream, message, format!("start `tidewheel {worker}`"));
    } else if state.stalled_seconds >= thresholds.no_progress.as_secs_f64() {
        let since = duration(state.stalled_seconds);
        let message = format!("no progress for {since}: {waiting} waiting in {title} ({stream})");
        let action = format!("check the {worker} logs; `tidewheel check` probes every server");
        found.add(Severity::Critical, "no-progress", stream, message, action);
    }
    if state.backlog > limit {
        let outlook =
            outlook(state.eta_seconds, state.out_per_second).map_or_else(String::new, |text| format!(", {text}"));
        let message = format!("{title} ({stream}) backlog of {waiting} exceeds {}{outlook}", thousands(limit));
        found.add(Severity::Warning, code, stream, message, more);
    }
    if state.status.dead_letters > thresholds.dead_letters {
        let letters = entries(state.status.dead_letters);
        let message = format!("{letters} in the {title} dead-letter queue, not searchable");
        let action = "run `tidewheel dead-letters list`, then retry or drop them";
        found.add(Severity::Warning, "dead-letters", stream, message, action);
    }
}

fn source(overview: &Overview, thresholds: &Thresholds, found: &mut Found) {
    let Probe::Known(source) = &overview.source else { return };
    if let Some(left) = source.oplog_time_to_loss_seconds
        // Estimates are capped at FAR_SECONDS.
        && left < thresholds.oplog_time_left.as_secs().min(FAR_SECONDS)
    {
        let message = if left == 0 {
            "MongoDB's oplog no longer reaches back to the checkpoint: changes were missed".to_owned()
        } else {
            format!("MongoDB's oplog will overwrite unread changes in about {}", duration(left as f64))
        };
        let action = "get the producer running, and enlarge the oplog (replSetResizeOplog); a comparing snapshot repairs missed \
                      changes";
        found.add(Severity::Critical, "oplog-window", "mongodb", message, action);
    }
    if !source.passed_over.is_empty() {
        let message = format!("mongodb.collection selects {}", none_of(&source.passed_over));
        let action = "correct `mongodb.collection` and restart the producer";
        found.add(Severity::Critical, "nothing-selected", "mongodb", message, action);
    }
    if let Some(damage) = &source.damage {
        let message = format!("repairing lost data: {damage}");
        let action = "keep the producer running; find the cause of the loss";
        found.add(Severity::Warning, "history-damaged", "redis", message, action);
    }
}

fn redis_memory(overview: &Overview, thresholds: &Thresholds, found: &mut Found) {
    let Probe::Known(redis) = &overview.redis else { return };
    let Some(limit) = redis.memory_limit_bytes else { return };
    let percent = redis.memory_bytes.saturating_mul(100) / limit.max(1);
    if percent >= thresholds.redis_memory_percent {
        let severity = if percent >= 95 { Severity::Critical } else { Severity::Warning };
        let message = format!("Redis uses {percent}% of its memory; the producer pauses when Redis is full");
        let action = "raise maxmemory, let the stages drain, or lower streams.retention_entries";
        found.add(severity, "redis-memory", "redis", message, action);
    }
}
