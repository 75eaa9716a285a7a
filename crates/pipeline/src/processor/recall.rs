//! Asks the index for vectors that need not be made again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidewheel_core::ports::{KnownVector, KnownVectors};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};
use uuid::Uuid;

/// How long the index may take to answer: by then the texts could be embedded.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long an index that does not answer is left alone.
const REST: Duration = Duration::from_secs(10);

/// The index as a memory of vectors. The processor does its work without it too: an index that does not answer costs embedding,
/// never a document.
pub(super) struct Recall {
    index: Option<Arc<dyn KnownVectors>>,
    resting: Mutex<Option<Instant>>,
}

impl Recall {
    /// Without an index nothing is known.
    pub(super) fn new(index: Option<Arc<dyn KnownVectors>>) -> Self {
        Self { index, resting: Mutex::default() }
    }

    /// What is known of these points; nothing while the index does not answer.
    pub(super) async fn ask(&self, points: &[Uuid]) -> Vec<KnownVector> {
        let Some(index) = self.index.as_ref().filter(|_| !points.is_empty()) else { return Vec::new() };
        let resting = *self.resting();
        if resting.is_some_and(|until| Instant::now() < until) {
            return Vec::new();
        }
        let cause = match timeout(PATIENCE, index.known(points)).await {
            Ok(Ok(known)) => {
                *self.resting() = None;
                return known;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        match resting {
            None => warn!("cannot read known vectors, embedding all texts meanwhile: {cause}"),
            Some(_) => debug!("still cannot read known vectors: {cause}"),
        }
        *self.resting() = Some(Instant::now() + REST);
        Vec::new()
    }

    fn resting(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
