//! The processor: stage 1 → embedder → stage 2.
//!
//! ```text
//!  raw_document_changes ──read / claim──▶ plan: newest change of each document in each target, rendered, chunked
//!                                           │ documents            │ deletes, drops     │ unreadable
//!                                           ▼                      │                    ▼
//!                                         index: vectors of        │               dead letters
//!                                         unchanged chunks         │
//!                                           ▼                      │
//!                                         embedders (remaining     │
//!                                         chunks of the batch,     │
//!                                         each text once)          │
//!                                           ▼                      ▼
//!                                   one script: XADD to embedded_documents + XACK on raw_document_changes
//! ```
//!
//! **Delivery**: at least once. An entry is acknowledged in the same atomic step that appends its records to stage 2.
//! **Order**: none; versions order the records downstream. Of several changes of one document in a batch only the
//! newest in each target is embedded; the others are acknowledged with it, because the newest overwrites them in the
//! index.
//! **Targets**: a change has one record for each of its targets, and all of them are appended in one step. A document
//! that a target does not cover any more is deleted from it. An entry stamped by a newer catalog than the known one loads
//! the catalog first, so that nothing is rendered by an older declaration. Targets that the catalog does not route get no
//! records.
//! **Sharing**: targets with equal texts and models share the rendering, the chunks and the vectors of a document.
//! Requests to different models run concurrently, and changes that wait for none of them are handed over first.
//! **Reuse**: a chunk whose fingerprint (of its text and the model) matches one of the document's points in the index
//! is not embedded again. For a document that is new to a target, the collections of other targets with the same model are
//! read too. The record in stage 2 is complete either way, so that it can be replayed into another collection; it is
//! flagged if only the payload has changed. A vector depends only on its text and its model, so a stale read of the index
//! is harmless.
//! **Poison**: a document that cannot be read or rendered is parked with its reason. So is one for which the embedder
//! keeps failing, with any error, while other requests succeed; its neighbours proceed before that is decided. A
//! deletion followed by a newer change in the batch proceeds too, because that change may be parked here or later. A
//! change that fails for some of its targets is handed over for the others, and parked for these.
//! **Blank**: a document without text is handed over without calling the embedder, or as a deletion.
//! **Length**: texts that the embedder rejects as too long are split again, as often as needed; nothing is truncated.
//! **Threads**: rendering and tokenising run on the blocking thread pool, one batch at a time.
//! **Backpressure**: above the high-water mark of stage 2 the processor hands over nothing; stage 1 buffers, and then
//! MongoDB's oplog.
//! **Outages**: while the embedder or Redis is unreachable the processor waits; stage 1 keeps unacknowledged entries. It
//! does not wait for the embedder of a target that was never whole: after 30 seconds of failures its records are left out,
//! and the target is recorded as lost, in the step that acknowledges the entries. It stops waiting for one that the
//! catalog no longer needs. Entries that need an embedder which its settings lack are left to other processors.

mod batch;
mod blank;
mod embed;
mod filters;
mod identity;
mod lane;
pub mod metric;
mod model;
mod needed;
mod options;
mod plan;
mod planner;
mod recall;
mod rejected;
mod render;
mod reuse;
mod round;
#[cfg(test)]
mod samples;
mod settle;
mod split;
mod steps;
mod template;
#[cfg(test)]
mod tests;
mod traced;
mod unit;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
pub use blank::LeftOut;
use metrics::Counter;
pub use options::{Blank, ProcessorOptions, TextOptions};
pub use render::Renderer;
use tidewheel_core::change::Change;
use tidewheel_core::health::Health;
use tidewheel_core::ports::{Backlog, Delivery, Handover, Maintenance, Queue};
use tidewheel_core::trace::Tracer;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span, info};

use crate::backpressure::Room;
use crate::breaker::Ended;
use crate::consumer::{Consumer, Work};
use crate::isolate::Successes;
use crate::newest;
use crate::offload::offload;
use crate::retry::{RetryError, RetryPolicy};
use crate::service::ServiceError;
use crate::targets::{Applied, Targets};
use batch::Batch;
use lane::{Lanes, Planners, Skipped};
use model::{Models, guarded};
use options::SettingNames;
use planner::{Texts, finer};
use traced::SharedSpans;
use unit::Part;

/// The service's name in errors, spans and labels.
pub const NAME: &str = "processor";

