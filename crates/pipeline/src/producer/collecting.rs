//! Forgets deletions that are long in the index, page by page beside everything else: a day's deletions of a large source are
//! millions, and the lease has to be renewed meanwhile.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::ports::{PortResult, Tombstones};
use tokio::time::Instant;
use tracing::{debug, info};

/// How often tombstones are collected; more often where they are kept for a shorter time.
const EVERY: Duration = Duration::from_secs(60);

/// The pause after each page: Redis serves the pipeline meanwhile.
const PAUSE: Duration = Duration::from_millis(10);

type Running = Pin<Box<dyn Future<Output = PortResult<u64>> + Send>>;

pub(super) struct Collecting {
    tombstones: Arc<dyn Tombstones>,
    grace: Duration,
    /// Before this time by the clock of the streams everything that was in them has been acknowledged; `None` while a snapshot runs,
    /// whose rows may be older than a deletion.
    settled: Option<u64>,
    due: Instant,
    running: Option<Running>,
}

impl Collecting {
    pub(super) fn new(tombstones: Arc<dyn Tombstones>, grace: Duration) -> Self {
        let due = Instant::now() + EVERY.min(grace);
        Self { tombstones, grace, settled: None, due, running: None }
    }

    /// Sets up to when everything that was in the streams has been acknowledged. Without it nothing is forgotten from here on.
    pub(super) fn settle(&mut self, settled: Option<u64>) {
        self.settled = settled;
        if settled.is_none() {
            self.running = None;
        }
    }

    /// Works on a collection, or waits until one is due; returns when one is over. Cancel-safe.
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
            Ok(tombstones) => info!(tombstones, "forgot deletions that are long in the index"),
            Err(error) => debug!("cannot collect old deletions: {error}"),
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
