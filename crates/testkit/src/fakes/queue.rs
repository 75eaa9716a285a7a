//! A stage's stream as one consumer of its group, and the step from stage 1 to stage 2, in memory.

use std::marker::PhantomData;
use std::time::Duration;

use async_trait::async_trait;
use tidewheel_core::catalog::TargetId;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{
    Acknowledge, Claimed, Damage, DeadLetter, Delivery, EntryId, Gap, Handover, Maintenance, Park, PortResult, Queue,
    Retention,
};
use tidewheel_stores::redis::keys::{EMBEDDED, STAGE_1, StreamKeys};
use tidewheel_stores::redis::wire::{RawFields, Record, write_targets};
use tokio::time::Instant;

use super::state::{FakeStreams, Group, Id, Pending, State, read_id, write_id};

/// One consumer of a stage's group.
pub struct FakeQueue<T> {
    streams: FakeStreams,
    stage: StreamKeys,
    consumer: String,
    record: PhantomData<fn() -> T>,
}

impl<T: Record> FakeQueue<T> {
    pub(super) fn new(streams: FakeStreams, stage: StreamKeys, consumer: String) -> Self {
        Self { streams, stage, consumer, record: PhantomData }
    }

    fn read_now(&self, max: usize) -> Vec<Delivery<T>> {
        let mut state = self.streams.state();
        let (entries, group) = state.group(self.stage);
        group.consumers.insert(self.consumer.clone());
        let unread = entries.iter().filter(|(id, _)| **id > group.last_delivered).take(max.max(1));
        let deliveries: Vec<(Id, Delivery<T>)> = unread
            .map(|(id, fields)| (*id, Delivery { id: write_id(*id), record: T::decode(fields.clone()) }))
            .collect();
        for (id, _) in &deliveries {
            group.last_delivered = *id;
            self.deliver(group, *id);
        }
        deliveries.into_iter().map(|(_, delivery)| delivery).collect()
    }

    fn deliver(&self, group: &mut Group, id: Id) {
        let delivered = Some(Instant::now());
        let deliveries = group.pending.get(&id).map_or(0, |pending| pending.deliveries) + 1;
        group.pending.insert(id, Pending { consumer: self.consumer.clone(), delivered, deliveries });
    }

    /// Changes the delivery time of those of these entries that are pending for this consumer.
    fn redate(&self, ids: &[EntryId], delivered: Option<Instant>) {
        let mut state = self.streams.state();
        let Some(group) = state.existing_group(self.stage) else { return };
        for id in ids {
            if let Some(pending) = group.pending.get_mut(&read_id(id)).filter(|p| p.consumer == self.consumer) {
                pending.delivered = delivered;
            }
        }
    }
}

#[async_trait]
impl<T: Record> Queue<T> for FakeQueue<T> {
    async fn read(&self, max: usize, wait: Duration) -> PortResult<Vec<Delivery<T>>> {
        let end = Instant::now() + wait;
        loop {
            // Registered before the read, so that an entry added in between wakes it.
            let arrived = self.streams.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let deliveries = self.streams.faults().around("read", || Ok(self.read_now(max))).await?;
            if !deliveries.is_empty() || tokio::time::timeout_at(end, arrived).await.is_err() {
                return Ok(deliveries);
            }
        }
    }
}

#[async_trait]
impl<T: Record> Acknowledge for FakeQueue<T> {
    async fn acknowledge(&self, ids: &[EntryId]) -> PortResult<()> {
        let acknowledge = || {
            acknowledge(&mut self.streams.state(), self.stage, ids);
            Ok(())
        };
        self.streams.faults().around("acknowledge", acknowledge).await
    }

    async fn skip(&self, ids: &[EntryId], gaps: &[Gap]) -> PortResult<()> {
        let skip = || {
            let mut state = self.streams.state();
            if any_pending(&mut state, self.stage, ids) {
                record_gaps(&mut state, gaps);
                acknowledge(&mut state, self.stage, ids);
            }
            Ok(())
        };
        self.streams.faults().around("skip", skip).await
    }
}

#[async_trait]
impl<T: Record> Park for FakeQueue<T> {
    async fn park(&self, letters: &[DeadLetter]) -> PortResult<()> {
        let park = || {
            let mut state = self.streams.state();
            let now = state.now();
            for letter in letters {
                let id = read_id(&letter.id);
                let (entries, group) = state.group(self.stage);
                if group.pending.remove(&id).is_none() {
                    continue;
                }
                let mut fields = entries.get(&id).cloned().unwrap_or_default();
                restrict(&mut fields, &letter.targets);
                let about = [
                    ("stream", self.stage.stream.to_owned()),
                    ("entry", letter.id.0.clone()),
                    ("reason", letter.reason.clone()),
                    ("attempts", letter.attempts.to_string()),
                    ("parked_at", now.to_string()),
                ];
                fields.extend(about.map(|(name, value)| (name.into(), value.into())));
                state.add(self.stage.dead_letters, fields);
            }
            Ok(())
        };
        self.streams.faults().around("park", park).await
    }
}

