//! A stage's stream as one consumer of its group.

use std::marker::PhantomData;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, RedisResult, Value};
use tidewheel_core::ports::{
    Acknowledge, Claimed, DeadLetter, Delivery, EntryId, Gap, Maintenance, Park, PortResult, Queue, READ_BYTES,
    Retention,
};

use super::error::is_no_group;
use super::handover::{add_gaps, gaps_size};
use super::journal::{EXACT, counts_field, milliseconds};
use super::keys::{COUNTS, DAMAGE, LOST, StreamKeys};
use super::script::Script;
use super::wire::{Record, write_targets};
use super::{RedisStore, reply, script};

/// A consumer idle for this long without pending entries is considered gone. A live one reads every few seconds, and
/// one that is removed by mistake is recreated by its next read.
const FORGET_CONSUMER_AFTER: Duration = Duration::from_secs(3600);

/// Maximum entries trimmed per script call: at worst, with each in its own millisecond, 10 ms of Redis' time.
const TRIM_AT_ONCE: u64 = 2_000;

/// Start id of a scan of the pending entries.
const START: &str = "0-0";

impl RedisStore {
    /// The stream of `stage` for this consumer. `consumer` must be unique among running consumers: pending entries
    /// belong to a name.
    pub fn queue<T: Record>(&self, stage: impl Into<StreamKeys>, consumer: impl Into<String>) -> RedisQueue<T> {
        RedisQueue {
            store: self.clone(),
            stage: stage.into(),
            consumer: consumer.into(),
            claim_from: Mutex::new(START.to_owned()),
            record: PhantomData,
        }
    }
}

/// One consumer of a stage's group. A missing group is created at the stream's beginning: entries delivered twice are
/// fenced by their version, skipped entries would be lost.
pub struct RedisQueue<T> {
    store: RedisStore,
    stage: StreamKeys,
    consumer: String,
    /// Cursor of the scan of the pending entries.
    claim_from: Mutex<String>,
    record: PhantomData<fn() -> T>,
}

impl<T> std::fmt::Debug for RedisQueue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisQueue").field("stage", &self.stage).field("consumer", &self.consumer).finish()
    }
}

impl<T: Record> RedisQueue<T> {
    /// Removes consumers of the group that are idle for at least `idle` and have nothing pending; returns their number.
    /// Trimming removes those idle for an hour.
    pub async fn forget_consumers(&self, idle: Duration) -> PortResult<u64> {
        let doing = self.doing("remove idle consumers of");
        let mut command = script::FORGET_CONSUMERS.command(&[self.stage.stream], 2, 64);
        command.arg(self.stage.group).arg(milliseconds(idle));
        let answer = self.on_group(&doing, &script::FORGET_CONSUMERS, &command).await?;
        answer.map_or(Ok(0), |answer| reply::count(&answer).map_err(self.store.garbled(&doing)))
    }

    fn doing(&self, what: &str) -> String {
        format!("{what} {}", self.stage.stream)
    }

    /// Sends a command that needs the group; creates the group if it is missing and retries once. A blocking command
    /// uses a separate connection.
    async fn send_to_group(&self, doing: &str, command: &Cmd, wait: Option<Duration>) -> PortResult<Value> {
        let mut result = self.send_once(command, wait).await;
        if result.as_ref().is_err_and(is_no_group) {
            let mut create = script::CREATE_GROUP.command(&[self.stage.stream], 1, 64);
            create.arg(self.stage.group);
            self.store.run(&self.doing("create the group of"), &script::CREATE_GROUP, &create).await?;
            result = self.send_once(command, wait).await;
        }
        result.map_err(|error| self.store.failed(doing, &error))
    }

    async fn send_once(&self, command: &Cmd, wait: Option<Duration>) -> RedisResult<Value> {
        match wait {
            Some(wait) => self.store.link().send_blocking(command, wait).await,
            None => self.store.link().send(command).await,
        }
    }

