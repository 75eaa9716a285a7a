//! The sync verdict. Pure.

use serde::Serialize;

use super::problems::{Problem, Severity};
use super::{Audit, IndexOverview, Overview, Probe, Snapshot, StageOverview};
use crate::indexes::Step;
use crate::text::{documents, entries, outlook, thousands};

/// Sync state of all indexes, or of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// All changes read are searchable.
    InSync,
    /// All changes read are searchable, but an audit found drift.
    Drifted,
    /// Work progresses with a backlog.
    Syncing,
    /// Progress is blocked.
    Stalled,
    /// Redis is unreachable, or a newer release has written its keys.
    Unknown,
    /// No documents read yet.
    Empty,
}

impl SyncState {
    /// The state in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::InSync => "in sync",
            Self::Drifted => "drifted",
            Self::Syncing => "syncing",
            Self::Stalled => "stalled",
            Self::Unknown => "unknown",
            Self::Empty => "empty",
        }
    }
}

/// The sync state with its explanation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SyncVerdict {
    /// The state.
    pub state: SyncState,
    /// One line: state, stage, cause and ETA.
    pub summary: String,
    /// The remedy; `None` if none is needed.
    pub action: Option<String>,
    /// The bottleneck stage: 1 or 2.
    pub stage: Option<u8>,
    /// Seconds until all changes are searchable; `None` if unknown.
    pub eta_seconds: Option<f64>,
}

/// Derives the verdict from the numbers and problems.
pub(super) fn verdict(overview: &Overview, problems: &[Problem]) -> SyncVerdict {
    let worst = problems.first().filter(|problem| problem.severity == Severity::Critical);
    let [Probe::Known(one), Probe::Known(two)] = &overview.stages else {
        let (summary, action) = match worst {
            Some(problem) => (problem.message.clone(), Some(problem.action.clone())),
            None => (unread(&overview.stages).unwrap_or("Redis is unreachable").to_owned(), None),
        };
        return SyncVerdict {
            state: SyncState::Unknown,
            summary: format!("Sync state unknown: {summary}"),
            action,
            stage: None,
            eta_seconds: None,
        };
    };
    let backlog = one.backlog + two.backlog;
    let parked = overview.parked();
    let drift = overview.drift().unexplained(parked);
    // The stage with the larger backlog is the bottleneck.
    let (number, stage) = if one.backlog >= two.backlog { (1, one) } else { (2, two) };
    let in_the_way = (backlog > 0).then_some(number);
    let eta_seconds = overview.eta_seconds();
    if let Some(problem) = worst {
        let waiting = entries(backlog);
        let damaged = overview.source.known().is_some_and(|source| source.damage.is_some());
        let waits = match backlog {
            0 => String::new(),
            _ if problem.code == "oplog-window" || damaged => format!(". {waiting} buffered"),
            _ if problem.message.contains(&waiting) => ". No data lost".to_owned(),
            _ => format!(". No data lost; {waiting} buffered"),
        };
        return SyncVerdict {
            state: SyncState::Stalled,
            summary: match problem.code {
                "alias-moved" => format!("Searches affected: {}{waits}", problem.message),
                _ => format!("Sync stalled: {}{waits}", problem.message),
            },
            action: Some(problem.action.clone()),
            stage: in_the_way,
            eta_seconds: None,
        };
    }
    let source = overview.source.known();
    if source.is_some_and(|source| source.read_until.is_none()) && backlog == 0 {
        return SyncVerdict {
            state: SyncState::Empty,
            summary: "No documents read yet".to_owned(),
            action: Some("start `tidewheel run --database NAME`, or try `tidewheel up --demo`".to_owned()),
            stage: None,
            eta_seconds: None,
        };
    }
    let eta = outlook(eta_seconds, two.out_per_second).map_or_else(String::new, |text| format!(", {text}"));
    let snapshot = overview.snapshot().filter(|snapshot| snapshot.state != "done");
    let summary = match (snapshot, in_the_way) {
        (Some(snapshot), _) => {
            let of = snapshot.of.map_or_else(String::new, |of| format!(" of about {}", thousands(of)));
            let doing = if snapshot.state == "running" { "Snapshot in progress" } else { "Sweeping orphaned points" };
            format!(
                "{doing}: {}{of} documents read{}",
                thousands(snapshot.rows),
                if snapshot.state == "running" && eta_seconds.is_some() { eta } else { String::new() }
            )
        }
        (None, None) => {
            let searchable = "all changes read are searchable";
            let except = match parked {
                0 => String::new(),
                _ => format!(", except {} in the dead-letter queue", entries(parked)),
            };
            match (parked, drift) {
                (0, 0) => format!("In sync: {searchable}"),
                (_, 0) => format!("In sync{except}"),
                _ => format!(
                    "Drifted: {} from MongoDB in {}, although {searchable}{except}",
                    drifted(overview),
                    documents(drift)
                ),
            }
        }
        (None, Some(number)) => {
            let doing = if number == 1 { "for embeddings" } else { "to be written" };
            let rate = stage.out_per_second.map_or_else(String::new, |rate| format!(", {rate:.0}/s"));
            format!("Syncing: {} in stage {number} waiting {doing}{rate}{eta}", entries(stage.backlog))
        }
    };
    let state = match (in_the_way.is_some() || snapshot.is_some(), drift) {
        (true, _) => SyncState::Syncing,
        (false, 0) => SyncState::InSync,
        (false, _) => SyncState::Drifted,
    };
    let foremost = problems.iter().find(|problem| state == SyncState::Drifted && problem.code == "drift");
    SyncVerdict {
        state,
        summary,
        action: foremost.or(problems.first()).map(|problem| problem.action.clone()),
        stage: in_the_way,
        eta_seconds,
    }
}

