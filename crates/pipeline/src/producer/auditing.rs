//! The background audit: compares each index with the source at an interval, one after another, and counts differences.
//!
//! It repairs nothing: drift means that another client changed the index or that a guarantee was broken, and an
//! operator should know before it is repaired. Only what searches read is compared, and only once it is filled: until
//! then differences are expected.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use tidewheel_core::catalog::{State, TargetId};
use tidewheel_core::metric;
use tidewheel_core::ports::{Journal, PortResult, Source};
use tidewheel_core::time::now_seconds;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::ProducerPorts;
use super::adopted::Adopted;
use crate::audit::{AuditOptions, AuditPorts, Found, Kind, audit};
use crate::background::{self, Work};
use crate::targets::{Applied, Target};

/// The pause after each page of a thousand: a million documents take some minutes, at little load on the servers.
const PAUSE: Duration = Duration::from_millis(200);

/// Maximum delay of the first audit of a session, and of the next one after drift, an inconclusive result or a failure:
/// processes that are replaced daily audit too, and repaired drift is not reported for another day.
const SOON: Duration = Duration::from_secs(3600);

pub(super) struct Auditing {
    interval: Duration,
    source: Arc<dyn Source>,
    journal: Arc<dyn Journal>,
    /// The revision of the adopted catalog.
    revision: u64,
    /// The targets to audit, each with the time of its next audit.
    due: BTreeMap<TargetId, (Arc<Target>, Instant)>,
    running: Option<Running>,
}

/// An audit.
struct Running {
    target: Arc<Target>,
    found: Work<PortResult<Found>>,
}

impl Auditing {
    /// An audit of each index every `interval`; none if it is zero.
    pub(super) fn new(interval: Duration, ports: &ProducerPorts, adopted: &Adopted) -> Self {
        let ProducerPorts { source, journal, .. } = ports;
        let (source, journal) = (source.clone(), journal.clone());
        let (revision, due) = (adopted.revision(), BTreeMap::new());
        let mut auditing = Self { interval, source, journal, revision, due, running: None };
        auditing.adopt(adopted);
        auditing
    }

    /// Continues with the targets of another catalog. An audit of a target that has changed is interrupted.
    pub(super) fn adopt(&mut self, adopted: &Adopted) {
        self.revision = adopted.revision();
        let first = Instant::now() + self.interval.min(SOON);
        let mut before = std::mem::take(&mut self.due);
        for target in audited(&adopted.applied) {
            let due = before.remove(&target.id).map_or(first, |(_, due)| due);
            self.due.insert(target.id.clone(), (target.clone(), due));
        }
        before.keys().for_each(reset);
        let is_same = |running: &Running| {
            self.due.get(&running.target.id).is_some_and(|(target, _)| is_unchanged(target, &running.target))
        };
        if !self.running.as_ref().is_some_and(is_same) {
            self.running = None;
        }
    }

    /// Runs an audit, or waits until one is due; returns when one has ended. Cancel-safe.
    pub(super) async fn next(&mut self) {
        let running = match &mut self.running {
            Some(running) => running,
            None => {
                let next = self.due.values().min_by_key(|(_, due)| *due).filter(|_| !self.interval.is_zero());
                let Some((target, due)) = next.cloned() else { return std::future::pending().await };
                tokio::time::sleep_until(due).await;
                let audit = audit_of(target.clone(), self.revision, self.source.clone(), self.journal.clone());
                self.running.insert(Running { target, found: background::begin(audit) })
            }
        };
        let found = running.found.as_mut().await;
        let Some(Running { target, .. }) = self.running.take() else { return };
        let clean = found.as_ref().is_ok_and(|found| found.settled && found.drift() == 0);
        if let Some((_, due)) = self.due.get_mut(&target.id) {
            *due = Instant::now() + if clean { self.interval } else { self.interval.min(SOON) };
        }
        match found {
            Ok(found) => report(&target, &found),
            // The next audit may succeed; outages are reported elsewhere.
            Err(error) => debug!("audit failed: {error}"),
        }
    }
}

/// Resets the drift: another producer audits from here on, and the drift found by this one may have been repaired.
pub(super) fn forget(applied: &Applied) {
    audited(applied).for_each(|target| reset(&target.id));
}

/// The targets to audit.
fn audited(applied: &Applied) -> impl Iterator<Item = &Arc<Target>> {
    applied.routed().filter(|target| target.generation.state == State::Serving && target.generation.is_filled())
}

/// Whether an audit of a target can continue after a change of the catalog.
fn is_unchanged(target: &Target, before: &Target) -> bool {
    (&target.generation.collection, target.declaration(), target.generation.due)
        == (&before.generation.collection, before.declaration(), before.generation.due)
}

async fn audit_of(
    target: Arc<Target>,
    revision: u64,
    source: Arc<dyn Source>,
    journal: Arc<dyn Journal>,
) -> PortResult<Found> {
    let ports = AuditPorts::of(&target, source, journal);
    let options = AuditOptions { pause: PAUSE, resumes: true, ..AuditOptions::of(&target, revision)? };
    audit(&ports, &options, &(Arc::new(|_| {}) as _)).await
}

fn reset(target: &TargetId) {
    for kind in Kind::ALL {
        gauge!(metric::DRIFT, "index" => target.index.to_string(), "kind" => kind.name()).set(f64::NAN);
    }
}

fn report(target: &Target, found: &Found) {
    let name = target.id.index.as_str();
    let index = (!target.is_local()).then_some(name);
    if !found.settled {
        // Changes in flight would count as drift.
        info!(index, "audit inconclusive: the pipeline is lagging");
        return;
    }
    for kind in Kind::ALL {
        gauge!(metric::DRIFT, "index" => name.to_owned(), "kind" => kind.name()).set(found.of(kind) as f64);
    }
    gauge!(metric::AUDITED, "index" => name.to_owned()).set(now_seconds());
    let (documents, seconds) = (found.documents, found.seconds as u64);
    if found.drift() == 0 {
        info!(index, documents, seconds, "audit passed: the index matches MongoDB");
        return;
    }
    let Found { missing, stale, extra, surplus, .. } = *found;
    warn!(
        index,
        documents,
        missing,
        stale,
        extra,
        surplus,
        "audit found drift between index and MongoDB; run `tidewheel verify --repair` to repair it"
    );
}
