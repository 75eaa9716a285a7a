//! Sends a batch to a server so that a bad item never holds up its neighbours, and an outage never parks one.
//!
//! A batch that fails is sent again. One that keeps failing, for whatever reason, while the server works for others is halved;
//! what succeeds goes on, and what still fails alone is given up with its reason. That the server works for others is never
//! assumed: something else of this service succeeded since the failure, or a small request that every healthy server answers
//! does now. Without that proof the failure is an outage, of whatever class it is: it is reported and waited out for ever.

mod plan;

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

use crate::retry::{GivenUp, Patience};
pub(crate) use plan::Suspect;
use plan::{Piece, Step, stops};

/// Successful requests of one kind to one server, by all batches of a service.
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

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server did not take the items.
    Items(PortError),
    /// Nothing that has to do with the items.
    GivenUp(GivenUp),
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        Self::Items(error)
    }
}

impl From<GivenUp> for Failure {
    fn from(given_up: GivenUp) -> Self {
        Self::GivenUp(given_up)
    }
}

/// An attempt whose answer says nothing but that it succeeded.
pub(crate) type Attempt<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

/// A request that shows whether the server works.
pub(crate) type Probe<'a> = Pin<Box<dyn Future<Output = PortResult<()>> + Send + 'a>>;

/// A batch of which everything is done but the suspects.
pub(crate) struct Sifted<O> {
    /// What the requests that succeeded gave, with the items of each.
    pub(crate) done: Vec<(Range<usize>, O)>,
    /// Items that failed alone while the server worked for others, in the order of the batch.
    pub(crate) suspects: Vec<Suspect>,
}

/// How a batch is sent.
pub(crate) struct Isolation<'a, A, P> {
    pub(crate) patience: &'a Patience,
    pub(crate) successes: &'a Successes,
    /// Completes "cannot …".
    pub(crate) what: &'static str,
    /// Sends the items in these places, once.
    pub(crate) attempt: A,
    /// Sends a small request of the same kind, once, that every healthy server answers.
    pub(crate) probe: P,
}

impl<O, A, F, P, G> Isolation<'_, A, P>
where
    A: Fn(Range<usize>) -> F,
    F: Future<Output = Result<O, Failure>>,
    P: Fn() -> G,
    G: Future<Output = PortResult<()>>,
{
    /// Sends the items of these ranges until all but the suspects are done.
    pub(crate) async fn sift(&self, ranges: impl Iterator<Item = Range<usize>>) -> Result<Sifted<O>, GivenUp> {
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
                Step::Stop => return Err(self.patience.stopped(self.what, error)),
                // Others first: their success is proof for this one.
                Step::Again(piece) => {
                    todo.push_back(piece);
                    self.patience.fails(self.what, &error);
                    self.patience.pause(backoff.next_delay(retry_after)).await?;
                }
                Step::Halve(first, second) => {
                    self.patience.succeeds(self.what);
                    debug!(items, "cannot {} for some of these items, halving them: {error}", self.what);
                    todo.push_front(second);
                    todo.push_front(first);
                }
                Step::Suspect(suspect) => {
                    self.patience.succeeds(self.what);
                    warn!("cannot {} for one item while the server works for others: {error}", self.what);
                    suspects.push(suspect);
                }
            }
        }
        suspects.sort_unstable_by_key(|suspect| suspect.index);
        Ok(Sifted { done, suspects })
    }

    /// Sends each suspect again until it is done, or guilty: then with its error.
    pub(crate) async fn settle(
        &self,
        mut suspects: Vec<Suspect>,
    ) -> Result<Vec<(usize, Result<O, PortError>)>, GivenUp> {
        let mut settled = Vec::with_capacity(suspects.len());
        let mut backoff = Backoff::for_servers();
        while !suspects.is_empty() {
            let retry_after = suspects.iter().filter_map(|suspect| suspect.error.retry_after).max();
            self.patience.pause(backoff.next_delay(retry_after)).await?;
            let mut failed = Vec::with_capacity(suspects.len());
            for suspect in suspects {
                match self.send(suspect.index..suspect.index + 1).await? {
                    Ok(answer) => settled.push((suspect.index, Ok(answer))),
                    Err(error) if stops(&error) => return Err(self.patience.stopped(self.what, error)),
                    Err(error) => failed.push((suspect, error)),
                }
            }
            // One proof for all: it comes after the failure of each of them.
            let oldest = failed.iter().map(|(suspect, _)| suspect.seen).max().unwrap_or_default();
            let works = !failed.is_empty() && self.works(oldest).await;
            if let Some((_, error)) = failed.first().filter(|_| !works) {
                self.patience.fails(self.what, error);
            }
            let seen = self.successes.count();
            suspects = Vec::new();
            for suspect in failed.into_iter().map(|(suspect, error)| suspect.failed(error, works, seen)) {
                if suspect.is_guilty() {
                    settled.push((suspect.index, Err(suspect.error)));
                } else {
                    suspects.push(suspect);
                }
            }
        }
        Ok(settled)
    }

    /// One attempt.
    async fn send(&self, range: Range<usize>) -> Result<Result<O, PortError>, GivenUp> {
        match (self.attempt)(range).await {
            Ok(answer) => {
                self.successes.add();
                self.patience.succeeds(self.what);
                Ok(Ok(answer))
            }
            Err(Failure::Items(error)) => {
                self.patience.counts(&error);
                Ok(Err(error))
            }
            Err(Failure::GivenUp(given_up)) => Err(given_up),
        }
    }

    /// Whether the server is known to work for others since there were `seen` successes.
    async fn works(&self, seen: u64) -> bool {
        if self.successes.count() > seen {
            return true;
        }
        let answer = (self.probe)().await;
        answer.inspect_err(|error| debug!("the probe fails too: {error}")).is_ok()
    }
}
