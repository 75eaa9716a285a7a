//! Reads reusable vectors from the collection of a target.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidewheel_core::error::{Cause, PortError, Server, no_answer_within};
use tidewheel_core::health::Health;
use tidewheel_core::ports::{KnownVector, KnownVectors};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::NAME;
use crate::metric;
use crate::retry::{report_failure_with, report_recovery};

/// Timeout of the index: embedding the texts would take about as long.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The operation in log messages: completes "failed to …".
const READ: &str = "read known vectors";

/// How long an unresponsive index is not queried.
const REST: Duration = Duration::from_secs(10);

/// The index as a cache of vectors. The processor works without it too: an unresponsive index costs embedding, never a
/// document.
pub(super) struct Recall {
    index: Option<Arc<dyn KnownVectors>>,
    resting: Mutex<Option<Instant>>,
    /// Limits the log lines. Not the processor's own health: it stays ready, because it never waits for the index.
    outage: Health,
}

impl Recall {
    /// Without an index no vectors are reused.
    pub(super) fn new(index: Option<Arc<dyn KnownVectors>>) -> Self {
        Self { index, resting: Mutex::default(), outage: Health::of(NAME) }
    }

    /// Whether it can have any.
    pub(super) fn is_possible(&self) -> bool {
        self.index.is_some()
    }

    /// Returns the known vectors of these points; none while the index is unresponsive.
    pub(super) async fn ask(&self, points: &[Uuid]) -> Vec<KnownVector> {
        let Some(index) = self.index.as_ref().filter(|_| !points.is_empty()) else { return Vec::new() };
        if self.resting().is_some_and(|until| Instant::now() < until) {
            return Vec::new();
        }
        let error = match timeout(TIMEOUT, index.known(points)).await {
            Ok(Ok(known)) => {
                *self.resting() = None;
                report_recovery(&self.outage, READ);
                return known;
            }
            Ok(Err(error)) => error,
            Err(_) => PortError::transient(no_answer_within(TIMEOUT)).because(Server::OTHER, Cause::Timeout),
        };
        metric::failed(NAME, &error, false);
        report_failure_with(&self.outage, READ, "embedding all texts meanwhile", &error);
        *self.resting() = Some(Instant::now() + REST);
        Vec::new()
    }

    fn resting(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
