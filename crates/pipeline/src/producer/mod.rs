//! The producer: MongoDB → stage 1.
//!
//! ```text
//!   lease ──▶ load checkpoint ──▶ open feed ──▶┬─▶ feed: accumulated events ────▶ plan ──▶ append ─┐
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
//! checkpoint is still the one that this producer has seen last. A producer that loses that race discards its state and
//! loads the checkpoint again; so does one whose Redis came back with older data.
//! **Gap-free**: the feed is opened before the snapshot reads its first row, at a time that the snapshot's rows carry
//! as their version; changes that the scan already sees win over its rows when their events arrive.
//! **Applied**: a barrier determines the checkpoint up to which everything is in the index. From there, entries lost
//! between the checkpoint and the index can be appended again.
//! **Damage**: deleted streams, entries removed before they were acknowledged and a missing collection are detected
//! within seconds and repaired: by going back to the applied checkpoint, or by a snapshot. What one target lost is read
//! again for that target alone.
//! **Parked**: a change that cannot be read or appended is parked in the dead-letter queue of stage 1, with its `_id`
//! and without its document, in the step that saves the position after it. A step whose append keeps failing while
//! Redis accepts others is read again in halves, until the change that fails alone is known.
//! **Targets**: each change is stamped with the targets of the applied catalog that it concerns, in the step that appends
//! it. Another catalog takes effect with an append of its revision, from which on every entry is routed by it.
//! **Snapshot**: reads everything that its targets cover, appends only documents that differ from the index, and then
//! sweeps orphaned points from the index. One runs at a time, for the targets that the catalog makes due.
//! **Several producers**: the lease lets one work while the others wait; safety rests on the condition above.
//! **Backpressure**: above the high-water mark of stage 1 the producer reads nothing; MongoDB's oplog buffers.
//! **Audit**: the whole index is compared with the source slowly at an interval, and drift is counted and reported.
//! **Indexes**: the active producer advances declared indexes to what the applied catalog states, beside this loop. It
//! stops reading for a few seconds only while an alias moves.
//! **Lost history**: when the oplog no longer covers the token, a snapshot brings the index back in sync.

mod admission;
mod adopted;
mod adoption;
mod auditing;
mod barrier;
mod collecting;
mod context;
mod controller;
mod keeper;
mod metric;
mod moves;
mod narrowing;
mod opening;
mod options;
mod plan;
mod session;
mod snapshot;
mod step;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use context::{Ended, Newest, Session};
pub use controller::ControllerPorts;
pub(crate) use moves::present;
use narrowing::Narrowings;
pub use options::ProducerOptions;
pub(crate) use plan::Position;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::health::Health;
use tidewheel_core::ports::{Backlog, Journal, Source};
use tidewheel_core::retry::Backoff;
use tidewheel_core::trace::Tracer;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::retry::report_failure;
use crate::service::ServiceError;
use crate::targets::Targets;

/// The service's name in errors, spans and labels.
pub const NAME: &str = "producer";

/// The service. Any number of instances may run concurrently; one of them is active.
pub struct Producer {
    options: ProducerOptions,
    ports: ProducerPorts,
    tracer: Option<Tracer>,
    health: Health,
}

/// The ports of the producer.
#[derive(Clone)]
pub struct ProducerPorts {
    /// MongoDB. What is read of it follows from the targets.
    pub source: Arc<dyn Source>,
    /// Stage 1.
    pub journal: Arc<dyn Journal>,
    /// Its backlog.
    pub backlog: Arc<dyn Backlog>,
    /// The targets, to route to and to compare with. Only points with keys of an earlier release are removed from their
    /// collections.
    pub targets: Arc<Targets>,
    /// What advances declared indexes; `None` if nothing is to advance them.
    pub controller: Option<ControllerPorts>,
}

impl Producer {
    /// Creates a producer.
    pub fn new(options: ProducerOptions, ports: ProducerPorts) -> Self {
        Self { options, ports, tracer: None, health: Health::of(NAME) }
    }

    /// Returns the same producer with a tracer, if there is one.
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
        metric::init_counters();
        crate::metric::init_counters(NAME, &[]);
        let mut backoff = Backoff::for_servers();
        let mut standing_by = false;
        let (narrowings, newest) = (Mutex::new(Narrowings::default()), tokio::sync::Mutex::default());
        let ended = loop {
            let session = Session {
                options: &self.options,
                ports: &self.ports,
                tracer: self.tracer.as_ref(),
                health: &self.health,
                shutdown: &shutdown,
                progressed: AtomicBool::new(false),
                limits: OnceLock::new(),
                narrowings: &narrowings,
                newest: &newest,
            };
            let (ended, progressed) = session.run().await;
            if progressed {
                backoff.reset();
            }
            let was_standing_by = std::mem::take(&mut standing_by);
            metric::leads(false);
            let delay = match ended {
                Ended::Shutdown => break Ok(()),
                Ended::Conflict => {
                    warn!("the checkpoint was changed by another client; restarting from it");
                    metric::restarts("conflict");
                    backoff.next_delay(None)
                }
                Ended::Restarted => {
                    metric::restarts("repair");
                    continue;
                }
                Ended::Narrowed => {
                    metric::restarts("narrowed");
                    continue;
                }
                Ended::Adopted => {
                    metric::restarts("adopted");
                    continue;
                }
                Ended::StandBy => {
                    if !was_standing_by {
                        info!("another producer holds the lease; standing by");
                        auditing::forget(&self.ports.targets.current());
                    }
                    // The index changes while another producer works.
                    *newest.lock().await = Newest::default();
                    // So does the catalog: if the store is wiped, this producer saves again what it knows.
                    if let Err(error) = self.ports.targets.reload().await {
                        debug!("failed to follow the catalog: {error}");
                    }
                    self.health.started();
                    standing_by = true;
                    self.options.lease / 3
                }
                Ended::Failed(error) if error.class == ErrorClass::Transient => {
                    metric::restarts("failed");
                    crate::metric::failed(NAME, &error, true);
                    report_failure(&self.health, FOLLOW, &error);
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
            debug!("failed to release the lease: {error}");
        }
        ended
    }
}

/// The producer's operation in logs and health: completes "failed to …".
const FOLLOW: &str = "follow MongoDB";

/// Index points per page when the producer reads the whole index.
const POINTS: usize = 1_000;
