//! The dead letters of both stages.

use std::time::Duration;

use async_trait::async_trait;
use redis::Value;
use tidewheel_core::ports::{ABOUT, DeadLetters, EntryId, Letter, PortResult};
use tidewheel_core::streams::{COUNTS, RETRIED, Stage};

use super::journal::counts_field;
use super::{RedisStore, reply, script};

/// For how long no deletion is forgotten after letters were put back. As long as deletions are remembered by default: an entry that
/// is on its way for longer is the case that this time is for anyway.
const RETRIED_FOR: Duration = Duration::from_secs(24 * 3600);

/// Letters that are moved in one step: each may be as large as a document can be.
const AT_ONCE: usize = 100;

#[async_trait]
impl DeadLetters for RedisStore {
    async fn letters(&self, stage: Stage, after: &EntryId, max: usize) -> PortResult<Vec<Letter>> {
        let doing = format!("read {}", stage.dead_letters);
        let mut command = redis::cmd("XRANGE");
        command.arg(stage.dead_letters).arg(format!("({}", after.0)).arg("+").arg("COUNT").arg(max.max(1));
        let answer = self.send(&doing, &command).await?;
        let letter = |entry: Value| {
            let (id, fields) = reply::entry(entry)?;
            Ok(Letter::read(stage, id, fields))
        };
        let letters = reply::array(answer).and_then(|entries| entries.into_iter().map(letter).collect());
        letters.map_err(self.garbled(&doing))
    }

    async fn retry(&self, stage: Stage, ids: &[EntryId]) -> PortResult<u64> {
        let doing = format!("put dead letters back into {}", stage.stream);
        let mut moved = 0;
        for ids in ids.chunks(AT_ONCE) {
            let keys = [stage.stream, stage.dead_letters, COUNTS, RETRIED];
            let mut command = script::RETRY.command(&keys, 3 + ids.len(), 64 + 24 * ids.len());
            command.arg(counts_field(stage)).arg(RETRIED_FOR.as_secs()).arg(2 * ABOUT.len());
            for id in ids {
                command.arg(&id.0);
            }
            let answer = self.run(&doing, &script::RETRY, &command).await?;
            moved += reply::count(&answer).map_err(self.garbled(&doing))?;
        }
        Ok(moved)
    }

    async fn discard(&self, stage: Stage, ids: &[EntryId]) -> PortResult<u64> {
        if ids.is_empty() {
            return Ok(0);
        }
        let doing = format!("delete entries of {}", stage.dead_letters);
        let mut command = redis::cmd("XDEL");
        command.arg(stage.dead_letters);
        for id in ids {
            command.arg(&id.0);
        }
        let answer = self.send(&doing, &command).await?;
        reply::count(&answer).map_err(self.garbled(&doing))
    }
}
