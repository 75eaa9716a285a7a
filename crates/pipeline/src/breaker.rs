//! Gives up on a target that must not delay the others, and tries it again.
//!
//! Closed, it lets every batch work for the target. After [`PATIENCE`] of failures, or a fatal one, it opens: batches skip
//! the target at once, and every [`PROBE_EVERY`] one of them tries it, until one succeeds. Failures count for all batches
//! together, so that an outage is not waited out once per batch. Those of other servers do not count: their calls are
//! retried under the policy of the service, not under that of the target.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidewheel_core::health::Health;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::retry::{RetryError, RetryPolicy};

/// How long the server of a target may fail before its records are skipped.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a skipped target is tried.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// How often a batch checks whether to give up.
const LOOK: Duration = Duration::from_secs(1);

/// The breaker of one target in this process.
pub(crate) struct Breaker {
    service: &'static str,
    target: String,
    state: Mutex<State>,
}

struct State {
    /// Failures of the target's server. Not those of the service, which stays ready: it does not wait for the target.
    health: Health,
    failing_since: Option<Instant>,
    open: Option<Open>,
}

struct Open {
    reason: String,
    probe_at: Instant,
}

/// How the work for a target ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended<T> {
    /// It is done.
    Done(T),
    /// The target is skipped, for this reason. What the work has done for it until then stays.
    Skipped(String),
}

impl Breaker {
    /// A closed breaker; `target` names it in the log.
    pub(crate) fn new(service: &'static str, target: impl Into<String>) -> Self {
        Self { service, target: target.into(), state: Mutex::new(State::closed(service)) }
    }

    /// Works for the target, unless it is to be skipped. `work` retries calls to the target's server under the policy that
    /// it gets. It may be dropped at any point: the caller settles the entries of a skipped target.
    pub(crate) async fn run<T, F>(
        &self,
        retry: &RetryPolicy,
        work: impl FnOnce(RetryPolicy) -> F,
    ) -> Result<Ended<T>, RetryError>
    where
        F: Future<Output = Result<T, RetryError>>,
    {
        let health = match self.admitted() {
            Ok(health) => health,
            Err(reason) => return Ok(Ended::Skipped(reason)),
        };
        let mut work = pin!(work(RetryPolicy { health: health.clone(), shutdown: retry.shutdown.clone() }));
        loop {
            tokio::select! {
                ended = &mut work => return self.ended(ended),
                () = tokio::time::sleep(LOOK) => {
                    if let Some(reason) = self.given_up(&health) {
                        return Ok(Ended::Skipped(reason));
                    }
                }
            }
        }
    }

    /// The health to report failures to; the reason if the target is skipped now.
    fn admitted(&self) -> Result<Health, String> {
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(open) = &mut state.open {
            let now = Instant::now();
            if now < open.probe_at {
                return Err(open.reason.clone());
            }
            open.probe_at = now + PROBE_EVERY;
            // Of its own: it must not be given up for the failures that abandoned work has left.
            state.health = health(self.service);
        }
        Ok(state.health.clone())
    }

    /// The reason to skip the target, if its server has failed for long enough: at once while it is skipped anyway.
    /// `health` is what the work reports to.
    fn given_up(&self, health: &Health) -> Option<String> {
        let reasons = health.readiness().reasons;
        let mut state = self.state();
        if reasons.is_empty() {
            state.failing_since = None;
            return None;
        }
        let since = *state.failing_since.get_or_insert_with(Instant::now);
        if state.open.is_none() && since.elapsed() < PATIENCE {
            return None;
        }
        let reason = reasons.join("; ");
        self.open(&mut state, &reason);
        Some(reason)
    }

    fn ended<T>(&self, ended: Result<T, RetryError>) -> Result<Ended<T>, RetryError> {
        match ended {
            Ok(done) => {
                self.close();
                Ok(Ended::Done(done))
            }
            // A server that does not look into documents is the one of the streams: its failures are those of all targets.
            Err(RetryError::Failed(error)) if error.server.judges_documents() => {
                self.open(&mut self.state(), &error.message);
                Ok(Ended::Skipped(error.message))
            }
            Err(error) => Err(error),
        }
    }

    fn open(&self, state: &mut State, reason: &str) {
        let probe_at = match &state.open {
            Some(open) => open.probe_at,
            None => {
                warn!(index = self.target, "skipping records until it works again: {reason}");
                Instant::now() + PROBE_EVERY
            }
        };
        state.open = Some(Open { reason: reason.to_owned(), probe_at });
    }

