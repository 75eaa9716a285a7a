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
//! pending by a crash are claimed by any consumer of the group after `claim_after`. An entry of a newer release stops the
//! service, which hands the entry back for an upgraded consumer.
//! **Order**: none between batches. Downstream writes are fenced by versions.
//! **Memory**: a batch is bounded in bytes by the queue, the batches in flight by a budget. A batch larger than the
//! budget waits until it is alone.
//! **Shutdown**: stops reading, drains batches in flight for up to eight seconds, hands the rest back to the group.

mod in_flight;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidewheel_core::ports::{Delivery, EntryId, Maintenance, PortResult, Queue, READ_BYTES, Retention};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::carries::Carries;
use crate::metric::ConsumerMetrics;
use crate::newest::{bytes, documents};
use crate::retry::{RetryError, RetryPolicy};
use crate::service::ServiceError;
use in_flight::InFlight;

/// How long a read waits for the first entry. Short enough for a prompt shutdown.
const READ_WAIT: Duration = Duration::from_secs(1);

/// How often acknowledged entries are trimmed.
const TRIM_EVERY: Duration = Duration::from_secs(10);

/// How long a shutdown waits for batches in flight: below the ten seconds after which supervisors kill.
const DRAIN: Duration = Duration::from_secs(8);

/// Maximum size of a batch with repeated documents, as a multiple of the regular batch size.
const FILL: usize = 16;

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
    async fn batch(&self, deliveries: Vec<Delivery<T>>) -> Result<(), RetryError>;
}

/// Reads entries from `queue` and passes them to `work` until the service shuts down or fails permanently.
pub(crate) struct Consumer<T> {
    pub(crate) service: &'static str,
    pub(crate) queue: Arc<dyn Queue<T>>,
    /// `None` if there is no other consumer.
    pub(crate) maintenance: Option<Arc<dyn Maintenance<T>>>,
    pub(crate) options: ConsumerOptions,
    pub(crate) retry: RetryPolicy,
}

