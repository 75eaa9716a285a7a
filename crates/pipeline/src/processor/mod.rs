//! The processor: stage 1 → embedder → stage 2.
//!
//! ```text
//!  raw_document_changes ──read / claim──▶ plan: newest change of each document, rendered, chunked
//!                                           │ documents            │ deletes, drops     │ unreadable
//!                                           ▼                      │                    ▼
//!                                         index: vectors of        │               dead letters
//!                                         unchanged chunks         │
//!                                           ▼                      │
//!                                         embedder (remaining      │
//!                                         chunks of the batch,     │
//!                                         each text once)          │
//!                                           ▼                      ▼
//!                                   one script: XADD to embedded_documents + XACK on raw_document_changes
//! ```
//!
//! **Delivery**: at least once. An entry is acknowledged in the same atomic step that appends its record to stage 2.
//! **Order**: none; versions order the records downstream. Of several changes of one document in a batch only the
//! newest is embedded; the others are acknowledged with it, because the newest overwrites them in the index.
//! **Reuse**: a chunk whose fingerprint (of its text and the model) matches one of the document's points in the index
//! is not embedded again. The record in stage 2 is complete either way, so that it can be replayed into another
//! collection; it is flagged if only the payload has changed. A vector depends only on its text and its model, so a
//! stale read of the index is harmless.
//! **Poison**: a document that cannot be read or rendered is parked with its reason. So is one for which the embedder
//! keeps failing, with any error, while other requests succeed; its neighbours proceed before that is decided. A
//! deletion followed by a newer change in the batch proceeds too, because that change may be parked here or later.
//! **Blank**: a document without text is handed over without calling the embedder, or as a deletion.
//! **Length**: texts that the embedder rejects as too long are split again, as often as needed; nothing is truncated.
//! **Threads**: rendering and tokenising run on the blocking thread pool, one batch at a time.
//! **Backpressure**: above the high-water mark of stage 2 the processor hands over nothing; stage 1 buffers, and then
//! MongoDB's oplog.
//! **Outages**: while the embedder or Redis is unreachable the processor waits; stage 1 keeps unacknowledged entries.

mod blank;
mod embed;
mod filters;
pub mod metric;
mod options;
mod plan;
mod recall;
mod render;
mod reuse;
mod settle;
mod split;
mod template;
mod traced;

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
pub use blank::LeftOut;
pub use options::{Blank, ProcessorOptions, TextOptions};
pub use render::Renderer;
use tidewheel_core::change::Change;
use tidewheel_core::chunking::ChunkLimits;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::error::{Cause, PortError};
use tidewheel_core::fingerprint::Fingerprints;
use tidewheel_core::health::Health;
use tidewheel_core::ports::{Backlog, Delivery, Embedder, EmbedderInfo, Handover, KnownVectors, Maintenance, Queue};
use tidewheel_core::stage::Stage;
use tidewheel_core::trace::Tracer;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span, info};

use crate::backpressure::Room;
use crate::consumer::{Consumer, Work};
use crate::isolate::Successes;
use crate::offload::{beside, offload};
use crate::parking::{OnDeadLetter, park};
use crate::retry::{RetryError, RetryPolicy};
use crate::service::ServiceError;
use crate::spans::BatchSpans;
use embed::{Embedding, Outcome};
use metric::{Saved, ServiceMetrics};
use plan::{Job, Plan, Planner};
use recall::Recall;
use reuse::Reuse;
use split::Splitter;
use template::Template;
use traced::EmbedCall;

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
    /// Computes the vectors.
    pub embedder: Arc<dyn Embedder>,
    /// Existing vectors to reuse; without it every text is embedded.
    pub known: Option<Arc<dyn KnownVectors>>,
}

/// The service. Any number of instances may run concurrently.
pub struct Processor {
    options: ProcessorOptions,
    ports: ProcessorPorts,
    renderer: Renderer,
    prefix: Option<Template>,
    tracer: Option<Tracer>,
    health: Health,
}

