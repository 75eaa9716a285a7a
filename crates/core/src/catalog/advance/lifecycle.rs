//! The life of a generation, from its creation to its deletion.

use super::{Step, View};
use crate::catalog::generation::{Compared, Generation, Needs, Rows, State};
use crate::catalog::scope::{is_answered_by, is_running};
use crate::ports::SnapshotState;

impl View<'_> {
    /// The next step of one generation.
    pub(super) fn next(&self, number: u32, generation: &Generation) -> Option<Step> {
        match generation.state {
            State::Creating => self.create(number, generation),
            State::Retiring => self.withdraw(number, generation).or_else(|| self.delete(number, generation)),
            _ if self.is_lost(number) => self.lost(number, generation),
            State::Kept if self.has_expired(number, generation) => Some(self.retire(number)),
            _ => self
                .filled(number, generation)
                .or_else(|| self.alter(number, generation))
                .or_else(|| self.compare(number, generation)),
        }
    }

    /// Creates the collection, and then routes to it. The first generation of an index gets the alias before that.
    fn create(&self, number: u32, generation: &Generation) -> Option<Step> {
        generation.embedder.as_ref()?;
        if !self.exists(generation) || !self.is_recorded(number, generation) {
            return Some(Step::Create(number));
        }
        let is_first = self.index.serving.is_none();
        if is_first && !self.is_named(generation) {
            return Some(Step::Alias { to: Some(number) });
        }
        let revision = self.facts.next_revision();
        let mut next = self.with(number, |generation| {
            generation.state = if is_first { State::Serving } else { State::Filling };
            generation.since = revision;
            generation.due = revision;
            generation.problem = None;
        });
        if is_first {
            next.serving = Some(number);
        }
        Some(Step::Save(next))
    }

    /// Fills a generation again that lost something; a kept one is given up. One that entries do not wait for may be
    /// losing more: it is filled again when that is over.
    fn lost(&self, number: u32, generation: &Generation) -> Option<Step> {
        if generation.state == State::Kept {
            return (!self.is_needed(number, generation)).then(|| self.retire(number));
        }
        let is_recent = self.facts.lost.iter().any(|lost| lost.recent && lost.target == self.target(number));
        if is_recent && !generation.may_block() {
            return None;
        }
        let revision = self.facts.next_revision();
        let needs = Needs { rows: Rows::All, sweep: true };
        let index = self.with(number, |generation| generation.make_due(revision, needs));
        Some(Step::Refill { index, lost: vec![number] })
    }

    /// Records that a snapshot has filled the generation, once everything that it appended is applied.
    fn filled(&self, number: u32, generation: &Generation) -> Option<Step> {
        let applied = self.facts.applied.filter(|applied| !is_running(applied))?;
        let is_filled =
            !generation.is_filled() && !self.facts.damaged && is_answered_by(applied, &self.target(number), generation);
        is_filled.then(|| {
            Step::Save(self.with(number, |generation| {
                generation.filled = generation.due;
                generation.pace = pace(&applied.snapshot, self.facts.now_ms).or(generation.pace);
                generation.problem = None;
                if generation.state == State::Filling {
                    generation.state = State::Comparing;
                }
            }))
        })
    }

    /// Makes the collection conform to the declaration, and its record to the catalog.
    fn alter(&self, number: u32, generation: &Generation) -> Option<Step> {
        (self.exists(generation) && !self.is_recorded(number, generation)).then_some(Step::Alter(number))
    }

    /// Compares the generation with the source, and judges the result.
    fn compare(&self, number: u32, generation: &Generation) -> Option<Step> {
        if generation.state != State::Comparing || !self.is_whole(number, generation) {
            return None;
        }
        if generation.compared.is_some() && generation.problem.is_some() {
            return None;
        }
        match self.facts.audit.filter(|audit| audit.revision >= generation.due) {
            Some(audit) => Some(Step::Save(self.with(number, |generation| self.judge(generation, *audit)))),
            None => self.facts.settled.then_some(Step::Compare(number)),
        }
    }

    fn judge(&self, generation: &mut Generation, audit: Compared) {
        let Compared { documents, drift, unexplained, .. } = audit;
        if drift == 0 {
            generation.state = State::Ready;
            generation.problem = None;
        } else if unexplained == 0 {
            generation.problem =
                Some(format!("{drift} of {documents} documents differ, because their changes are dead-lettered"));
        } else if generation.rounds >= Generation::MOST_ROUNDS {
            let rounds = generation.rounds;
            generation.problem = Some(format!("{drift} of {documents} documents still differ after {rounds} repairs"));
        } else {
            generation.make_due(self.facts.next_revision(), Needs::COMPARISON);
            generation.rounds += 1;
        }
        generation.compared = Some(audit);
    }

    /// Records that the generation ends, before anything of it is deleted: a catalog that is restored from the records must
    /// not keep it.
    fn withdraw(&self, number: u32, generation: &Generation) -> Option<Step> {
        let record = self.facts.records.get(&number);
        let is_kept = self.exists(generation) && record.is_some_and(|record| record.state != State::Retiring);
        is_kept.then_some(Step::Alter(number))
    }

    /// Deletes the collection of a retiring generation, once nothing can be written to it any more.
    fn delete(&self, number: u32, generation: &Generation) -> Option<Step> {
        if self.facts.deleted.contains(&number) && !self.is_named(generation) {
            let mut next = self.index.clone();
            next.remove(number);
            return Some(if next.generations.is_empty() { Step::Remove } else { Step::Save(next) });
        }
        let is_over = self.facts.applied.is_some_and(|applied| applied.catalog >= generation.since);
        if !is_over {
            return None;
        }
        if !self.is_named(generation) {
            return Some(Step::Delete(number));
        }
        // The index is dropped: the collection that searches use is the last one.
        let is_last = self.index.generations.len() == 1 && self.index.serving.is_none();
        is_last.then_some(Step::Alias { to: None })
    }

    fn has_expired(&self, number: u32, generation: &Generation) -> bool {
        let is_over = generation.until_ms.is_none_or(|until| until <= self.facts.now_ms);
        is_over && !self.is_needed(number, generation)
    }

    /// Whether the alias names the generation, or is about to.
    fn is_needed(&self, number: u32, generation: &Generation) -> bool {
        self.is_named(generation) || self.index.switching.is_some_and(|switch| switch.to == number)
    }

    fn retire(&self, number: u32) -> Step {
        let revision = self.facts.next_revision();
        Step::Save(self.with(number, |generation| generation.retire(revision)))
    }

    /// Whether the record of the collection states what the catalog does.
    fn is_recorded(&self, number: u32, generation: &Generation) -> bool {
        self.facts.records.get(&number).is_some_and(|record| {
            record.state == generation.state
                && record.plain == self.index.is_plain(self.name, number)
                && record.embedder == generation.embedder
                && record.declaration == *generation.declaration
        })
    }
}