impl<T: Carries + Send + 'static> Consumer<T> {
    /// Runs until `retry.shutdown`.
    pub(crate) async fn run(self, work: impl Work<T>) -> Result<(), ServiceError> {
        // Stops the side loops on every return path.
        let stop = self.retry.shutdown.child_token();
        let _stop_side_loops = stop.clone().drop_guard();
        let metrics = ConsumerMetrics::new(self.service);
        let in_flight = InFlight::new(work, metrics, self.retry.health.clone());
        let mut side_loops = JoinSet::new();
        let mut batches: JoinSet<Result<(), RetryError>> = JoinSet::new();
        if let Some(group) = &self.maintenance {
            side_loops.spawn(keep(group.clone(), in_flight.clone(), self.options.claim_after / 3, stop.clone()));
            side_loops.spawn(trim(group.clone(), self.options.retention, stop.clone()));
            batches.spawn(claim(group.clone(), in_flight.clone(), self.options.clone(), stop.clone()));
        }
        let mut ended = self.take(&in_flight, &mut batches).await;
        stop.cancel();
        let drain = async {
            while let Some(batch) = batches.join_next().await {
                let outcome = self.outcome(batch);
                if ended.is_ok() {
                    ended = outcome;
                }
            }
        };
        let _ = tokio::time::timeout(DRAIN, drain).await;
        // No task may still process an entry that is handed back.
        batches.shutdown().await;
        self.leave(&in_flight).await;
        ended
    }

    /// Hands back unfinished entries and leaves the group. Failures are harmless: the entries are claimed after their
    /// idle time, and another consumer removes the empty one.
    async fn leave(&self, in_flight: &InFlight<T>) {
        let Some(group) = &self.maintenance else { return };
        let unfinished: Vec<EntryId> = in_flight.unfinished().drain().collect();
        if !unfinished.is_empty() {
            warn!(entries = unfinished.len(), "handing back unfinished entries");
            log_failure("hand back entries", group.hand_back(&unfinished).await);
        }
        log_failure("leave the group", group.leave().await);
    }

    async fn take(
        &self,
        in_flight: &InFlight<T>,
        batches: &mut JoinSet<Result<(), RetryError>>,
    ) -> Result<(), ServiceError> {
        let permits = Arc::new(Semaphore::new(self.options.concurrency.max(1)));
        let shutdown = &self.retry.shutdown;
        loop {
            let permit = loop {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Ok(()),
                    Some(joined) = batches.join_next(), if !batches.is_empty() => self.outcome(joined)?,
                    permit = permits.clone().acquire_owned() => break permit.expect("the semaphore is never closed"),
                }
            };
            let read = self.retry.wait_for("read new entries", || self.queue.read(self.options.batch, READ_WAIT));
            let mut deliveries = match read.await {
                Ok(deliveries) => deliveries,
                Err(RetryError::Shutdown) => return Ok(()),
                Err(RetryError::Failed(error)) => return Err(ServiceError::new(self.service, error)),
            };
            self.retry.health.started();
            self.fill(&mut deliveries).await;
            if deliveries.is_empty() {
                continue;
            }
            if let Err(error) = in_flight.refuse_newer(&deliveries) {
                return self.outcome(Ok(Err(error)));
            }
            in_flight.metrics.taken.increment(deliveries.len() as u64);
            let batch = in_flight.register(deliveries);
            let room = {
                let mut room = std::pin::pin!(in_flight.room(batch.bytes()));
                loop {
                    tokio::select! {
                        biased;
                        // First: entries that need not wait are processed; only waiting ones are handed back.
                        room = &mut room => break room,
                        () = shutdown.cancelled() => return Ok(()),
                        Some(joined) = batches.join_next(), if !batches.is_empty() => self.outcome(joined)?,
                    }
                }
            };
            batches.spawn(async move {
                let outcome = batch.run().await;
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

    fn outcome(&self, batch: Result<Result<(), RetryError>, tokio::task::JoinError>) -> Result<(), ServiceError> {
        match batch {
            Ok(Ok(()) | Err(RetryError::Shutdown)) => Ok(()),
            Ok(Err(RetryError::Failed(error))) => Err(ServiceError::new(self.service, error)),
            Err(panic) => {
                error!("a batch panicked; its entries stay pending: {panic}");
                Ok(())
            }
        }
    }
}

/// Claims entries of dead consumers, one batch at a time. A panic of the work ends only its batch.
async fn claim<T: Carries + Send + 'static>(
    group: Arc<dyn Maintenance<T>>,
    in_flight: InFlight<T>,
    options: ConsumerOptions,
    stop: CancellationToken,
) -> Result<(), RetryError> {
    while pause(options.claim_after / 2, &stop).await {
        loop {
            let claimed = match group.claim(options.claim_after, options.batch).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    debug!("failed to claim entries: {error}");
                    break;
                }
            };
            if !claimed.lost.is_empty() {
                in_flight.metrics.lost.increment(claimed.lost.len() as u64);
                error!(
                    entries = claimed.lost.len(),
                    "entries were removed from the stream before they were acknowledged"
                );
            }
            // Entries in flight here may appear abandoned after this process was suspended; they are not.
            let deliveries: Vec<_> = {
                let in_flight = in_flight.active();
                claimed.deliveries.into_iter().filter(|delivery| !in_flight.contains(&delivery.id)).collect()
            };
            if deliveries.is_empty() || stop.is_cancelled() {
                break;
            }
            in_flight.refuse_newer(&deliveries)?;
            in_flight.metrics.claimed.increment(deliveries.len() as u64);
            debug!(entries = deliveries.len(), "claimed entries of another consumer");
            let batch = in_flight.register(deliveries);
            let room = tokio::select! {
                () = stop.cancelled() => break,
                room = in_flight.room(batch.bytes()) => room,
            };
            let outcome = tokio::spawn(batch.run()).await;
            drop(room);
            match outcome {
                Ok(Ok(())) => {}
                // Given up: its entries stay pending.
                Ok(Err(RetryError::Shutdown)) => break,
                Ok(Err(error)) => return Err(error),
                Err(panic) => error!("a claimed batch panicked; its entries stay pending: {panic}"),
            }
        }
    }
    Ok(())
}

/// Renews the ownership of entries in flight.
async fn keep<T: 'static>(
    group: Arc<dyn Maintenance<T>>,
    in_flight: InFlight<T>,
    every: Duration,
    stop: CancellationToken,
) {
    while pause(every, &stop).await {
        let ids: Vec<EntryId> = in_flight.active().iter().cloned().collect();
        if !ids.is_empty() {
            log_failure("keep entries", group.keep(&ids).await);
        }
    }
}

/// Trims acknowledged entries that the retention no longer covers.
async fn trim<T: 'static>(group: Arc<dyn Maintenance<T>>, retention: Retention, stop: CancellationToken) {
    while pause(TRIM_EVERY, &stop).await {
        if let Some(entries @ 1..) = log_failure("trim the stream", group.trim(retention).await) {
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
