//! Replay into a new collection, beside the live pipeline.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidewheel_core::catalog::Declaration;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::error::PortError;
use tidewheel_core::health::Health;
use tidewheel_core::ports::{
    Aliases, Embedder, EntryId, Follower, Index, KnownVectors, StageQueue, StreamLog, Tombstones,
};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::collected::{Direct, PageQueue, Skipped};
use super::live::outcome;
use super::{Pages, Progress, Report};
use crate::processor::{Processor, ProcessorOptions, ProcessorPorts};
use crate::retry::{RetryError, RetryPolicy};
use crate::service::ServiceError;
use crate::targets::{LocalTarget, TargetPorts, Targets};
use crate::upserter::{self, Upserter, UpserterOptions};

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
    pub queue: Arc<dyn StageQueue<Embedded>>,
    /// Stage 2 as a whole.
    pub embedded: Arc<dyn StreamLog<Embedded>>,
}

/// A replay into a new collection.
pub struct Into {
    /// The ports.
    pub ports: IntoPorts,
    /// What the points are made by.
    pub declaration: Arc<Declaration>,
    /// How documents are embedded.
    pub processor: ProcessorOptions,
    /// How stage 2 is consumed.
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
        let retry = RetryPolicy { health: Health::default(), shutdown: stop.clone() };
        let ports = self.ports.clone();
        let begin = async {
            let extent = retry.call("read the position of stage 2", || ports.embedded.extent()).await?;
            let after = after.unwrap_or(extent.last);
            retry.call("create the replay group on stage 2", || ports.follower.begin(&after)).await
        };
        outcome(begin.await)?;
        let result = self.fill(pages, report, &retry).await;
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
        retry: &RetryPolicy,
    ) -> Result<Progress, ServiceError> {
        let mut progress = Progress::default();
        if let Some(pages) = pages().await? {
            progress = self.read(pages, report, &retry.shutdown).await?;
        }
        if retry.shutdown.is_cancelled() {
            return Ok(progress);
        }
        let stop = retry.shutdown.child_token();
        let mut follow = tokio::spawn(self.follow(stop.clone()));
        let switched = tokio::select! {
            switched = self.switch(retry) => switched,
            // Early only if it failed, or if the replay is stopping: the collection would never catch up.
            followed = &mut follow => return ended(followed).map(|()| progress),
        };
        stop.cancel();
        let followed = ended(follow.await);
        outcome(switched)?;
        followed?;
        // Only now: a running consumer would recreate the group.
        outcome(retry.call("remove the replay group from stage 2", || self.ports.follower.end()).await)?;
        Ok(progress)
    }

    /// Reads all pages and writes their changes.
    async fn read(&self, pages: Pages, report: Report, stop: &CancellationToken) -> Result<Progress, ServiceError> {
        let done = stop.child_token();
        let queue = Arc::new(PageQueue::new(pages, report, done.clone()));
        let retry = RetryPolicy { health: Health::default(), shutdown: stop.clone() };
        let skipped = Arc::new(Skipped::default());
        // `Direct` acknowledges the entries of the pages.
        let upserter = upserter::work(None, skipped.clone(), self.targets(), None, retry);
        let direct = Arc::new(Direct { upserter, queue: queue.clone() });
        let targets = self.targets();
        let ports =
            ProcessorPorts { queue: queue.clone(), maintenance: None, handover: direct, backlog: None, targets };
        let processor = Processor::new(self.processor.clone(), ports)?;
        processor.run(done).await?;
        let mut progress = queue.progress().await;
        progress.skipped += skipped.parked.load(Ordering::Relaxed);
        Ok(progress)
    }

    /// The new collection. Without a registry: one that is still being filled is never lost.
    fn targets(&self) -> Arc<Targets> {
        let IntoPorts { index, tombstones, embedder, known, .. } = self.ports.clone();
        let ports = TargetPorts { known, embedder: Ok(embedder), ..TargetPorts::new(index, tombstones) };
        Arc::new(Targets::fixed(&LocalTarget { declaration: self.declaration.clone(), ports }))
    }

    /// Writes new entries of stage 2.
    fn follow(&self, stop: CancellationToken) -> impl Future<Output = Result<(), ServiceError>> + Send + 'static {
        Upserter::new(self.upserter.clone(), self.ports.queue.clone(), self.targets()).run(stop)
    }

    /// Waits until the new collection has caught up, switches the alias, and waits for changes written to the old
    /// collection meanwhile.
    async fn switch(&self, retry: &RetryPolicy) -> Result<(), RetryError> {
        let Self { ports, alias, .. } = self;
        self.caught_up(retry).await?;
        if let Some(alias) = alias {
            let collection = ports.index.name();
            retry.call("switch the alias", || ports.aliases.switch(alias, collection)).await?;
            self.caught_up(retry).await?;
        }
        Ok(())
    }

    /// Waits until the group has acknowledged all current entries of stage 2.
    async fn caught_up(&self, retry: &RetryPolicy) -> Result<(), RetryError> {
        let top = retry.call("read the position of stage 2", || self.ports.embedded.extent()).await?.last;
        while !retry.call("read the position of stage 2", || self.ports.follower.position()).await?.has_passed(&top) {
            retry.pause(LOOK).await?;
        }
        Ok(())
    }
}

/// The end of the follower; a panic outside a batch is a failure.
fn ended(follower: Result<Result<(), ServiceError>, JoinError>) -> Result<(), ServiceError> {
    follower.unwrap_or_else(|panic| {
        Err(ServiceError::new(upserter::NAME, PortError::fatal(format!("failed to follow stage 2: {panic}"))))
    })
}
