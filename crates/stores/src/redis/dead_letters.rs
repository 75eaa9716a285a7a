//! The dead-letter queues of both stages.

use std::time::Duration;

use async_trait::async_trait;
use redis::Value;
use tidewheel_core::catalog::{Generation, TargetId};
use tidewheel_core::ports::{CatalogStore, DeadLetters, EntryId, Letter, PortResult, READ_BYTES, Retried};
use tidewheel_core::stage::Stage;

use super::catalog::is_plain;
use super::journal::counts_field;
use super::keys::{COUNTS, RETRIED, StreamKeys, TOMBSTONE_STATE, TargetKeys};
use super::wire::{self, ABOUT};
use super::{RedisStore, reply, script};

/// How long a retry of dead letters is remembered. They leave the streams much sooner, confirmed by a barrier.
const RETRIED_FOR: Duration = Duration::from_secs(24 * 3600);

/// Maximum dead letters moved per script call, regardless of size.
const AT_ONCE: usize = 100;

#[async_trait]
impl DeadLetters for RedisStore {
    async fn letters(&self, stage: Stage, after: &EntryId, max: usize) -> PortResult<Vec<Letter>> {
        let StreamKeys { dead_letters, .. } = stage.into();
        let doing = format!("read {dead_letters}");
        let answer = self.range(&doing, dead_letters, after, max).await?;
        let letter = |entry: Value| {
            let (id, fields) = reply::entry(entry)?;
            Ok(wire::letter(stage, id, fields))
        };
        let letters = reply::array(answer).and_then(|entries| entries.into_iter().map(letter).collect());
        letters.map_err(self.garbled(&doing))
    }

    async fn count(&self, stage: Stage) -> PortResult<u64> {
        let StreamKeys { dead_letters, .. } = stage.into();
        let doing = format!("count {dead_letters}");
        let answer = self.send(&doing, redis::cmd("XLEN").arg(dead_letters)).await?;
        reply::count(&answer).map_err(self.garbled(&doing))
    }

    async fn retry(&self, stage: Stage, ids: &[EntryId]) -> PortResult<Retried> {
        let StreamKeys { stream, dead_letters, .. } = stage.into();
        let doing = format!("requeue dead letters to {stream}");
        let (mut left, mut retried) = (ids, Retried::default());
        if left.is_empty() {
            return Ok(retried);
        }
        let states = self.tombstone_states().await?;
        let mut keys = vec![stream, dead_letters, COUNTS, RETRIED];
        keys.extend(states.iter().map(|(_, key)| key.as_str()));
        while !left.is_empty() {
            let page = &left[..left.len().min(AT_ONCE)];
            let (arguments, bytes) = (5 + states.len() + page.len(), 64 + 96 * states.len() + 24 * page.len());
            let mut command = script::RETRY.command(&keys, arguments, bytes);
            command.arg(counts_field(stream)).arg(RETRIED_FOR.as_secs()).arg(2 * ABOUT.len()).arg(READ_BYTES);
            command.arg(states.len());
            for (target, _) in &states {
                command.arg(target);
            }
            for id in page {
                command.arg(&id.0);
            }
            let answer = self.run(&doing, &script::RETRY, &command).await?;
            let parse = || -> Result<_, reply::Unexpected> {
                let [done, moved, outdated]: [Value; 3] =
                    reply::array(answer)?.try_into().map_err(|_| reply::Unexpected("three values"))?;
                let outdated =
                    reply::array(outdated)?.into_iter().map(reply::entry_id).collect::<Result<Vec<_>, _>>()?;
                Ok((reply::count(&done)?, reply::count(&moved)?, outdated))
            };
            let (done, moved, outdated) = parse().map_err(self.garbled(&doing))?;
            left = &left[page.len().min(done.max(1) as usize)..];
            retried.moved += moved;
            retried.outdated.extend(outdated);
        }
        Ok(retried)
    }

    async fn discard(&self, stage: Stage, ids: &[EntryId]) -> PortResult<u64> {
        let StreamKeys { dead_letters, .. } = stage.into();
        let doing = format!("delete entries of {dead_letters}");
        let mut deleted = 0;
        for page in ids.chunks(1_000) {
            let mut command = redis::cmd("XDEL");
            command.arg(dead_letters);
            for id in page {
                command.arg(&id.0);
            }
            let answer = self.send(&doing, &command).await?;
            deleted += reply::count(&answer).map_err(self.garbled(&doing))?;
        }
        Ok(deleted)
    }
}

impl RedisStore {
    /// The name of each target with the key of its tombstones' state. Entries that name no target belong to the plain
    /// one, whose name is empty here.
    async fn tombstone_states(&self) -> PortResult<Vec<(String, String)>> {
        let (catalog, _) = CatalogStore::load(self).await?;
        let of_target = |(target, generation): (TargetId, &Generation)| {
            let keys = TargetKeys::of(&target, is_plain(&target, generation));
            (target.to_string(), keys.state)
        };
        let plain = (String::new(), TOMBSTONE_STATE.to_owned());
        Ok([plain].into_iter().chain(catalog.targets().map(of_target)).collect())
    }
}
