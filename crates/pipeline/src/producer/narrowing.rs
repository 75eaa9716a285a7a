//! Decides how to get past a step whose append keeps failing, without I/O.
//!
//! A step cannot be appended in parts, because only its own checkpoint states where to resume: a Redis that lost a part
//! would look complete. So the source is read again from the saved checkpoint in steps of half the size, each with its
//! own checkpoint, until a single change fails alone. Steps grow again with every success.
//!
//! As in [`isolate`](crate::isolate), nothing is divided or parked without proof that Redis appends other entries, nor
//! after an error that says that Redis is unable to write.

use tidewheel_core::error::{Cause, PortError};
use tidewheel_core::ports::{Checkpoint, ResumeToken, SnapshotState};
use tidewheel_core::version::ClusterTime;

use crate::isolate::Suspect;
use crate::isolate::plan::{Piece, Step, stops};

/// Steps of this many changes are no longer limited.
const UNLIMITED: usize = 1_000;

/// The readers of the source: each has its own position in the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The change stream.
    Feed,
    /// The snapshot and its sweep.
    Snapshot,
}

/// The position at which a step begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// After this token and event.
    Feed(ResumeToken, (ClusterTime, u32)),
    /// The progress of the snapshot.
    Snapshot(SnapshotState),
}

impl Place {
    /// The position of the step between these checkpoints.
    pub fn of(checkpoint: &Checkpoint, next: &Checkpoint) -> Self {
        if (&checkpoint.token, checkpoint.last) == (&next.token, next.last) {
            Self::Snapshot(checkpoint.snapshot.clone())
        } else {
            Self::Feed(checkpoint.token.clone(), checkpoint.last)
        }
    }

    fn part(&self) -> Part {
        match self {
            Self::Feed(..) => Part::Feed,
            Self::Snapshot(_) => Part::Snapshot,
        }
    }
}

/// What follows a failed append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Retry after a pause.
    Wait,
    /// Read the changes again, at most this many in the next step.
    Narrow(usize),
    /// Park what fails.
    Park,
}

/// The step sizes of both parts.
#[derive(Debug, Default)]
pub struct Narrowings {
    feed: Narrowing,
    snapshot: Narrowing,
}

impl Narrowings {
    /// Maximum changes in the next step of this part.
    pub fn most(&self, part: Part) -> usize {
        match part {
            Part::Feed => self.feed.most,
            Part::Snapshot => self.snapshot.most,
        }
    }

    fn of(&mut self, place: &Place) -> &mut Narrowing {
        match place.part() {
            Part::Feed => &mut self.feed,
            Part::Snapshot => &mut self.snapshot,
        }
    }

    /// Whether the decision after a failure depends on whether Redis accepts other appends.
    pub fn needs_proof(&mut self, place: &Place, count: usize, error: &PortError) -> bool {
        let narrowing = self.of(place);
        narrowing.moves_to(place);
        blames(error, count) && (narrowing.suspect.is_some() || narrowing.piece(count).needs_proof(error))
    }

    /// The decision after the append of `count` changes at this place has failed. `works`: Redis has accepted another
    /// append since.
    pub fn failed(&mut self, place: &Place, count: usize, error: &PortError, works: bool) -> Next {
        let narrowing = self.of(place);
        narrowing.moves_to(place);
        if blames(error, count) { narrowing.failed(count, error, works) } else { Next::Wait }
    }

    /// A step was appended.
    pub fn succeeded(&mut self, place: &Place) {
        let narrowing = self.of(place);
        narrowing.place = None;
        if narrowing.most < usize::MAX {
            let most = narrowing.most.saturating_mul(2);
            narrowing.most = if most >= UNLIMITED { usize::MAX } else { most };
        }
    }
}

#[derive(Debug)]
struct Narrowing {
    most: usize,
    /// Where an append has failed last.
    place: Option<Place>,
    failures: u32,
    /// The change that fails alone at this place.
    suspect: Option<Suspect>,
}

impl Default for Narrowing {
    fn default() -> Self {
        Self { most: usize::MAX, place: None, failures: 0, suspect: None }
    }
}

impl Narrowing {
    fn moves_to(&mut self, place: &Place) {
        if self.place.as_ref() != Some(place) {
            (self.place, self.failures, self.suspect) = (Some(place.clone()), 0, None);
        }
    }

    fn piece(&self, count: usize) -> Piece {
        Piece::resumed(count, self.failures, self.most < usize::MAX)
    }

    fn failed(&mut self, count: usize, error: &PortError, works: bool) -> Next {
        if let Some(suspect) = self.suspect.take() {
            let suspect = suspect.failed(error.clone(), works, 0);
            let parks = works && suspect.must_park();
            self.suspect = Some(suspect);
            return if parks { Next::Park } else { Next::Wait };
        }
        match self.piece(count).failed(error.clone(), works, 0) {
            Step::Halve(first, _) if self.most > 1 => {
                self.most = first.range.len().min(self.most / 2).max(1);
                self.failures = 0;
                Next::Narrow(self.most)
            }
            // Alone, or no token between its changes can be saved.
            Step::Halve(..) | Step::Suspect(_) => {
                self.most = 1;
                self.suspect = Some(Suspect::new(0, error.clone(), 0));
                Next::Wait
            }
            Step::Again(piece) => {
                self.failures = piece.failures();
                Next::Wait
            }
            Step::Stop => Next::Wait,
        }
    }
}