#[async_trait]
impl<T: Record> Maintenance<T> for FakeQueue<T> {
    async fn claim(&self, idle: Duration, max: usize) -> PortResult<Claimed<T>> {
        let claim = || {
            let mut state = self.streams.state();
            let (entries, group) = state.group(self.stage);
            group.consumers.insert(self.consumer.clone());
            let idle = group.pending.iter().filter(|(_, pending)| pending.is_idle_for(idle));
            let ids: Vec<Id> = idle.map(|(id, _)| *id).take(max.max(1)).collect();
            let mut claimed = Claimed { deliveries: Vec::new(), lost: Vec::new() };
            for id in ids {
                match entries.get(&id) {
                    Some(fields) => {
                        self.deliver(group, id);
                        let record = T::decode(fields.clone());
                        claimed.deliveries.push(Delivery { id: write_id(id), record });
                    }
                    None => {
                        group.pending.remove(&id);
                        claimed.lost.push(write_id(id));
                    }
                }
            }
            if !claimed.lost.is_empty() && state.damage.is_none() {
                let what = format!("entries of {} were removed before they were acknowledged", self.stage.stream);
                state.damage = Some(Damage::Entries(what));
            }
            Ok(claimed)
        };
        self.streams.faults().around("claim", claim).await
    }

    async fn keep(&self, ids: &[EntryId]) -> PortResult<()> {
        let keep = || {
            self.redate(ids, Some(Instant::now()));
            Ok(())
        };
        self.streams.faults().around("keep", keep).await
    }

    async fn hand_back(&self, ids: &[EntryId]) -> PortResult<()> {
        let hand_back = || {
            self.redate(ids, None);
            Ok(())
        };
        self.streams.faults().around("hand_back", hand_back).await
    }

    async fn leave(&self) -> PortResult<bool> {
        let leave = || {
            let mut state = self.streams.state();
            let Some(group) = state.existing_group(self.stage) else { return Ok(true) };
            let holds = group.pending.values().any(|pending| pending.consumer == self.consumer);
            if !holds {
                group.consumers.remove(&self.consumer);
            }
            Ok(!holds)
        };
        self.streams.faults().around("leave", leave).await
    }

    async fn trim(&self, retention: Retention) -> PortResult<u64> {
        let trim = || {
            let mut state = self.streams.state();
            let old = state.now().saturating_sub(u64::try_from(retention.age.as_millis()).unwrap_or(u64::MAX));
            let Some(stream) = state.streams.get_mut(self.stage.stream) else { return Ok(0) };
            let first_unconfirmed = |group: &Group| match group.pending.keys().next() {
                Some(id) => *id,
                None => (group.last_delivered.0, group.last_delivered.1 + 1),
            };
            let Some(floor) = stream.groups.values().map(first_unconfirmed).min() else { return Ok(0) };
            let before = stream.entries.len() as u64;
            let mut removed = 0;
            // A fake entry's size is that of its fields.
            let size = |fields: &RawFields| fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            let mut bytes = stream.entries.values().map(|fields| size(fields) as u64).sum::<u64>();
            while let Some(first) = stream.entries.first_entry() {
                let id = *first.key();
                let wanted = before - removed <= retention.entries && bytes <= retention.bytes;
                bytes -= size(first.get()) as u64;
                if id >= floor || (id.0 >= old && wanted) {
                    break;
                }
                first.remove();
                removed += 1;
            }
            state.counts.entry(self.stage.stream).or_default().1 += removed;
            Ok(removed)
        };
        self.streams.faults().around("trim", trim).await
    }
}

/// Acknowledges entries of a stage's group, if it exists.
fn acknowledge(state: &mut State, stage: StreamKeys, ids: &[EntryId]) {
    if let Some(group) = state.existing_group(stage) {
        for id in ids {
            group.pending.remove(&read_id(id));
        }
    }
}

/// Whether any of these entries is pending in a stage's group.
fn any_pending(state: &mut State, stage: StreamKeys, ids: &[EntryId]) -> bool {
    let group = state.existing_group(stage);
    group.is_some_and(|group| ids.iter().any(|id| group.pending.contains_key(&read_id(id))))
}

fn record_gaps(state: &mut State, gaps: &[Gap]) {
    for Gap { target, reason } in gaps {
        state.record_loss(target, reason);
    }
}

/// Restricts a parked entry to the targets that failed; none means all of its targets.
fn restrict(fields: &mut RawFields, targets: &[TargetId]) {
    if targets.is_empty() {
        return;
    }
    fields.retain(|(name, _)| name != b"leaves");
    for (_, value) in fields.iter_mut().filter(|(name, _)| name == b"targets") {
        *value = write_targets(targets);
    }
}

/// The step from stage 1 to stage 2.
#[derive(Clone)]
pub struct FakeHandover(FakeStreams);

impl FakeHandover {
    pub(super) fn new(streams: FakeStreams) -> Self {
        Self(streams)
    }
}

#[async_trait]
impl Handover for FakeHandover {
    async fn hand_over_with_gaps(
        &self,
        records: &[Embedded],
        acknowledged: &[EntryId],
        gaps: &[Gap],
    ) -> PortResult<()> {
        let hand_over = || {
            let mut state = self.0.state();
            state.takes_records(records)?;
            if !acknowledged.is_empty() && !any_pending(&mut state, STAGE_1, acknowledged) {
                return Ok(());
            }
            record_gaps(&mut state, gaps);
            for record in records {
                state.add_record(EMBEDDED, record);
            }
            acknowledge(&mut state, STAGE_1, acknowledged);
            Ok(())
        };
        let result = self.0.faults().around("hand_over", hand_over).await;
        self.0.arrived.notify_waiters();
        result
    }
}
