//! Open feeds and scans.

use std::sync::Arc;

use async_trait::async_trait;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Coverage, Feed, FeedBatch, FeedError, PortResult, Scan, SourceRow};
use tokio::sync::watch;

use super::FakeSource;
use super::judging::Judge;
use super::order::Id;
use super::state::row;

pub(super) struct FakeFeed {
    pub(super) source: FakeSource,
    pub(super) coverage: Arc<Coverage>,
    pub(super) judge: Judge,
    pub(super) position: usize,
    /// Maximum events in the next batch.
    pub(super) most: usize,
    pub(super) moved: watch::Receiver<u64>,
}

#[async_trait]
impl Feed for FakeFeed {
    async fn next(&mut self) -> Result<FeedBatch, FeedError> {
        let deadline = tokio::time::Instant::now() + self.source.shared.settings.idle;
        loop {
            self.moved.mark_unchanged();
            let (batch, position) = {
                let state = self.source.state();
                if !(state.history..=state.log.len()).contains(&self.position) {
                    return Err(FeedError::HistoryLost(format!("position {} is not in the history", self.position)));
                }
                state.batch(&self.coverage, &self.judge, self.position, self.most)
            };
            let idle = batch.events.is_empty() && batch.appeared.is_empty();
            if !idle || tokio::time::Instant::now() >= deadline {
                // A batch with a lost response stays lost, as with a cursor: only a new feed returns it again.
                let (moved, most) = (&mut self.position, &mut self.most);
                let give = || {
                    *moved = position;
                    *most = most.saturating_mul(if idle { 1 } else { 2 });
                    Ok(batch)
                };
                return Ok(self.source.faults().around("next", give).await?);
            }
            // Checks again either way; the sender lives as long as the source, which this feed holds.
            let _ = tokio::time::timeout_at(deadline, self.moved.changed()).await;
        }
    }
}

pub(super) struct FakeScan {
    pub(super) source: FakeSource,
    pub(super) namespace: Namespace,
    pub(super) after: Option<Id>,
    pub(super) judge: Judge,
}

#[async_trait]
impl Scan for FakeScan {
    async fn next(&mut self) -> PortResult<Vec<SourceRow>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = &mut self.after;
        let page = || {
            let state = self.source.state();
            let Some(documents) = state.collections.get(&self.namespace) else { return Ok(Vec::new()) };
            let from = after.clone().map_or(Unbounded, Excluded);
            let matching = documents.range((from, Unbounded)).filter(|(_, document)| self.judge.admits(document));
            let page: Vec<_> = matching.take(self.source.shared.settings.page).collect();
            let rows = page.iter().map(|(id, document)| row(id, document, &self.judge)).collect();
            if let Some((id, _)) = page.last() {
                *after = Some((*id).clone());
            }
            Ok(rows)
        };
        self.source.faults().around("page", page).await
    }
}
