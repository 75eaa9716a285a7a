//! An in-process pipeline: changes from pages instead of stage 1, and an upserter directly after the processor.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Acknowledge, DeadLetter, Delivery, EntryId, Gap, Handover, Park, PortResult, Queue};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Pages, Report};
use crate::consumer::Work;
use crate::retry::RetryError;

/// Pages as a queue. Stops the consumer once everything is acknowledged.
pub(super) struct PageQueue {
    pages: Mutex<Pages>,
    state: SyncMutex<State>,
    report: Report,
    stop: CancellationToken,
}

#[derive(Default)]
struct State {
    given: u64,
    outstanding: HashSet<EntryId>,
    /// The rest of a page that was larger than requested.
    left: Vec<Change>,
    ended: bool,
    parked: u64,
}

impl PageQueue {
    pub(super) fn new(pages: Pages, report: Report, stop: CancellationToken) -> Self {
        Self { pages: Mutex::new(pages), state: SyncMutex::default(), report, stop }
    }

    /// Whether everything has been acknowledged.
    pub(super) fn is_done(&self) -> bool {
        self.state().is_done()
    }

    pub(super) async fn progress(&self) -> super::Progress {
        let mut progress = self.pages.lock().await.progress();
        progress.skipped += self.state().parked;
        progress
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle<'a>(&self, ids: impl Iterator<Item = &'a EntryId>) {
        let mut state = self.state();
        for id in ids {
            state.outstanding.remove(id);
        }
        if state.is_done() {
            self.stop.cancel();
        }
    }
}

impl State {
    fn is_done(&self) -> bool {
        self.ended && self.left.is_empty() && self.outstanding.is_empty()
    }
}

#[async_trait]
impl Queue<Change> for PageQueue {
    async fn read(&self, max: usize, wait: Duration) -> PortResult<Vec<Delivery<Change>>> {
        let mut pages = self.pages.lock().await;
        let must_read = {
            let state = self.state();
            state.left.is_empty() && !state.ended
        };
        if must_read {
            let page = pages.next().await?;
            (self.report)(pages.progress());
            let mut state = self.state();
            match page {
                Some(mut page) => {
                    page.reverse();
                    state.left = page;
                }
                None => state.ended = true,
            }
        }
        let deliveries: Vec<_> = {
            let mut state = self.state();
            let from = state.left.len().saturating_sub(max);
            let changes: Vec<Change> = state.left.drain(from..).rev().collect();
            changes
                .into_iter()
                .map(|change| {
                    state.given += 1;
                    let id = EntryId(format!("{}-0", state.given));
                    state.outstanding.insert(id.clone());
                    Delivery { id, record: Ok(change) }
                })
                .collect()
        };
        drop(pages);
        if self.is_done() {
            self.stop.cancel();
        } else if deliveries.is_empty() {
            tokio::time::sleep(wait.min(Duration::from_millis(50))).await;
        }
        Ok(deliveries)
    }
}

#[async_trait]
impl Acknowledge for PageQueue {
    async fn acknowledge(&self, ids: &[EntryId]) -> PortResult<()> {
        self.settle(ids.iter());
        Ok(())
    }

    async fn skip(&self, ids: &[EntryId], _: &[Gap]) -> PortResult<()> {
        self.state().parked += ids.len() as u64;
        self.settle(ids.iter());
        Ok(())
    }
}

#[async_trait]
impl Park for PageQueue {
    async fn park(&self, letters: &[DeadLetter]) -> PortResult<()> {
        self.state().parked += letters.len() as u64;
        self.settle(letters.iter().map(|letter| &letter.id));
        Ok(())
    }
}

/// An upserter as the direct successor of a processor.
pub(super) struct Direct<W> {
    pub(super) upserter: W,
    pub(super) queue: Arc<PageQueue>,
}

#[async_trait]
impl<W: Work<Embedded>> Handover for Direct<W> {
    async fn hand_over_with_gaps(&self, records: &[Embedded], acknowledge: &[EntryId], gaps: &[Gap]) -> PortResult<()> {
        // Vectors known in the live collection may be missing in the new one.
        let record = |record: &Embedded| Embedded { unchanged: false, ..record.clone() };
        let delivery = |own: &Embedded| Delivery { id: EntryId::zero(), record: Ok(record(own)) };
        match self.upserter.batch(records.iter().map(delivery).collect()).await {
            Ok(()) => {
                self.queue.state().parked += gaps.len() as u64;
                self.queue.acknowledge(acknowledge).await
            }
            Err(RetryError::Shutdown) => Err(PortError::transient("the replay is stopping")),
            Err(RetryError::Failed(error)) => Err(error),
        }
    }
}

/// Counts the changes that an upserter parks: there is no stream to park them in, and the live pipeline has parked them
/// too.
#[derive(Default)]
pub(super) struct Skipped {
    pub(super) parked: AtomicU64,
}

#[async_trait]
impl Park for Skipped {
    async fn park(&self, letters: &[DeadLetter]) -> PortResult<()> {
        for letter in letters {
            warn!("skipped: {}", letter.reason);
        }
        self.parked.fetch_add(letters.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}
