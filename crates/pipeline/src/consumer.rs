//! The consumer loop of processors and upserters: read entries from a stage, process them, claim abandoned entries.
//!
//! ```text
//!            ┌─────── up to `concurrency` batches, 32 MiB of entries ────────┐
//!  read ──▶ batch ──▶ work (plans, writes, acknowledges) ──▶ done
//!  claim (every claim_after / 2) ──▶ batch ──▶ work ──▶ done
//!  keep  (every claim_after / 3): entries in flight stay pending with this consumer
//!  trim  (every 10 s): entries that every group has acknowledged and the retention no longer covers
//! ```
//!
//! **Delivery**: at least once. An entry is acknowledged by the work itself, once its effect is durable; entries left
//! pending by a crash are claimed by any consumer of the group after `claim_after`.
//! **Order**: none between batches. Downstream writes are fenced by versions.
//! **Memory**: a batch is bounded in bytes by the queue, the batches in flight by a budget. A batch larger than the
//! budget waits until it is alone.
//! **Shutdown**: stops reading, drains batches in flight for up to eight seconds, hands the rest back to the group.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tidewheel_core::ports::{Delivery, EntryId, PortResult, Queue, READ_BYTES, Retention};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::health::Health;
use crate::meters::ConsumerMeters;
use crate::newest::{Carries, bytes, documents};
use crate::retry::{GivenUp, Patience};
use crate::service::ServiceError;

/// How long a read waits for the first entry. Short enough for a prompt shutdown.
const READ_WAIT: Duration = Duration::from_secs(1);

/// How often acknowledged entries are trimmed.
const TRIM_EVERY: Duration = Duration::from_secs(10);

/// How long a shutdown waits for batches in flight: below the ten seconds after which supervisors kill.
const DRAIN: Duration = Duration::from_secs(8);

/// Maximum size of a batch with repeated documents, as a multiple of the regular batch size.
const FILL: usize = 16;

/// Maximum bytes of entries processed at once. A parsed, rendered and encoded document takes several times its size.
const IN_FLIGHT_BYTES: usize = 32 << 20;

/// How a stage's entries are consumed.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// Maximum number of documents in a batch. Available entries are processed at once; no batch waits to be filled.
    pub batch: usize,
    /// Maximum number of batches in flight.
    pub concurrency: usize,
    /// Idle time after which another consumer's entries are claimed.
    pub claim_after: Duration,
    /// Retention of acknowledged entries for replay.
    pub retention: Retention,
}

/// The work of a stage on a batch.
#[async_trait]
pub(crate) trait Work<T>: Send + Sync + 'static {
    /// Processes the batch and acknowledges finished entries. Retries transient failures itself.
    async fn batch(&self, deliveries: Vec<Delivery<T>>) -> Result<(), GivenUp>;
}

/// Reads entries from `queue` and passes them to `work` until the service shuts down or fails permanently.
pub(crate) struct Consumer<T> {
    pub(crate) service: &'static str,
    pub(crate) queue: Arc<dyn Queue<T>>,
    pub(crate) options: ConsumerOptions,
    pub(crate) patience: Patience,
}

