//! Collects tombstones that have long been applied, page by page in the background: a large source has millions of
//! deletions a day, and the lease has to be renewed meanwhile.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::ports::{PortResult, Tombstones};
use tokio::time::Instant;
use tracing::{debug, info};

/// How often tombstones are collected; more often if their grace period is shorter.
const EVERY: Duration = Duration::from_secs(60);

/// The pause after each page: Redis serves the pipeline meanwhile.
const PAUSE: Duration = Duration::from_millis(10);

type Running = Pin<Box<dyn Future<Output = PortResult<u64>> + Send>>;

pub(super) struct Collecting {
    tombstones: Arc<dyn Tombstones>,
    grace: Duration,
    /// The time, by the clock of the streams, up to which all their entries have been acknowledged; `None` while a
    /// snapshot is running, whose rows may be older than a deletion.
    settled: Option<u64>,
    due: Instant,
    running: Option<Running>,
}

impl Collecting {
    pub(super) fn new(tombstones: Arc<dyn Tombstones>, grace: Duration) -> Self {
        let due = Instant::now() + EVERY.min(grace);
        Self { tombstones, grace, settled: None, due, running: None }
    }

    /// Sets the time up to which all entries of the streams have been acknowledged. With `None`, collection stops.
    pub(super) fn settle(&mut self, settled: Option<u64>) {
        self.settled = settled;
        if settled.is_none() {
            self.running = None;
        }
    }

    /// Runs a collection, or waits until one is due; returns when one has ended. Cancel-safe.
    pub(super) async fn next(&mut self) {
        let running = match &mut self.running {
            Some(running) => running,
            None => {
                let Some(settled) = self.settled else { return std::future::pending().await };
                tokio::time::sleep_until(self.due).await;
                let collection = collect(self.tombstones.clone(), self.grace, settled);
                self.running.insert(Box::pin(collection))
            }
        };
        let forgotten = running.await;
        self.running = None;
        self.due = Instant::now() + EVERY.min(self.grace);
        match forgotten {
            Ok(0) => {}
            Ok(tombstones) => info!(tombstones, "collected tombstones"),
            Err(error) => debug!("failed to collect tombstones: {error}"),
        }
    }
}

async fn collect(tombstones: Arc<dyn Tombstones>, grace: Duration, settled: u64) -> PortResult<u64> {
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
