//! Replay source, replay group and aliases, in memory.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{
    Aliases, Backlog, Delivery, EntryId, Extent, Follower, Named, PortResult, Position, StreamLog,
};
use tidewheel_stores::redis::keys::{STAGE_2_REPLAY, StreamKeys};
use tidewheel_stores::redis::wire::Record;

use super::state::{FakeStreams, Group, read_id, write_id};

/// A stage's stream as a replay source.
pub struct FakeStreamLog<T> {
    streams: FakeStreams,
    stage: StreamKeys,
    record: PhantomData<fn() -> T>,
}

impl<T> FakeStreamLog<T> {
    pub(super) fn new(streams: FakeStreams, stage: StreamKeys) -> Self {
        Self { streams, stage, record: PhantomData }
    }
}

#[async_trait]
impl<T: Record> StreamLog<T> for FakeStreamLog<T> {
    async fn extent(&self) -> PortResult<Extent> {
        let extent = || {
            let state = self.streams.state();
            let Some(stream) = state.streams.get(self.stage.stream) else {
                return Ok(Extent { first: None, last: EntryId::zero(), entries: 0, whole: true });
            };
            let entries = stream.entries.len() as u64;
            let first = stream.entries.keys().next().map(|id| write_id(*id));
            Ok(Extent { first, last: write_id(stream.last), entries, whole: entries == stream.added })
        };
        self.streams.faults().around("extent", extent).await
    }

    async fn page(&self, after: &EntryId, max: usize) -> PortResult<Vec<Delivery<T>>> {
        let page = || {
            let state = self.streams.state();
            let after = after.parts();
            let entries = state.streams.get(self.stage.stream).into_iter().flat_map(|stream| &stream.entries);
            let page = entries.filter(|(id, _)| **id > after).take(max.max(1));
            Ok(page.map(|(id, fields)| Delivery { id: write_id(*id), record: T::decode(fields.clone()) }).collect())
        };
        self.streams.faults().around("page", page).await
    }

    async fn append(&self, records: &[T]) -> PortResult<()> {
        let append = || {
            let mut state = self.streams.state();
            for record in records {
                state.add_record(self.stage.stream, record);
            }
            Ok(())
        };
        let result = self.streams.faults().around("replay", append).await;
        self.streams.arrived.notify_waiters();
        result
    }
}

#[async_trait]
impl<T: Record> Backlog for FakeStreamLog<T> {
    async fn backlog(&self) -> PortResult<u64> {
        let backlog = || {
            let status = self.streams.status(self.stage);
            Ok(status.lag.unwrap_or(status.length) + status.pending)
        };
        self.streams.faults().around("backlog", backlog).await
    }
}

/// The replay group on stage 2.
#[derive(Clone)]
pub struct FakeFollower(FakeStreams);

impl FakeFollower {
    pub(super) fn new(streams: FakeStreams) -> Self {
        Self(streams)
    }
}

#[async_trait]
impl Follower for FakeFollower {
    async fn begin(&self, after: &EntryId) -> PortResult<()> {
        let mut state = self.0.state();
        let stream = state.streams.entry(STAGE_2_REPLAY.stream).or_default();
        let last_delivered = read_id(after);
        stream.groups.entry(STAGE_2_REPLAY.group).or_insert_with(|| Group { last_delivered, ..Group::default() });
        Ok(())
    }

    async fn position(&self) -> PortResult<Position> {
        Ok(self.0.state().position(STAGE_2_REPLAY))
    }

    async fn end(&self) -> PortResult<()> {
        self.0.destroy_group(STAGE_2_REPLAY);
        Ok(())
    }
}

/// Collection aliases.
#[derive(Clone, Debug, Default)]
pub struct FakeAliases {
    /// Each alias and its collection.
    aliases: Arc<Mutex<HashMap<String, String>>>,
    collections: Vec<String>,
}

impl FakeAliases {
    /// Creates a server with these collections and no alias.
    pub fn new(collections: &[&str]) -> Self {
        Self { aliases: Arc::default(), collections: collections.iter().map(ToString::to_string).collect() }
    }
}

#[async_trait]
impl Aliases for FakeAliases {
    async fn resolve(&self, name: &str) -> PortResult<Named> {
        if let Some(collection) = self.aliases.lock().expect("no holder panics").get(name) {
            return Ok(Named::Alias(collection.clone()));
        }
        let known = self.collections.iter().any(|collection| collection == name);
        Ok(if known { Named::Collection } else { Named::Nothing })
    }

    async fn switch(&self, alias: &str, collection: &str) -> PortResult<()> {
        if self.resolve(alias).await? == Named::Collection {
            return Err(PortError::fatal(format!("{alias:?} is a collection, not an alias")));
        }
        self.aliases.lock().expect("no holder panics").insert(alias.to_owned(), collection.to_owned());
        Ok(())
    }
}
