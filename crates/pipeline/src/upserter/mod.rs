//! The upserter: stage 2 → Qdrant.
//!
//! ```text
//!  embedded_documents ──read / claim──▶ the records of each target, concurrently
//!                                          ▼
//!                                       plan: newest change of each document, its points
//!                                          │ removals                        │ writes
//!                                          │                                 ▼
//!                                          │                       P  payloads alone, if the index has the vectors;
//!                                          │                          documents not at their version then continue with A
//!                                          ▼                                 ▼
//!                                  tombstones (Redis)              A  conditional upsert: overwrites only older points
//!                                          ▼                       B  check: newest of written, stored, tombstones
//!                                  delete older points             C  delete points older than that, if any
//!                                          └───────────────┬─────────────────┘
//!                                                          ▼
//!                                                     D  acknowledge
//! ```
//!
//! **Delivery**: at least once; an entry is acknowledged only when every write for it is confirmed as durable. A crash
//! anywhere restarts from P or A, which do not change points that are already in sync.
//! **Fencing**: regardless of the number of upserters and the order of their writes, the newest version of a document
//! wins. An upsert does not overwrite a newer point (its condition), and does not bring back deleted documents or
//! chunks (its check). Without B a late write could; a model of the protocol demonstrates it.
//! **Calls**: A and B for a batch with writes, P and B for one with payloads alone, C only if the check found points to
//! clean up, one delete for a batch with removals.
//! **Targets**: each record has one target. Nothing of one is read or written for another. Records of a target that the
//! applied catalog no longer routes are acknowledged without effect.
//! **A missing collection** is recreated by the next write and recorded as lost, so that the producer fills it again; one
//! of a target that is no longer routed is never created.
//! **Skipped targets**: a target that was never whole does not delay the others. After 30 seconds of failures its records
//! are acknowledged and the target is recorded as lost, in one step.
//! **Poison**: a document for which Qdrant keeps failing, with any error, while other requests succeed is isolated by
//! halving the batch and parked; its neighbours are acknowledged before that is decided. An older deletion in the batch
//! is still applied. A vector of the wrong dimension is not the fault of its document: the service stops with an error.

mod apply;
mod batch;
mod lane;
mod options;
mod plan;
mod prepare;
#[cfg(test)]
mod tests;
mod traced;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
pub use options::{PayloadOptions, UpserterOptions};
pub use plan::{Aftermath, aftermath};
use tidewheel_core::catalog::TargetId;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::error::PortError;
use tidewheel_core::health::Health;
use tidewheel_core::ports::{Acknowledge, Delivery, Maintenance, Park, StageQueue};
use tidewheel_core::trace::Tracer;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span, info};

use crate::carries::Carries;
use crate::consumer::{Consumer, Work};
use crate::metric;
use crate::newest;
use crate::parking::{self, letter};
use crate::retry::{RetryError, RetryPolicy};
use crate::service::ServiceError;
use crate::targets::{Applied, Targets};
use batch::ids;
use lane::Lanes;
use traced::Traced;

/// The service's name in errors, spans and labels.
pub const NAME: &str = "upserter";

/// The service. Any number of instances may run concurrently.
pub struct Upserter {
    options: UpserterOptions,
    queue: Arc<dyn StageQueue<Embedded>>,
    targets: Arc<Targets>,
    tracer: Option<Tracer>,
    health: Health,
}

impl Upserter {
    /// Creates an upserter.
    pub fn new(options: UpserterOptions, queue: Arc<dyn StageQueue<Embedded>>, targets: Arc<Targets>) -> Self {
        Self { options, queue, targets, tracer: None, health: Health::of(NAME) }
    }

    /// Returns the same upserter with a tracer, if there is one.
    #[must_use]
    pub fn traced(self, tracer: Option<Tracer>) -> Self {
        Self { tracer, ..self }
    }

    /// The health of the service while it runs.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Runs until `shutdown`, or until a failure that an operator has to fix.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServiceError> {
        metric::init_counters(NAME, &["refused", "dimension"]);
        let stop = shutdown.child_token();
        let _stop_side_loops = stop.clone().drop_guard();
        tokio::spawn(self.targets.clone().follow(stop.clone()));
        if self.targets.current().every().all(|target| target.ports.registry.is_some()) {
            tokio::spawn(watch::watch(self.targets.clone(), stop));
        }
        let retry = RetryPolicy { health: self.health, shutdown };
        let options = self.options.consumer;
        let acknowledge: Arc<dyn Acknowledge> = self.queue.clone();
        let work = work(Some(acknowledge), self.queue.clone(), self.targets, self.tracer, retry.clone());
        info!("ready");
        let maintenance: Arc<dyn Maintenance<Embedded>> = self.queue.clone();
        let consumer = Consumer { service: NAME, queue: self.queue, maintenance: Some(maintenance), options, retry };
        consumer.run(work).await
    }
}

