//! The streams from an operator's point of view, in memory.

use async_trait::async_trait;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{
    ConsumerStatus, EntryFinder, EntryState, FoundEntries, PortResult, StageInspector, StageStatus,
};
use tidewheel_core::stage::Stage;
use tidewheel_stores::redis::keys::StreamKeys;
use tidewheel_stores::redis::wire::{self, RawFields};
use tokio::time::Instant;

use super::state::{FakeStreams, Group, Id, Stream, write_id};

/// Status and lookup of entries.
#[derive(Clone)]
pub struct FakeInspector(FakeStreams);

impl FakeInspector {
    pub(super) fn new(streams: FakeStreams) -> Self {
        Self(streams)
    }

    fn find(
        &self,
        stream: &str,
        group: Option<&str>,
        documents: &[(Namespace, String)],
        most: u64,
    ) -> PortResult<FoundEntries> {
        let state = self.0.state();
        let Some(stream) = state.streams.get(stream) else {
            return Ok(FoundEntries { complete: true, ..FoundEntries::default() });
        };
        let group = group.and_then(|group| stream.groups.get(group));
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let scanned = stream.entries.iter().rev().take(most);
        let found = scanned
            .filter(|(_, fields)| concerns(fields, documents))
            .map(|(id, fields)| wire::found(write_id(*id), delivery(group, *id), fields.clone()));
        Ok(FoundEntries {
            entries: found.collect(),
            looked_at: stream.entries.len().min(most) as u64,
            complete: stream.entries.len() < most,
        })
    }
}

impl FakeStreams {
    /// A stage's status for operators.
    pub fn status(&self, stage: impl Into<StreamKeys>) -> StageStatus {
        let stage = stage.into();
        let state = self.state();
        let now = state.now();
        let dead_letters = state.streams.get(stage.dead_letters).map_or(0, |stream| stream.entries.len() as u64);
        let empty = Stream::default();
        let stream = state.streams.get(stage.stream).unwrap_or(&empty);
        let no_group = Group::default();
        let group = stream.groups.get(stage.group).unwrap_or(&no_group);
        let mut unread = stream.entries.keys().filter(|id| **id > group.last_delivered);
        let oldest = group.pending.keys().next().or_else(|| unread.clone().next());
        let age = |consumer: &str| {
            let own = group.pending.values().filter(|pending| pending.consumer == consumer);
            own.filter_map(|pending| pending.delivered).map(|delivered| delivered.elapsed()).min().unwrap_or_default()
        };
        StageStatus {
            stream: stage.stream.to_owned(),
            group: stage.group.to_owned(),
            length: stream.entries.len() as u64,
            appended: stream.added,
            lag: Some(unread.by_ref().count() as u64),
            pending: group.pending.len() as u64,
            oldest_age_ms: oldest.map(|(added, _)| now.saturating_sub(*added)),
            dead_letters,
            consumers: group
                .consumers
                .iter()
                .map(|name| ConsumerStatus {
                    name: name.clone(),
                    pending: group.pending.values().filter(|pending| &pending.consumer == name).count() as u64,
                    idle_ms: u64::try_from(age(name).as_millis()).unwrap_or(u64::MAX),
                })
                .collect(),
        }
    }
}

/// Whether an entry is about one of the documents, or about the whole collection of one.
fn concerns(fields: &RawFields, documents: &[(Namespace, String)]) -> bool {
    let is = |name: &str, value: &str| {
        fields.iter().any(|(field, found)| field == name.as_bytes() && found == value.as_bytes())
    };
    documents
        .iter()
        .any(|(namespace, key)| is("namespace", namespace.as_str()) && (is("key", key) || is("operation", "drop")))
}

fn delivery(group: Option<&Group>, id: Id) -> EntryState {
    let Some(group) = group else { return EntryState::Waiting };
    match group.pending.get(&id) {
        Some(pending) => {
            let idle = pending.delivered.map_or(u128::MAX, |at| Instant::now().duration_since(at).as_millis());
            EntryState::Pending {
                consumer: pending.consumer.clone(),
                idle_ms: u64::try_from(idle).unwrap_or(u64::MAX),
                deliveries: pending.deliveries,
            }
        }
        None if id > group.last_delivered => EntryState::Waiting,
        None => EntryState::Confirmed,
    }
}

#[async_trait]
impl StageInspector for FakeInspector {
    async fn status(&self, stage: Stage) -> PortResult<StageStatus> {
        self.0.faults().around("status", || Ok(self.0.status(stage))).await
    }

    async fn leader(&self) -> PortResult<Option<String>> {
        let leader = || {
            let state = self.0.state();
            let held = state.lease.as_ref().filter(|(_, until)| *until > Instant::now());
            Ok(held.map(|(owner, _)| owner.clone()))
        };
        self.0.faults().around("leader", leader).await
    }
}

#[async_trait]
impl EntryFinder for FakeInspector {
    async fn entries_of(&self, stage: Stage, documents: &[(Namespace, String)], most: u64) -> PortResult<FoundEntries> {
        let StreamKeys { stream, group, .. } = stage.into();
        let find = || self.find(stream, Some(group), documents, most);
        self.0.faults().around("entries_of", find).await
    }

    async fn letters_of(&self, stage: Stage, documents: &[(Namespace, String)], most: u64) -> PortResult<FoundEntries> {
        let StreamKeys { dead_letters, .. } = stage.into();
        self.0.faults().around("letters_of", || self.find(dead_letters, None, documents, most)).await
    }
}
