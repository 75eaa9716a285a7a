//! Sends a batch to a server so that a bad item never blocks its neighbours, and an outage never parks one.
//!
//! A failed batch is retried. A batch that keeps failing, for any reason, while other requests succeed is halved; items
//! that succeed proceed, and an item that still fails alone is parked with its reason. That other requests succeed is
//! never assumed: another request of this service succeeded since the failure, or a probe that every healthy server
//! answers succeeds now. Without that proof the failure is an outage, regardless of its class: it is reported and
//! retried without limit.

pub(crate) mod plan;

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidewheel_core::error::PortError;
use tidewheel_core::ports::PortResult;
use tidewheel_core::retry::Backoff;
use tracing::{debug, warn};

use crate::retry::{RetryError, RetryPolicy};
pub(crate) use plan::Suspect;
use plan::{Piece, Step, stops};

/// Counts successful requests of one kind to one server, across all batches of a service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Successes(Arc<AtomicU64>);

impl Successes {
    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The cause of a failed attempt.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request with the items failed.
    Items(PortError),
    /// A failure unrelated to the items.
    Other(RetryError),
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        Self::Items(error)
    }
}

impl From<RetryError> for Failure {
    fn from(error: RetryError) -> Self {
        Self::Other(error)
    }
}

/// An attempt without a result value.
pub(crate) type Attempt<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

/// The future of a request that shows whether the server is healthy.
pub(crate) type ProbeFuture<'a> = Pin<Box<dyn Future<Output = PortResult<()>> + Send + 'a>>;

/// A batch with all items done except the suspects.
pub(crate) struct Sifted<O> {
    /// The results of successful requests, with the items of each.
    pub(crate) done: Vec<(Range<usize>, O)>,
    /// Items that failed alone while other requests succeeded, in batch order.
    pub(crate) suspects: Vec<Suspect>,
}

/// Settings for sending a batch.
pub(crate) struct Isolation<'a, A, P> {
    pub(crate) retry: &'a RetryPolicy,
    pub(crate) successes: &'a Successes,
    /// Completes "failed to …".
    pub(crate) what: &'static str,
    /// Sends the items in this range, once.
    pub(crate) attempt: A,
    /// Sends the probe once: a small request of the same kind that every healthy server answers.
    pub(crate) probe: P,
}

impl<O, A, F, P, G> Isolation<'_, A, P>
where
    A: Fn(Range<usize>) -> F,
    F: Future<Output = Result<O, Failure>>,
    P: Fn() -> G,
    G: Future<Output = PortResult<()>>,
{
    /// Sends the items of these ranges until all except the suspects are done.
    pub(crate) async fn sift(&self, ranges: impl Iterator<Item = Range<usize>>) -> Result<Sifted<O>, RetryError> {
        let seen = self.successes.count();
        let mut todo: VecDeque<Piece> = ranges.map(|range| Piece::new(range, seen)).collect();
        let (mut done, mut suspects) = (Vec::with_capacity(todo.len()), Vec::new());
        let mut backoff = Backoff::for_servers();
        while let Some(piece) = todo.pop_front() {
            let error = match self.send(piece.range.clone()).await? {
                Ok(answer) => {
                    backoff.reset();
                    done.push((piece.range, answer));
                    continue;
                }
                Err(error) => error,
            };
            let works = piece.needs_proof(&error) && self.works(piece.seen).await;
            let (items, retry_after) = (piece.range.len(), error.retry_after);
            match piece.failed(error.clone(), works, self.successes.count()) {
                Step::Stop => return Err(self.retry.stopped(self.what, error)),
                // Other pieces first: their success is the proof for this one.
                Step::Again(piece) => {
                    todo.push_back(piece);
                    self.retry.fails(self.what, &error);
                    self.retry.pause(backoff.next_delay(retry_after)).await?;
                }
                Step::Halve(first, second) => {
                    self.retry.succeeds(self.what);
                    debug!(items, "failed to {} as a batch, halving it: {error}", self.what);
                    todo.push_front(second);
                    todo.push_front(first);
                }
                Step::Suspect(suspect) => {
                    self.retry.succeeds(self.what);
                    warn!("failed to {} for one item while other requests succeed: {error}", self.what);
                    suspects.push(suspect);
                }
            }
        }
        suspects.sort_unstable_by_key(|suspect| suspect.index);
        Ok(Sifted { done, suspects })
    }

    /// Sends each suspect again until it is done or has to be parked; the latter is returned with its error.
    pub(crate) async fn settle(
        &self,
        mut suspects: Vec<Suspect>,
    ) -> Result<Vec<(usize, Result<O, PortError>)>, RetryError> {
        let mut settled = Vec::with_capacity(suspects.len());
        let mut backoff = Backoff::for_servers();
        while !suspects.is_empty() {
            let retry_after = suspects.iter().filter_map(|suspect| suspect.error.retry_after).max();
            self.retry.pause(backoff.next_delay(retry_after)).await?;
            let mut failed = Vec::with_capacity(suspects.len());
            for suspect in suspects {
                match self.send(suspect.index..suspect.index + 1).await? {
                    Ok(answer) => settled.push((suspect.index, Ok(answer))),
                    Err(error) if stops(&error) => return Err(self.retry.stopped(self.what, error)),
                    Err(error) => failed.push((suspect, error)),
                }
            }
            // One proof for all: it follows the failure of each.
            let latest = failed.iter().map(|(suspect, _)| suspect.seen).max().unwrap_or_default();
            let works = !failed.is_empty() && self.works(latest).await;
            if let Some((_, error)) = failed.first().filter(|_| !works) {
                self.retry.fails(self.what, error);
            }
            let seen = self.successes.count();
            suspects = Vec::new();
            for suspect in failed.into_iter().map(|(suspect, error)| suspect.failed(error, works, seen)) {
                if suspect.must_park() {
                    settled.push((suspect.index, Err(suspect.into_error())));
                } else {
                    suspects.push(suspect);
                }
            }
        }
        Ok(settled)
    }

    /// Makes one attempt.
    async fn send(&self, range: Range<usize>) -> Result<Result<O, PortError>, RetryError> {
        match (self.attempt)(range).await {
            Ok(answer) => {
                self.successes.add();
                self.retry.succeeds(self.what);
                Ok(Ok(answer))
            }
            Err(Failure::Items(error)) => {
                self.retry.counts(&error);
                Ok(Err(error))
            }
            Err(Failure::Other(error)) => Err(error),
        }
    }

    /// Whether another request is known to have succeeded since there were `seen` successes.
    async fn works(&self, seen: u64) -> bool {
        if self.successes.count() > seen {
            return true;
        }
        let answer = (self.probe)().await;
        answer.inspect_err(|error| debug!("the probe failed too: {error}")).is_ok()
    }
}
