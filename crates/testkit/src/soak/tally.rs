//! Counts events for the progress line and the report.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::faults::{Planned, Target};

/// Counters shared by the writer, the storm and the progress.
#[derive(Default)]
pub(super) struct Tally(Mutex<Counts>);

/// The counts so far.
#[derive(Clone, Default)]
pub(super) struct Counts {
    /// Writes that changed something, by kind.
    pub(super) operations: BTreeMap<&'static str, u64>,
    /// Acknowledged writes that found nothing to change.
    pub(super) idle_operations: u64,
    /// Unacknowledged writes; their outcome is unknown.
    pub(super) unacknowledged: u64,
    /// Effective faults, by fault and target.
    pub(super) faults: BTreeMap<(&'static str, Target), u64>,
    /// Faults without effect.
    pub(super) idle_faults: u64,
    /// Confirmed changes of declarations, by kind.
    pub(super) changes: BTreeMap<&'static str, u64>,
    /// Changes whose command failed or was killed; their outcome is unknown.
    pub(super) unconfirmed_changes: u64,
    /// Descriptions of events that must not happen.
    pub(super) findings: Vec<String>,
    at_work: Vec<String>,
}

/// Outcome of a write.
pub(super) enum Written {
    Changed,
    Nothing,
    Unacknowledged,
}

impl Tally {
    fn with<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        change(&mut self.0.lock().expect("no holder panics"))
    }

    pub(super) fn counts(&self) -> Counts {
        self.with(|counts| counts.clone())
    }

    pub(super) fn operation(&self, kind: &'static str, written: &Written) {
        self.with(|counts| match written {
            Written::Changed => *counts.operations.entry(kind).or_default() += 1,
            Written::Nothing => counts.idle_operations += 1,
            Written::Unacknowledged => counts.unacknowledged += 1,
        });
    }

    /// Records a change of declarations.
    pub(super) fn change(&self, kind: &'static str, is_confirmed: bool) {
        self.with(|counts| {
            if is_confirmed {
                *counts.changes.entry(kind).or_default() += 1;
            } else {
                counts.unconfirmed_changes += 1;
            }
        });
    }

    pub(super) fn begins(&self, planned: &Planned) {
        self.with(|counts| counts.at_work.push(describe(planned)));
    }

    pub(super) fn ends(&self, planned: &Planned, happened: bool) {
        self.with(|counts| {
            if let Some(place) = counts.at_work.iter().position(|other| *other == describe(planned)) {
                counts.at_work.remove(place);
            }
            if happened {
                // All instances of a service count as one in the report.
                let target = match planned.target {
                    Target::Service(kind, _) => Target::Service(kind, 0),
                    other => other,
                };
                *counts.faults.entry((planned.fault.name(), target)).or_default() += 1;
            } else {
                counts.idle_faults += 1;
            }
        });
    }

    /// Records an event that must not happen.
    pub(super) fn finding(&self, what: String) {
        self.with(|counts| counts.findings.push(what));
    }

    /// One line on the current state.
    pub(super) fn line(&self) -> String {
        self.with(|counts| {
            let (writes, faults): (u64, u64) = (counts.operations.values().sum(), counts.faults.values().sum());
            let now = if counts.at_work.is_empty() { "fair".to_owned() } else { counts.at_work.join(", ") };
            let bad = counts.findings.last().map(|last| format!(", {} findings: {last}", counts.findings.len()));
            let changes: u64 = counts.changes.values().sum();
            let changes = if changes == 0 { String::new() } else { format!(", {changes} changes of declarations") };
            format!("{writes} writes, {faults} faults{changes}, now {now}{}", bad.unwrap_or_default())
        })
    }
}

fn describe(planned: &Planned) -> String {
    let place = match planned.target {
        Target::Service(_, place) => format!(" ({place})"),
        _ => String::new(),
    };
    format!("{} {}{place}", planned.fault.name(), planned.target)
}
