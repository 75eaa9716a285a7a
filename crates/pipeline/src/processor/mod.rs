//! The processor: stage 1 → embedder → stage 2.
//!
//! ```text
//!  raw_document_changes ──read / claim──▶ plan: newest change of each document, rendered, chunked
//!                                           │ documents            │ deletes, drops     │ unreadable
//!                                           ▼                      │                    ▼
//!                                         embedder (all chunks     │               dead letters
//!                                         of the batch together)   │
//!                                           ▼                      ▼
//!                                   one script: XADD to embedded_documents + XACK on raw_document_changes
//! ```
//!
//! **Delivery**: at least once. An entry is acknowledged in the same atomic step that appends its record to stage 2.
//! **Order**: none; versions order the records downstream. Of several changes of one document in a batch only the
//! newest is embedded; the others are acknowledged with it, because nothing of them would survive in the index.
//! **Poison**: a document that cannot be read, rendered or embedded is parked with its reason; its neighbours go on.
//! **Backpressure**: above the high-water mark of stage 2 nothing more is handed over; stage 1 buffers, and in the end MongoDB.
//! **Outages**: while the embedder or Redis is away the processor waits; stage 1 keeps what has not been confirmed.

mod embed;
mod options;
mod plan;
mod render;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
pub use options::{ProcessorOptions, TextOptions};
pub use render::Renderer;
use tidewheel_core::change::Change;
use tidewheel_core::chunking::ChunkLimits;
use tidewheel_core::embedded::{Embedded, Vectors};
use tidewheel_core::ports::{Delivery, Embedder, EmbedderInfo, EntryId, Handover, Queue};
use tidewheel_core::tokens::Tokens;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, info, warn};

use crate::consumer::{Consumer, Work};
use crate::health::Health;
use crate::newest::letter;
use crate::retry::{GivenUp, Patience};
use crate::service::ServiceError;
use plan::{Handful, Job, Plan, handfuls, plan};

/// The service's name in errors, spans and labels.
pub const NAME: &str = "processor";

/// The service. Any number may run at once.
pub struct Processor {
    options: ProcessorOptions,
    queue: Arc<dyn Queue<Change>>,
    handover: Arc<dyn Handover>,
    embedder: Arc<dyn Embedder>,
    renderer: Renderer,
    health: Health,
}

impl Processor {
    /// A processor that is ready to run; fails if the template cannot be parsed.
    pub fn new(
        options: ProcessorOptions,
        queue: Arc<dyn Queue<Change>>,
        handover: Arc<dyn Handover>,
        embedder: Arc<dyn Embedder>,
    ) -> Result<Self, ServiceError> {
        let renderer = Renderer::new(&options.text).map_err(|error| ServiceError::new(NAME, error))?;
        Ok(Self { options, queue, handover, embedder, renderer, health: Health::default() })
    }

    /// What the service says of itself while it runs.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Runs until `shutdown`, or until something fails that a person has to mend.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServiceError> {
        let patience = Patience { health: self.health, shutdown };
        let info = patience.call("reach the embedder", || self.embedder.info()).await;
        let (info, tokens) = match info {
            Ok(info) => (info, patience.call("get the model's tokeniser", || self.embedder.tokens()).await),
            Err(given_up) => return ended(given_up),
        };
        let tokens = match tokens {
            Ok(tokens) => tokens,
            Err(given_up) => return ended(given_up),
        };
        info!(model = info.model, dimension = info.dimension, "ready");
        let longest = self.options.chunk_tokens.map_or(info.max_tokens, |tokens| tokens.min(info.max_tokens));
        let work = Worker {
            queue: self.queue.clone(),
            handover: self.handover,
            embedder: self.embedder,
            renderer: self.renderer,
            limits: ChunkLimits::new(longest, self.options.chunk_overlap),
            tokens,
            info,
            high_water: self.options.high_water,
            since_look: AtomicU64::new(0),
            patience: patience.clone(),
        };
        Consumer { service: NAME, queue: self.queue, options: self.options.consumer, patience }.run(work).await
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
    renderer: Renderer,
    limits: ChunkLimits,
    tokens: Arc<dyn Tokens>,
    info: EmbedderInfo,
    high_water: u64,
    /// Records handed over since stage 2 was last looked at.
    since_look: AtomicU64,
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
        let Plan { jobs, passed, mut letters } = plan(deliveries, &self.renderer, &*self.tokens, self.limits);
        let mut records: Vec<(Embedded, Vec<EntryId>)> =
            passed.into_iter().map(|passed| (Embedded::without_vectors(passed.change), passed.entries)).collect();
        for (job, vectors) in self.embed(jobs).await? {
            match vectors {
                Ok(vectors) => {
                    let model = self.info.model.clone();
                    records.push((Embedded { change: job.change, model, chunks: job.chunks, vectors }, job.entries));
                }
                Err(error) => letters.extend(job.entries.into_iter().map(|id| letter(id, &error))),
            }
        }
        for Handful { records, entries } in handfuls(records) {
            self.wait_for_room(records.len() as u64).await?;
            self.patience.call("hand over to stage 2", || self.handover.hand_over(&records, &entries)).await?;
            debug!(records = records.len(), entries = entries.len(), "handed over");
        }
        if !letters.is_empty() {
            for letter in &letters {
                warn!(entry = letter.id.0, "parked: {}", letter.reason);
            }
            self.patience.call("park entries", || self.queue.park(&letters)).await?;
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
            let backlog = self.patience.call("look at stage 2", || self.handover.backlog()).await?;
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

    /// The vectors of each job, or why it cannot have them. All chunks of the batch are embedded together.
    async fn embed(
        &self,
        mut jobs: Vec<Job>,
    ) -> Result<Vec<(Job, Result<Vectors, tidewheel_core::error::PortError>)>, GivenUp> {
        // The texts are lent to one flat list and given back, instead of being copied.
        let counts: Vec<usize> = jobs.iter().map(|job| job.chunks.len()).collect();
        let texts: Vec<String> = jobs.iter_mut().flat_map(|job| std::mem::take(&mut job.chunks)).collect();
        let outcomes = embed::embed_all(&*self.embedder, &self.patience, self.info.dimension, &texts).await?;
        let mut pairs = texts.into_iter().zip(outcomes);
        let mut embedded = Vec::with_capacity(jobs.len());
        for (mut job, count) in jobs.into_iter().zip(counts) {
            let mut values = Vec::with_capacity(count * self.info.dimension);
            let mut failure = None;
            for (text, outcome) in pairs.by_ref().take(count) {
                job.chunks.push(text);
                match outcome {
                    Ok(vector) => values.extend(vector),
                    Err(error) => failure = Some(error),
                }
            }
            let vectors = match failure {
                Some(error) => Err(error),
                None => Ok(Vectors::new(self.info.dimension, values).expect("every vector has the dimension")),
            };
            embedded.push((job, vectors));
        }
        Ok(embedded)
    }
}
