//! Replays: reads a stage's stream from its first entry and keeps a separate consumer group on stage 2.

use std::marker::PhantomData;

use async_trait::async_trait;
use redis::Value;
use tidewheel_core::ports::{Backlog, Delivery, EntryId, Extent, Follower, PortResult, Position, StreamLog};

use super::journal::{Size, add_entries, counts_field, size};
use super::keys::{COUNTS, STAGE_2_REPLAY, StreamKeys};
use super::wire::{Fields, Record};
use super::{RedisStore, reply, script};

impl RedisStore {
    /// The retained entries of the stream of `stage`.
    pub fn stream_log<T: Record>(&self, stage: impl Into<StreamKeys>) -> RedisStreamLog<T> {
        RedisStreamLog { store: self.clone(), stage: stage.into(), record: PhantomData }
    }
}

/// A stage's stream as a replay source.
pub struct RedisStreamLog<T> {
    store: RedisStore,
    stage: StreamKeys,
    record: PhantomData<fn() -> T>,
}

#[async_trait]
impl<T: Record> StreamLog<T> for RedisStreamLog<T> {
    async fn extent(&self) -> PortResult<Extent> {
        let doing = format!("inspect {}", self.stage.stream);
        let command = script::EXTENT.command(&[self.stage.stream], 0, 0);
        let answer = self.store.run(&doing, &script::EXTENT, &command).await?;
        let parse = || -> Result<_, reply::Unexpected> {
            let [first, last, entries, ever]: [Value; 4] =
                reply::array(answer)?.try_into().map_err(|_| reply::Unexpected("four values"))?;
            let (first, entries, ever) = (reply::text(first)?, reply::count(&entries)?, reply::count(&ever)?);
            let first = (!first.is_empty()).then_some(EntryId(first));
            Ok(Extent { first, last: reply::entry_id(last)?, entries, whole: entries == ever })
        };
        parse().map_err(self.store.garbled(&doing))
    }

    async fn page(&self, after: &EntryId, max: usize) -> PortResult<Vec<Delivery<T>>> {
        let doing = format!("replay {}", self.stage.stream);
        let answer = self.store.range(&doing, self.stage.stream, after, max).await?;
        reply::deliveries(answer).map_err(self.store.garbled(&doing))
    }

    async fn append(&self, records: &[T]) -> PortResult<()> {
        if records.is_empty() {
            return Ok(());
        }
        let entries: Vec<Fields<'_>> = records.iter().map(Record::encode).collect();
        let Size { arguments, bytes, largest } = size(&entries);
        let mut command = script::ADD.command(&[self.stage.stream, COUNTS], 2 + arguments, bytes);
        command.arg(counts_field(self.stage.stream)).arg(largest);
        add_entries(&mut command, &entries);
        self.store.run(&format!("append to {}", self.stage.stream), &script::ADD, &command).await.map(|_| ())
    }
}

#[async_trait]
impl<T: Record> Backlog for RedisStreamLog<T> {
    async fn backlog(&self) -> PortResult<u64> {
        self.store.backlog_of(self.stage).await
    }
}

#[async_trait]
impl Follower for RedisStore {
    async fn begin(&self, after: &EntryId) -> PortResult<()> {
        let StreamKeys { stream, group, .. } = STAGE_2_REPLAY;
        let mut command = redis::cmd("XGROUP");
        command.arg("CREATE").arg(stream).arg(group).arg(&after.0).arg("MKSTREAM");
        match self.link().send(&command).await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            Err(error) => Err(self.failed("create the replay group", &error)),
        }
    }

    async fn position(&self) -> PortResult<Position> {
        Ok(self.facts(STAGE_2_REPLAY).await?.position())
    }

    async fn end(&self) -> PortResult<()> {
        let StreamKeys { stream, group, .. } = STAGE_2_REPLAY;
        let mut command = redis::cmd("XGROUP");
        command.arg("DESTROY").arg(stream).arg(group);
        self.send("remove the replay group", &command).await.map(|_| ())
    }
}