    fn close(&self) {
        let mut state = self.state();
        if state.open.is_some() {
            info!(index = self.target, "no longer skipping records");
            // Abandoned work leaves failures that no success ends.
            *state = State::closed(self.service);
        }
        state.failing_since = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn closed(service: &'static str) -> Self {
        Self { health: health(service), failing_since: None, open: None }
    }
}

/// A health without failures.
fn health(service: &'static str) -> Health {
    let health = Health::of(service);
    health.started();
    health
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tidewheel_core::error::{Cause, PortError, Server};
    use tidewheel_core::ports::PortResult;
    use tokio_util::sync::CancellationToken;

    use super::*;

    const REDIS: Server = Server::opaque("redis");

    fn policy() -> RetryPolicy {
        RetryPolicy { health: Health::default(), shutdown: CancellationToken::new() }
    }

    /// Works for a target whose server answers like this; returns how it ended, and after how many seconds.
    async fn works(
        breaker: &Breaker,
        retry: &RetryPolicy,
        answer: impl Fn() -> PortResult<u32>,
    ) -> (Result<Ended<u32>, RetryError>, u64) {
        let begun = Instant::now();
        let work = |retry: RetryPolicy| async move { retry.call("write", || std::future::ready(answer())).await };
        let ended = breaker.run(retry, work).await;
        (ended, begun.elapsed().as_secs())
    }

    fn refused() -> PortResult<u32> {
        Err(PortError::transient("refused"))
    }

    fn is_skipped(ended: &Result<Ended<u32>, RetryError>) -> bool {
        matches!(ended, Ok(Ended::Skipped(reason)) if reason.contains("refused"))
    }

    #[tokio::test(start_paused = true)]
    async fn target_is_skipped_after_30_seconds_and_tried_every_10() {
        let (breaker, retry) = (Breaker::new("upserter", "tickets.g2"), policy());
        let (ended, seconds) = works(&breaker, &retry, refused).await;
        assert!(is_skipped(&ended) && (30..=32).contains(&seconds), "{ended:?} after {seconds} s");
        assert!(retry.health.readiness().reasons.iter().all(|reason| !reason.contains("refused")));
        let (ended, seconds) = works(&breaker, &retry, || Ok(1)).await;
        assert!(is_skipped(&ended) && seconds == 0, "{ended:?} after {seconds} s");
        tokio::time::sleep(PROBE_EVERY).await;
        let (ended, seconds) = works(&breaker, &retry, refused).await;
        assert!(is_skipped(&ended) && seconds <= 2, "a probe gives up at once: {ended:?} after {seconds} s");
        let (ended, _) = works(&breaker, &retry, || Ok(1)).await;
        assert!(is_skipped(&ended), "one probe at a time");
        tokio::time::sleep(PROBE_EVERY).await;
        for done in [2, 3] {
            let (ended, _) = works(&breaker, &retry, || Ok(done)).await;
            assert!(matches!(ended, Ok(Ended::Done(found)) if found == done), "{ended:?}");
        }
        let (ended, seconds) = works(&breaker, &retry, refused).await;
        assert!(is_skipped(&ended) && seconds >= 30, "patient again: {ended:?} after {seconds} s");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_probe_is_not_given_up_for_earlier_failures() {
        let (breaker, retry) = (Breaker::new("upserter", "tickets.g2"), policy());
        assert!(is_skipped(&works(&breaker, &retry, refused).await.0));
        tokio::time::sleep(PROBE_EVERY).await;
        let slow = |retry: RetryPolicy| async move {
            let write = || async {
                tokio::time::sleep(3 * LOOK).await;
                Ok(7)
            };
            retry.call("write", write).await
        };
        let ended = breaker.run(&retry, slow).await;
        assert!(matches!(ended, Ok(Ended::Done(7))), "{ended:?}");
        assert!(matches!(works(&breaker, &retry, || Ok(8)).await.0, Ok(Ended::Done(8))));
    }

    #[tokio::test(start_paused = true)]
    async fn batches_wait_out_an_outage_together() {
        let (breaker, retry) = (Breaker::new("upserter", "tickets.g2"), policy());
        let later = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            works(&breaker, &retry, refused).await
        };
        let ((first, _), (second, seconds)) = tokio::join!(works(&breaker, &retry, refused), later);
        assert!(is_skipped(&first) && is_skipped(&second) && seconds <= 13, "{second:?} after {seconds} s");
    }

    #[tokio::test(start_paused = true)]
    async fn short_outage_is_waited_out() {
        let (breaker, retry) = (Breaker::new("upserter", "tickets.g2"), policy());
        for _ in 0..3 {
            let begun = Instant::now();
            let answer = || if begun.elapsed() < Duration::from_secs(15) { refused() } else { Ok(1) };
            let (ended, seconds) = works(&breaker, &retry, answer).await;
            assert!(matches!(ended, Ok(Ended::Done(1))) && seconds >= 15, "{ended:?} after {seconds} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn fatal_failure_skips_at_once_unless_the_streams_caused_it() {
        let (breaker, retry) = (Breaker::new("upserter", "tickets.g2"), policy());
        let redis = || Err(PortError::fatal("refused").because(REDIS, Cause::Refused));
        let (ended, _) = works(&breaker, &retry, redis).await;
        assert!(matches!(ended, Err(RetryError::Failed(_))), "{ended:?}");
        let (ended, seconds) = works(&breaker, &retry, || Err(PortError::fatal("refused"))).await;
        assert!(is_skipped(&ended) && seconds == 0, "{ended:?}");
        assert!(is_skipped(&works(&breaker, &retry, || Ok(1)).await.0));
    }

    #[tokio::test(start_paused = true)]
    async fn slow_work_that_does_not_fail_is_not_abandoned() {
        let (breaker, retry) = (Breaker::new("upserter", "tickets.g2"), policy());
        let calls = AtomicU32::new(0);
        let work = |_: RetryPolicy| async {
            tokio::time::sleep(10 * PATIENCE).await;
            Ok(calls.fetch_add(1, Ordering::Relaxed))
        };
        assert!(matches!(breaker.run(&retry, work).await, Ok(Ended::Done(0))));
    }
}
