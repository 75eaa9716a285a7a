//! The dead letters of both stages, in memory.

use std::time::Duration;

use async_trait::async_trait;
use tidewheel_core::ports::{ABOUT, DeadLetters, EntryId, Letter, PortResult};
use tidewheel_core::streams::Stage;
use tokio::time::Instant;

use super::streams::{FakeStreams, read_id, write_id};

/// For how long no deletion is forgotten after letters were put back.
pub(super) const RETRIED_FOR: Duration = Duration::from_secs(24 * 3600);

/// The dead letters, kept beside the streams.
#[derive(Clone)]
pub struct FakeDeadLetters(FakeStreams);

impl FakeDeadLetters {
    pub(super) fn new(streams: FakeStreams) -> Self {
        Self(streams)
    }
}

#[async_trait]
impl DeadLetters for FakeDeadLetters {
    async fn letters(&self, stage: Stage, after: &EntryId, max: usize) -> PortResult<Vec<Letter>> {
        let letters = || {
            let (state, after) = (self.0.state(), after.parts());
            let entries = state.streams.get(stage.dead_letters).into_iter().flat_map(|stream| &stream.entries);
            let page = entries.filter(|(id, _)| **id > after).take(max.max(1));
            Ok(page.map(|(id, fields)| Letter::read(stage, write_id(*id), fields.clone())).collect())
        };
        self.0.faults().around("letters", letters).await
    }

    async fn retry(&self, stage: Stage, ids: &[EntryId]) -> PortResult<u64> {
        let retry = || {
            let (mut state, mut moved) = (self.0.state(), 0);
            for id in ids {
                let letters = state.streams.get_mut(stage.dead_letters);
                let Some(mut fields) = letters.and_then(|letters| letters.entries.remove(&read_id(id))) else {
                    continue;
                };
                fields.truncate(fields.len().saturating_sub(ABOUT.len()));
                state.add(stage.stream, fields);
                state.counts.entry(stage.stream).or_default().0 += 1;
                state.retried = Some(Instant::now());
                moved += 1;
            }
            Ok(moved)
        };
        let moved = self.0.faults().around("retry", retry).await;
        self.0.arrived.notify_waiters();
        moved
    }

    async fn discard(&self, stage: Stage, ids: &[EntryId]) -> PortResult<u64> {
        let discard = || {
            let mut state = self.0.state();
            let Some(letters) = state.streams.get_mut(stage.dead_letters) else { return Ok(0) };
            Ok(ids.iter().filter(|id| letters.entries.remove(&read_id(id)).is_some()).count() as u64)
        };
        self.0.faults().around("discard", discard).await
    }
}
