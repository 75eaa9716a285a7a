//! Collects tombstones that have long been applied, target by target and page by page in the background: a large source
//! has millions of deletions a day, and the lease has to be renewed meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::catalog::TargetId;
use tidewheel_core::ports::{PortResult, Tombstones};
use tokio::time::Instant;
use tracing::{debug, info};

use crate::background::{self, Work};
use crate::targets::Target;

/// How often tombstones are collected; more often if their grace period is shorter.
const EVERY: Duration = Duration::from_secs(60);

/// The pause after each page: Redis serves the pipeline meanwhile.
const PAUSE: Duration = Duration::from_millis(10);

pub(super) struct Collecting {
    grace: Duration,
    /// The time, by the clock of the streams, up to which all their entries have been acknowledged; `None` if unknown.
    settled: Option<u64>,
    /// The targets whose tombstones may be collected: not those that a snapshot concerns, whose rows may be older than a
    /// deletion.
    targets: Vec<Arc<Target>>,
    due: Instant,
    running: Option<Running>,
}

/// A collection.
struct Running {
    targets: Vec<TargetId>,
    collected: Work<u64>,
}

impl Collecting {
    pub(super) fn new(grace: Duration) -> Self {
        let due = Instant::now() + EVERY.min(grace);
        Self { grace, settled: None, targets: Vec::new(), due, running: None }
    }

    /// Sets the time up to which all entries of the streams have been acknowledged, and the targets that no snapshot
    /// concerns. Without a time, or if a snapshot concerns one of its targets, a collection stops.
    pub(super) fn settle(&mut self, settled: Option<u64>, targets: Vec<Arc<Target>>) {
        (self.settled, self.targets) = (settled, targets);
        let is_allowed = |id: &TargetId| self.targets.iter().any(|target| target.id == *id);
        let continues = |running: &Running| settled.is_some() && running.targets.iter().all(is_allowed);
        if !self.running.as_ref().is_some_and(continues) {
            self.running = None;
        }
    }

    /// Runs a collection, or waits until one is due; returns when one has ended. Cancel-safe.
    pub(super) async fn next(&mut self) {
        let running = match &mut self.running {
            Some(running) => running,
            None => {
                let Some(settled) = self.settled.filter(|_| !self.targets.is_empty()) else {
                    return std::future::pending().await;
                };
                tokio::time::sleep_until(self.due).await;
                let targets = self.targets.iter().map(|target| target.id.clone()).collect();
                let collected = background::begin(collect(self.targets.clone(), self.grace, settled));
                self.running.insert(Running { targets, collected })
            }
        };
        let forgotten = running.collected.as_mut().await;
        self.running = None;
        self.due = Instant::now() + EVERY.min(self.grace);
        if forgotten > 0 {
            info!(tombstones = forgotten, "collected tombstones");
        }
    }
}

/// Collects those of each target, and returns their number. A failure concerns its target alone.
async fn collect(targets: Vec<Arc<Target>>, grace: Duration, settled: u64) -> u64 {
    let mut forgotten = 0;
    for target in targets {
        match collect_from(&*target.ports.tombstones, grace, settled).await {
            Ok(tombstones) => forgotten += tombstones,
            Err(error) => debug!(index = %target.id, "failed to collect tombstones: {error}"),
        }
    }
    forgotten
}

async fn collect_from(tombstones: &dyn Tombstones, grace: Duration, settled: u64) -> PortResult<u64> {
    let mut forgotten = 0;
    loop {
        let page = tombstones.collect(grace, settled).await?;
        forgotten += page.forgotten;
        if !page.more {
            return Ok(forgotten);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::catalog::State;
    use tidewheel_core::identity::{DocumentId, Namespace};
    use tidewheel_core::ports::{Fence, FenceTarget, TargetStates as _};
    use tidewheel_core::version::{ClusterTime, Version};
    use tidewheel_testkit::fakes::faults::{Fault, Gate};

    use super::*;
    use crate::targets::samples::{Servers, catalog};

    const GRACE: Duration = Duration::from_secs(30);

    /// Servers, and the targets of notes and tickets.
    async fn servers() -> (Servers, Vec<Arc<Target>>) {
        let servers = Servers::new();
        servers.apply(&catalog(7, &[("notes", State::Serving, true), ("tickets", State::Serving, true)])).await;
        let applied = servers.targets().reload().await.unwrap();
        (servers, applied.routed().cloned().collect())
    }

    #[tokio::test(start_paused = true)]
    async fn targets_of_a_snapshot_keep_their_tombstones() {
        let (servers, targets) = servers().await;
        let document = FenceTarget::Document(DocumentId::new(&Namespace::new("shop", "tickets"), "1"));
        let version = Version::of_snapshot(0, ClusterTime { seconds: 5, increment: 1 });
        for target in &targets {
            let fence = Fence { target: document.clone(), version };
            servers.streams.target(&target.id, false).raise(&[fence]).await.unwrap();
        }
        let mut collecting = Collecting::new(GRACE);
        tokio::time::sleep(2 * GRACE).await;
        collecting.settle(Some(u64::MAX), targets[..1].to_vec());
        collecting.next().await;
        let mut left = Vec::new();
        for target in &targets {
            let state = servers.streams.target(&target.id, false);
            left.push(state.of(std::slice::from_ref(&document)).await.unwrap());
        }
        assert_eq!(left, [[None], [Some(version)]], "notes, tickets");
    }

    #[tokio::test(start_paused = true)]
    async fn collection_stops_when_a_snapshot_begins_for_one_of_its_targets() {
        let (servers, targets) = servers().await;
        let mut collecting = Collecting::new(GRACE);
        collecting.settle(Some(u64::MAX), targets.clone());
        servers.streams.faults().always("collect", Fault::Held(Gate::closed()));
        assert!(tokio::time::timeout(2 * GRACE, collecting.next()).await.is_err(), "it is held");
        assert!(collecting.running.is_some());
        collecting.settle(Some(u64::MAX), targets.clone());
        assert!(collecting.running.is_some(), "nothing has changed");
        collecting.settle(Some(u64::MAX), targets[..1].to_vec());
        assert!(collecting.running.is_none());
    }
}
