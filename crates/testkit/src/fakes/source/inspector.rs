//! The fake source from an operator's point of view.

use async_trait::async_trait;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{HistoryWindow, PortResult, Source as _, SourceHistory, SourceInspector};
use tidewheel_core::version::ClusterTime;

use super::{CLOCK_START, FakeSource};

#[async_trait]
impl SourceInspector for FakeSource {
    async fn cluster_time(&self) -> PortResult<ClusterTime> {
        self.now().await
    }

    async fn history(&self) -> PortResult<Option<SourceHistory>> {
        let history = || {
            let state = self.state();
            let first = match state.history {
                0 => CLOCK_START,
                _ => state.log.get(state.history).map_or(state.clock, |entry| entry.time),
            };
            Ok(Some(SourceHistory { window: HistoryWindow { first, last: state.clock }, bytes: None }))
        };
        self.faults().around("history", history).await
    }

    async fn passed_over(&self) -> PortResult<Vec<String>> {
        let names = || {
            let state = self.state();
            let found: Vec<&Namespace> =
                state.collections.keys().filter(|namespace| namespace.database() == self.database).collect();
            let selects_any = found.iter().any(|namespace| self.selector.covers(namespace));
            let names = found.into_iter().map(|namespace| namespace.collection().to_owned());
            Ok(if selects_any { Vec::new() } else { names.collect() })
        };
        self.faults().around("passed_over", names).await
    }
}