    /// Runs a script on entries of the group; `None` if the group is missing, so no entry is pending.
    async fn on_group(&self, doing: &str, script: &Script, command: &Cmd) -> PortResult<Option<Value>> {
        match self.store.link().run(script, command).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_no_group(&error) => Ok(None),
            Err(error) => Err(self.store.failed(doing, &error)),
        }
    }

    /// Changes the delivery time of the entries that are still pending for this consumer.
    async fn redate(&self, what: &str, ids: &[EntryId], time: &[&str; 2]) -> PortResult<()> {
        let mut command = script::REDATE.command(&[self.stage.stream], 4 + ids.len(), 96 + 24 * ids.len());
        command.arg(self.stage.group).arg(&self.consumer).arg(time);
        add_ids(&mut command, ids);
        self.on_group(&self.doing(what), &script::REDATE, &command).await.map(|_| ())
    }

    /// Returns how many entries can be read without exceeding [`READ_BYTES`]. If large entries are unread, the script
    /// reads them.
    async fn read_bounded(&self, doing: &str, max: usize) -> PortResult<Bounded<T>> {
        let mut command = script::READ.command(&[self.stage.stream, COUNTS], 5, 160);
        command.arg(self.stage.group).arg(&self.consumer).arg(max).arg(READ_BYTES).arg(counts_field(self.stage.stream));
        let answer = self.store.link().run_apart(&script::READ, &command).await;
        let answer = answer.map_err(|error| self.store.failed(doing, &error))?;
        let bounded = match answer {
            Value::Int(_) => reply::count(&answer).map(|most| Bounded::Count(usize::try_from(most).unwrap_or(max))),
            entries => reply::deliveries(entries).map(Bounded::Entries),
        };
        bounded.map_err(self.store.garbled(doing))
    }

    /// Claims the next page of entries pending for longer than `idle`; advances the cursor.
    async fn claim_page(&self, idle: Duration, max: usize) -> PortResult<(Claimed<T>, bool)> {
        let doing = self.doing("claim entries of");
        let from = self.claim_from.lock().expect("no holder panics").clone();
        let mut command = script::CLAIM.command(&[self.stage.stream, DAMAGE], 6, 160);
        command.arg(self.stage.group).arg(&self.consumer).arg(milliseconds(idle)).arg(from);
        command.arg(max.max(1)).arg(READ_BYTES);
        let answer = match self.store.link().run_apart(&script::CLAIM, &command).await {
            Ok(answer) => answer,
            Err(error) if is_no_group(&error) => {
                return Ok((Claimed { deliveries: Vec::new(), lost: Vec::new() }, true));
            }
            Err(error) => return Err(self.store.failed(&doing, &error)),
        };
        let parse = || -> Result<_, reply::Unexpected> {
            let [next, entries, lost]: [Value; 3] =
                reply::array(answer)?.try_into().map_err(|_| reply::Unexpected("three lists: is this Redis 7.0?"))?;
            let lost = reply::array(lost)?.into_iter().map(reply::entry_id).collect::<Result<_, _>>()?;
            Ok((reply::text(next)?, Claimed { deliveries: reply::deliveries(entries)?, lost }))
        };
        let (next, claimed) = parse().map_err(self.store.garbled(&doing))?;
        let finished = next == START;
        *self.claim_from.lock().expect("no holder panics") = next;
        Ok((claimed, finished))
    }
}

#[async_trait]
impl<T: Record> Queue<T> for RedisQueue<T> {
    async fn read(&self, max: usize, wait: Duration) -> PortResult<Vec<Delivery<T>>> {
        let doing = self.doing("read");
        let max = match self.read_bounded(&doing, max.max(1)).await? {
            Bounded::Entries(deliveries) if !deliveries.is_empty() => return Ok(deliveries),
            // The next read returns the entries that arrive with the first one.
            Bounded::Entries(_) => 1,
            Bounded::Count(max) => max,
        };
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(self.stage.group).arg(&self.consumer).arg("COUNT").arg(max);
        // BLOCK 0 would wait forever.
        if milliseconds(wait) > 0 {
            command.arg("BLOCK").arg(milliseconds(wait));
        }
        command.arg("STREAMS").arg(self.stage.stream).arg(">");
        let answer = self.send_to_group(&doing, &command, Some(wait)).await?;
        reply::first_stream(answer).map_err(self.store.garbled(&doing))
    }
}

#[async_trait]
impl<T: Record> Acknowledge for RedisQueue<T> {
    async fn acknowledge(&self, ids: &[EntryId]) -> PortResult<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("XACK");
        command.arg(self.stage.stream).arg(self.stage.group);
        add_ids(&mut command, ids);
        self.store.send(&self.doing("acknowledge entries of"), &command).await.map(|_| ())
    }

    async fn skip(&self, ids: &[EntryId], gaps: &[Gap]) -> PortResult<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let (arguments, bytes) = (2 + 2 * gaps.len() + ids.len(), gaps_size(gaps) + 24 * ids.len());
        let mut command = script::SKIP.command(&[self.stage.stream, LOST], arguments, bytes);
        command.arg(self.stage.group);
        add_gaps(&mut command, gaps);
        add_ids(&mut command, ids);
        self.on_group(&self.doing("skip entries of"), &script::SKIP, &command).await.map(|_| ())
    }
}