impl Processor {
    /// Creates a processor; fails if a template is invalid.
    pub fn new(options: ProcessorOptions, ports: ProcessorPorts) -> Result<Self, ServiceError> {
        let renderer = Renderer::new(&options.text).map_err(|error| ServiceError::new(NAME, error))?;
        let prefix = options.chunk_prefix.as_deref().map(|template| Template::new("chunk.prefix", template));
        let prefix = prefix.transpose().map_err(|error| ServiceError::new(NAME, error))?;
        Ok(Self { options, ports, renderer, prefix, tracer: None, health: Health::of(NAME) })
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
        let retry = RetryPolicy { health: self.health, shutdown };
        let ProcessorPorts { queue, maintenance, handover, backlog, embedder, known } = self.ports;
        let info = retry.call("reach the embedder", || embedder.info()).await;
        let (info, tokens) = match info {
            Ok(info) => (info, retry.call("get the model's tokeniser", || embedder.tokens()).await),
            Err(error) => return ended(error),
        };
        let tokens = match tokens {
            Ok(tokens) => tokens,
            Err(error) => return ended(error),
        };
        info!(model = info.model, dimension = info.dimension, "ready");
        let longest = self.options.chunk_tokens.map_or(info.max_tokens, |tokens| tokens.min(info.max_tokens));
        let work = Worker {
            queue: queue.clone(),
            handover,
            backlog,
            embedder,
            recall: Recall::new(known),
            metrics: ServiceMetrics::new(),
            fingerprints: Fingerprints::new(&info.model, &info.revision, info.dimension),
            planner: Arc::new(Planner {
                renderer: self.renderer,
                prefix: self.prefix,
                splitter: Splitter::new(
                    tokens,
                    ChunkLimits::new(longest, self.options.chunk_overlap),
                    self.options.max_chunks,
                ),
                blank: self.options.blank,
                on_dead_letter: self.options.on_dead_letter,
            }),
            info,
            on_dead_letter: self.options.on_dead_letter,
            successes: Successes::default(),
            handed_over: Successes::default(),
            room: Room::new("stage 2", "the upserters", self.options.high_water),
            tracer: self.tracer,
            retry: retry.clone(),
        };
        Consumer { service: NAME, queue, maintenance, options: self.options.consumer, retry }.run(work).await
    }
}

fn ended(error: RetryError) -> Result<(), ServiceError> {
    match error {
        RetryError::Shutdown => Ok(()),
        RetryError::Failed(error) => Err(ServiceError::new(NAME, error)),
    }
}

struct Worker {
    queue: Arc<dyn Queue<Change>>,
    handover: Arc<dyn Handover>,
    backlog: Option<Arc<dyn Backlog>>,
    embedder: Arc<dyn Embedder>,
    recall: Recall,
    metrics: ServiceMetrics,
    fingerprints: Fingerprints,
    planner: Arc<Planner>,
    info: EmbedderInfo,
    on_dead_letter: OnDeadLetter,
    /// Successful requests to the embedder.
    successes: Successes,
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
    async fn process(&self, deliveries: Vec<Delivery<Change>>) -> Result<(), RetryError> {
        let mut spans = BatchSpans::begin(self.tracer.as_ref(), "process", Stage::Raw, &deliveries);
        let planner = self.planner.clone();
        let mut plan = offload(planner.cost(&deliveries), move || planner.plan(deliveries)).await?;
        let jobs = std::mem::take(&mut plan.jobs);
        let entries = jobs.iter().map(|job| &job.entries).chain(plan.passed.iter().map(|passed| &passed.entries));
        self.metrics.superseded.increment(entries.map(|entries| (entries.len() as u64).saturating_sub(1)).sum());
        if let Some(spans) = &mut spans {
            traced::passed(spans, &plan.passed);
        }
        if jobs.is_empty() {
            return self.settle(Vec::new(), plan, &mut spans).await;
        }
        self.embed(jobs, plan, &mut spans).await
    }

    /// Embeds the jobs and hands them over. Documents with a chunk that the embedder rejects as too long are split
    /// again.
    async fn embed(
        &self,
        mut jobs: Vec<Job>,
        mut rest: Plan,
        spans: &mut Option<BatchSpans>,
    ) -> Result<(), RetryError> {
        loop {
            let too_long = self.embed_once(jobs, rest, spans).await?;
            if too_long.is_empty() {
                return Ok(());
            }
            let planner = self.planner.clone();
            let (finer, unsplittable) = offload(usize::MAX, move || planner.finer(too_long)).await?;
            rest = Plan::default();
            for (Job { change, entries, .. }, error) in unsplittable {
                rest.park(&change, park(self.on_dead_letter, change.version, entries, None, &error));
            }
            if finer.is_empty() {
                return self.settle(Vec::new(), rest, spans).await;
            }
            jobs = finer;
        }
    }

