//! The upserter: stage 2 → Qdrant.
//!
//! ```text
//!  embedded_documents ──read / claim──▶ plan: newest change of each document, its points
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
//! **A missing collection** is recreated by the next write and recorded as damage, so that the producer fills it again.
//! **Poison**: a document for which Qdrant keeps failing, with any error, while other requests succeed is isolated by
//! halving the batch and parked; its neighbours are acknowledged before that is decided. An older deletion in the batch
//! is still applied. A vector of the wrong dimension is not the fault of its document: the service stops with an error.

mod apply;
mod options;
mod plan;
mod traced;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use apply::{AllSuccesses, Applier};
use async_trait::async_trait;
pub use options::{PayloadOptions, UpserterOptions};
pub use plan::{Aftermath, aftermath};
use plan::{Plan, Removal, Write, plan};
use tidewheel_core::embedded::Embedded;
use tidewheel_core::health::Health;
use tidewheel_core::ports::{
    Acknowledge, CollectionRegistry, Delivery, EntryId, Fence, Index, IndexReader, Maintenance, Park, PortResult,
    StageQueue, Tombstones,
};
use tidewheel_core::trace::Tracer;
use tokio_util::sync::CancellationToken;
use traced::Traced;
use tracing::{Instrument, debug, debug_span, info, warn};

use crate::consumer::{Consumer, Work};
use crate::isolate::Suspect;
use crate::metric::{self, Commits};
use crate::offload::offload;
use crate::parking::{self, OnDeadLetter, letter, park};
use crate::retry::{RetryError, RetryPolicy};
use crate::service::ServiceError;

/// The service's name in errors, spans and labels.
pub const NAME: &str = "upserter";

/// Where an upserter writes.
#[derive(Clone)]
pub struct UpserterPorts {
    /// The collection.
    pub index: Arc<dyn Index>,
    /// The tombstones.
    pub tombstones: Arc<dyn Tombstones>,
    /// Detects a missing collection; `None` for a collection that is still being filled.
    pub registry: Option<Arc<dyn CollectionRegistry>>,
}

/// The service. Any number of instances may run concurrently.
pub struct Upserter {
    options: UpserterOptions,
    queue: Arc<dyn StageQueue<Embedded>>,
    ports: UpserterPorts,
    tracer: Option<Tracer>,
    health: Health,
}

impl Upserter {
    /// Creates an upserter.
    pub fn new(options: UpserterOptions, queue: Arc<dyn StageQueue<Embedded>>, ports: UpserterPorts) -> Self {
        Self { options, queue, ports, tracer: None, health: Health::of(NAME) }
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
        let watch = shutdown.child_token();
        let _stop_watching = watch.clone().drop_guard();
        if let Some(registry) = &self.ports.registry {
            tokio::spawn(watch_collection(self.ports.index.clone(), registry.clone(), watch));
        }
        let retry = RetryPolicy { health: self.health, shutdown };
        let options = self.options.consumer.clone();
        let acknowledge: Arc<dyn Acknowledge> = self.queue.clone();
        let work = work(self.options, Some(acknowledge), self.queue.clone(), self.ports, self.tracer, retry.clone());
        info!("ready");
        let maintenance: Arc<dyn Maintenance<Embedded>> = self.queue.clone();
        let consumer = Consumer { service: NAME, queue: self.queue, maintenance: Some(maintenance), options, retry };
        consumer.run(work).await
    }
}

/// The work without the consumer loop, for callers that provide the batches. Without `acknowledge`, the caller
/// acknowledges the entries of a batch itself.
pub(crate) fn work(
    options: UpserterOptions,
    acknowledge: Option<Arc<dyn Acknowledge>>,
    park: Arc<dyn Park>,
    ports: UpserterPorts,
    tracer: Option<Tracer>,
    retry: RetryPolicy,
) -> impl Work<Embedded> {
    let UpserterPorts { index, tombstones, registry } = ports;
    Worker {
        acknowledge,
        park,
        index,
        tombstones,
        registry,
        payload: options.payload,
        on_dead_letter: options.on_dead_letter,
        successes: AllSuccesses::default(),
        prepared: AtomicUsize::new(0),
        latency: metric::latency(),
        tracer,
        retry,
    }
}

/// How often the existence of the collection is checked.
const WATCH: Duration = Duration::from_secs(5);

/// Detects a missing collection even without writes.
async fn watch_collection(index: Arc<dyn IndexReader>, registry: Arc<dyn CollectionRegistry>, stop: CancellationToken) {
    let look = async || -> PortResult<()> { registry.collection(index.name(), index.exists().await?).await };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(WATCH) => {}
        }
        // The work itself reports an outage.
        if let Err(error) = look().await {
            debug!("failed to check the collection: {error}");
        }
    }
}

struct Worker {
    acknowledge: Option<Arc<dyn Acknowledge>>,
    park: Arc<dyn Park>,
    index: Arc<dyn Index>,
    tombstones: Arc<dyn Tombstones>,
    registry: Option<Arc<dyn CollectionRegistry>>,
    payload: PayloadOptions,
    on_dead_letter: OnDeadLetter,
    successes: AllSuccesses,
    prepared: AtomicUsize,
    latency: metrics::Histogram,
    tracer: Option<Tracer>,
    retry: RetryPolicy,
}

