//! The producer: MongoDB → stage 1.
//!
//! ```text
//!   lease ──▶ load checkpoint ──▶ open feed ──▶┬─▶ feed: what has accumulated ──▶ plan ──▶ append ─┐
//!     ▲         (token, time,     (and a       │                                                   │
//!     │          ordinal,          snapshot,   ├─▶ snapshot: next page ─────────▶ plan ──▶ append ─┤
//!     │          snapshot)         if due)     └──────────────◀────────────────────────────────────┘
//!     └── conflict, lost lease, failed feed ◀── one script: if the checkpoint is the expected one,
//!                                                XADD every change and save the next checkpoint
//! ```
//!
//! **Append**: exactly once. Changes and checkpoint are saved in one atomic step, under the condition that the
//! checkpoint is still the one that this producer has seen last. Whoever loses that race forgets everything and loads
//! the checkpoint again; so does a producer whose Redis came back with older data.
//! **Gap-free**: the feed is opened before the snapshot reads its first row, at a time that the snapshot's rows carry
//! as their version; changes that the scan sees early win over it when they arrive.
//! **Several producers**: the lease makes one work and the others wait; safety rests on the condition above.
//! **Backpressure**: above the high-water mark of stage 1 nothing more is read; MongoDB's oplog buffers.
//! **Lost history**: when the oplog no longer reaches back to the token, everything is read again, and what is
//! older than that reading is swept out of the index, collection by collection.

mod options;
mod plan;
mod session;

use std::sync::Arc;

pub use options::ProducerOptions;
use session::{Ended, Session};
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{Journal, Source};
use tidewheel_core::retry::Backoff;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::health::Health;
use crate::service::ServiceError;

/// The service's name in errors, spans and labels.
pub const NAME: &str = "producer";

/// The service. Any number may run at once; one of them works.
pub struct Producer {
    options: ProducerOptions,
    source: Arc<dyn Source>,
    journal: Arc<dyn Journal>,
    health: Health,
}

impl Producer {
    /// A producer that is ready to run.
    pub fn new(options: ProducerOptions, source: Arc<dyn Source>, journal: Arc<dyn Journal>) -> Self {
        Self { options, source, journal, health: Health::default() }
    }

    /// What the service says of itself while it runs.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Runs until `shutdown`, or until something fails that a person has to mend.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServiceError> {
        let mut backoff = Backoff::for_servers();
        let mut standing_by = false;
        let ended = loop {
            let session = Session {
                options: &self.options,
                source: &*self.source,
                journal: &*self.journal,
                health: &self.health,
                shutdown: &shutdown,
            };
            let (ended, progressed) = session.run().await;
            if progressed {
                backoff.reset();
            }
            let was_standing_by = std::mem::take(&mut standing_by);
            let delay = match ended {
                Ended::Shutdown => break Ok(()),
                Ended::Conflict => {
                    warn!("the checkpoint was changed by somebody else; starting again from it");
                    backoff.next_delay(None)
                }
                Ended::StandBy => {
                    if !was_standing_by {
                        info!("another producer is at work; standing by");
                    }
                    self.health.started();
                    standing_by = true;
                    self.options.lease / 3
                }
                Ended::Failed(error) if error.class == ErrorClass::Transient => {
                    self.health.fails(FOLLOW, &error.message);
                    if backoff.attempts() == 0 {
                        warn!(hint = error.hint, "cannot {FOLLOW}, will keep trying: {error}");
                    } else {
                        debug!("still cannot {FOLLOW}: {error}");
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
        if let Err(error) = self.journal.release(&self.options.owner).await {
            debug!("could not give the lease back: {error}");
        }
        ended
    }
}

/// What the producer does, for logs and health: completes "cannot …".
const FOLLOW: &str = "follow MongoDB";