#[async_trait]
impl<T: Record> Park for RedisQueue<T> {
    async fn park(&self, letters: &[DeadLetter]) -> PortResult<()> {
        let (doing, keys) = (self.doing("park entries of"), [self.stage.stream, self.stage.dead_letters]);
        let mut left = letters;
        while !left.is_empty() {
            let bytes = left.iter().map(|letter| 64 + letter.reason.len() + 64 * letter.targets.len()).sum();
            let mut command = script::PARK.command(&keys, 2 + 4 * left.len(), bytes);
            command.arg(self.stage.group).arg(READ_BYTES);
            for letter in left {
                command.arg(&letter.id.0).arg(&letter.reason).arg(letter.attempts);
                let failed = &letter.targets;
                let targets = if failed.is_empty() { Vec::new() } else { write_targets(failed) };
                command.arg(targets.as_slice());
            }
            // No entry is pending without a group.
            let Some(answer) = self.on_group(&doing, &script::PARK, &command).await? else { return Ok(()) };
            let done = reply::count(&answer).map_err(self.store.garbled(&doing))?;
            left = &left[left.len().min(done.max(1) as usize)..];
        }
        Ok(())
    }
}

#[async_trait]
impl<T: Record> Maintenance<T> for RedisQueue<T> {
    async fn claim(&self, idle: Duration, max: usize) -> PortResult<Claimed<T>> {
        loop {
            // A page may be empty because none of its entries is idle; the scan ends at the end of the list.
            let (claimed, finished) = self.claim_page(idle, max).await?;
            if finished || !claimed.deliveries.is_empty() || !claimed.lost.is_empty() {
                return Ok(claimed);
            }
        }
    }

    async fn keep(&self, ids: &[EntryId]) -> PortResult<()> {
        if ids.is_empty() {
            return Ok(());
        }
        // Resets the idle time.
        self.redate("keep entries of", ids, &["IDLE", "0"]).await
    }

    async fn hand_back(&self, ids: &[EntryId]) -> PortResult<()> {
        if ids.is_empty() {
            return Ok(());
        }
        // Delivered in 1970, so idle for longer than any claim requires.
        self.redate("hand back entries of", ids, &["TIME", "0"]).await
    }

    async fn leave(&self) -> PortResult<bool> {
        let doing = self.doing("leave");
        let mut command = script::LEAVE.command(&[self.stage.stream], 2, 64);
        command.arg(self.stage.group).arg(&self.consumer);
        match self.on_group(&doing, &script::LEAVE, &command).await? {
            Some(answer) => Ok(reply::integer(&answer).map_err(self.store.garbled(&doing))? == 1),
            None => Ok(true),
        }
    }

    async fn trim(&self, retention: Retention) -> PortResult<u64> {
        let doing = self.doing("trim");
        self.forget_consumers(FORGET_CONSUMER_AFTER).await?;
        let mut command = script::TRIM.command(&[self.stage.stream, COUNTS], 5, 64);
        command.arg(milliseconds(retention.age).min(EXACT)).arg(retention.entries.min(EXACT));
        command.arg(retention.bytes.min(EXACT)).arg(TRIM_AT_ONCE);
        command.arg(format!("{}_removed", counts_field(self.stage.stream)));
        let mut removed = 0;
        loop {
            let answer = self.store.run(&doing, &script::TRIM, &command).await?;
            let parse = || -> Result<_, reply::Unexpected> {
                let [trimmed, more]: [Value; 2] =
                    reply::array(answer)?.try_into().map_err(|_| reply::Unexpected("a pair of numbers"))?;
                Ok((reply::count(&trimmed)?, reply::count(&more)? > 0))
            };
            let (trimmed, more) = parse().map_err(self.store.garbled(&doing))?;
            removed += trimmed;
            if !more {
                return Ok(removed);
            }
        }
    }
}

/// How a read is bounded in bytes.
enum Bounded<T> {
    /// Maximum COUNT for XREADGROUP.
    Count(usize),
    /// Entries read one by one.
    Entries(Vec<Delivery<T>>),
}

fn add_ids(command: &mut Cmd, ids: &[EntryId]) {
    for id in ids {
        command.arg(&id.0);
    }
}
