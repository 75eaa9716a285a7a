//! Determines the applied checkpoint: everything that it covers is in the index.
//!
//! ```text
//!  note the checkpoint and the newest entry R of stage 1
//!    └▶ the group of stage 1 has acknowledged all up to R: note the newest entry E of stage 2
//!         └▶ the group of stage 2 has acknowledged all up to E: the checkpoint is applied, with all that it covers
//! ```
//!
//! Every entry covered by the checkpoint is R or older, and its record in stage 2 is E or older, because a processor
//! appends and acknowledges in one step. The barrier blocks nothing: newer entries pass meanwhile.

use tidewheel_core::ports::{Checkpoint, EntryId, Positions};

/// Consecutive barriers, numbered from 1.
#[derive(Debug, Default)]
pub(super) struct Barrier {
    stage: Stage,
    begun: u64,
    passed: u64,
    /// Start time of the last barrier that has passed.
    settled: u64,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Between,
    Raw {
        checkpoint: Checkpoint,
        top: EntryId,
        at: u64,
    },
    Embedded {
        checkpoint: Checkpoint,
        top: EntryId,
        at: u64,
    },
}

impl Barrier {
    /// The number of the next barrier to begin: once it has passed, everything appended by now is in the index.
    pub(super) fn next(&self) -> u64 {
        self.begun + 1
    }

    /// The number of the last barrier that has passed.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// The time, by the clock of the streams, up to which everything in them is in the index. 0 before the first
    /// barrier has passed.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Advances as far as the positions allow, which were read after `checkpoint` was saved; returns a newly applied
    /// checkpoint.
    pub(super) fn advance(&mut self, checkpoint: &Checkpoint, positions: &Positions) -> Option<Checkpoint> {
        if positions.damage.is_some() {
            self.stage = Stage::Between;
            return None;
        }
        if matches!(self.stage, Stage::Between) {
            self.begun += 1;
            let (checkpoint, top) = (checkpoint.clone(), positions.raw.last.clone());
            self.stage = Stage::Raw { checkpoint, top, at: positions.at };
        }
        if let Stage::Raw { checkpoint, top, at } = &self.stage
            && positions.raw.has_passed(top)
        {
            let (checkpoint, top) = (checkpoint.clone(), positions.embedded.last.clone());
            self.stage = Stage::Embedded { checkpoint, top, at: *at };
        }
        match &self.stage {
            Stage::Embedded { top, .. } if positions.embedded.has_passed(top) => {}
            _ => return None,
        }
        self.passed = self.begun;
        match std::mem::take(&mut self.stage) {
            Stage::Embedded { checkpoint, at, .. } => {
                self.settled = at;
                Some(checkpoint)
            }
            Stage::Between | Stage::Raw { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;
    use tidewheel_core::ports::{Damage, Position, ResumeToken, SnapshotState};
    use tidewheel_core::version::ClusterTime;

    use super::*;

    fn checkpoint(number: u32) -> Checkpoint {
        let time = ClusterTime { seconds: number, increment: 1 };
        Checkpoint {
            token: ResumeToken(number.to_string()),
            last: (time, 1),
            through: time,
            epoch: 0,
            selection: String::new(),
            snapshot: SnapshotState::Done { time, rows: 0 },
            catalog: 0,
            scope: Vec::new(),
        }
    }

    fn id(number: u64) -> EntryId {
        EntryId(format!("{number}-0"))
    }

    fn position(last: u64, waiting: Option<u64>) -> Position {
        Position { last: id(last), waiting: waiting.map(id) }
    }

    fn positions(raw: Position, embedded: Position) -> Positions {
        Positions { raw, embedded, damage: None, at: 0, catalog: 0, lost: Vec::new() }
    }

    #[test]
    fn idle_pipeline_passes_at_once() {
        let mut barrier = Barrier::default();
        let idle = positions(position(7, None), position(9, None));
        assert_eq!((barrier.next(), barrier.passed()), (1, 0));
        assert_eq!(barrier.advance(&checkpoint(1), &idle), Some(checkpoint(1)));
        assert_eq!((barrier.next(), barrier.passed()), (2, 1));
    }

    #[test]
    fn barrier_waits_for_both_stages_but_not_for_newer_entries() {
        let mut barrier = Barrier::default();
        assert_eq!(barrier.advance(&checkpoint(1), &positions(position(7, Some(7)), position(3, None))), None);
        // Stage 1 has passed 7, though 8 is pending; the record of 7 is 4.
        assert_eq!(barrier.advance(&checkpoint(2), &positions(position(8, Some(8)), position(4, Some(4)))), None);
        let passed = barrier.advance(&checkpoint(3), &positions(position(9, Some(8)), position(5, Some(5))));
        assert_eq!(passed, Some(checkpoint(1)), "the checkpoint at the start of the barrier");
    }

    #[test]
    fn settled_time_is_the_start_of_the_passed_barrier() {
        let mut barrier = Barrier::default();
        let at = |at, raw| Positions { at, ..positions(raw, position(3, None)) };
        barrier.advance(&checkpoint(1), &at(10, position(7, Some(7))));
        assert_eq!(barrier.settled(), 0, "not passed yet");
        barrier.advance(&checkpoint(2), &at(20, position(8, Some(8))));
        assert_eq!(barrier.settled(), 10, "entries appended after its start may be in flight");
        barrier.advance(&checkpoint(3), &at(30, position(8, None)));
        assert_eq!(barrier.settled(), 30);
    }

    #[test]
    fn no_barrier_passes_with_damage() {
        let mut barrier = Barrier::default();
        assert_eq!(barrier.advance(&checkpoint(1), &positions(position(7, Some(7)), position(3, None))), None);
        let damage = Some(Damage::Entries("the stream is gone".into()));
        let damaged = Positions { damage, ..positions(position(0, None), position(3, None)) };
        assert_eq!(barrier.advance(&checkpoint(1), &damaged), None);
        assert_eq!((barrier.next(), barrier.passed()), (2, 0), "the barrier in progress never passes");
    }

    proptest! {
        /// Entries move through two queues in any order of acknowledgement; everything reported as applied must have
        /// left both.
        #[test]
        fn entries_reported_as_applied_have_left_both_stages(moves in prop::collection::vec((0u8..4, 0usize..8), 1..200)) {
            let mut barrier = Barrier::default();
            let (mut raw, mut embedded) = (VecDeque::<(u64, u32)>::new(), VecDeque::<(u64, u32)>::new());
            let (mut raw_last, mut embedded_last, mut appended, mut applied) = (0, 0, 0, 0);
            for (what, which) in moves {
                match what {
                    0 => {
                        appended += 1;
                        raw_last += 1;
                        raw.push_back((raw_last, appended));
                    }
                    1 if which < raw.len() => {
                        let (_, number) = raw.remove(which).expect("it is there");
                        embedded_last += 1;
                        embedded.push_back((embedded_last, number));
                    }
                    2 if which < embedded.len() => drop(embedded.remove(which)),
                    _ => {
                        let oldest = |queue: &VecDeque<(u64, u32)>| queue.iter().map(|(id, _)| *id).min();
                        let now = positions(
                            position(raw_last, oldest(&raw)),
                            position(embedded_last, oldest(&embedded)),
                        );
                        if let Some(checkpoint) = barrier.advance(&checkpoint(appended), &now) {
                            applied = checkpoint.last.0.seconds;
                        }
                    }
                }
                prop_assert!(raw.iter().chain(&embedded).all(|(_, number)| *number > applied));
            }
        }
    }
}