/// The ports of a processor.
#[derive(Clone)]
pub struct ProcessorPorts {
    /// Stage 1.
    pub queue: Arc<dyn Queue<Change>>,
    /// The group of the processors; `None` for changes that no other processor sees.
    pub maintenance: Option<Arc<dyn Maintenance<Change>>>,
    /// The handover to stage 2.
    pub handover: Arc<dyn Handover>,
    /// The backlog of stage 2; `None` if the handover processes the records itself.
    pub backlog: Option<Arc<dyn Backlog>>,
    /// The targets, with the embedders that compute their vectors, and the vectors to reuse.
    pub targets: Arc<Targets>,
}

/// The service. Any number of instances may run concurrently.
pub struct Processor {
    options: ProcessorOptions,
    ports: ProcessorPorts,
    tracer: Option<Tracer>,
    health: Health,
}

impl Processor {
    /// Creates a processor; fails if a template of local settings is invalid.
    pub fn new(options: ProcessorOptions, ports: ProcessorPorts) -> Result<Self, ServiceError> {
        if let Some(local) = ports.targets.current().target(None).filter(|target| target.is_local()) {
            Texts::new(local.declaration(), &SettingNames::SHORT_FORM)
                .map_err(|error| ServiceError::new(NAME, error))?;
        }
        Ok(Self { options, ports, tracer: None, health: Health::of(NAME) })
    }

    /// Returns the same processor with a tracer, if there is one.
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
        crate::metric::init_counters(NAME, &["not_finite", "zero", "dimension"]);
        let stop = shutdown.child_token();
        let _stop_side_loops = stop.clone().drop_guard();
        let targets = self.ports.targets.clone();
        tokio::spawn(targets.clone().follow(stop.clone()));
        let retry = RetryPolicy { health: self.health, shutdown };
        let work = Worker::new(self.ports.clone(), self.options.high_water, self.tracer, retry.clone());
        match work.start().await {
            Ok(()) => {}
            Err(RetryError::Shutdown) => return Ok(()),
            Err(RetryError::Failed(error)) => return Err(ServiceError::new(NAME, error)),
        }
        tokio::spawn(identity::save_identities(targets, stop));
        let ProcessorPorts { queue, maintenance, .. } = self.ports;
        Consumer { service: NAME, queue, maintenance, options: self.options.consumer, retry }.run(work).await
    }
}

struct Worker {
    queue: Arc<dyn Queue<Change>>,
    handover: Arc<dyn Handover>,
    backlog: Option<Arc<dyn Backlog>>,
    targets: Arc<Targets>,
    /// The lanes of the last batch.
    current: Mutex<Arc<Lanes>>,
    models: Models,
    planners: Planners,
    /// Counts changes that were not embedded.
    superseded: Counter,
    /// Successful handovers to stage 2.
    handed_over: Successes,
    /// Room in stage 2.
    room: Room,
    tracer: Option<Tracer>,
    retry: RetryPolicy,
}

#[async_trait]
impl Work<Change> for Worker {
    async fn batch(&self, deliveries: Vec<Delivery<Change>>) -> Result<(), RetryError> {
        let span = debug_span!("processor", entries = deliveries.len());
        self.process(deliveries).instrument(span).await
    }
}

impl Worker {
    fn new(ports: ProcessorPorts, high_water: u64, tracer: Option<Tracer>, retry: RetryPolicy) -> Self {
        let ProcessorPorts { queue, handover, backlog, targets, .. } = ports;
        Self {
            queue,
            handover,
            backlog,
            current: Mutex::new(Arc::new(Lanes::new(targets.current()))),
            targets,
            models: Models::default(),
            planners: Planners::default(),
            superseded: metric::superseded(),
            handed_over: Successes::default(),
            room: Room::new("stage 2", "the upserters", high_water),
            tracer,
            retry,
        }
    }

    /// Waits for the catalog, and, with local settings, for their embedder. Those of declared indexes are awaited when they
    /// are needed.
    async fn start(&self) -> Result<(), RetryError> {
        let lanes = self.lanes(&self.load(0).await?);
        if let Some(local) = lanes.local() {
            let model = tokio::select! {
                biased;
                model = self.models.ask(&local.target, &self.retry, false) => model?,
                () = self.until_unneeded(std::slice::from_ref(&local.target)) => return Ok(()),
            };
            info!(model = model.info.model, dimension = model.dimension(), "ready");
            return local
                .prepare(model, &self.planners)
                .map_err(|error| self.retry.stopped("compile templates", error));
        }
        info!(targets = lanes.len(), "ready");
        Ok(())
    }

