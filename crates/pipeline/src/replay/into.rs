//! Replay into a new collection, beside the live pipeline.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{Aliases, Archive, Embedder, EntryId, Follower, Index, KnownVectors, Queue, Tombstones};
use tokio_util::sync::CancellationToken;

use super::collected::{Direct, NoAlarm, NoQueue, PageQueue};
use super::live::outcome;
use super::{Pages, Progress, Report};
use crate::health::Health;
use crate::processor::{Processor, ProcessorOptions, ProcessorPorts};
use crate::retry::{GivenUp, Patience};
use crate::service::ServiceError;
use crate::upserter::{Upserter, UpserterOptions};

/// How often a replay polls whether it has caught up.
const LOOK: Duration = Duration::from_millis(200);

/// The ports of a replay into a new collection.
#[derive(Clone)]
pub struct IntoPorts {
    /// The new collection.
    pub index: Arc<dyn Index>,
    /// The collection aliases.
    pub aliases: Arc<dyn Aliases>,
    /// Tombstones, shared by both collections.
    pub tombstones: Arc<dyn Tombstones>,
    /// Computes the vectors.
    pub embedder: Arc<dyn Embedder>,
    /// Existing vectors to reuse: the live collection.
    pub known: Option<Arc<dyn KnownVectors>>,
    /// The replay's consumer group on stage 2.
    pub follower: Arc<dyn Follower>,
    /// Stage 2 from the point of view of a consumer of that group.
    pub queue: Arc<dyn Queue<Embedded>>,
    /// Stage 2 as a whole.
    pub embedded: Arc<dyn Archive<Embedded>>,
}

/// A replay into a new collection.
pub struct Into {
    /// The ports.
    pub ports: IntoPorts,
    /// How documents are embedded.
    pub processor: ProcessorOptions,
    /// How points are written.
    pub upserter: UpserterOptions,
    /// The alias to switch to the new collection at the end; `None` to leave that to an operator.
    pub alias: Option<String>,
}

impl Into {
    /// Fills the new collection: from stage 2 after `after` without `pages`, else from these.
    ///
    /// The group is created before the first page is read: changes missing from the pages are committed later, and
    /// arrive on stage 2 after that position.
    pub async fn run(
        self,
        after: Option<EntryId>,
        pages: impl AsyncFnOnce() -> Result<Option<Pages>, ServiceError>,
        report: Report,
        stop: CancellationToken,
    ) -> Result<Progress, ServiceError> {
        let patience = Patience { health: Health::default(), shutdown: stop.clone() };
        let ports = self.ports.clone();
        let begin = async {
            let extent = patience.call("read the position of stage 2", || ports.embedded.extent()).await?;
            let after = after.unwrap_or(extent.last);
            patience.call("create the replay group on stage 2", || ports.follower.begin(&after)).await
        };
        outcome(begin.await)?;
        let result = self.fill(pages, report, &patience).await;
        if result.is_err() || stop.is_cancelled() {
            // The next run starts over.
            let _ = ports.follower.end().await;
        }
        result
    }

    async fn fill(
        &self,
        pages: impl AsyncFnOnce() -> Result<Option<Pages>, ServiceError>,
        report: Report,
        patience: &Patience,
    ) -> Result<Progress, ServiceError> {
        let mut progress = Progress::default();
        if let Some(pages) = pages().await? {
            progress = self.read(pages, report, &patience.shutdown).await?;
        }
        if patience.shutdown.is_cancelled() {
            return Ok(progress);
        }
        let stop = patience.shutdown.child_token();
        let follow = tokio::spawn(self.follow(stop.clone()));
        let switched = self.switch(patience).await;
        stop.cancel();
        let followed = follow.await.unwrap_or(Ok(()));
        outcome(switched)?;
        followed?;
        // Only now: a running consumer would recreate the group.
        outcome(patience.call("remove the replay group from stage 2", || self.ports.follower.end()).await)?;
        Ok(progress)
    }

    /// Reads all pages and writes their changes.
    async fn read(&self, pages: Pages, report: Report, stop: &CancellationToken) -> Result<Progress, ServiceError> {
        let done = stop.child_token();
        let queue = Arc::new(PageQueue::new(pages, report, done.clone()));
        let patience = Patience { health: Health::default(), shutdown: stop.clone() };
        let refused = Arc::new(NoQueue::default());
        let upserter = self.upserter(refused.clone()).into_work(patience);
        let direct = Arc::new(Direct { upserter, queue: queue.clone() });
        let IntoPorts { embedder, known, .. } = self.ports.clone();
        let ports = ProcessorPorts { queue: queue.clone(), handover: direct, embedder, known };
        let processor = Processor::new(self.processor.clone(), ports)?;
        processor.run(done).await?;
        let mut progress = queue.progress().await;
        progress.skipped += refused.parked.load(Ordering::Relaxed);
        Ok(progress)
    }

    fn upserter(&self, queue: Arc<dyn Queue<Embedded>>) -> Upserter {
        let IntoPorts { index, tombstones, .. } = self.ports.clone();
        Upserter::new(self.upserter.clone(), queue, index, tombstones, Arc::new(NoAlarm))
    }

    /// Writes new entries of stage 2.
    fn follow(&self, stop: CancellationToken) -> impl Future<Output = Result<(), ServiceError>> + Send + 'static {
        self.upserter(self.ports.queue.clone()).run(stop)
    }

    /// Waits until the new collection has caught up, switches the alias, and waits for changes written to the old
    /// collection meanwhile.
    async fn switch(&self, patience: &Patience) -> Result<(), GivenUp> {
        let Self { ports, alias, .. } = self;
        self.caught_up(patience).await?;
        if let Some(alias) = alias {
            let collection = ports.index.name();
            patience.call("switch the alias", || ports.aliases.switch(alias, collection)).await?;
            self.caught_up(patience).await?;
        }
        Ok(())
    }

    /// Waits until the group has acknowledged all current entries of stage 2.
    async fn caught_up(&self, patience: &Patience) -> Result<(), GivenUp> {
        let top = patience.call("read the position of stage 2", || self.ports.embedded.extent()).await?.last;
        while !patience.call("read the position of stage 2", || self.ports.follower.position()).await?.has_passed(&top)
        {
            patience.pause(LOOK).await?;
        }
        Ok(())
    }
}
