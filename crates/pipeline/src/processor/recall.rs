//! Reads reusable vectors from the index.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidewheel_core::error::no_answer_within;
use tidewheel_core::ports::{KnownVector, KnownVectors};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};
use uuid::Uuid;

/// Timeout of the index: embedding the texts would take about as long.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long an unresponsive index is not queried.
const REST: Duration = Duration::from_secs(10);

/// The index as a cache of vectors. The processor works without it too: an unresponsive index costs embedding, never a
/// document.
pub(super) struct Recall {
    index: Option<Arc<dyn KnownVectors>>,
    resting: Mutex<Option<Instant>>,
}

impl Recall {
    /// Without an index no vectors are reused.
    pub(super) fn new(index: Option<Arc<dyn KnownVectors>>) -> Self {
        Self { index, resting: Mutex::default() }
    }

    /// Returns the known vectors of these points; none while the index is unresponsive.
    pub(super) async fn ask(&self, points: &[Uuid]) -> Vec<KnownVector> {
        let Some(index) = self.index.as_ref().filter(|_| !points.is_empty()) else { return Vec::new() };
        let resting = *self.resting();
        if resting.is_some_and(|until| Instant::now() < until) {
            return Vec::new();
        }
        let cause = match timeout(TIMEOUT, index.known(points)).await {
            Ok(Ok(known)) => {
                *self.resting() = None;
                return known;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => no_answer_within(TIMEOUT),
        };
        match resting {
            None => warn!("failed to read known vectors, embedding all texts meanwhile: {cause}"),
            Some(_) => debug!("still failing to read known vectors: {cause}"),
        }
        *self.resting() = Some(Instant::now() + REST);
        Vec::new()
    }

    fn resting(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
