//! The slow audit beside the feed: every so often the whole index is compared with the source, and what differs is counted.
//!
//! It repairs nothing: drift means that somebody else has changed the index, or that a promise was broken, and a person should
//! know before it is gone.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use tidewheel_core::meters;
use tidewheel_core::ports::PortResult;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::ProducerPorts;
use crate::audit::{AuditOptions, AuditPorts, Found, Kind, audit};
use crate::meters::now_seconds;
use crate::processor::LeftOut;

/// The pause after each page of a thousand: a million documents take some minutes, and the servers hardly notice.
const PAUSE: Duration = Duration::from_millis(200);

/// After how long the first audit of a session is due at the latest, and the next one after one that found drift, came to no
/// answer or failed: processes that are replaced every day audit as well, and what was repaired is not told for another day.
const SOON: Duration = Duration::from_secs(3600);

type Running = Pin<Box<dyn Future<Output = PortResult<Found>> + Send>>;

pub(super) struct Auditing {
    interval: Duration,
    ports: AuditPorts,
    left_out: LeftOut,
    due: Instant,
    running: Option<Running>,
}

impl Auditing {
    /// An audit each `interval`; never, if it is zero.
    pub(super) fn new(interval: Duration, left_out: LeftOut, ports: &ProducerPorts) -> Self {
        let ProducerPorts { source, journal, index, .. } = ports;
        let ports = AuditPorts { source: source.clone(), index: index.clone(), journal: journal.clone(), repair: None };
        Self { interval, ports, left_out, due: Instant::now() + interval.min(SOON), running: None }
    }

    /// Works on an audit, or waits until one is due; returns when one is over. Cancel-safe.
    pub(super) async fn next(&mut self) {
        if self.interval.is_zero() {
            return std::future::pending().await;
        }
        let running = match &mut self.running {
            Some(running) => running,
            None => {
                tokio::time::sleep_until(self.due).await;
                let ports = self.ports.clone();
                let left_out = self.left_out.clone();
                let options = AuditOptions { pause: PAUSE, left_out, resumes: true, ..AuditOptions::default() };
                self.running.insert(Box::pin(async move { audit(&ports, &options, &(Arc::new(|_| {}) as _)).await }))
            }
        };
        let found = running.await;
        self.running = None;
        let clean = found.as_ref().is_ok_and(|found| found.settled && found.drift() == 0);
        self.due = Instant::now() + if clean { self.interval } else { self.interval.min(SOON) };
        match found {
            Ok(found) => tell(&found),
            // The next one may fare better; whatever is away is told by those who need it.
            Err(error) => debug!("the audit could not be finished: {error}"),
        }
    }
}

/// Another producer audits from here on: what this one has found may have been repaired since.
pub(super) fn forget() {
    for kind in Kind::ALL {
        gauge!(meters::DRIFT, "kind" => kind.name()).set(f64::NAN);
    }
}

fn tell(found: &Found) {
    if !found.settled {
        // What was on its way would be taken for drift.
        info!("the audit found the pipeline behind, so that it says nothing");
        return;
    }
    for kind in Kind::ALL {
        gauge!(meters::DRIFT, "kind" => kind.name()).set(found.of(kind) as f64);
    }
    gauge!(meters::AUDITED).set(now_seconds());
    let (documents, seconds) = (found.documents, found.seconds as u64);
    if found.drift() == 0 {
        info!(documents, seconds, "audited: the index equals MongoDB");
        return;
    }
    let Found { missing, stale, extra, surplus, .. } = *found;
    warn!(
        documents,
        missing, stale, extra, surplus, "audited: the index differs from MongoDB; `tidewheel verify --repair` mends it"
    );
}
