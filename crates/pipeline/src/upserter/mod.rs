//! The upserter: stage 2 → Qdrant.
//!
//! ```text
//!  embedded_documents ──read / claim──▶ plan: newest change of each document, its points
//!                                          │ removals                        │ writes
//!                                          │                                 ▼
//!                                          │                       P  payloads alone, where the vectors were there already;
//!                                          │                          what is not at its version then goes on with A
//!                                          ▼                                 ▼
//!                                  tombstones (Redis)              A  conditional upsert: only what is older
//!                                          ▼                       B  check: newest of written, stored, tombstones
//!                                  delete what is older            C  delete what is older than that, if anything is
//!                                          └───────────────┬─────────────────┘
//!                                                          ▼
//!                                                     D  acknowledge
//! ```
//!
//! **Delivery**: at least once; an entry is acknowledged only when every write for it is confirmed as durable. A crash
//! anywhere starts again from P or A, which change nothing that is already right.
//! **Fencing**: whatever the number of upserters and the order of their writes, the newest version of a document wins.
//! An upsert does not overwrite a newer point (its condition), and does not bring back what was deleted or shortened
//! (its check). Without B a late write could; a model of the protocol shows it.
//! **Calls**: A and B for a batch with writes, P and B for one of payloads alone, C only for a batch in which the check found
//! something to clean up, one delete for a batch with removals.
//! **A collection that is gone** is made again by the next write, and put on record, so that the producer fills it again.
//! **Poison**: a document that Qdrant refuses is found by halving the batch and parked; its neighbours are written.
//! A vector of the wrong dimension is no fault of its document: the service stops and says so.

mod apply;
mod options;
mod plan;
mod traced;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use apply::Applier;
use async_trait::async_trait;
pub use options::{PayloadOptions, UpserterOptions};
pub use plan::{Aftermath, aftermath};
use plan::{Plan, plan};
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{Alarm, Delivery, EntryId, Fence, Index, PortResult, Queue, Tombstones};
use tidewheel_core::trace::Tracer;
use tokio_util::sync::CancellationToken;
use traced::Traced;
use tracing::{Instrument, debug, debug_span, info, warn};

use crate::consumer::{Consumer, Work};
use crate::health::Health;
use crate::meters::{self, Commits};
use crate::retry::{GivenUp, Patience};
use crate::service::ServiceError;

/// The service's name in errors, spans and labels.
pub const NAME: &str = "upserter";

/// The service. Any number may run at once.
pub struct Upserter {
    options: UpserterOptions,
    queue: Arc<dyn Queue<Embedded>>,
    index: Arc<dyn Index>,
    tombstones: Arc<dyn Tombstones>,
    alarm: Arc<dyn Alarm>,
    tracer: Option<Tracer>,
    health: Health,
}

impl Upserter {
    /// An upserter that is ready to run.
    pub fn new(
        options: UpserterOptions,
        queue: Arc<dyn Queue<Embedded>>,
        index: Arc<dyn Index>,
        tombstones: Arc<dyn Tombstones>,
        alarm: Arc<dyn Alarm>,
    ) -> Self {
        Self { options, queue, index, tombstones, alarm, tracer: None, health: Health::of(NAME) }
    }

    /// The same upserter, which tells what it does for each change, if there is a tracer.
    #[must_use]
    pub fn traced(self, tracer: Option<Tracer>) -> Self {
        Self { tracer, ..self }
    }

    /// What the service says of itself while it runs.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// The work alone, for whoever brings the batches.
    pub(crate) fn into_work(self, patience: Patience) -> impl Work<Embedded> {
        Worker {
            queue: self.queue,
            index: self.index,
            tombstones: self.tombstones,
            alarm: self.alarm,
            payload: self.options.payload,
            prepared: AtomicUsize::new(0),
            latency: meters::latency(),
            tracer: self.tracer,
            patience,
        }
    }

    /// Runs until `shutdown`, or until something fails that a person has to mend.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServiceError> {
        meters::nothing_yet(NAME, &["refused", "dimension"]);
        let watch = shutdown.child_token();
        let _stop_watching = watch.clone().drop_guard();
        tokio::spawn(watch_collection(self.index.clone(), self.alarm.clone(), watch));
        let patience = Patience { health: self.health.clone(), shutdown };
        let (queue, options) = (self.queue.clone(), self.options.consumer.clone());
        let work = self.into_work(patience.clone());
        info!("ready");
        Consumer { service: NAME, queue, options, patience }.run(work).await
    }
}

/// How often the collection is looked for while nothing is written.
const WATCH: Duration = Duration::from_secs(5);

/// Notices a collection that is gone although nothing is to be written.
async fn watch_collection(index: Arc<dyn Index>, alarm: Arc<dyn Alarm>, stop: CancellationToken) {
    let look = async || -> PortResult<()> { alarm.collection(index.name(), index.exists().await?).await };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(WATCH) => {}
        }
        // The work itself reports an outage.
        if let Err(error) = look().await {
            debug!("cannot look for the collection: {error}");
        }
    }
}

struct Worker {
    queue: Arc<dyn Queue<Embedded>>,
    index: Arc<dyn Index>,
    tombstones: Arc<dyn Tombstones>,
    alarm: Arc<dyn Alarm>,
    payload: PayloadOptions,
    prepared: AtomicUsize,
    latency: metrics::Histogram,
    tracer: Option<Tracer>,
    patience: Patience,
}

#[async_trait]
impl Work<Embedded> for Worker {
    async fn batch(&self, deliveries: Vec<Delivery<Embedded>>) -> Result<(), GivenUp> {
        let span = debug_span!("upserter", entries = deliveries.len());
        self.upsert(deliveries).instrument(span).await
    }
}

impl Worker {
    async fn upsert(&self, deliveries: Vec<Delivery<Embedded>>) -> Result<(), GivenUp> {
        let commits = Commits::of(&deliveries);
        let mut traced = Traced::begin(self.tracer.as_ref(), &deliveries, self.index.name());
        let Plan { writes, removals, mut letters } = plan(deliveries, &self.payload);
        let applier = Applier {
            index: &*self.index,
            tombstones: &*self.tombstones,
            alarm: &*self.alarm,
            patience: &self.patience,
            prepared: &self.prepared,
            outcomes: traced.as_ref().map(Traced::outcomes),
        };
        let fences: Vec<Fence> = removals.iter().map(|removal| removal.fence.clone()).collect();
        // Side by side: no document is in both, and a fence around a collection holds whichever comes first.
        let (removal, write) = tokio::join!(applier.remove(&fences), applier.write(writes));
        removal?;
        let (written, refused) = write?;
        letters.extend(refused);

        let documents = written.len();
        if let Some(traced) = &mut traced {
            traced.note(&written, &removals);
        }
        let written = written.into_iter().map(|write| write.entries);
        let done: Vec<EntryId> = written.chain(removals.into_iter().map(|removal| removal.entries)).flatten().collect();
        if !done.is_empty() {
            self.patience.call("acknowledge entries", || self.queue.acknowledge(&done)).await?;
            commits.searchable(&letters, &self.latency);
            debug!(documents, removals = fences.len(), entries = done.len(), "in the index");
            if let Some(traced) = &mut traced {
                traced.spans.end(&done);
            }
        }
        if !letters.is_empty() {
            for letter in &letters {
                warn!(entry = letter.id.0, "parked: {}", letter.reason);
            }
            self.patience.call("park entries", || self.queue.park(&letters)).await?;
            meters::parked(NAME, letters.len());
            if let Some(traced) = &mut traced {
                traced.spans.park(&letters);
            }
        }
        Ok(())
    }
}
