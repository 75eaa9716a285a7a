//! The producer's side of stage 1.
//!
//! An append and the checkpoint that covers it are one script, which runs only if the stored checkpoint is the expected
//! one. If the reply is lost, the same script is sent once more: it reports `saved` if the new checkpoint is stored, or
//! appends now. A delayed request that arrives late finds another checkpoint and does nothing.

use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};
use tidewheel_core::change::Change;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{
    Appended, Checkpoint, Damage, EntryId, Journal, ParkedChange, PortResult, Position, Positions, Repair,
};
use tidewheel_core::time::now_ms;

use super::error::is_ambiguous;
use super::keys::{
    APPLIED, CHECKPOINT, COUNTS, DAMAGE, EMBEDDED, EMBEDDED_GROUP, INDEXES, LEASE, LOST, RAW, RAW_DEAD_LETTERS,
    RAW_GROUP,
};
use super::wire::{Fields, Record, encode_parked};
use super::{RedisStore, checkpoint, reply, script};

#[async_trait]
impl Journal for RedisStore {
    async fn load(&self) -> PortResult<Option<Checkpoint>> {
        self.checkpoint(CHECKPOINT).await
    }

    async fn append_and_park(
        &self,
        expected: Option<&Checkpoint>,
        changes: &[Change],
        parked: &[ParkedChange],
        next: &Checkpoint,
    ) -> PortResult<Appended> {
        self.advance("append", expected, changes, parked, next).await
    }

    async fn most_bytes(&self) -> PortResult<Option<usize>> {
        self.sizes().most_bytes(self.link()).await.map_err(|error| self.failed("read the size limits", &error))
    }

    async fn applied(&self) -> PortResult<Option<Checkpoint>> {
        self.checkpoint(APPLIED).await
    }

    async fn confirm(&self, expected: &Checkpoint, applied: &Checkpoint) -> PortResult<Appended> {
        let doing = "save the applied checkpoint";
        let fields = checkpoint::FIELDS.len();
        let mut command = script::CONFIRM.command(&[CHECKPOINT, APPLIED], 1 + 3 * fields, 1024);
        command.arg(fields).arg(&checkpoint::FIELDS);
        command.arg(&checkpoint::encode(expected)).arg(&checkpoint::encode(applied));
        let answer = self.run(doing, &script::CONFIRM, &command).await?;
        outcome(answer).map_err(self.garbled(doing))
    }

    async fn restart(
        &self,
        expected: Option<&Checkpoint>,
        changes: &[Change],
        parked: &[ParkedChange],
        next: &Checkpoint,
        repair: Repair,
    ) -> PortResult<Appended> {
        let mode = match repair {
            Repair::Entries => "rewind",
            Repair::Everything => "anew",
        };
        self.advance(mode, expected, changes, parked, next).await
    }

    async fn positions(&self) -> PortResult<Positions> {
        let doing = "read the positions of both stages";
        let keys = [RAW, EMBEDDED, COUNTS, DAMAGE, INDEXES, LOST];
        let mut command = script::POSITIONS.command(&keys, 2, 64);
        command.arg(RAW_GROUP).arg(EMBEDDED_GROUP);
        let answer = self.run(doing, &script::POSITIONS, &command).await?;
        positions(answer).map_err(self.garbled(doing))
    }

    async fn lease(&self, owner: &str, time_to_live: Duration) -> PortResult<bool> {
        let doing = "take the producer's lease";
        let mut command = script::LEASE.command(&[LEASE], 2, 64);
        // Redis rejects a time to live of 0.
        command.arg(owner).arg(milliseconds(time_to_live).max(1));
        let answer = self.run(doing, &script::LEASE, &command).await?;
        reply::integer(&answer).map(|taken| taken == 1).map_err(self.garbled(doing))
    }

    async fn release(&self, owner: &str) -> PortResult<()> {
        let mut command = script::RELEASE.command(&[LEASE], 1, 64);
        command.arg(owner);
        self.run("release the producer's lease", &script::RELEASE, &command).await.map(|_| ())
    }
}

/// The largest integer that Lua represents exactly. Larger ages and lengths are capped to it, which means unlimited.
pub(super) const EXACT: u64 = 1 << 53;

/// Whole milliseconds, as Redis counts.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl RedisStore {
    async fn checkpoint(&self, key: &str) -> PortResult<Option<Checkpoint>> {
        let doing = format!("load {key}");
        let value = self.send(&doing, redis::cmd("HMGET").arg(key).arg(&checkpoint::FIELDS)).await?;
        let values = reply::array(value)
            .and_then(|values| values.into_iter().map(reply::optional_text).collect::<Result<Vec<_>, _>>())
            .and_then(|values| values.try_into().map_err(|_| reply::Unexpected("a value for each field")))
            .map_err(self.garbled(&doing))?;
        let values: [Option<String>; checkpoint::FIELDS.len()] = values;
        if values.iter().all(Option::is_none) {
            return Ok(None);
        }
        checkpoint::decode(values).map(Some).map_err(|field| {
            let address = self.address();
            PortError::fatal(format!("field {field} of {key} in Redis at {address} is invalid"))
                .with_hint(format!("run DEL {key}: the producer then compares the whole source with the index"))
        })
    }

    async fn advance(
        &self,
        mode: &str,
        expected: Option<&Checkpoint>,
        changes: &[Change],
        parked: &[ParkedChange],
        next: &Checkpoint,
    ) -> PortResult<Appended> {
        let command = append(mode, expected, changes, parked, next);
        let doing = "append to raw_document_changes";
        let mut result = self.link().run(&script::APPEND, &command).await;
        if result.as_ref().is_err_and(is_ambiguous) {
            result = self.link().run(&script::APPEND, &command).await;
        }
        if let Err(error) = &result {
            let fields = changes.iter().flat_map(|change| [Some(&change.key), change.document.as_ref()]).flatten();
            self.sizes().failed(self.link(), error, fields.map(String::len).max().unwrap_or(0)).await;
        }
        let answer = result.map_err(|error| self.failed(doing, &error))?;
        outcome(answer).map_err(self.garbled(doing))
    }
}