impl<T: Carries + Send + 'static> Consumer<T> {
    /// Runs until `patience.shutdown`.
    pub(crate) async fn run(self, work: impl Work<T>) -> Result<(), ServiceError> {
        // Stops the side loops on every return path.
        let stop = self.patience.shutdown.child_token();
        let _stop_side_loops = stop.clone().drop_guard();
        let meters = ConsumerMeters::new(self.service);
        let flight = Flight::new(work, meters, self.patience.health.clone());
        let mut side_loops = JoinSet::new();
        side_loops.spawn(keep(self.queue.clone(), flight.clone(), self.options.claim_after / 3, stop.clone()));
        side_loops.spawn(trim(self.queue.clone(), self.options.retention, stop.clone()));
        let mut batches: JoinSet<Result<(), GivenUp>> = JoinSet::new();
        batches.spawn(claim(self.queue.clone(), flight.clone(), self.options.clone(), stop.clone()));
        let ended = self.take(&flight, &mut batches).await;
        stop.cancel();
        let drained = tokio::time::timeout(DRAIN, async {
            let mut worst = ended;
            while let Some(batch) = batches.join_next().await {
                worst = worst.and(self.outcome(batch));
            }
            worst
        })
        .await;
        // No task may still process an entry that is handed back.
        batches.shutdown().await;
        self.leave(&flight).await;
        drained.unwrap_or(Ok(()))
    }

    /// Hands back unfinished entries and leaves the group. Failures are harmless: the entries are claimed after their
    /// idle time, and another consumer removes the empty one.
    async fn leave(&self, flight: &Flight<T>) {
        let unfinished: Vec<EntryId> = flight.unfinished().drain().collect();
        if !unfinished.is_empty() {
            warn!(entries = unfinished.len(), "handing back unfinished entries");
            log_failure("hand back entries", self.queue.hand_back(&unfinished).await);
        }
        log_failure("leave the group", self.queue.leave().await);
    }

    async fn take(&self, flight: &Flight<T>, batches: &mut JoinSet<Result<(), GivenUp>>) -> Result<(), ServiceError> {
        let permits = Arc::new(Semaphore::new(self.options.concurrency.max(1)));
        let shutdown = &self.patience.shutdown;
        loop {
            let permit = loop {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Ok(()),
                    Some(batch) = batches.join_next(), if !batches.is_empty() => self.outcome(batch)?,
                    permit = permits.clone().acquire_owned() => break permit.expect("the semaphore is never closed"),
                }
            };
            let read = self.patience.wait_for("read new entries", || self.queue.read(self.options.batch, READ_WAIT));
            let mut deliveries = match read.await {
                Ok(deliveries) => deliveries,
                Err(GivenUp::Shutdown) => return Ok(()),
                Err(GivenUp::Failed(error)) => return Err(ServiceError::new(self.service, error)),
            };
            self.patience.health.started();
            self.fill(&mut deliveries).await;
            if deliveries.is_empty() {
                continue;
            }
            flight.meters.taken.increment(deliveries.len() as u64);
            let boarded = flight.board(deliveries);
            let room = {
                let mut room = std::pin::pin!(flight.room(boarded.bytes()));
                loop {
                    tokio::select! {
                        biased;
                        // First: entries that need not wait are processed; only waiting ones are handed back.
                        room = &mut room => break room,
                        () = shutdown.cancelled() => return Ok(()),
                        Some(batch) = batches.join_next(), if !batches.is_empty() => self.outcome(batch)?,
                    }
                }
            };
            batches.spawn(async move {
                let outcome = boarded.fly().await;
                drop((permit, room));
                outcome
            });
        }
    }

    /// Fills up a batch with repeated documents: all accumulated changes of a document cost one unit of work.
    async fn fill(&self, deliveries: &mut Vec<Delivery<T>>) {
        let batch = self.options.batch;
        let mut full = deliveries.len() == batch;
        while full
            && deliveries.len() < batch * FILL
            && bytes(deliveries) < READ_BYTES
            && documents(deliveries) <= batch / 2
        {
            // The next read hits the same failure and retries it.
            let Ok(more) = self.queue.read(batch, Duration::ZERO).await else { return };
            full = more.len() == batch;
            deliveries.extend(more);
        }
    }

    fn outcome(&self, batch: Result<Result<(), GivenUp>, tokio::task::JoinError>) -> Result<(), ServiceError> {
        match batch {
            Ok(Ok(()) | Err(GivenUp::Shutdown)) => Ok(()),
            Ok(Err(GivenUp::Failed(error))) => Err(ServiceError::new(self.service, error)),
            Err(panic) => {
                error!("a batch panicked; its entries stay pending: {panic}");
                Ok(())
            }
        }
    }
}

/// Work, and the entries in flight.
struct Flight<T> {
    work: Arc<dyn Work<T>>,
    /// Remaining budget in bytes.
    budget: Arc<Semaphore>,
    in_flight: Ids,
    unfinished: Ids,
    meters: ConsumerMeters,
    health: Health,
}

type Ids = Arc<Mutex<HashSet<EntryId>>>;

impl<T> Clone for Flight<T> {
    fn clone(&self) -> Self {
        Self {
            work: self.work.clone(),
            budget: self.budget.clone(),
            in_flight: self.in_flight.clone(),
            unfinished: self.unfinished.clone(),
            meters: self.meters.clone(),
            health: self.health.clone(),
        }
    }
}

impl<T: 'static> Flight<T> {
    fn new(work: impl Work<T>, meters: ConsumerMeters, health: Health) -> Self {
        let budget = Arc::new(Semaphore::new(IN_FLIGHT_BYTES));
        Self { work: Arc::new(work), budget, in_flight: Arc::default(), unfinished: Arc::default(), meters, health }
    }

    /// Entries being processed.
    fn in_flight(&self) -> MutexGuard<'_, HashSet<EntryId>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries whose work was interrupted by a shutdown.
    fn unfinished(&self) -> MutexGuard<'_, HashSet<EntryId>> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the budget has room for a batch of this many bytes.
    async fn room(&self, bytes: usize) -> OwnedSemaphorePermit {
        let bytes = u32::try_from(bytes.min(IN_FLIGHT_BYTES)).expect("the budget fits");
        self.budget.clone().acquire_many_owned(bytes).await.expect("the semaphore is never closed")
    }

    /// Registers a batch as in flight before its work begins, so that it cannot be claimed while it waits for room.
    fn board(&self, deliveries: Vec<Delivery<T>>) -> Boarded<T> {
        let ids: Vec<EntryId> = deliveries.iter().map(|delivery| delivery.id.clone()).collect();
        self.in_flight().extend(ids.iter().cloned());
        self.meters.begins(ids.len());
        self.health.begins();
        Boarded { deliveries, landing: Landing { flight: self.clone(), ids, done: false, begun: Instant::now() } }
    }
}

