//! The processor: stage 1 → embedder → stage 2.
//!
//! ```text
//!  raw_document_changes ──read / claim──▶ plan: newest change of each document, rendered, chunked
//!                                           │ documents            │ deletes, drops     │ unreadable
//!                                           ▼                      │                    ▼
//!                                         index: vectors that      │               dead letters
//!                                         are known already        │
//!                                           ▼                      │
//!                                         embedder (the other      │
//!                                         chunks of the batch,     │
//!                                         each text once)          │
//!                                           ▼                      ▼
//!                                   one script: XADD to embedded_documents + XACK on raw_document_changes
//! ```
//!
//! **Delivery**: at least once. An entry is acknowledged in the same atomic step that appends its record to stage 2.
//! **Order**: none; versions order the records downstream. Of several changes of one document in a batch only the
//! newest is embedded; the others are acknowledged with it, because nothing of them would survive in the index.
//! **No work twice**: a chunk whose fingerprint (its text and everything about the model) the index has in one of the
//! document's points is not embedded again. The record in stage 2 is whole nevertheless, so that it can be replayed into
//! another collection; it says when the payload is all that has changed. A vector depends on nothing but its text and its
//! model, so it does not matter how old the answer of the index is.
//! **Poison**: a document that cannot be read, rendered or embedded is parked with its reason; its neighbours go on.
//! **Backpressure**: above the high-water mark of stage 2 nothing more is handed over; stage 1 buffers, and in the end MongoDB.
//! **Outages**: while the embedder or Redis is away the processor waits; stage 1 keeps what has not been confirmed.

mod embed;
pub mod meters;
mod options;
mod plan;
mod recall;
mod render;
mod reuse;
mod traced;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
pub use options::{ProcessorOptions, TextOptions};
pub use render::Renderer;
use tidewheel_core::change::Change;
use tidewheel_core::chunking::ChunkLimits;
use tidewheel_core::embedded::{Embedded, Vectors};
use tidewheel_core::error::PortError;
use tidewheel_core::fingerprint::Fingerprints;
use tidewheel_core::ports::{Delivery, Embedder, EmbedderInfo, EntryId, Handover, KnownVectors, Queue};
use tidewheel_core::streams::STAGE_1;
use tidewheel_core::tokens::Tokens;
use tidewheel_core::trace::Tracer;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, info, warn};

use crate::consumer::{Consumer, Work};
use crate::health::Health;
use crate::newest::letter;
use crate::retry::{GivenUp, Patience};
use crate::service::ServiceError;
use crate::spans::BatchSpans;
use meters::{Meters, Saved};
use plan::{Handful, Job, Plan, handfuls, plan};
use recall::Recall;
use reuse::Reuse;
use traced::Embedding;

/// The service's name in errors, spans and labels.
pub const NAME: &str = "processor";

/// What a processor works with.
#[derive(Clone)]
pub struct ProcessorPorts {
    /// Stage 1.
    pub queue: Arc<dyn Queue<Change>>,
    /// The step to stage 2.
    pub handover: Arc<dyn Handover>,
    /// Makes the vectors.
    pub embedder: Arc<dyn Embedder>,
    /// Has vectors that were made before; without it every text is embedded.
    pub known: Option<Arc<dyn KnownVectors>>,
}

/// The service. Any number may run at once.
pub struct Processor {
    options: ProcessorOptions,
    ports: ProcessorPorts,
    renderer: Renderer,
    tracer: Option<Tracer>,
    health: Health,
}

impl Processor {
    /// A processor that is ready to run; fails if the template cannot be parsed.
    pub fn new(options: ProcessorOptions, ports: ProcessorPorts) -> Result<Self, ServiceError> {
        let renderer = Renderer::new(&options.text).map_err(|error| ServiceError::new(NAME, error))?;
        Ok(Self { options, ports, renderer, tracer: None, health: Health::of(NAME) })
    }

    /// The same processor, which tells what it does for each change, if there is a tracer.
    #[must_use]
    pub fn traced(self, tracer: Option<Tracer>) -> Self {
        Self { tracer, ..self }
    }

    /// What the service says of itself while it runs.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Runs until `shutdown`, or until something fails that a person has to mend.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServiceError> {
        crate::meters::nothing_yet(NAME, &["not_finite", "zero", "dimension"]);
        let patience = Patience { health: self.health, shutdown };
        let ProcessorPorts { queue, handover, embedder, known } = self.ports;
        let info = patience.call("reach the embedder", || embedder.info()).await;
        let (info, tokens) = match info {
            Ok(info) => (info, patience.call("get the model's tokeniser", || embedder.tokens()).await),
            Err(given_up) => return ended(given_up),
        };
        let tokens = match tokens {
            Ok(tokens) => tokens,
            Err(given_up) => return ended(given_up),
        };
        info!(model = info.model, dimension = info.dimension, "ready");
        let longest = self.options.chunk_tokens.map_or(info.max_tokens, |tokens| tokens.min(info.max_tokens));
        let work = Worker {
            queue: queue.clone(),
            handover,
            embedder,
            recall: Recall::new(known),
            meters: Meters::new(),
            fingerprints: Fingerprints::new(&info.model, &info.revision, info.dimension),
            renderer: self.renderer,
            limits: ChunkLimits::new(longest, self.options.chunk_overlap),
            tokens,
            info,
            high_water: self.options.high_water,
            since_look: AtomicU64::new(0),
            tracer: self.tracer,
            patience: patience.clone(),
        };
        Consumer { service: NAME, queue, options: self.options.consumer, patience }.run(work).await
    }
}

fn ended(given_up: GivenUp) -> Result<(), ServiceError> {
    match given_up {
        GivenUp::Shutdown => Ok(()),
        GivenUp::Failed(error) => Err(ServiceError::new(NAME, error)),
    }
}

