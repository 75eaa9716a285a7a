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
//! **Poison**: a document for which Qdrant keeps failing, in whatever way, while it works for others is found by halving the batch
//! and parked; its neighbours are acknowledged before that is decided. An older deletion in the batch is applied all the same.
//! A vector of the wrong dimension is no fault of its document: the service stops and says so.

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
use tidewheel_core::ports::{Alarm, Delivery, EntryId, Fence, Index, PortResult, Queue, Tombstones};
use tidewheel_core::trace::Tracer;
use tokio_util::sync::CancellationToken;
use traced::Traced;
use tracing::{Instrument, debug, debug_span, info, warn};

use crate::consumer::{Consumer, Work};
use crate::health::Health;
use crate::isolate::Suspect;
use crate::meters::{self, Commits};
use crate::newest::letter;
use crate::offload::offload;
use crate::parking::{OnDeadLetter, park};
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
            on_dead_letter: self.options.on_dead_letter,
            successes: AllSuccesses::default(),
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
    on_dead_letter: OnDeadLetter,
    successes: AllSuccesses,
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
        let (payload, on_dead_letter) = (self.payload.clone(), self.on_dead_letter);
        let bytes = deliveries.iter().filter_map(|delivery| delivery.record.as_ref().ok()).map(Embedded::bytes).sum();
        let mut plan = offload(bytes, move || plan(deliveries, &payload, on_dead_letter)).await?;
        let (writes, removals) = (std::mem::take(&mut plan.writes), std::mem::take(&mut plan.removals));
        let outcomes = traced.as_ref().map(Traced::outcomes);
        let applier = Applier {
            index: &*self.index,
            tombstones: &*self.tombstones,
            alarm: &*self.alarm,
            patience: &self.patience,
            prepared: &self.prepared,
            successes: &self.successes,
            outcomes: outcomes.as_deref(),
        };
        let fences: Vec<Fence> = removals.iter().map(|removal| removal.fence.clone()).collect();
        // Side by side: no document is in both, and a fence around a collection holds whichever comes first.
        let (unremoved, unwritten) = tokio::join!(applier.remove(&fences), applier.write(&writes));
        let (unremoved, unwritten) = (unremoved?, unwritten?);
        if unremoved.is_empty() && unwritten.is_empty() {
            let (written, removed) = (writes.iter().collect(), removals.iter().collect());
            return self.settle(Done { written, removed }, plan, &commits, &mut traced).await;
        }
        // What still fails while Qdrant works for others comes last, so that it holds up nobody.
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
        // Their tombstones are raised: what could not be deleted now goes with the next write of the document.
        for (index, outcome) in applier.settle_removals(&fences, unremoved).await? {
            if let Err(error) = outcome {
                warn!(fence = ?fences[index].target, "cannot remove an older version of a parked document: {error}");
            }
        }
        done.removed.extend(&removals);
        self.settle(done, plan, &commits, &mut traced).await
    }

    /// Acknowledges what is done, then parks what cannot be.
    async fn settle(
        &self,
        done: Done<'_>,
        plan: Plan,
        commits: &Commits,
        traced: &mut Option<Traced>,
    ) -> Result<(), GivenUp> {
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
            self.patience.call("acknowledge entries", || self.queue.acknowledge(&done)).await?;
            commits.searchable(&done, &self.latency);
            debug!(documents, removals, entries = done.len(), "in the index");
            if let Some(traced) = traced {
                traced.spans.end(&done);
            }
        }
        if !letters.is_empty() {
            for letter in &letters {
                warn!(entry = letter.id.0, "parked: {}", letter.reason);
            }
            self.patience.call("park entries", || self.queue.park(&letters)).await?;
            meters::parked(NAME, letters.len());
            if let Some(traced) = traced {
                traced.spans.park(&letters);
            }
        }
        Ok(())
    }
}

/// All items but the suspects.
fn without<'a, T>(items: &'a [T], suspects: &[Suspect]) -> Vec<&'a T> {
    let suspects: HashSet<usize> = suspects.iter().map(|suspect| suspect.index).collect();
    items.iter().enumerate().filter(|(index, _)| !suspects.contains(index)).map(|(_, item)| item).collect()
}

/// What of a batch is in the index.
#[derive(Default)]
struct Done<'a> {
    written: Vec<&'a Write>,
    removed: Vec<&'a Removal>,
}
