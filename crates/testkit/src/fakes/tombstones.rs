//! Tombstones, in memory.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use tidewheel_core::ports::{Collected, Fence, FenceTarget, PortResult, Tombstones};
use tidewheel_core::version::Version;

use super::state::FakeStreams;

/// Versions of deletions, stored beside the streams.
#[derive(Clone)]
pub struct FakeTombstones(FakeStreams);

impl FakeTombstones {
    pub(super) fn new(streams: FakeStreams) -> Self {
        Self(streams)
    }
}

#[async_trait]
impl Tombstones for FakeTombstones {
    async fn raise(&self, fences: &[Fence]) -> PortResult<()> {
        let raise = || {
            let mut state = self.0.state();
            let now = state.now();
            for fence in fences {
                let known = state.tombstones.get(&fence.target).map(|(version, _)| *version);
                if known.is_none_or(|known| fence.version > known) {
                    state.tombstones.insert(fence.target.clone(), (fence.version, now));
                }
            }
            Ok(())
        };
        self.0.faults().around("raise", raise).await
    }

    async fn of(&self, targets: &[FenceTarget]) -> PortResult<Vec<Option<Version>>> {
        let of = || {
            let state = self.0.state();
            Ok(targets.iter().map(|target| state.tombstones.get(target).map(|(version, _)| *version)).collect())
        };
        self.0.faults().around("of", of).await
    }

    async fn collect(&self, grace: Duration, settled: u64) -> PortResult<Collected> {
        let collect = || {
            let mut state = self.0.state();
            if state.retried.is_some_and(|retried| retried >= settled) {
                return Ok(Collected::default());
            }
            let before = state.now().saturating_sub(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)).min(settled);
            let known = std::mem::take(&mut state.tombstones);
            let stays =
                |target: &FenceTarget, raised: u64| matches!(target, FenceTarget::Namespace(_)) || raised >= before;
            let (stay, go): (HashMap<_, _>, HashMap<_, _>) =
                known.into_iter().partition(|(target, (_, raised))| stays(target, *raised));
            state.forgotten = state.forgotten.max(go.values().map(|(version, _)| *version).max());
            state.tombstones = stay;
            Ok(Collected { forgotten: go.len() as u64, more: false })
        };
        self.0.faults().around("collect", collect).await
    }
}
