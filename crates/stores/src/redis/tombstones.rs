//! Tombstones: versions of deletions in a hash beside stage 2, and a log in the order of their recording.

use std::time::Duration;

use async_trait::async_trait;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Collected, CollectionRegistry, Fence, FenceTarget, PortResult, Tombstones};
use tidewheel_core::version::Version;

use super::journal::{EXACT, milliseconds};
use super::keys::{COLLECTION, DAMAGE, RETRIED, TOMBSTONE_LOG, TOMBSTONE_STATE, TOMBSTONES};
use super::{RedisStore, reply, script};

/// Tombstones collected per script call: a few milliseconds of Redis' time.
const PAGE: u64 = 1_000;

/// The hash field of a target: the document's UUID, or `ns:` and the namespace.
fn field(target: &FenceTarget) -> String {
    match target {
        FenceTarget::Document(id) => id.to_string(),
        FenceTarget::Namespace(namespace) => format!("ns:{namespace}"),
    }
}

#[async_trait]
impl Tombstones for RedisStore {
    async fn raise(&self, fences: &[Fence]) -> PortResult<()> {
        if fences.is_empty() {
            return Ok(());
        }
        let keys = [TOMBSTONES, TOMBSTONE_LOG, TOMBSTONE_STATE];
        let mut command = script::RAISE.command(&keys, 2 * fences.len(), 96 * fences.len());
        for fence in fences {
            command.arg(field(&fence.target)).arg(fence.version.to_string());
        }
        self.run("write tombstones", &script::RAISE, &command).await.map(|_| ())
    }

    async fn of(&self, targets: &[FenceTarget]) -> PortResult<Vec<Option<Version>>> {
        if targets.is_empty() {
            return Ok(Vec::new());
        }
        let doing = "read tombstones";
        let mut command = redis::cmd("HMGET");
        command.arg(TOMBSTONES);
        for target in targets {
            command.arg(field(target));
        }
        let values = reply::array(self.send(doing, &command).await?).map_err(self.garbled(doing))?;
        let read = |value| {
            let text = reply::optional_text(value).map_err(self.garbled(doing))?;
            text.map(|text| text.parse()).transpose().map_err(|error| {
                PortError::fatal(format!("{TOMBSTONES} in Redis at {} is invalid: {error}", self.address()))
                    .with_hint("remove the field with HDEL, then compare the index with the source")
            })
        };
        values.into_iter().map(read).collect()
    }

    async fn collect(&self, grace: Duration, settled: u64) -> PortResult<Collected> {
        let doing = "collect old tombstones";
        let keys = [TOMBSTONES, TOMBSTONE_LOG, TOMBSTONE_STATE, RETRIED];
        let mut command = script::COLLECT.command(&keys, 3, 64);
        command.arg(milliseconds(grace).min(EXACT)).arg(settled).arg(PAGE);
        let answer = self.run(doing, &script::COLLECT, &command).await?;
        let (forgotten, more) = reply::counts(answer).map_err(self.garbled(doing))?;
        Ok(Collected { forgotten, more: more > 0 })
    }
}

#[async_trait]
impl CollectionRegistry for RedisStore {
    async fn collection(&self, name: &str, exists: bool) -> PortResult<()> {
        let mut command = script::COLLECTION.command(&[COLLECTION, DAMAGE], 2, 64 + name.len());
        command.arg(name).arg(u8::from(exists));
        self.run("record the collection", &script::COLLECTION, &command).await.map(|_| ())
    }
}