/// The work without the consumer loop, for callers that provide the batches. Without `acknowledge`, the caller
/// acknowledges the entries of a batch itself.
pub(crate) fn work(
    acknowledge: Option<Arc<dyn Acknowledge>>,
    park: Arc<dyn Park>,
    targets: Arc<Targets>,
    tracer: Option<Tracer>,
    retry: RetryPolicy,
) -> impl Work<Embedded> {
    Worker { acknowledge, park, targets, lanes: Lanes::default(), tracer, retry }
}

struct Worker {
    acknowledge: Option<Arc<dyn Acknowledge>>,
    park: Arc<dyn Park>,
    targets: Arc<Targets>,
    lanes: Lanes,
    tracer: Option<Tracer>,
    retry: RetryPolicy,
}

#[async_trait]
impl Work<Embedded> for Worker {
    async fn batch(&self, deliveries: Vec<Delivery<Embedded>>) -> Result<(), RetryError> {
        let span = debug_span!("upserter", entries = deliveries.len());
        self.divide(deliveries).instrument(span).await
    }
}

impl Worker {
    /// Applies the records of each target. One target does not wait for another.
    async fn divide(&self, deliveries: Vec<Delivery<Embedded>>) -> Result<(), RetryError> {
        let revision = newest::catalog(&deliveries);
        let load = || self.targets.at_least(revision);
        let mut applied = self.retry.wait_for("load the applied catalog", load).await?;
        let mut parts = by_target(deliveries);
        if parts.iter().any(|(target, _)| applied.target(target.as_ref()).is_none()) {
            let confirm = || self.targets.confirmed(revision);
            applied = self.retry.wait_for("load the applied catalog", confirm).await?;
        }
        if parts.len() == 1 {
            let (target, part) = parts.remove(0);
            return self.apply_part(&applied, target, part).await;
        }
        let parts = parts.into_iter().map(|(target, part)| self.apply_part(&applied, target, part));
        join_all(parts).await.into_iter().collect()
    }

    async fn apply_part(
        &self,
        applied: &Applied,
        target: Option<TargetId>,
        deliveries: Vec<Delivery<Embedded>>,
    ) -> Result<(), RetryError> {
        match applied.target(target.as_ref()) {
            Some(target) => self.apply(applied, target, deliveries).await,
            None => self.without_target(target.as_ref(), deliveries).await,
        }
    }

    /// Settles records of a target that the catalog does not route, and unreadable entries.
    async fn without_target(
        &self,
        target: Option<&TargetId>,
        deliveries: Vec<Delivery<Embedded>>,
    ) -> Result<(), RetryError> {
        let mut traced = Traced::begin(self.tracer.as_ref(), &deliveries, "");
        let (retired, unreadable): (Vec<_>, Vec<_>) =
            deliveries.into_iter().partition(|delivery| delivery.record.is_ok());
        let letters = unreadable.into_iter().filter_map(|delivery| {
            let error = PortError::poison(delivery.record.err()?.to_string());
            Some(letter(delivery.id, &error))
        });
        let spans = traced.as_mut().map(|traced| &mut traced.spans);
        parking::send(NAME, letters.collect(), &*self.park, &self.retry, spans, None).await?;
        let index = target.map_or("", |target| target.index.as_str());
        self.retire(index, &ids(&retired), traced).await
    }
}

/// Divides a batch by target, in the order in which the targets first occur. Unreadable entries count as those without a
/// target. A batch without targets stays as it is.
fn by_target(deliveries: Vec<Delivery<Embedded>>) -> Vec<(Option<TargetId>, Vec<Delivery<Embedded>>)> {
    let target = |delivery: &Delivery<Embedded>| delivery.record.as_ref().ok().and_then(Carries::target).cloned();
    if deliveries.iter().all(|delivery| target(delivery).is_none()) {
        return vec![(None, deliveries)];
    }
    let mut parts: Vec<(Option<TargetId>, Vec<Delivery<Embedded>>)> = Vec::new();
    for delivery in deliveries {
        let target = target(&delivery);
        match parts.iter_mut().find(|(known, _)| *known == target) {
            Some((_, part)) => part.push(delivery),
            None => parts.push((target, vec![delivery])),
        }
    }
    parts
}
