//! What is stored about one target beside the streams, in memory: its tombstones, its collection and its audit position.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidewheel_core::catalog::TargetId;
use tidewheel_core::ports::{
    AuditPosition, Collected, CollectionRegistry, Damage, Fence, FenceTarget, PortResult, TargetState, TargetStates,
    Tombstones,
};
use tidewheel_core::version::Version;

use super::state::FakeStreams;

/// The stored values of one target.
#[derive(Clone, Default)]
pub(super) struct TargetData {
    /// Each tombstone and its recording time.
    pub(super) tombstones: HashMap<FenceTarget, (Version, u64)>,
    /// The newest collected tombstone of a document.
    pub(super) forgotten: Option<Version>,
    /// The collection known to exist.
    pub(super) collection: Option<String>,
    /// The resume position of the audit.
    pub(super) audit: Option<String>,
}

/// The state of one target.
#[derive(Clone)]
pub struct FakeTarget {
    streams: FakeStreams,
    /// Where its values are stored; `None` for the plain target.
    key: Option<TargetId>,
    /// Its name; `None` for the plain target of an installation without a catalog.
    name: Option<TargetId>,
}

impl FakeStreams {
    /// The state of the plain target, of which everything is stored as before there were targets.
    pub(super) fn plain_target(&self) -> FakeTarget {
        FakeTarget { streams: self.clone(), key: None, name: None }
    }
}

impl TargetStates for FakeStreams {
    fn target(&self, target: &TargetId, plain: bool) -> Arc<dyn TargetState> {
        let key = (!plain).then(|| target.clone());
        Arc::new(FakeTarget { streams: self.clone(), key, name: Some(target.clone()) })
    }
}

#[async_trait]
impl Tombstones for FakeTarget {
    async fn raise(&self, fences: &[Fence]) -> PortResult<()> {
        let raise = || {
            let mut state = self.streams.state();
            let now = state.now();
            let tombstones = &mut state.target(self.key.as_ref()).tombstones;
            for fence in fences {
                let known = tombstones.get(&fence.target).map(|(version, _)| *version);
                if known.is_none_or(|known| fence.version > known) {
                    tombstones.insert(fence.target.clone(), (fence.version, now));
                }
            }
            Ok(())
        };
        self.streams.faults().around("raise", raise).await
    }

    async fn of(&self, targets: &[FenceTarget]) -> PortResult<Vec<Option<Version>>> {
        let of = || {
            let mut state = self.streams.state();
            let tombstones = &state.target(self.key.as_ref()).tombstones;
            Ok(targets.iter().map(|target| tombstones.get(target).map(|(version, _)| *version)).collect())
        };
        self.streams.faults().around("of", of).await
    }

    async fn collect(&self, grace: Duration, settled: u64) -> PortResult<Collected> {
        let collect = || {
            let mut state = self.streams.state();
            if state.retried.is_some_and(|retried| retried >= settled) {
                return Ok(Collected::default());
            }
            let before = state.now().saturating_sub(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)).min(settled);
            let data = state.target(self.key.as_ref());
            let known = std::mem::take(&mut data.tombstones);
            let stays =
                |target: &FenceTarget, raised: u64| matches!(target, FenceTarget::Namespace(_)) || raised >= before;
            let (stay, go): (HashMap<_, _>, HashMap<_, _>) =
                known.into_iter().partition(|(target, (_, raised))| stays(target, *raised));
            data.forgotten = data.forgotten.max(go.values().map(|(version, _)| *version).max());
            data.tombstones = stay;
            Ok(Collected { forgotten: go.len() as u64, more: false })
        };
        self.streams.faults().around("collect", collect).await
    }
}

#[async_trait]
impl CollectionRegistry for FakeTarget {
    async fn collection(&self, name: &str, exists: bool) -> PortResult<()> {
        let record = || {
            let mut state = self.streams.state();
            let now = exists.then(|| name.to_owned());
            let known = std::mem::replace(&mut state.target(self.key.as_ref()).collection, now);
            let what = match known {
                Some(known) if known != name => format!("replaced {known}"),
                Some(_) if !exists => "is missing".to_owned(),
                _ => return Ok(()),
            };
            let text = format!("collection {name} in Qdrant {what}");
            let applied = self.key.is_some() || state.catalog.revision > 0;
            match &self.name {
                Some(target) if applied => state.record_loss(target, &text),
                _ => state.damage = Some(Damage::Collection(text)),
            }
            Ok(())
        };
        self.streams.faults().around("collection", record).await
    }
}

#[async_trait]
impl AuditPosition for FakeTarget {
    async fn audit(&self) -> PortResult<Option<String>> {
        let audit = || Ok(self.streams.state().target(self.key.as_ref()).audit.clone());
        self.streams.faults().around("audit", audit).await
    }

    async fn save_audit(&self, place: Option<&str>) -> PortResult<()> {
        let save = || {
            self.streams.state().target(self.key.as_ref()).audit = place.map(str::to_owned);
            Ok(())
        };
        self.streams.faults().around("save_audit", save).await
    }
}
