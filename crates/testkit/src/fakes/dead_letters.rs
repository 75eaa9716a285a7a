//! The dead-letter queues of both stages, in memory.

use async_trait::async_trait;
use tidewheel_core::catalog::TargetId;
use tidewheel_core::change::Operation;
use tidewheel_core::ports::{DeadLetters, EntryId, Letter, PortResult, Retried};
use tidewheel_core::stage::Stage;
use tidewheel_stores::redis::keys::StreamKeys;
use tidewheel_stores::redis::wire::{self, ABOUT};

use super::state::{FakeStreams, read_id, write_id};

/// The dead letters, stored beside the streams.
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
        let StreamKeys { dead_letters, .. } = stage.into();
        let letters = || {
            let (state, after) = (self.0.state(), after.parts());
            let entries = state.streams.get(dead_letters).into_iter().flat_map(|stream| &stream.entries);
            let page = entries.filter(|(id, _)| **id > after).take(max.max(1));
            Ok(page.map(|(id, fields)| wire::letter(stage, write_id(*id), fields.clone())).collect())
        };
        self.0.faults().around("letters", letters).await
    }

    async fn count(&self, stage: Stage) -> PortResult<u64> {
        let StreamKeys { dead_letters, .. } = stage.into();
        let count = || {
            let state = self.0.state();
            Ok(state.streams.get(dead_letters).map_or(0, |stream| stream.entries.len() as u64))
        };
        self.0.faults().around("letters", count).await
    }

    async fn retry(&self, stage: Stage, ids: &[EntryId]) -> PortResult<Retried> {
        let StreamKeys { stream, dead_letters, .. } = stage.into();
        let retry = || {
            let (mut state, mut retried) = (self.0.state(), Retried::default());
            for id in ids {
                let letters = state.streams.get(dead_letters);
                let Some(fields) = letters.and_then(|letters| letters.entries.get(&read_id(id))).cloned() else {
                    continue;
                };
                let letter = wire::letter(stage, id.clone(), fields.clone());
                let outdated = letter.record.is_ok_and(|record| {
                    let change = record.change;
                    let writes = !matches!(change.operation, Operation::Delete | Operation::Drop);
                    let keys: Vec<Option<TargetId>> = match change.route.stamp() {
                        None => vec![None],
                        Some(stamp) => stamp.targets.iter().map(|target| state.key_of(target)).collect(),
                    };
                    let mut forgotten = keys.iter().filter_map(|key| state.target(key.as_ref()).forgotten);
                    writes && forgotten.any(|forgotten| change.version < forgotten)
                });
                if outdated {
                    retried.outdated.push(id.clone());
                    continue;
                }
                let mut fields = fields;
                fields.truncate(fields.len().saturating_sub(ABOUT.len()));
                state.streams.get_mut(dead_letters).expect("it was there").entries.remove(&read_id(id));
                state.add(stream, fields);
                state.counts.entry(stream).or_default().0 += 1;
                state.retried = Some(state.now());
                retried.moved += 1;
            }
            Ok(retried)
        };
        let retried = self.0.faults().around("retry", retry).await;
        self.0.arrived.notify_waiters();
        retried
    }

    async fn discard(&self, stage: Stage, ids: &[EntryId]) -> PortResult<u64> {
        let StreamKeys { dead_letters, .. } = stage.into();
        let discard = || {
            let mut state = self.0.state();
            let Some(letters) = state.streams.get_mut(dead_letters) else { return Ok(0) };
            Ok(ids.iter().filter(|id| letters.entries.remove(&read_id(id)).is_some()).count() as u64)
        };
        self.0.faults().around("discard", discard).await
    }
}