/// The stream's field in the hash of counts.
pub(super) fn counts_field(stream: &str) -> &'static str {
    if stream == RAW { "raw" } else { "embedded" }
}

pub(super) fn outcome(answer: Value) -> Result<Appended, reply::Unexpected> {
    match reply::text(answer)?.as_str() {
        "saved" => Ok(Appended::Saved),
        "conflict" => Ok(Appended::Conflict),
        _ => Err(reply::Unexpected("`saved` or `conflict`")),
    }
}

fn positions(answer: Value) -> Result<Positions, reply::Unexpected> {
    let mut values = reply::array(answer)?.into_iter();
    let mut next = || values.next().ok_or(reply::Unexpected("all values of the script")).and_then(reply::text);
    let (raw_last, raw_waiting, raw_harm) = (next()?, next()?, next()?);
    let (last, waiting, harm) = (next()?, next()?, next()?);
    let (recorded, now, catalog) = (next()?, next()?, next()?);
    let lost = reply::losses(values)?;
    let position = |last, waiting: String| Position {
        last: EntryId(last),
        waiting: (!waiting.is_empty()).then_some(EntryId(waiting)),
    };
    // A lost collection takes precedence: its repair also repairs lost entries.
    let damage = if recorded.starts_with("collection ") {
        Some(Damage::Collection(recorded))
    } else {
        [recorded, raw_harm, harm].into_iter().find(|harm| !harm.is_empty()).map(Damage::Entries)
    };
    let at = now.parse().map_err(|_| reply::Unexpected("a time in milliseconds"))?;
    let catalog = catalog.parse().map_err(|_| reply::Unexpected("the revision of the catalog"))?;
    let (raw, embedded) = (position(raw_last, raw_waiting), position(last, waiting));
    Ok(Positions { raw, embedded, damage, at, catalog, lost })
}

fn append(
    mode: &str,
    expected: Option<&Checkpoint>,
    changes: &[Change],
    parked: &[ParkedChange],
    next: &Checkpoint,
) -> Cmd {
    let entries: Vec<Fields<'_>> = changes.iter().map(Record::encode).collect();
    let now = now_ms();
    let letters: Vec<Fields<'_>> = parked.iter().map(|parked| encode_parked(parked, now)).collect();
    let fields = checkpoint::FIELDS.len();
    let (own, parked) = (size(&entries), size(&letters));
    let (arguments, bytes) = (own.arguments + parked.arguments, own.bytes + parked.bytes);
    let keys = [RAW, CHECKPOINT, COUNTS, APPLIED, DAMAGE, EMBEDDED, RAW_DEAD_LETTERS];
    let mut command = script::APPEND.command(&keys, 4 + 3 * fields + arguments, 1024 + bytes);
    command.arg(mode).arg(u8::from(expected.is_some())).arg(own.largest).arg(fields).arg(&checkpoint::FIELDS);
    if let Some(expected) = expected {
        command.arg(&checkpoint::encode(expected));
    }
    command.arg(&checkpoint::encode(next));
    add_entries(&mut command, &entries);
    for fields in &letters {
        command.arg(format!("-{}", 2 * fields.len()));
        for (name, value) in fields {
            command.arg(name).arg(value.as_ref());
        }
    }
    command
}

/// Size that entries add to a command.
pub(super) struct Size {
    /// Number of arguments.
    pub(super) arguments: usize,
    /// Approximate bytes of all arguments.
    pub(super) bytes: usize,
    /// Value bytes of the largest entry.
    pub(super) largest: usize,
}

/// Computes the size that these entries add to a command.
pub(super) fn size(entries: &[Fields<'_>]) -> Size {
    let mut size = Size { arguments: entries.len(), bytes: 0, largest: 0 };
    for fields in entries {
        let values: usize = fields.iter().map(|(_, value)| value.len()).sum();
        size.arguments += 2 * fields.len();
        size.bytes += values + fields.iter().map(|(name, _)| name.len()).sum::<usize>();
        size.largest = size.largest.max(values);
    }
    size
}

/// Adds each entry as the count of its names and values, followed by these.
pub(super) fn add_entries(command: &mut Cmd, entries: &[Fields<'_>]) {
    for fields in entries {
        command.arg(2 * fields.len());
        for (name, value) in fields {
            command.arg(name).arg(value.as_ref());
        }
    }
}
