//! What is stored about one target beside the streams: its tombstones, its collection, and its audit position.
//!
//! Tombstones are versions of deletions in a hash, with a log in the order of their recording. Nothing of one target is
//! read or written for another. The plain target keeps the names of the releases before there were targets.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use redis::Cmd;
use tidewheel_core::catalog::TargetId;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{
    AuditPosition, Collected, CollectionRegistry, Fence, FenceTarget, PortResult, TargetState, TargetStates, Tombstones,
};
use tidewheel_core::version::Version;

use super::journal::{EXACT, milliseconds};
use super::keys::{COLLECTION, COLLECTIONS, DAMAGE, INDEXES, LOST, RETRIED, TargetKeys};
use super::{RedisStore, reply, script};

/// Tombstones collected or deleted per script call: a few milliseconds of Redis' time.
pub(super) const PAGE: u64 = 1_000;

/// The keys of the plain target.
static PLAIN: LazyLock<Arc<TargetKeys>> = LazyLock::new(|| Arc::new(TargetKeys::plain()));

/// The state of one target.
struct RedisTarget {
    store: RedisStore,
    keys: Arc<TargetKeys>,
    /// Its name; `None` for the plain target of an installation without a catalog.
    name: Option<TargetId>,
    plain: bool,
}

impl RedisStore {
    fn plain_target(&self) -> RedisTarget {
        RedisTarget { store: self.clone(), keys: PLAIN.clone(), name: None, plain: true }
    }
}

impl TargetStates for RedisStore {
    fn target(&self, target: &TargetId, plain: bool) -> Arc<dyn TargetState> {
        let keys = if plain { PLAIN.clone() } else { Arc::new(TargetKeys::of(target, false)) };
        Arc::new(RedisTarget { store: self.clone(), keys, name: Some(target.clone()), plain })
    }
}

/// The hash field of a target of a fence: the document's UUID, or `ns:` and the namespace.
fn field(target: &FenceTarget) -> String {
    match target {
        FenceTarget::Document(id) => id.to_string(),
        FenceTarget::Namespace(namespace) => format!("ns:{namespace}"),
    }
}

#[async_trait]
impl Tombstones for RedisTarget {
    async fn raise(&self, fences: &[Fence]) -> PortResult<()> {
        if fences.is_empty() {
            return Ok(());
        }
        let TargetKeys { tombstones, log, state, .. } = &*self.keys;
        let mut command = script::RAISE.command(&[tombstones, log, state], 2 * fences.len(), 96 * fences.len());
        for fence in fences {
            command.arg(field(&fence.target)).arg(fence.version.to_string());
        }
        self.store.run("write tombstones", &script::RAISE, &command).await.map(|_| ())
    }

    async fn of(&self, targets: &[FenceTarget]) -> PortResult<Vec<Option<Version>>> {
        if targets.is_empty() {
            return Ok(Vec::new());
        }
        let (doing, tombstones) = ("read tombstones", &self.keys.tombstones);
        let mut command = redis::cmd("HMGET");
        command.arg(tombstones);
        for target in targets {
            command.arg(field(target));
        }
        let values = reply::array(self.store.send(doing, &command).await?).map_err(self.store.garbled(doing))?;
        let read = |value| {
            let text = reply::optional_text(value).map_err(self.store.garbled(doing))?;
            text.map(|text| text.parse()).transpose().map_err(|error| {
                PortError::fatal(format!("{tombstones} in Redis at {} is invalid: {error}", self.store.address()))
                    .with_hint("remove the field with HDEL, then compare the index with the source")
            })
        };
        values.into_iter().map(read).collect()
    }

    async fn collect(&self, grace: Duration, settled: u64) -> PortResult<Collected> {
        let doing = "collect old tombstones";
        let TargetKeys { tombstones, log, state, .. } = &*self.keys;
        let mut command = script::COLLECT.command(&[tombstones, log, state, RETRIED], 3, 64);
        command.arg(milliseconds(grace).min(EXACT)).arg(settled).arg(PAGE);
        let answer = self.store.run(doing, &script::COLLECT, &command).await?;
        let (forgotten, more) = reply::counts(answer).map_err(self.store.garbled(doing))?;
        Ok(Collected { forgotten, more: more > 0 })
    }
}

#[async_trait]
impl CollectionRegistry for RedisTarget {
    async fn collection(&self, collection: &str, exists: bool) -> PortResult<()> {
        let doing = "record the collection";
        let name = self.name.as_ref().map(ToString::to_string).unwrap_or_default();
        let bytes = 64 + collection.len() + name.len();
        if self.plain {
            let mut command = script::COLLECTION.command(&[COLLECTION, DAMAGE, INDEXES, LOST], 3, bytes);
            command.arg(collection).arg(u8::from(exists)).arg(name);
            self.store.run(doing, &script::COLLECTION, &command).await.map(|_| ())
        } else {
            let mut command = script::LOST.command(&[COLLECTIONS, LOST], 3, bytes);
            command.arg(name).arg(collection).arg(u8::from(exists));
            self.store.run(doing, &script::LOST, &command).await.map(|_| ())
        }
    }
}

#[async_trait]
impl AuditPosition for RedisTarget {
    async fn audit(&self) -> PortResult<Option<String>> {
        let doing = "load the audit position";
        let answer = self.store.send(doing, redis::cmd("GET").arg(&self.keys.audit)).await?;
        reply::optional_text(answer).map_err(self.store.garbled(doing))
    }

    async fn save_audit(&self, place: Option<&str>) -> PortResult<()> {
        let mut command = Cmd::new();
        match place {
            Some(place) => command.arg("SET").arg(&self.keys.audit).arg(place),
            None => command.arg("DEL").arg(&self.keys.audit),
        };
        self.store.send("save the audit position", &command).await.map(|_| ())
    }
}

#[async_trait]
impl Tombstones for RedisStore {
    async fn raise(&self, fences: &[Fence]) -> PortResult<()> {
        self.plain_target().raise(fences).await
    }

    async fn of(&self, targets: &[FenceTarget]) -> PortResult<Vec<Option<Version>>> {
        self.plain_target().of(targets).await
    }

    async fn collect(&self, grace: Duration, settled: u64) -> PortResult<Collected> {
        self.plain_target().collect(grace, settled).await
    }
}

#[async_trait]
impl CollectionRegistry for RedisStore {
    async fn collection(&self, collection: &str, exists: bool) -> PortResult<()> {
        self.plain_target().collection(collection, exists).await
    }
}

#[async_trait]
impl AuditPosition for RedisStore {
    async fn audit(&self) -> PortResult<Option<String>> {
        self.plain_target().audit().await
    }

    async fn save_audit(&self, place: Option<&str>) -> PortResult<()> {
        self.plain_target().save_audit(place).await
    }
}
