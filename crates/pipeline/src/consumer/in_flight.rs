//! The batches in flight of a consumer.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tidewheel_core::health::Health;
use tidewheel_core::ports::{Delivery, EntryId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Work;
use crate::carries::Carries;
use crate::metric::{self, ConsumerMetrics};
use crate::newest::{bytes, refuse_newer};
use crate::retry::RetryError;

/// Maximum bytes of entries processed at once. A parsed, rendered and encoded document takes several times its size.
const IN_FLIGHT_BYTES: usize = 32 << 20;

/// Work, and the entries in flight.
pub(super) struct InFlight<T> {
    work: Arc<dyn Work<T>>,
    /// Remaining budget in bytes.
    budget: Arc<Semaphore>,
    active: Ids,
    unfinished: Ids,
    pub(super) metrics: ConsumerMetrics,
    health: Health,
}

type Ids = Arc<Mutex<HashSet<EntryId>>>;

impl<T> Clone for InFlight<T> {
    fn clone(&self) -> Self {
        Self {
            work: self.work.clone(),
            budget: self.budget.clone(),
            active: self.active.clone(),
            unfinished: self.unfinished.clone(),
            metrics: self.metrics.clone(),
            health: self.health.clone(),
        }
    }
}

impl<T: 'static> InFlight<T> {
    pub(super) fn new(work: impl Work<T>, metrics: ConsumerMetrics, health: Health) -> Self {
        let budget = Arc::new(Semaphore::new(IN_FLIGHT_BYTES));
        Self { work: Arc::new(work), budget, active: Arc::default(), unfinished: Arc::default(), metrics, health }
    }

    /// Entries being processed.
    pub(super) fn active(&self) -> MutexGuard<'_, HashSet<EntryId>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries whose work was interrupted by a shutdown.
    pub(super) fn unfinished(&self) -> MutexGuard<'_, HashSet<EntryId>> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if an entry is of a newer release; then all of these are handed back.
    pub(super) fn refuse_newer(&self, deliveries: &[Delivery<T>]) -> Result<(), RetryError> {
        refuse_newer(deliveries).map_err(|error| {
            metric::failed(self.health.service(), &error, false);
            self.unfinished().extend(deliveries.iter().map(|delivery| delivery.id.clone()));
            RetryError::Failed(error)
        })
    }

    /// Waits until the budget has room for a batch of this many bytes.
    pub(super) async fn room(&self, bytes: usize) -> OwnedSemaphorePermit {
        let bytes = u32::try_from(bytes.min(IN_FLIGHT_BYTES)).expect("the budget fits");
        self.budget.clone().acquire_many_owned(bytes).await.expect("the semaphore is never closed")
    }

    /// Registers a batch as in flight before its work begins, so that it cannot be claimed while it waits for room.
    pub(super) fn register(&self, deliveries: Vec<Delivery<T>>) -> InFlightBatch<T> {
        let ids: Vec<EntryId> = deliveries.iter().map(|delivery| delivery.id.clone()).collect();
        self.active().extend(ids.iter().cloned());
        self.metrics.begins(ids.len());
        self.health.begins();
        InFlightBatch {
            deliveries,
            guard: InFlightGuard { in_flight: self.clone(), ids, done: false, begun: Instant::now() },
        }
    }
}

/// A batch whose entries are registered as in flight.
pub(super) struct InFlightBatch<T: 'static> {
    deliveries: Vec<Delivery<T>>,
    guard: InFlightGuard<T>,
}

impl<T: Carries + 'static> InFlightBatch<T> {
    pub(super) fn bytes(&self) -> usize {
        bytes(&self.deliveries)
    }

    pub(super) async fn run(self) -> Result<(), RetryError> {
        let Self { deliveries, mut guard } = self;
        guard.in_flight.work.batch(deliveries).await?;
        guard.done = true;
        Ok(())
    }
}

/// Removes a batch from the in-flight set however its work ends, also by a panic: its entries must become claimable.
struct InFlightGuard<T: 'static> {
    in_flight: InFlight<T>,
    ids: Vec<EntryId>,
    done: bool,
    begun: Instant,
}

impl<T: 'static> Drop for InFlightGuard<T> {
    fn drop(&mut self) {
        self.in_flight.metrics.ends(self.ids.len(), self.begun.elapsed(), self.done);
        self.in_flight.health.ends();
        let mut in_flight = self.in_flight.active();
        for id in &self.ids {
            in_flight.remove(id);
        }
        // A batch that panics stays pending until its idle time: handing it back at once would loop at full speed.
        if !self.done && !std::thread::panicking() {
            self.in_flight.unfinished().extend(self.ids.drain(..));
        }
    }
}