/// A batch whose entries are registered as in flight.
struct Boarded<T: 'static> {
    deliveries: Vec<Delivery<T>>,
    landing: Landing<T>,
}

impl<T: Carries + 'static> Boarded<T> {
    fn bytes(&self) -> usize {
        bytes(&self.deliveries)
    }

    async fn fly(self) -> Result<(), GivenUp> {
        let Self { deliveries, mut landing } = self;
        landing.flight.work.batch(deliveries).await?;
        landing.done = true;
        Ok(())
    }
}

/// Removes a batch from the in-flight set however its work ends, also by a panic: its entries must become claimable.
struct Landing<T: 'static> {
    flight: Flight<T>,
    ids: Vec<EntryId>,
    done: bool,
    begun: Instant,
}

impl<T: 'static> Drop for Landing<T> {
    fn drop(&mut self) {
        self.flight.meters.ends(self.ids.len(), self.begun.elapsed(), self.done);
        self.flight.health.ends();
        let mut in_flight = self.flight.in_flight();
        for id in &self.ids {
            in_flight.remove(id);
        }
        // A batch that panics stays pending until its idle time: handing it back at once would loop at full speed.
        if !self.done && !std::thread::panicking() {
            self.flight.unfinished().extend(self.ids.drain(..));
        }
    }
}

/// Claims entries of dead consumers, one batch at a time. A panic of the work ends only its batch.
async fn claim<T: Carries + Send + 'static>(
    queue: Arc<dyn Queue<T>>,
    flight: Flight<T>,
    options: ConsumerOptions,
    stop: CancellationToken,
) -> Result<(), GivenUp> {
    while pause(options.claim_after / 2, &stop).await {
        loop {
            let claimed = match queue.claim(options.claim_after, options.batch).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    debug!("failed to claim entries: {error}");
                    break;
                }
            };
            if !claimed.lost.is_empty() {
                flight.meters.lost.increment(claimed.lost.len() as u64);
                error!(
                    entries = claimed.lost.len(),
                    "entries were removed from the stream before they were acknowledged"
                );
            }
            // Entries in flight here may appear abandoned after this process was suspended; they are not.
            let deliveries: Vec<_> = {
                let in_flight = flight.in_flight();
                claimed.deliveries.into_iter().filter(|delivery| !in_flight.contains(&delivery.id)).collect()
            };
            if deliveries.is_empty() || stop.is_cancelled() {
                break;
            }
            flight.meters.claimed.increment(deliveries.len() as u64);
            debug!(entries = deliveries.len(), "claimed entries of another consumer");
            let boarded = flight.board(deliveries);
            let room = tokio::select! {
                () = stop.cancelled() => break,
                room = flight.room(boarded.bytes()) => room,
            };
            let outcome = tokio::spawn(boarded.fly()).await;
            drop(room);
            match outcome {
                Ok(outcome) => outcome?,
                Err(panic) => error!("a claimed batch panicked; its entries stay pending: {panic}"),
            }
        }
    }
    Ok(())
}

/// Renews the ownership of entries in flight.
async fn keep<T: 'static>(queue: Arc<dyn Queue<T>>, flight: Flight<T>, every: Duration, stop: CancellationToken) {
    while pause(every, &stop).await {
        let ids: Vec<EntryId> = flight.in_flight().iter().cloned().collect();
        if !ids.is_empty() {
            log_failure("keep entries", queue.keep(&ids).await);
        }
    }
}

/// Trims acknowledged entries that the retention no longer covers.
async fn trim<T: 'static>(queue: Arc<dyn Queue<T>>, retention: Retention, stop: CancellationToken) {
    while pause(TRIM_EVERY, &stop).await {
        if let Some(entries @ 1..) = log_failure("trim the stream", queue.trim(retention).await) {
            debug!(entries, "trimmed acknowledged entries");
        }
    }
}

/// The side loops retry at their next interval; the main loop reports the outage.
fn log_failure<A>(what: &str, answer: PortResult<A>) -> Option<A> {
    answer.inspect_err(|error| debug!("failed to {what}: {error}")).ok()
}

/// Waits; returns false if the service shuts down.
async fn pause(duration: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(duration) => true,
    }
}
