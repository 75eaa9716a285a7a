//! The background audit: compares the whole index with the source at an interval, and counts differences.
//!
//! It repairs nothing: drift means that another client changed the index or that a guarantee was broken, and an
//! operator should know before it is repaired.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use tidewheel_core::metric;
use tidewheel_core::ports::PortResult;
use tidewheel_core::time::now_seconds;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::ProducerPorts;
use crate::audit::{AuditOptions, AuditPorts, Found, Kind, audit};
use crate::processor::LeftOut;

/// The pause after each page of a thousand: a million documents take some minutes, at little load on the servers.
const PAUSE: Duration = Duration::from_millis(200);

/// Maximum delay of the first audit of a session, and of the next one after drift, an inconclusive result or a failure:
/// processes that are replaced daily audit too, and repaired drift is not reported for another day.
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
    /// An audit every `interval`; none if it is zero.
    pub(super) fn new(interval: Duration, left_out: LeftOut, ports: &ProducerPorts) -> Self {
        let ProducerPorts { source, journal, index, .. } = ports;
        let ports = AuditPorts { source: source.clone(), index: index.clone(), journal: journal.clone(), repair: None };
        Self { interval, ports, left_out, due: Instant::now() + interval.min(SOON), running: None }
    }

    /// Runs an audit, or waits until one is due; returns when one has ended. Cancel-safe.
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
            Ok(found) => report(&found),
            // The next audit may succeed; outages are reported elsewhere.
            Err(error) => debug!("audit failed: {error}"),
        }
    }
}

/// Resets the drift: another producer audits from here on, and the drift found by this one may have been repaired.
pub(super) fn forget() {
    for kind in Kind::ALL {
        gauge!(metric::DRIFT, "kind" => kind.name()).set(f64::NAN);
    }
}

fn report(found: &Found) {
    if !found.settled {
        // Changes in flight would count as drift.
        info!("audit inconclusive: the pipeline is lagging");
        return;
    }
    for kind in Kind::ALL {
        gauge!(metric::DRIFT, "kind" => kind.name()).set(found.of(kind) as f64);
    }
    gauge!(metric::AUDITED).set(now_seconds());
    let (documents, seconds) = (found.documents, found.seconds as u64);
    if found.drift() == 0 {
        info!(documents, seconds, "audit passed: the index matches MongoDB");
        return;
    }
    let Found { missing, stale, extra, surplus, .. } = *found;
    warn!(
        documents,
        missing,
        stale,
        extra,
        surplus,
        "audit found drift between index and MongoDB; run `tidewheel verify --repair` to repair it"
    );
}