#[async_trait]
impl Work<Embedded> for Worker {
    async fn batch(&self, deliveries: Vec<Delivery<Embedded>>) -> Result<(), RetryError> {
        let span = debug_span!("upserter", entries = deliveries.len());
        self.upsert(deliveries).instrument(span).await
    }
}

impl Worker {
    async fn upsert(&self, deliveries: Vec<Delivery<Embedded>>) -> Result<(), RetryError> {
        let commits = Commits::of(&deliveries);
        let mut traced = Traced::begin(self.tracer.as_ref(), &deliveries, self.index.name());
        let (payload, on_dead_letter) = (self.payload.clone(), self.on_dead_letter);
        let bytes = deliveries.iter().filter_map(|delivery| delivery.record.as_ref().ok()).map(Embedded::bytes).sum();
        let mut plan = offload(bytes, move || plan(deliveries, &payload, on_dead_letter)).await?;
        let (writes, removals) = (std::mem::take(&mut plan.writes), std::mem::take(&mut plan.removals));
        let outcomes = traced.as_ref().map(Traced::outcomes);
        let applier = Applier {
            index: &*self.index,
            tombstones: &*self.tombstones,
            registry: self.registry.as_deref(),
            retry: &self.retry,
            prepared: &self.prepared,
            successes: &self.successes,
            outcomes: outcomes.as_deref(),
        };
        let fences: Vec<Fence> = removals.iter().map(|removal| removal.fence.clone()).collect();
        // Concurrently: no document is in both, and the fence of a collection holds in either order.
        let (unremoved, unwritten) = tokio::join!(applier.remove(&fences), applier.write(&writes));
        let (unremoved, unwritten) = (unremoved?, unwritten?);
        if unremoved.is_empty() && unwritten.is_empty() {
            let (written, removed) = (writes.iter().collect(), removals.iter().collect());
            return self.settle(Done { written, removed }, plan, &commits, &mut traced).await;
        }
        // Items that still fail while other requests succeed come last, so that they block no others.
        let written = without(&writes, &unwritten);
        let removed = without(&removals, &unremoved);
        self.settle(Done { written, removed }, plan, &commits, &mut traced).await?;

        let (unremoved, unwritten) =
            tokio::join!(applier.settle_removals(&fences, unremoved), applier.settle_writes(&writes, unwritten));
        let (mut done, mut plan) = (Done::default(), Plan::default());
        for (index, outcome) in unremoved? {
            match outcome {
                Ok(()) => done.removed.push(&removals[index]),
                Err(error) => plan.letters.extend(removals[index].entries.iter().map(|id| letter(id.clone(), &error))),
            }
        }
        for (index, outcome) in unwritten? {
            let Write { points, entries, deletion, .. } = &writes[index];
            match outcome {
                Ok(()) => done.written.push(&writes[index]),
                Err(error) => {
                    let parked = park(self.on_dead_letter, points.version, entries.clone(), *deletion, &error);
                    plan.park(points.document, parked);
                }
            }
        }
        let removals = std::mem::take(&mut plan.removals);
        let fences: Vec<Fence> = removals.iter().map(|removal| removal.fence.clone()).collect();
        let unremoved = applier.remove(&fences).await?;
        // Their tombstones are raised: points that could not be deleted are removed with the next write of the
        // document.
        for (index, outcome) in applier.settle_removals(&fences, unremoved).await? {
            if let Err(error) = outcome {
                warn!(fence = ?fences[index].target, "failed to remove an older version of a parked document: {error}");
            }
        }
        done.removed.extend(&removals);
        self.settle(done, plan, &commits, &mut traced).await
    }

    /// Acknowledges finished entries, then parks failed ones.
    async fn settle(
        &self,
        done: Done<'_>,
        plan: Plan,
        commits: &Commits,
        traced: &mut Option<Traced>,
    ) -> Result<(), RetryError> {
        let Done { written, removed } = done;
        let Plan { letters, superfluous, .. } = plan;
        let (documents, removals) = (written.len(), removed.len());
        if let Some(traced) = traced {
            traced.note(&written, &removed);
        }
        let entries = written.iter().map(|write| &write.entries).chain(removed.iter().map(|removal| &removal.entries));
        let mut done: Vec<EntryId> = entries.flatten().cloned().collect();
        done.extend(superfluous);
        if !done.is_empty() {
            if let Some(queue) = &self.acknowledge {
                self.retry.call("acknowledge entries", || queue.acknowledge(&done)).await?;
            }
            commits.searchable(&done, &self.latency);
            debug!(documents, removals, entries = done.len(), "in the index");
            if let Some(traced) = traced {
                traced.spans.end(&done);
            }
        }
        let spans = traced.as_mut().map(|traced| &mut traced.spans);
        parking::send(NAME, letters, &*self.park, &self.retry, spans).await
    }
}

/// All items except the suspects.
fn without<'a, T>(items: &'a [T], suspects: &[Suspect]) -> Vec<&'a T> {
    let suspects: HashSet<usize> = suspects.iter().map(|suspect| suspect.index).collect();
    items.iter().enumerate().filter(|(index, _)| !suspects.contains(index)).map(|(_, item)| item).collect()
}

/// The finished part of a batch.
#[derive(Default)]
struct Done<'a> {
    written: Vec<&'a Write>,
    removed: Vec<&'a Removal>,
}
