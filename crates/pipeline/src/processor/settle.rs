//! Handover to stage 2 and parking in the dead-letter queue.

use std::ops::Range;

use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{DeadLetter, EntryId};
use tracing::{debug, warn};

use super::batch::{Batch, Decided};
use super::rejected::Rejected;
use super::steps::{Handful, Steps};
use super::traced::SharedSpans;
use super::{NAME, Worker};
use crate::backpressure::PAUSE;
use crate::isolate::{Attempt, Isolation, ProbeFuture, Sifted};
use crate::metric;
use crate::parking;
use crate::retry::RetryError;

impl Worker {
    /// Hands over decided units, then parks what has failed, and units for which Redis fails while it accepts others.
    pub(super) async fn settle(&self, batch: &Batch, decided: Decided) -> Result<(), RetryError> {
        let Decided { units, mut letters, mut superfluous } = decided;
        let mut steps = Steps::default();
        let mut records = Vec::new();
        for unit in units {
            let settled = unit.settle(&batch.lanes, &mut records);
            steps.add(&mut records, settled);
        }
        letters.append(&mut steps.letters);
        superfluous.append(&mut steps.superfluous);
        let mut waiting = Vec::new();
        for handful in steps.take() {
            self.wait_for_room(handful.records.len() as u64).await?;
            let Sifted { done, suspects } = self.step(&handful).sift(std::iter::once(0..handful.len())).await?;
            for (units, ()) in done {
                letters.extend(handed_over(&handful, units, &batch.spans));
            }
            if !suspects.is_empty() {
                waiting.push((handful, suspects));
            }
        }
        self.acknowledge(&superfluous, &batch.spans).await?;
        self.park(letters, batch).await?;
        for (handful, suspects) in waiting {
            let mut rejected = Rejected::default();
            for (unit, outcome) in self.step(&handful).settle(suspects).await? {
                match outcome {
                    Ok(()) => rejected.letters.extend(handed_over(&handful, unit..unit + 1, &batch.spans)),
                    Err(error) => rejected.add(&handful, unit, &error, &batch.lanes),
                }
            }
            let Rejected { letters, removals, superfluous } = rejected;
            self.remove(removals).await?;
            self.acknowledge(&superfluous, &batch.spans).await?;
            self.park(letters, batch).await?;
        }
        Ok(())
    }

    /// Hands over removals of documents whose change is about to be parked.
    async fn remove(&self, removals: Vec<Embedded>) -> Result<(), RetryError> {
        let mut steps = Steps::default();
        for removal in removals {
            steps.add_record(removal);
        }
        for handful in steps.take() {
            let step = self.step(&handful);
            let suspects = step.sift(std::iter::once(0..handful.len())).await?.suspects;
            for (unit, outcome) in step.settle(suspects).await? {
                if let Err(error) = outcome {
                    warn!(key = handful.records[unit].change.key, "failed to hand over a removal: {error}");
                }
            }
        }
        Ok(())
    }

    /// The handover of these units to stage 2.
    fn step<'a>(
        &'a self,
        handful: &'a Handful,
    ) -> Isolation<'a, impl Fn(Range<usize>) -> Attempt<'a>, impl Fn() -> ProbeFuture<'a>> {
        let attempt = move |units: Range<usize>| -> Attempt<'a> {
            Box::pin(async move {
                let (acknowledged, gaps) = (handful.entries_of(units.clone()), handful.gaps_of(units.clone()));
                let records = handful.records_of(units);
                Ok(self.handover.hand_over_with_gaps(records, &acknowledged, &gaps).await?)
            })
        };
        // An entry that is not pending: the script runs as usual, and does nothing.
        let probe = move || -> ProbeFuture<'a> {
            Box::pin(async move { self.handover.hand_over(&[], &[EntryId::zero()]).await })
        };
        let (retry, successes) = (&self.retry, &self.handed_over);
        Isolation { retry, successes, what: "hand over to stage 2", attempt, probe }
    }

    /// Acknowledges entries without effect.
    async fn acknowledge(&self, superfluous: &[EntryId], spans: &SharedSpans) -> Result<(), RetryError> {
        if superfluous.is_empty() {
            return Ok(());
        }
        self.retry.call("acknowledge entries", || self.queue.acknowledge(superfluous)).await?;
        spans.with(|spans| spans.end(superfluous));
        Ok(())
    }

    async fn park(&self, letters: Vec<DeadLetter>, batch: &Batch) -> Result<(), RetryError> {
        let spans = &batch.spans;
        let parked = if spans.are_on() { letters.clone() } else { Vec::new() };
        parking::send(NAME, letters, &*self.queue, &self.retry, None, batch.lanes.only_index()).await?;
        spans.with(|spans| spans.park(&parked));
        Ok(())
    }

    /// Waits while stage 2 is above its high-water mark. Entries in flight stay pending with this processor meanwhile.
    async fn wait_for_room(&self, records: u64) -> Result<(), RetryError> {
        let Some(stage) = &self.backlog else { return Ok(()) };
        let backlog = || self.retry.wait_for("read the backlog of stage 2", || stage.backlog());
        self.room.wait(records, backlog, || self.retry.pause(PAUSE)).await
    }
}

/// Records that these units are handed over; returns the letters that remain to be parked.
fn handed_over(handful: &Handful, units: Range<usize>, spans: &SharedSpans) -> Vec<DeadLetter> {
    let entries = handful.entries_of(units.clone());
    debug!(records = handful.records_of(units.clone()).len(), entries = entries.len(), "handed over");
    for gap in handful.gaps_of(units.clone()) {
        metric::skipped(gap.target.index.as_str(), 1);
    }
    spans.with(|spans| spans.end(&entries));
    units.filter_map(|unit| handful.settled(unit).letter.clone()).collect()
}
