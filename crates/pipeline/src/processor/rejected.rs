//! What remains of units for which stage 2 accepts no records.
//!
//! Documents are parked. What the unit removes is handed over once more, alone: it is small, and a document must not stay
//! in a target that it has left.

use tidewheel_core::catalog::TargetId;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{DeadLetter, EntryId};
use tracing::warn;

use super::lane::Lanes;
use super::steps::Handful;
use super::unit::{failed_targets, removes_parked};
use crate::parking::deletion_at;

/// The remains of rejected units.
#[derive(Default)]
pub(super) struct Rejected {
    /// Their entries, to be parked last.
    pub(super) letters: Vec<DeadLetter>,
    /// Removals to hand over.
    pub(super) removals: Vec<Embedded>,
    /// Superseded entries.
    pub(super) superfluous: Vec<EntryId>,
}

impl Rejected {
    /// Adds a unit that was rejected with this error.
    pub(super) fn add(&mut self, handful: &Handful, unit: usize, error: &PortError, lanes: &Lanes) {
        let records = handful.records_of(unit..unit + 1);
        let settled = handful.settled(unit);
        let (documents, removed): (Vec<&Embedded>, Vec<&Embedded>) =
            records.iter().partition(|record| record.change.operation.has_document());
        // Also those that it skipped: their loss is not recorded.
        let targets = documents.iter().filter_map(|record| record.target.as_ref()).map(|target| &target.id);
        let failed: Vec<TargetId> = targets.chain(settled.gaps.iter().map(|gap| &gap.target)).cloned().collect();
        match &settled.letter {
            Some(letter) => {
                // Its entry is parked for other targets anyway.
                if documents.is_empty() {
                    let key = removed.first().map(|record| &record.change.key);
                    warn!(key, "failed to hand over a removal: {error}");
                }
                self.letters.push(extended(letter.clone(), failed, error));
            }
            None => {
                let mut entries = settled.entries.iter().cloned();
                if let Some(own) = entries.next() {
                    let route = documents.first().map(|record| &record.change.route);
                    let targets = route.map(|route| failed_targets(route, failed)).unwrap_or_default();
                    let letter = DeadLetter::new(own, error.message.clone(), error.attempts);
                    self.letters.push(DeadLetter { targets, ..letter });
                }
                self.superfluous.extend(entries);
            }
        }
        if documents.is_empty() {
            // A deletion that failed fails as a removal too.
            return;
        }
        self.removals.extend(removed.into_iter().cloned());
        for record in documents {
            if lanes.of(record.target.as_ref()).is_some_and(removes_parked) {
                let removal = Embedded::without_vectors(deletion_at(record.change.version, &record.change));
                self.removals.push(Embedded { target: record.target.clone(), ..removal });
            }
        }
    }
}

/// A letter for more targets.
fn extended(mut letter: DeadLetter, failed: Vec<TargetId>, error: &PortError) -> DeadLetter {
    if !failed.is_empty() {
        // Without targets it is that of its whole entry.
        if !letter.targets.is_empty() {
            letter.targets.extend(failed);
        }
        letter.reason = format!("{}; {}", letter.reason, error.message);
    }
    letter
}

#[cfg(test)]
mod tests {
    use tidewheel_core::catalog::State;
    use tidewheel_core::change::Operation;
    use tidewheel_core::embedded::Vectors;

    use super::super::samples::{REVISION, applied, change, entry, model, routed, texts};
    use super::super::steps::{Settled, Steps};
    use super::super::unit::{Part, Texts, Unit};
    use super::*;
    use crate::parking::OnDeadLetter;
    use crate::targets::samples::{catalog, first};

    /// Indexes `a`, `b` and `c`, of which the last removes parked documents.
    async fn three() -> Lanes {
        let mut declared = catalog(REVISION, &["a", "b", "c"].map(|name| (name, State::Serving, true)));
        let index = declared.indexes.get_mut(&first("c").index).unwrap();
        let mut declaration = texts("c");
        declaration.rules.on_dead_letter = OnDeadLetter::Remove;
        index.generations.get_mut(&1).unwrap().declaration = std::sync::Arc::new(declaration);
        applied(&declared).await
    }

    fn written(to: Vec<usize>) -> Part {
        let vectors = Vectors::new(2, vec![1.0, 0.0]).unwrap();
        let chunks = vec!["text".to_owned()];
        let texts = Texts { model: model(), chunks, prefix: String::new(), vectors, reused: 0, unchanged: vec![] };
        Part::Embedded { to, texts }
    }

    /// Rejects the only unit.
    fn reject(unit: Unit, lanes: &Lanes) -> Rejected {
        let (mut steps, mut records) = (Steps::default(), Vec::new());
        let settled: Settled = unit.settle(lanes, &mut records);
        steps.add(&mut records, settled);
        let mut rejected = Rejected::default();
        for handful in steps.take() {
            rejected.add(&handful, 0, &PortError::poison("too large"), lanes);
        }
        rejected.superfluous.append(&mut steps.superfluous);
        rejected
    }

    /// The indexes of removals.
    fn removed(rejected: &Rejected) -> Vec<&str> {
        let mut removed = Vec::new();
        for Embedded { change, target, .. } in &rejected.removals {
            assert_eq!(change.operation, Operation::Delete);
            removed.push(target.as_ref().unwrap().id.index.as_str());
        }
        removed
    }

    #[tokio::test]
    async fn documents_are_parked_and_removals_are_handed_over_alone() {
        let lanes = three().await;
        let update = |to: &[&str], leaves: &[&str]| routed(change(Operation::Update, 1, 9), to, leaves);
        let entries = || vec![entry(2), entry(1)];
        let unit = |change, parts| Unit { change, entries: entries(), parts, open: 0 };

        let left = Part::Removed { to: vec![1] };
        let rejected = reject(unit(update(&["a", "c"], &["b"]), vec![written(vec![0, 2]), left]), &lanes);
        assert_eq!(removed(&rejected), ["b", "c"], "one is left, the other is removed by policy");
        assert_eq!(rejected.letters[0].targets, [first("a"), first("c")]);
        assert_eq!((rejected.letters[0].id.clone(), rejected.superfluous), (entry(2), vec![entry(1)]));

        // Everything of a change that has no document left.
        let deletion = routed(change(Operation::Delete, 1, 9), &["a", "b"], &[]);
        let rejected = reject(unit(deletion, vec![Part::Removed { to: vec![0, 1] }]), &lanes);
        assert!(rejected.removals.is_empty() && rejected.letters[0].targets.is_empty());

        // A letter for another target is extended, also by what was skipped.
        let failed = Part::Failed { to: vec![1], error: PortError::poison("bad") };
        let skipped = Part::Skipped { to: vec![2], reason: "down".to_owned() };
        let parts = vec![written(vec![0]), failed, skipped];
        let rejected = reject(unit(update(&["a", "b", "c"], &[]), parts), &lanes);
        let letter = &rejected.letters[0];
        assert_eq!((letter.reason.as_str(), letter.targets.len()), ("bad; too large", 3));
        assert_eq!((rejected.letters.len(), rejected.superfluous), (1, vec![entry(1)]));
        assert_eq!(letter.targets, [first("b"), first("a"), first("c")]);
    }
}
