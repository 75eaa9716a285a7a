//! The memory of deletions, in memory.

use async_trait::async_trait;
use tidewheel_core::ports::{Fence, FenceTarget, PortResult, Tombstones};
use tidewheel_core::streams::{STAGE_1, STAGE_2};
use tidewheel_core::version::Version;

use super::dead_letters::RETRIED_FOR;
use super::streams::FakeStreams;

/// Versions of deletions, kept beside the streams.
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
            for fence in fences {
                let version = state.tombstones.entry(fence.target.clone()).or_insert(fence.version);
                *version = fence.version.max(*version);
            }
            Ok(())
        };
        self.0.faults().around("raise", raise).await
    }

    async fn of(&self, targets: &[FenceTarget]) -> PortResult<Vec<Option<Version>>> {
        let of = || {
            let state = self.0.state();
            Ok(targets.iter().map(|target| state.tombstones.get(target).copied()).collect())
        };
        self.0.faults().around("of", of).await
    }

    async fn collect(&self, before: Version) -> PortResult<u64> {
        let collect = || {
            let mut state = self.0.state();
            let dead = |stream| state.streams.get(stream).is_some_and(|stream| !stream.entries.is_empty());
            let retried = state.retried.is_some_and(|retried| retried.elapsed() < RETRIED_FOR);
            if retried || dead(STAGE_1.dead_letters) || dead(STAGE_2.dead_letters) {
                return Ok(0);
            }
            let known = state.tombstones.len();
            let stays = |target: &FenceTarget, version: Version| {
                matches!(target, FenceTarget::Namespace(_)) || version >= before
            };
            state.tombstones.retain(|target, version| stays(target, *version));
            Ok((known - state.tombstones.len()) as u64)
        };
        self.0.faults().around("collect", collect).await
    }
}