/// Documents per second of a snapshot that everything is applied of now; `None` if it was too short to tell. The clocks of
/// source and store may differ by a second or two.
fn pace(snapshot: &SnapshotState, now_ms: u64) -> Option<u64> {
    const LEAST_SECONDS: u64 = 10;
    const LEAST_ROWS: u64 = 1_000;
    let SnapshotState::Done { time, rows } = snapshot else { return None };
    let seconds = (now_ms / 1_000).checked_sub(u64::from(time.seconds))?;
    (seconds >= LEAST_SECONDS && *rows >= LEAST_ROWS).then(|| rows.div_ceil(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::ClusterTime;

    #[test]
    fn pace_is_that_of_a_long_snapshot() {
        let time = ClusterTime { seconds: 100, increment: 1 };
        let of = |rows, seconds: u64| pace(&SnapshotState::Done { time, rows }, seconds * 1_000 + 999);
        assert_eq!(of(50_000, 120), Some(2_500));
        assert_eq!(of(1_000, 100_000), Some(1));
        for (rows, seconds) in [(999, 120), (50_000, 109), (50_000, 99)] {
            assert_eq!(of(rows, seconds), None, "{rows} {seconds}");
        }
        assert_eq!(pace(&SnapshotState::Running { time, after: None, rows: 50_000 }, 120_000), None);
    }
}
