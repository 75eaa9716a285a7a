//! The producer: MongoDB → stage 1.
//!
//! ```text
//!   lease ──▶ load checkpoint ──▶ open feed ──▶┬─▶ feed: what has accumulated ──▶ plan ──▶ append ─┐
//!     ▲         (token, time,     (and a       │                                                   │
//!     │          ordinal,          snapshot,   ├─▶ snapshot: next page ─────────▶ plan ──▶ append ─┤
//!     │          snapshot)         if due)     ├─▶ positions: barrier, damage ──▶ plan ──▶ confirm ┤
//!     │                                        │                             or restart            │
//!     │                                        └──────────────◀────────────────────────────────────┘
//!     └── conflict, lost lease, failed feed ◀── one script: if the checkpoint is the expected one,
//!                                                XADD every change and save the next checkpoint
//! ```
//!
//! **Append**: exactly once. Changes and checkpoint are saved in one atomic step, under the condition that the
//! checkpoint is still the one that this producer has seen last. Whoever loses that race forgets everything and loads
//! the checkpoint again; so does a producer whose Redis came back with older data.
//! **Gap-free**: the feed is opened before the snapshot reads its first row, at a time that the snapshot's rows carry
//! as their version; changes that the scan sees early win over it when they arrive.
//! **Applied**: a barrier tells up to which checkpoint everything is in the index. From there everything that was lost
//! between the checkpoint and the index can be appended again.
//! **Damage**: streams that were deleted, entries that vanished before they were acknowledged and a collection that is gone are
//! noticed within seconds and repaired: by going back to the applied checkpoint, or by a snapshot.
//! **Parked**: a change that cannot be read or appended goes to the dead letters of stage 1, by its `_id` and without its document, in
//! the step that saves the position behind it.
//! **Snapshot**: reads everything, appends only what the index does not have like this, and then removes from the index what
//! the source does not have.
//! **Several producers**: the lease makes one work and the others wait; safety rests on the condition above.
//! **Backpressure**: above the high-water mark of stage 1 nothing more is read; MongoDB's oplog buffers.
//! **Audit**: every so often the whole index is compared with the source, slowly, and drift is counted and told.
//! **Lost history**: when the oplog no longer reaches back to the token, a snapshot makes the index equal again.

mod admission;
mod auditing;
mod barrier;
mod collecting;
mod meters;
mod moves;
mod options;
mod plan;
mod session;
mod snapshot;
mod writer;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

pub(crate) use moves::present;
pub use options::ProducerOptions;
pub(crate) use plan::Position;
pub(crate) use session::now_ms;
use session::{Ended, Session};
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{Alarm, Index, Journal, Source, Tombstones};
use tidewheel_core::retry::Backoff;
use tidewheel_core::trace::Tracer;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::health::{Health, Telling};
use crate::service::ServiceError;

/// The service's name in errors, spans and labels.
pub const NAME: &str = "producer";

/// The service. Any number may run at once; one of them works.
pub struct Producer {
    options: ProducerOptions,
    ports: ProducerPorts,
    tracer: Option<Tracer>,
    health: Health,
}

/// What the producer works with.
#[derive(Clone)]
pub struct ProducerPorts {
    /// MongoDB.
    pub source: Arc<dyn Source>,
    /// Stage 1.
    pub journal: Arc<dyn Journal>,
    /// The collection in Qdrant, to compare with. Only points with keys of an earlier release are removed from it.
    pub index: Arc<dyn Index>,
    /// The memory of deletions.
    pub tombstones: Arc<dyn Tombstones>,
    /// The memory of the collection.
    pub alarm: Arc<dyn Alarm>,
}

impl Producer {
    /// A producer that is ready to run.
    pub fn new(options: ProducerOptions, ports: ProducerPorts) -> Self {
        Self { options, ports, tracer: None, health: Health::of(NAME) }
    }

    /// The same producer, which tells the way of each change into stage 1, if there is a tracer.
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
        meters::nothing_yet();
        let mut backoff = Backoff::for_servers();
        let mut standing_by = false;
        let ended = loop {
            let session = Session {
                options: &self.options,
                ports: &self.ports,
                tracer: self.tracer.as_ref(),
                health: &self.health,
                shutdown: &shutdown,
                progressed: AtomicBool::new(false),
                limits: OnceLock::new(),
            };
            let (ended, progressed) = session.run().await;
            if progressed {
                backoff.reset();
            }
            let was_standing_by = std::mem::take(&mut standing_by);
            meters::leads(false);
            let delay = match ended {
                Ended::Shutdown => break Ok(()),
                Ended::Conflict => {
                    warn!("the checkpoint was changed by somebody else; starting again from it");
                    meters::restarts("conflict");
                    backoff.next_delay(None)
                }
                Ended::Restarted => {
                    meters::restarts("repair");
                    continue;
                }
                Ended::StandBy => {
                    if !was_standing_by {
                        info!("another producer is at work; standing by");
                        auditing::forget();
                    }
                    self.health.started();
                    standing_by = true;
                    self.options.lease / 3
                }
                Ended::Failed(error) if error.class == ErrorClass::Transient => {
                    meters::restarts("failed");
                    crate::meters::failed(NAME, &error, true);
                    match self.health.fails(FOLLOW, &error.message) {
                        Telling::First => warn!(hint = error.hint, "cannot {FOLLOW}, will keep trying: {error}"),
                        Telling::Lasting(lasted, attempts) => {
                            warn!(attempts, seconds = lasted.as_secs(), "still cannot {FOLLOW}: {error}");
                        }
                        Telling::Not => debug!("still cannot {FOLLOW}: {error}"),
                    }
                    backoff.next_delay(error.retry_after)
                }
                Ended::Failed(error) => break Err(ServiceError::new(NAME, error)),
            };
            tokio::select! {
                () = shutdown.cancelled() => break Ok(()),
                () = tokio::time::sleep(delay) => {}
            }
        };
        if let Err(error) = self.ports.journal.release(&self.options.owner).await {
            debug!("could not give the lease back: {error}");
        }
        ended
    }
}

/// What the producer does, for logs and health: completes "cannot …".
const FOLLOW: &str = "follow MongoDB";

/// Points of the index in a page, where the producer reads all of them.
const POINTS: usize = 1_000;