/// Whether a change can be the reason of this error.
fn blames(error: &PortError, count: usize) -> bool {
    count > 0 && !stops(error) && !matches!(error.cause, Cause::Busy | Cause::Full | Cause::Denied)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use tidewheel_core::error::{ErrorClass, Server};

    use super::*;

    fn error(class: ErrorClass, cause: Cause) -> PortError {
        let error = PortError::transient("injected").because(Server::opaque("redis"), cause);
        PortError { class, ..error }
    }

    fn place(at: usize) -> Place {
        Place::Feed(ResumeToken(at.to_string()), (ClusterTime::default(), 0))
    }

    /// Appends `total` changes as the producer does, in steps of at most `widest`; returns the parked ones and the
    /// number of appends. `outages` says for each append whether Redis is down.
    fn run(
        total: usize,
        bad: &BTreeSet<usize>,
        widest: usize,
        outages: &[bool],
        error: &PortError,
    ) -> (BTreeSet<usize>, usize) {
        let (mut narrowings, mut parked) = (Narrowings::default(), BTreeSet::new());
        let (mut at, mut appends) = (0, 0);
        let is_down = |appends: &mut usize| {
            *appends += 1;
            outages.get(*appends - 1).copied().unwrap_or(false)
        };
        while at < total {
            assert!(appends < 100_000, "no progress at {at}");
            let count = narrowings.most(Part::Feed).min(widest).min(total - at);
            if !is_down(&mut appends) && bad.range(at..at + count).next().is_none() {
                narrowings.succeeded(&place(at));
                at += count;
                continue;
            }
            let works = narrowings.needs_proof(&place(at), count, error) && !is_down(&mut appends);
            match narrowings.failed(&place(at), count, error, works) {
                Next::Wait => {}
                Next::Narrow(most) => assert!(most < count),
                Next::Park => {
                    assert_eq!(count, 1, "only a change that fails alone is parked");
                    if !is_down(&mut appends) {
                        parked.insert(at);
                        narrowings.succeeded(&place(at));
                        at += 1;
                    }
                }
            }
        }
        (parked, appends)
    }

    const BLAMING: [Cause; 4] = [Cause::Refused, Cause::Unreachable, Cause::Timeout, Cause::Other];

    proptest! {
        #[test]
        fn changes_that_fail_alone_are_parked_and_all_others_appended_for_every_error(
            total in 1usize..700,
            bad in prop::collection::btree_set(0usize..700, 0..5),
            widest in 1usize..600,
            class in prop::sample::select(vec![ErrorClass::Transient, ErrorClass::Poison]),
            cause in prop::sample::select(&BLAMING[..]),
        ) {
            let bad: BTreeSet<usize> = bad.into_iter().filter(|at| *at < total).collect();
            let (parked, appends) = run(total, &bad, widest, &[], &error(class, cause));
            prop_assert_eq!(&parked, &bad);
            prop_assert!(appends <= total / widest + 40 + 120 * bad.len(), "{} appends", appends);
        }

        #[test]
        fn outages_park_no_valid_change(
            total in 1usize..300,
            bad in prop::collection::btree_set(0usize..300, 0..3),
            // Outages of at least three appends, and pauses.
            phases in prop::collection::vec((any::<bool>(), 3usize..40), 0..20),
            cause in prop::sample::select(&BLAMING[..]),
        ) {
            let bad: BTreeSet<usize> = bad.into_iter().filter(|at| *at < total).collect();
            let outages: Vec<bool> = phases.iter().flat_map(|(down, length)| vec![*down; *length]).collect();
            let (parked, _) = run(total, &bad, 500, &outages, &error(ErrorClass::Transient, cause));
            prop_assert_eq!(&parked, &bad);
        }

        #[test]
        fn redis_that_is_unable_to_write_is_waited_out_despite_proof(
            counts in prop::collection::vec(1usize..500, 1..200),
            cause in prop::sample::select(vec![Cause::Busy, Cause::Full, Cause::Denied]),
        ) {
            let mut narrowings = Narrowings::default();
            for count in counts {
                let error = error(ErrorClass::Transient, cause);
                prop_assert!(!narrowings.needs_proof(&place(0), count, &error));
                prop_assert_eq!(narrowings.failed(&place(0), count, &error, true), Next::Wait);
            }
            prop_assert_eq!(narrowings.most(Part::Feed), usize::MAX);
        }
    }

    #[test]
    fn without_proof_nothing_is_divided_or_parked() {
        let mut narrowings = Narrowings::default();
        for count in [1, 2, 500] {
            for _ in 0..100 {
                let error = error(ErrorClass::Transient, Cause::Unreachable);
                assert_eq!(narrowings.failed(&place(count), count, &error, false), Next::Wait);
            }
        }
        assert_eq!(narrowings.most(Part::Feed), usize::MAX);
    }

    #[test]
    fn feed_and_snapshot_are_narrowed_separately() {
        let mut narrowings = Narrowings::default();
        let error = error(ErrorClass::Transient, Cause::Refused);
        let snapshot = Place::Snapshot(SnapshotState::Done { time: ClusterTime::default(), rows: 0 });
        for expected in [Next::Wait, Next::Wait, Next::Narrow(5)] {
            assert_eq!(narrowings.failed(&snapshot, 10, &error, true), expected);
            narrowings.succeeded(&place(1));
        }
        assert_eq!((narrowings.most(Part::Feed), narrowings.most(Part::Snapshot)), (usize::MAX, 5));
    }

    #[test]
    fn changes_without_a_position_between_them_are_parked_together() {
        let mut narrowings = Narrowings::default();
        let error = error(ErrorClass::Transient, Cause::Refused);
        let decisions: Vec<Next> = (0..12).map(|_| narrowings.failed(&place(0), 2, &error, true)).collect();
        assert_eq!(decisions.iter().filter(|next| matches!(next, Next::Narrow(_))).count(), 1, "{decisions:?}");
        assert_eq!(decisions.last(), Some(&Next::Park));
    }
}