    /// One pass over jobs as currently split; returns those with a chunk that is too long. Texts without a reusable
    /// vector are embedded together. Jobs whose texts fail while other requests succeed come last, so that they block
    /// no others.
    async fn embed_once(
        &self,
        mut jobs: Vec<Job>,
        rest: Plan,
        spans: &mut Option<BatchSpans>,
    ) -> Result<Vec<(Job, PortError)>, RetryError> {
        let known = self.recall.ask(&reuse::reusable_points(&jobs)).await;
        let dimension = self.info.dimension;
        let reuse = Reuse::new(&jobs, known, &self.fingerprints, dimension);
        let texts = reuse.take_texts(&mut jobs);
        let embedder =
            Embedding { embedder: &*self.embedder, retry: &self.retry, successes: &self.successes, dimension };
        let call = spans.is_some().then(|| EmbedCall::begin(&self.info, texts.len()));
        let (mut outcomes, suspects) = embedder.of(&texts).await?;
        let call = call.map(EmbedCall::end);
        let suspected: Vec<String> = suspects.iter().map(|suspect| texts[suspect.index].clone()).collect();
        self.metrics.embedded.increment(texts.len() as u64);
        reuse.restore_texts(&mut jobs, texts);
        let (known, repeated) = reuse.saved(&jobs);
        self.count(&self.metrics.known, &known);
        self.count(&self.metrics.repeated, &repeated);
        let numbered: Vec<(usize, Job)> = jobs.into_iter().enumerate().collect();
        let (waiting, mut too_long) = self.hand_over(&reuse, &outcomes, numbered, rest, call.as_ref(), spans).await?;
        if !suspects.is_empty() {
            embedder.settle(suspects, &suspected, &mut outcomes).await?;
            let settled = self.hand_over(&reuse, &outcomes, waiting, Plan::default(), call.as_ref(), spans).await?;
            too_long.extend(settled.1);
        }
        Ok(too_long)
    }

    /// Hands over the jobs with all vectors, parks those that can never have them, and returns those that wait for one,
    /// and those that are too long. Jobs are numbered as in `reuse`.
    async fn hand_over(
        &self,
        reuse: &Reuse,
        outcomes: &[Outcome],
        jobs: Vec<(usize, Job)>,
        mut plan: Plan,
        call: Option<&EmbedCall>,
        spans: &mut Option<BatchSpans>,
    ) -> Result<(Vec<(usize, Job)>, Vec<(Job, PortError)>), RetryError> {
        let (mut records, mut waiting, mut too_long) = (Vec::with_capacity(jobs.len()), Vec::new(), Vec::new());
        for (number, job) in jobs {
            let Some((vectors, unchanged)) = reuse.vectors(number, outcomes, self.info.dimension) else {
                waiting.push((number, job));
                continue;
            };
            if let (Some(spans), Some(call)) = (spans.as_mut(), call) {
                call.record(spans, &job, reuse.reused(number), vectors.as_ref().err());
            }
            if let Err(error) = &vectors
                && error.cause == Cause::TooLong
            {
                too_long.push((job, error.clone()));
                continue;
            }
            let Job { change, chunks, prefix, entries, .. } = job;
            match vectors {
                Ok(vectors) => {
                    let (model, revision) = (self.info.model.clone(), self.info.revision.clone());
                    let target = None;
                    let record = Embedded { change, model, revision, chunks, vectors, unchanged, target, prefix };
                    records.push((record, entries));
                }
                Err(error) => {
                    plan.park(&change, park(self.on_dead_letter, change.version, entries, None, &error));
                }
            }
        }
        self.settle(records, plan, spans).await?;
        Ok((waiting, too_long))
    }

    /// Counts texts that need not be embedded. Their tokens are counted in the background.
    fn count(&self, saved: &Saved, texts: &[Cow<'_, str>]) {
        if texts.is_empty() {
            return;
        }
        saved.texts.increment(texts.len() as u64);
        let (planner, counter) = (self.planner.clone(), saved.tokens.clone());
        let texts: Vec<String> = texts.iter().map(|text| text.clone().into_owned()).collect();
        let bytes = texts.iter().map(String::len).sum();
        let count = move || counter.increment(texts.iter().map(|text| planner.splitter.count(text) as u64).sum());
        beside(bytes, count);
    }
}