/// The state of one index. Its backlog is that of the stages, which all indexes share.
pub(super) fn state(overview: &Overview, index: &IndexOverview) -> SyncState {
    let [Probe::Known(one), Probe::Known(two)] = &overview.stages else { return SyncState::Unknown };
    let concerns = |problem: &&Problem| problem.index.as_ref().is_none_or(|name| *name == index.name);
    if overview.problems.iter().filter(concerns).any(|problem| problem.severity == Severity::Critical) {
        return SyncState::Stalled;
    }
    let has_backlog = one.backlog + two.backlog > 0;
    let was_read = overview.source.known().is_none_or(|source| source.read_until.is_some());
    if !has_backlog && (!was_read || is_empty(index)) {
        return SyncState::Empty;
    }
    if has_backlog || index.serving.is_none() || index.is_being_filled() {
        return SyncState::Syncing;
    }
    let audits = overview.audits().find(|(of, _)| of.is_some_and(|of| of.name == index.name));
    match audits.map_or(0, |(_, audit)| audit.unexplained(overview.parked())) {
        0 => SyncState::InSync,
        _ => SyncState::Drifted,
    }
}

/// Whether nothing was added to the index, and nothing is being added.
fn is_empty(index: &IndexOverview) -> bool {
    let is_waiting = |step| matches!(step, Step::Creating | Step::Queued);
    index.points.unwrap_or(0) == 0
        && match index.serving_generation() {
            None => index.generations.is_empty(),
            Some(serving) => {
                !serving.filled && index.operation.as_ref().is_none_or(|operation| is_waiting(operation.step))
            }
        }
}

/// What differs from the source, with its verb.
fn drifted(overview: &Overview) -> String {
    if overview.indexes.len() < 2 {
        return "the index differs".to_owned();
    }
    let names: Vec<&str> = overview
        .audits()
        .filter(|(_, audit)| audit.drift() > 0)
        .filter_map(|(index, _)| Some(index?.name.as_str()))
        .collect();
    match names.as_slice() {
        [only] => format!("index {only} differs"),
        names => format!("indexes {} differ", names.join(", ")),
    }
}

/// Why a stage is unknown.
fn unread(stages: &[Probe<StageOverview>]) -> Option<&str> {
    stages.iter().find_map(Probe::error)
}

impl Overview {
    /// Changes parked as dead letters in both stages, where known.
    pub(super) fn parked(&self) -> u64 {
        self.stages.iter().filter_map(Probe::known).map(|stage| stage.status.dead_letters).sum()
    }

    /// The differences of all indexes.
    fn drift(&self) -> Audit {
        let none = Audit { seconds_ago: 0.0, missing: 0, stale: 0, extra: 0, surplus: 0 };
        self.audits().fold(none, |sum, (_, audit)| Audit {
            missing: sum.missing + audit.missing,
            stale: sum.stale + audit.stale,
            extra: sum.extra + audit.extra,
            surplus: sum.surplus + audit.surplus,
            ..sum
        })
    }

    /// The snapshot, unless it only fills generations that no search reads.
    fn snapshot(&self) -> Option<&Snapshot> {
        let snapshot = self.source.known()?.snapshot.as_ref()?;
        let is_read = |index: &IndexOverview| {
            let serving = index.serving.as_ref().map(|serving| index.name.target(serving.generation));
            serving.is_some_and(|serving| snapshot.scope.contains(&serving))
        };
        (snapshot.scope.is_empty() || self.indexes.iter().any(is_read)).then_some(snapshot)
    }

    /// Seconds until all changes are searchable at the current rates.
    fn eta_seconds(&self) -> Option<f64> {
        let [Probe::Known(one), Probe::Known(two)] = &self.stages else { return None };
        let unread = self.snapshot().filter(|snapshot| snapshot.state == "running");
        let unread = unread.map_or(0, |snapshot| snapshot.of.unwrap_or(snapshot.rows).saturating_sub(snapshot.rows));
        let backlog = one.backlog + two.backlog + unread;
        // Unread snapshot rows are already counted in the backlog.
        let coming = if unread > 0 { Some(0.0) } else { one.in_per_second };
        super::rates::eta(backlog, coming, two.out_per_second)
    }
}
