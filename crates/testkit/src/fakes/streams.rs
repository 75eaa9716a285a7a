//! The ports of a fake Redis. All of them share one [`FakeStreams`].

use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_stores::redis::keys::{STAGE_1, STAGE_2, StreamKeys};
use tidewheel_stores::redis::wire::Record;

use super::dead_letters::FakeDeadLetters;
use super::inspector::FakeInspector;
use super::journal::FakeJournal;
use super::queue::{FakeHandover, FakeQueue};
use super::stream_log::{FakeFollower, FakeStreamLog};
use super::target::FakeTarget;

pub use super::state::{FakeStreams, Saved};

impl FakeStreams {
    /// The producer's side of stage 1.
    pub fn journal(&self) -> FakeJournal {
        FakeJournal::new(self.clone())
    }

    /// Stage 1 for a processor.
    pub fn changes(&self, consumer: &str) -> FakeQueue<Change> {
        self.queue(STAGE_1, consumer)
    }

    /// Stage 2 for an upserter.
    pub fn embedded(&self, consumer: &str) -> FakeQueue<Embedded> {
        self.queue(STAGE_2, consumer)
    }

    /// Any stage for any group and consumer.
    pub fn queue<T: Record>(&self, stage: impl Into<StreamKeys>, consumer: &str) -> FakeQueue<T> {
        FakeQueue::new(self.clone(), stage.into(), consumer.to_owned())
    }

    /// The step from stage 1 to stage 2.
    pub fn handover(&self) -> FakeHandover {
        FakeHandover::new(self.clone())
    }

    /// The retained entries of a stage.
    pub fn stream_log<T: Record>(&self, stage: impl Into<StreamKeys>) -> FakeStreamLog<T> {
        FakeStreamLog::new(self.clone(), stage.into())
    }

    /// The dead-letter queues of both stages.
    pub fn dead_letters(&self) -> FakeDeadLetters {
        FakeDeadLetters::new(self.clone())
    }

    /// The streams for operators.
    pub fn inspector(&self) -> FakeInspector {
        FakeInspector::new(self.clone())
    }

    /// The replay group on stage 2.
    pub fn follower(&self) -> FakeFollower {
        FakeFollower::new(self.clone())
    }

    /// The tombstones of the plain target.
    pub fn tombstones(&self) -> FakeTarget {
        self.plain_target()
    }

    /// The record of the plain target's collection.
    pub fn collection_registry(&self) -> FakeTarget {
        self.plain_target()
    }
}
