//! The catalog that a session routes by, and what it needs of the source.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidewheel_core::catalog::{Routes, routes};
use tidewheel_core::ports::{Covered, Feed, FeedBatch, FeedError, ResumeToken, Source, StartAt};
use tidewheel_core::version::ClusterTime;

use super::plan;
use crate::targets::Applied;

/// How often a session that covers no collection has an empty batch.
const NOTHING_EVERY: Duration = Duration::from_secs(1);

/// An adopted catalog. Cheap to clone.
#[derive(Clone)]
pub(super) struct Adopted {
    /// The catalog with its targets.
    pub(super) applied: Arc<Applied>,
    /// The targets of each change.
    pub(super) routes: Arc<Routes>,
    /// The source, restricted to what is routed.
    pub(super) source: Covered,
    /// The scope of the feed's tokens.
    pub(super) selection: String,
}

impl Adopted {
    pub(super) fn new(applied: Arc<Applied>, source: &Arc<dyn Source>) -> Self {
        let routes = Arc::new(routes(applied.catalog()));
        let source = Covered { source: source.clone(), coverage: routes.coverage().clone() };
        let selection = plan::selection(&source.scope());
        Self { applied, routes, source, selection }
    }

    /// The revision of the catalog; 0 before one is applied.
    pub(super) fn revision(&self) -> u64 {
        self.applied.revision()
    }

    /// Whether a feed that was opened for the other one delivers what this one needs, and judges it by the same filters.
    pub(super) fn shares_feed_with(&self, other: &Self) -> bool {
        self.selection == other.selection && self.source.coverage.filters == other.source.coverage.filters
    }

    /// Opens the feed, with at most `most` events in its first batch. Without a collection to cover there are no events,
    /// and the source is not asked: a change stream of nothing would need rights on everything.
    pub(super) async fn open(&self, start: StartAt, most: usize) -> Result<Box<dyn Feed>, FeedError> {
        if self.source.coverage.selectors.is_empty() {
            return Ok(Box::new(Nothing));
        }
        self.source.open_narrow(start, most).await
    }
}

/// The feed of no collection.
struct Nothing;

#[async_trait]
impl Feed for Nothing {
    async fn next(&mut self) -> Result<FeedBatch, FeedError> {
        tokio::time::sleep(NOTHING_EVERY).await;
        let (token, through) = (ResumeToken(String::new()), ClusterTime::default());
        Ok(FeedBatch { events: Vec::new(), appeared: Vec::new(), token, through })
    }
}