    /// The catalog, at this revision or a newer one.
    async fn load(&self, revision: u64) -> Result<Arc<Applied>, RetryError> {
        self.retry.wait_for("load the applied catalog", || self.targets.at_least(revision)).await
    }

    /// The lanes of a catalog.
    fn lanes(&self, applied: &Arc<Applied>) -> Arc<Lanes> {
        let mut lanes = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if !lanes.are_of(applied) {
            *lanes = Arc::new(Lanes::new(applied.clone()));
            self.models.retain(applied);
            self.planners.retain(&lanes);
        }
        lanes.clone()
    }

    /// The lanes of the catalog by which these entries are processed.
    async fn lanes_for(&self, deliveries: &[Delivery<Change>]) -> Result<Arc<Lanes>, RetryError> {
        let revision = newest::catalog(deliveries);
        let lanes = self.lanes(&self.load(revision).await?);
        if !lanes.leave_out(deliveries) {
            return Ok(lanes);
        }
        let confirm = || self.targets.confirmed(revision);
        Ok(self.lanes(&self.retry.wait_for("load the applied catalog", confirm).await?))
    }

    async fn process(&self, deliveries: Vec<Delivery<Change>>) -> Result<(), RetryError> {
        let spans = SharedSpans::begin(self.tracer.as_ref(), &deliveries);
        let (lanes, skipped) = loop {
            let lanes = self.lanes_for(&deliveries).await?;
            if let Some(skipped) = self.prepare(&lanes, &deliveries).await? {
                break (lanes, skipped);
            }
        };
        let planned = lanes.clone();
        let plan = offload(lanes.cost(&deliveries), move || planned.plan(deliveries, &skipped)).await?;
        let superseded: usize = plan.units.iter().map(|unit| unit.entries.len() - 1).sum();
        self.superseded.increment(superseded as u64);
        for (change, _) in &plan.retired {
            let target = change.route.stamp().and_then(|stamp| stamp.targets.first());
            crate::metric::retired(target.map_or("", |target| target.index.as_str()), 1);
        }
        let (batch, mut jobs) = Batch::new(lanes, spans, plan);
        if jobs.is_empty() {
            return self.settle(&batch, batch.decided()).await;
        }
        // Documents with a chunk that the embedder rejects as too long are split again.
        loop {
            let too_long = self.round(&batch, jobs).await?;
            if too_long.is_empty() {
                return Ok(());
            }
            let too_long = batch.with_documents(too_long);
            let (finer, unsplittable) = offload(usize::MAX, move || finer(too_long)).await?;
            for (job, error) in unsplittable {
                batch.decide(job.unit, Part::Failed { to: job.to, error });
            }
            if finer.is_empty() {
                return self.settle(&batch, batch.decided()).await;
            }
            jobs = finer;
        }
    }

    /// Prepares the lanes that receive documents. Those that must not delay the others are skipped if their embedder stays
    /// unavailable. `None` if meanwhile the catalog does not need one of the embedders any more.
    async fn prepare(&self, lanes: &Lanes, deliveries: &[Delivery<Change>]) -> Result<Option<Skipped>, RetryError> {
        let mut skipped = Skipped::new();
        for number in lanes.unprepared(deliveries) {
            let lane = lanes.get(number);
            let model = match self.models.known(&lane.target) {
                Some(model) => Ended::Done(model),
                None => {
                    let breaker = lane.may_skip.then(|| self.models.breaker(&lane.target));
                    let leaves = !lane.may_skip && !lane.target.is_local();
                    let ask =
                        move |retry: RetryPolicy| async move { self.models.ask(&lane.target, &retry, leaves).await };
                    tokio::select! {
                        biased;
                        model = guarded(breaker.as_deref(), &self.retry, ask) => model?,
                        () = self.until_unneeded(std::slice::from_ref(&lane.target)) => return Ok(None),
                    }
                }
            };
            let reason = match model {
                Ended::Skipped(reason) => reason,
                Ended::Done(model) => match lane.prepare(model, &self.planners) {
                    Ok(()) => continue,
                    Err(error) if lane.may_skip => error.message,
                    Err(error) => return Err(self.retry.stopped("compile templates", error)),
                },
            };
            skipped.insert(number, reason);
        }
        Ok(Some(skipped))
    }
}
