//! Handover to stage 2 and parking in the dead-letter queue.

use std::ops::Range;

use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{DeadLetter, EntryId};
use tracing::{debug, warn};

use super::plan::{Handful, Plan, Record, handfuls};
use super::{NAME, Worker};
use crate::backpressure::PAUSE;
use crate::isolate::{Attempt, Isolation, ProbeFuture, Sifted};
use crate::parking::{self, ParkingPlan, deletion_at, park};
use crate::retry::RetryError;
use crate::spans::BatchSpans;

impl Worker {
    /// Hands over embedded documents and the other changes of the plan, then parks its dead letters, and records for
    /// which Redis fails while it accepts others.
    pub(super) async fn settle(
        &self,
        mut records: Vec<Record>,
        plan: Plan,
        spans: &mut Option<BatchSpans>,
    ) -> Result<(), RetryError> {
        let Plan { passed, superfluous, letters, .. } = plan;
        records.extend(passed.into_iter().map(|passed| (Embedded::without_vectors(passed.change), passed.entries)));
        let mut waiting = Vec::new();
        for handful in handfuls(records) {
            self.wait_for_room(handful.records.len() as u64).await?;
            let Sifted { done, suspects } = self.step(&handful).sift(std::iter::once(0..handful.records.len())).await?;
            let entries: Vec<EntryId> =
                done.into_iter().flat_map(|(range, ())| handful.entries[range].concat()).collect();
            debug!(records = handful.records.len(), entries = entries.len(), "handed over");
            if let Some(spans) = spans {
                spans.end(&entries);
            }
            if !suspects.is_empty() {
                waiting.push((handful, suspects));
            }
        }
        self.acknowledge(&superfluous, spans).await?;
        self.park(letters, spans).await?;
        for (handful, suspects) in waiting {
            let (mut letters, mut removals) = (Vec::new(), Vec::new());
            for (index, outcome) in self.step(&handful).settle(suspects).await? {
                let (entries, record) = (&handful.entries[index], &handful.records[index]);
                match outcome {
                    Ok(()) => {
                        if let Some(spans) = spans {
                            spans.end(entries);
                        }
                    }
                    // A removal by policy has no entry.
                    Err(error) if entries.is_empty() => {
                        warn!(key = record.change.key, "failed to hand over a removal: {error}");
                    }
                    Err(error) => {
                        let change = &record.change;
                        let parked = park(self.on_dead_letter, change.version, entries.clone(), None, &error);
                        let ParkingPlan { letter, deletion, older } = parked;
                        letters.push(letter);
                        // A deletion that failed fails as a removal too.
                        match deletion.filter(|_| change.operation.has_document()) {
                            Some(version) => {
                                removals.push((Embedded::without_vectors(deletion_at(version, change)), older));
                            }
                            None => self.acknowledge(&older, spans).await?,
                        }
                    }
                }
            }
            self.remove(removals, spans).await?;
            self.park(letters, spans).await?;
        }
        Ok(())
    }

    /// Hands over the removals of documents whose newest record is about to be parked.
    async fn remove(&self, removals: Vec<Record>, spans: &mut Option<BatchSpans>) -> Result<(), RetryError> {
        for handful in handfuls(removals) {
            let step = self.step(&handful);
            let Sifted { done, suspects } = step.sift(std::iter::once(0..handful.records.len())).await?;
            let mut entries: Vec<EntryId> =
                done.into_iter().flat_map(|(range, ())| handful.entries[range].concat()).collect();
            for (index, outcome) in step.settle(suspects).await? {
                let settled = &handful.entries[index];
                if let Err(error) = outcome {
                    warn!(key = handful.records[index].change.key, "failed to hand over a removal: {error}");
                    self.acknowledge(settled, &mut None).await?;
                }
                entries.extend_from_slice(settled);
            }
            if let Some(spans) = spans {
                spans.end(&entries);
            }
        }
        Ok(())
    }

    /// The handover of these records to stage 2.
    fn step<'a>(
        &'a self,
        handful: &'a Handful,
    ) -> Isolation<'a, impl Fn(Range<usize>) -> Attempt<'a>, impl Fn() -> ProbeFuture<'a>> {
        let Handful { records, entries } = handful;
        let attempt = move |range: Range<usize>| -> Attempt<'a> {
            Box::pin(async move {
                let acknowledged = entries[range.clone()].concat();
                Ok(self.handover.hand_over(&records[range], &acknowledged).await?)
            })
        };
        // An entry that is not pending: the script runs as usual, and does nothing.
        let probe = move || -> ProbeFuture<'a> {
            Box::pin(async move { self.handover.hand_over(&[], &[EntryId::zero()]).await })
        };
        let (retry, successes) = (&self.retry, &self.handed_over);
        Isolation { retry, successes, what: "hand over to stage 2", attempt, probe }
    }

    /// Acknowledges superseded entries.
    async fn acknowledge(&self, superfluous: &[EntryId], spans: &mut Option<BatchSpans>) -> Result<(), RetryError> {
        if superfluous.is_empty() {
            return Ok(());
        }
        self.retry.call("acknowledge entries", || self.queue.acknowledge(superfluous)).await?;
        if let Some(spans) = spans {
            spans.end(superfluous);
        }
        Ok(())
    }

    async fn park(&self, letters: Vec<DeadLetter>, spans: &mut Option<BatchSpans>) -> Result<(), RetryError> {
        parking::send(NAME, letters, &*self.queue, &self.retry, spans.as_mut()).await
    }

    /// Waits while stage 2 is above its high-water mark. Entries in flight stay pending with this processor meanwhile.
    async fn wait_for_room(&self, records: u64) -> Result<(), RetryError> {
        let Some(stage) = &self.backlog else { return Ok(()) };
        let backlog = || self.retry.wait_for("read the backlog of stage 2", || stage.backlog());
        self.room.wait(records, backlog, || self.retry.pause(PAUSE)).await
    }
}