/// After how many records at most stage 2 is looked at again.
const LOOK_EVERY: u64 = 1_000;

/// How often a waiting processor looks.
const PAUSE: Duration = Duration::from_millis(200);

struct Worker {
    queue: Arc<dyn Queue<Change>>,
    handover: Arc<dyn Handover>,
    embedder: Arc<dyn Embedder>,
    recall: Recall,
    meters: Meters,
    fingerprints: Fingerprints,
    renderer: Renderer,
    limits: ChunkLimits,
    tokens: Arc<dyn Tokens>,
    info: EmbedderInfo,
    high_water: u64,
    /// Records handed over since stage 2 was last looked at.
    since_look: AtomicU64,
    tracer: Option<Tracer>,
    patience: Patience,
}

#[async_trait]
impl Work<Change> for Worker {
    async fn batch(&self, deliveries: Vec<Delivery<Change>>) -> Result<(), GivenUp> {
        let span = debug_span!("processor", entries = deliveries.len());
        self.process(deliveries).instrument(span).await
    }
}

impl Worker {
    async fn process(&self, deliveries: Vec<Delivery<Change>>) -> Result<(), GivenUp> {
        let mut spans = BatchSpans::begin(self.tracer.as_ref(), "process", STAGE_1, &deliveries);
        let Plan { jobs, passed, mut letters } = plan(deliveries, &self.renderer, &*self.tokens, self.limits);
        let mut records: Vec<(Embedded, Vec<EntryId>)> =
            passed.into_iter().map(|passed| (Embedded::without_vectors(passed.change), passed.entries)).collect();
        let settled = jobs.iter().map(|job| job.entries.len()).chain(records.iter().map(|(_, entries)| entries.len()));
        self.meters.superseded.increment(settled.map(|entries| entries as u64 - 1).sum());
        if let Some(spans) = &mut spans {
            traced::passed(spans, &records);
        }
        for (job, vectors, unchanged) in self.embed(jobs, spans.as_mut()).await? {
            match vectors {
                Ok(vectors) => {
                    let (model, revision) = (self.info.model.clone(), self.info.revision.clone());
                    let Job { change, chunks, entries } = job;
                    records.push((Embedded { change, model, revision, chunks, vectors, unchanged }, entries));
                }
                Err(error) => letters.extend(job.entries.into_iter().map(|id| letter(id, &error))),
            }
        }
        for Handful { records, entries } in handfuls(records) {
            self.wait_for_room(records.len() as u64).await?;
            self.patience.call("hand over to stage 2", || self.handover.hand_over(&records, &entries)).await?;
            debug!(records = records.len(), entries = entries.len(), "handed over");
            if let Some(spans) = &mut spans {
                spans.end(&entries);
            }
        }
        if !letters.is_empty() {
            for letter in &letters {
                warn!(entry = letter.id.0, "parked: {}", letter.reason);
            }
            self.patience.call("park entries", || self.queue.park(&letters)).await?;
            crate::meters::parked(NAME, letters.len());
            if let Some(spans) = &mut spans {
                spans.park(&letters);
            }
        }
        Ok(())
    }

    /// Waits while stage 2 is above its high-water mark. What is in work stays this processor's meanwhile.
    async fn wait_for_room(&self, records: u64) -> Result<(), GivenUp> {
        let every = LOOK_EVERY.min(self.high_water / 4);
        if self.since_look.fetch_add(records, Ordering::Relaxed) + records < every {
            return Ok(());
        }
        let mut waited = false;
        loop {
            let backlog = self.patience.wait_for("look at stage 2", || self.handover.backlog()).await?;
            if backlog < self.high_water {
                break;
            }
            if !waited {
                info!(backlog, high_water = self.high_water, "stage 2 is full; waiting for the upserters");
                waited = true;
            }
            self.patience.pause(PAUSE).await?;
        }
        if waited {
            info!("stage 2 has room again");
        }
        self.since_look.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// The vectors of each job, or why it cannot have them, and whether the index has them all in their places. What is not known
    /// is embedded together.
    async fn embed(
        &self,
        mut jobs: Vec<Job>,
        spans: Option<&mut BatchSpans>,
    ) -> Result<Vec<(Job, Result<Vectors, PortError>, bool)>, GivenUp> {
        let known = self.recall.ask(&reuse::worth_a_look(&jobs)).await;
        let dimension = self.info.dimension;
        let reuse = Reuse::new(&jobs, known, &self.fingerprints, dimension);
        let texts = reuse.take_texts(&mut jobs);
        let embedding = spans.is_some().then(|| Embedding::begin(&self.info, texts.len()));
        let outcomes = embed::embed_all(&*self.embedder, &self.patience, dimension, &texts).await?;
        let embedding = embedding.map(Embedding::end);
        self.meters.embedded.increment(texts.len() as u64);
        reuse.give_back(&mut jobs, texts);
        let (known, repeated) = reuse.saved(&jobs);
        self.count(&self.meters.known, &known);
        self.count(&self.meters.repeated, &repeated);
        let vectors = reuse.vectors(&outcomes, dimension);
        let done: Vec<_> =
            jobs.into_iter().zip(vectors).map(|(job, (vectors, unchanged))| (job, vectors, unchanged)).collect();
        if let (Some(spans), Some(embedding)) = (spans, embedding) {
            for (number, (job, vectors, _)) in done.iter().enumerate() {
                embedding.tell(spans, job, reuse.reused(number), vectors.as_ref().err());
            }
        }
        Ok(done)
    }

    fn count(&self, saved: &Saved, texts: &[&str]) {
        saved.texts.increment(texts.len() as u64);
        saved.tokens.increment(texts.iter().map(|text| self.tokens.spans(text).len() as u64).sum());
    }
}
