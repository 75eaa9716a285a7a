//! The producer's side of stage 1.
//!
//! An append and the checkpoint that covers it are one script, which goes ahead only from the expected checkpoint.
//! If the answer gets lost, the same script is sent once more: it finds the new checkpoint saved and says so, or
//! appends now. An old request that was held up somewhere and arrives late finds another checkpoint and does nothing.

use async_trait::async_trait;
use std::time::Duration;

use redis::Cmd;
use tidewheel_core::change::Change;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Appended, Checkpoint, Journal, PortResult};
use tidewheel_core::streams::{CHECKPOINT, LEASE, RAW, STAGE_1};
use tidewheel_core::wire::{Fields, Record};

use super::error::is_ambiguous;
use super::{RedisStore, checkpoint, reply, script};

#[async_trait]
impl Journal for RedisStore {
    async fn load(&self) -> PortResult<Option<Checkpoint>> {
        let doing = "load the checkpoint";
        let value = self.send(doing, redis::cmd("HMGET").arg(CHECKPOINT).arg(&checkpoint::FIELDS)).await?;
        let values = reply::array(value)
            .and_then(|values| values.into_iter().map(reply::optional_text).collect::<Result<Vec<_>, _>>())
            .and_then(|values| values.try_into().map_err(|_| reply::Unexpected("a value for each field")))
            .map_err(self.garbled(doing))?;
        let values: [Option<String>; checkpoint::FIELDS.len()] = values;
        if values.iter().all(Option::is_none) {
            return Ok(None);
        }
        checkpoint::decode(values).map(Some).map_err(|field| {
            let address = self.address();
            PortError::fatal(format!("field {field} of {CHECKPOINT} in Redis at {address} is not readable"))
                .with_hint(format!("DEL {CHECKPOINT} makes the producer read the whole source again"))
        })
    }

    async fn append(
        &self,
        expected: Option<&Checkpoint>,
        changes: &[Change],
        next: &Checkpoint,
    ) -> PortResult<Appended> {
        let command = append(expected, changes, next);
        let doing = "append to raw_document_changes";
        let mut result = self.link().run(&script::APPEND, &command).await;
        if result.as_ref().is_err_and(is_ambiguous) {
            result = self.link().run(&script::APPEND, &command).await;
        }
        let answer = result.map_err(|error| self.failed(doing, &error))?;
        match reply::text(answer).map_err(self.garbled(doing))?.as_str() {
            "saved" => Ok(Appended::Saved),
            _ => Ok(Appended::Conflict),
        }
    }

    async fn lease(&self, owner: &str, time_to_live: Duration) -> PortResult<bool> {
        let doing = "take the producer's lease";
        let mut command = script::LEASE.command(&[LEASE], 2, 64);
        // Redis refuses a time to live of 0.
        command.arg(owner).arg(milliseconds(time_to_live).max(1));
        let answer = self.run(doing, &script::LEASE, &command).await?;
        reply::integer(&answer).map(|taken| taken == 1).map_err(self.garbled(doing))
    }

    async fn release(&self, owner: &str) -> PortResult<()> {
        let mut command = script::RELEASE.command(&[LEASE], 1, 64);
        command.arg(owner);
        self.run("give back the producer's lease", &script::RELEASE, &command).await.map(|_| ())
    }

    async fn backlog(&self) -> PortResult<u64> {
        Ok(self.facts(STAGE_1).await?.backlog())
    }
}

/// Whole milliseconds, as Redis counts.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn append(expected: Option<&Checkpoint>, changes: &[Change], next: &Checkpoint) -> Cmd {
    let entries: Vec<Fields<'_>> = changes.iter().map(Record::encode).collect();
    let fields = checkpoint::FIELDS.len();
    let (arguments, bytes) = size(&entries);
    let mut command = script::APPEND.command(&[RAW, CHECKPOINT], 2 + 3 * fields + arguments, 1024 + bytes);
    command.arg(u8::from(expected.is_some())).arg(fields).arg(&checkpoint::FIELDS);
    if let Some(expected) = expected {
        command.arg(&checkpoint::encode(expected));
    }
    command.arg(&checkpoint::encode(next));
    add_entries(&mut command, &entries);
    command
}

/// How many arguments these entries make, and about how many bytes.
pub(super) fn size(entries: &[Fields<'_>]) -> (usize, usize) {
    let values = entries.iter().flatten();
    let bytes = values.clone().map(|(name, value)| name.len() + value.len()).sum();
    (entries.len() + 2 * values.count(), bytes)
}

/// Adds each entry as the number of its names and values together, and these.
pub(super) fn add_entries(command: &mut Cmd, entries: &[Fields<'_>]) {
    for fields in entries {
        command.arg(2 * fields.len());
        for (name, value) in fields {
            command.arg(name).arg(value.as_ref());
        }
    }
}
