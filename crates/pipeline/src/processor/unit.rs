//! What one change does in all of its targets, and the step that settles it.
//!
//! A change whose targets all succeed is acknowledged in the step that appends its records. If it fails for some of them,
//! its records are appended first, without an acknowledgement, and then its entry is parked for the failed targets. A
//! crash in between repeats records, which their versions make harmless.

use std::sync::Arc;

use tidewheel_core::catalog::TargetId;
use tidewheel_core::change::{Change, Route};
use tidewheel_core::embedded::{Embedded, Vectors};
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{DeadLetter, EntryId, Gap};

use super::lane::{Lane, Lanes};
use super::model::Model;
use super::steps::Settled;
use crate::parking::{OnDeadLetter, deletion_at};

/// One change, in the targets for which it is the newest of its document in the batch; or one change of a whole
/// collection.
pub(super) struct Unit {
    pub(super) change: Change,
    /// Its entry, followed by those of changes of the same document that count in no target.
    pub(super) entries: Vec<EntryId>,
    /// Its outcomes, each for some of its targets.
    pub(super) parts: Vec<Part>,
    /// Number of jobs whose outcome is open.
    pub(super) open: usize,
}

/// The outcome for targets, which are given by the numbers of their lanes.
pub(super) enum Part {
    /// The document is removed: deleted, outside of the index, or left out because it has no text.
    Removed { to: Vec<usize> },
    /// The document is written.
    Embedded { to: Vec<usize>, texts: Texts },
    /// The change is left out, because its targets must not delay others.
    Skipped { to: Vec<usize>, reason: String },
    /// The change failed permanently.
    Failed { to: Vec<usize>, error: PortError },
}

/// The chunks of a document with their vectors.
#[derive(Clone)]
pub(super) struct Texts {
    pub(super) model: Arc<Model>,
    pub(super) chunks: Vec<String>,
    pub(super) prefix: String,
    pub(super) vectors: Vectors,
    /// Number of vectors that were not requested from the embedder.
    pub(super) reused: usize,
    /// The targets whose collections have all these vectors at their points.
    pub(super) unchanged: Vec<usize>,
}

impl Part {
    fn to(&self) -> &[usize] {
        match self {
            Self::Removed { to } | Self::Embedded { to, .. } | Self::Skipped { to, .. } | Self::Failed { to, .. } => to,
        }
    }

    /// Whether it has a record for each of its targets.
    fn has_records(&self) -> bool {
        matches!(self, Self::Removed { .. } | Self::Embedded { .. })
    }
}

impl Unit {
    /// Adds the outcome of one of its jobs.
    pub(super) fn decide(&mut self, part: Part) {
        self.parts.push(part);
        self.open -= 1;
    }

    /// Appends its records to `records`, which is empty, and returns what is settled with them.
    pub(super) fn settle(self, lanes: &Lanes, records: &mut Vec<Embedded>) -> Settled {
        let Self { change, mut entries, mut parts, .. } = self;
        let failed: Vec<(&[usize], &PortError)> = parts
            .iter()
            .filter_map(|part| if let Part::Failed { to, error } = part { Some((&to[..], error)) } else { None })
            .collect();
        let letter = (!failed.is_empty()).then(|| letter(entries.remove(0), &change.route, &failed, lanes));
        let failed = failed.iter().flat_map(|(to, _)| *to).copied();
        let by_policy: Vec<usize> = failed.filter(|lane| removes_parked(lanes.get(*lane))).collect();
        // Documents last: the last record takes the change, and all others a copy of what they need.
        parts.sort_by_key(|part| matches!(part, Part::Embedded { .. }));
        let mut left =
            by_policy.len() + parts.iter().filter(|part| part.has_records()).map(|part| part.to().len()).sum::<usize>();
        let mut change = Some(change);
        let mut next = |removes: bool| {
            left -= 1;
            let whole = change.as_ref().expect("only the last record takes it");
            if removes && whole.operation.has_document() {
                return deletion_at(whole.version, whole);
            }
            if left == 0 { change.take().expect("it was just there") } else { whole.clone() }
        };
        let mut gaps = Vec::new();
        for lane in by_policy {
            records.push(removal(next(true), lanes, lane));
        }
        for part in parts {
            match part {
                Part::Removed { to } => records.extend(to.into_iter().map(|lane| removal(next(true), lanes, lane))),
                Part::Embedded { to, texts } => embedded(&to, texts, lanes, || next(false), records),
                Part::Skipped { to, reason } => {
                    let target = |lane: usize| lanes.get(lane).target.id.clone();
                    gaps.extend(to.into_iter().map(|lane| Gap { target: target(lane), reason: reason.clone() }));
                }
                Part::Failed { .. } => {}
            }
        }
        Settled { entries, gaps, letter }
    }
}

/// Whether the indexed version of a parked document is removed.
pub(super) fn removes_parked(lane: &Lane) -> bool {
    lane.on_dead_letter() == OnDeadLetter::Remove
}

fn removal(change: Change, lanes: &Lanes, lane: usize) -> Embedded {
    Embedded { target: lanes.stamp(lane), ..Embedded::without_vectors(change) }
}

fn embedded(
    to: &[usize],
    texts: Texts,
    lanes: &Lanes,
    mut change: impl FnMut() -> Change,
    records: &mut Vec<Embedded>,
) {
    let mut record = |lane: usize, texts: Texts| {
        let Texts { model, chunks, prefix, vectors, unchanged, .. } = texts;
        records.push(Embedded {
            change: change(),
            model: model.info.model.clone(),
            revision: model.info.revision.clone(),
            chunks,
            vectors,
            unchanged: unchanged.contains(&lane),
            target: lanes.stamp(lane),
            prefix,
        });
    };
    let Some((last, others)) = to.split_last() else { return };
    for lane in others {
        record(*lane, texts.clone());
    }
    record(*last, texts);
}

/// The dead letter of a change that failed for these lanes.
fn letter(own: EntryId, route: &Route, failed: &[(&[usize], &PortError)], lanes: &Lanes) -> DeadLetter {
    let first = failed.first().map_or("", |(_, error)| error.message.as_str());
    let reason = if failed.iter().all(|(_, error)| error.message == first) {
        first.to_owned()
    } else {
        let name = |to: &[usize]| {
            let names: Vec<String> = to.iter().map(|lane| lanes.get(*lane).target.id.to_string()).collect();
            names.join(", ")
        };
        let reasons: Vec<String> =
            failed.iter().map(|(to, error)| format!("{}: {}", name(to), error.message)).collect();
        reasons.join("; ")
    };
    let attempts = failed.iter().map(|(_, error)| error.attempts).max().unwrap_or(1);
    let ids = failed.iter().flat_map(|(to, _)| *to).map(|lane| lanes.get(*lane).target.id.clone()).collect();
    DeadLetter { targets: failed_targets(route, ids), ..DeadLetter::new(own, reason, attempts) }
}

/// The targets of a letter: none if they are all of its entry.
pub(super) fn failed_targets(route: &Route, failed: Vec<TargetId>) -> Vec<TargetId> {
    let Some(stamp) = route.stamp() else { return Vec::new() };
    if stamp.leaves.is_empty() && stamp.targets.iter().all(|target| failed.contains(target)) {
        return Vec::new();
    }
    failed
}

#[cfg(test)]
mod tests;
