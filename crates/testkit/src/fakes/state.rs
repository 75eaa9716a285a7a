//! The state of a fake Redis, shared by the fakes of its ports: streams with groups, dead letters, checkpoint and lease.
//!
//! Records pass through their wire format, so that a pipeline on fakes also tests the codec.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tidewheel_core::catalog::{Catalog, Declaration, TargetId};
use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Checkpoint, Damage, EntryId, ParkedChange, PortResult, Position};
use tidewheel_core::stage::Stage;
use tidewheel_stores::redis::keys::{RAW_DEAD_LETTERS, STAGE_1, STAGE_2, StreamKeys};
use tidewheel_stores::redis::wire::{RawFields, Record, encode_parked};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::faults::Faults;
use super::process::Process;
use super::target::TargetData;

/// Milliseconds and sequence number, ordered as in Redis.
pub(super) type Id = (u64, u64);

/// Both streams, their groups and dead letters, the checkpoint and the lease. Clones share the state.
#[derive(Clone)]
pub struct FakeStreams {
    state: Arc<Mutex<State>>,
    pub(super) arrived: Arc<Notify>,
    faults: Faults,
}

/// A saved state of a fake Redis. See [`FakeStreams::save`].
#[derive(Clone)]
pub struct Saved(State);

#[derive(Clone)]
pub(super) struct State {
    pub(super) streams: BTreeMap<&'static str, Stream>,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) applied: Option<Checkpoint>,
    /// Per stream: entries appended and entries trimmed.
    pub(super) counts: BTreeMap<&'static str, (u64, u64)>,
    pub(super) damage: Option<Damage>,
    /// The applied catalog.
    pub(super) catalog: Catalog,
    /// The id of its last change.
    pub(super) catalog_change: Option<Uuid>,
    /// The layout that it requires.
    pub(super) catalog_layout: Option<u32>,
    /// The declaration that the points of the short form conform to.
    pub(super) plain_declaration: Option<Declaration>,
    /// What is stored of each target; that of the plain target has no key.
    targets: HashMap<Option<TargetId>, TargetData>,
    /// The targets that have lost something, each with what and when.
    pub(super) lost: BTreeMap<TargetId, String>,
    /// Number of losses so far, which makes the text of each a different one.
    losses: u64,
    /// Time of the last retry of dead letters.
    pub(super) retried: Option<u64>,
    pub(super) lease: Option<(String, Instant)>,
    /// Maximum bytes of a field.
    pub(super) most_bytes: Option<usize>,
    /// Texts in entries and dead letters that make an append fail.
    pub(super) rejected: Vec<(String, PortError)>,
    /// Maximum bytes of an append, unknown to the client.
    pub(super) longest: Option<(usize, PortError)>,
    /// Start of the clock of entry ids.
    epoch: Instant,
}

#[derive(Clone, Default)]
pub(super) struct Stream {
    pub(super) entries: BTreeMap<Id, RawFields>,
    pub(super) last: Id,
    /// Entries ever added.
    pub(super) added: u64,
    pub(super) groups: BTreeMap<&'static str, Group>,
}

#[derive(Clone, Default)]
pub(super) struct Group {
    pub(super) last_delivered: Id,
    pub(super) pending: BTreeMap<Id, Pending>,
    pub(super) consumers: BTreeSet<String>,
}

#[derive(Clone)]
pub(super) struct Pending {
    pub(super) consumer: String,
    /// `None` after it was handed back: idle forever.
    pub(super) delivered: Option<Instant>,
    /// Number of deliveries.
    pub(super) deliveries: u64,
}

impl Pending {
    pub(super) fn is_idle_for(&self, idle: Duration) -> bool {
        self.delivered.is_none_or(|delivered| delivered.elapsed() >= idle)
    }
}

/// Start of the fake's ids, in milliseconds since the Unix epoch, so that they resemble real ones.
const FIRST_MILLISECOND: u64 = 1_700_000_000_000;

impl Default for FakeStreams {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeStreams {
    /// An empty Redis.
    pub fn new() -> Self {
        let state = State {
            streams: BTreeMap::new(),
            checkpoint: None,
            applied: None,
            counts: BTreeMap::new(),
            damage: None,
            catalog: Catalog::default(),
            catalog_change: None,
            catalog_layout: None,
            plain_declaration: None,
            targets: HashMap::new(),
            lost: BTreeMap::new(),
            losses: 0,
            retried: None,
            lease: None,
            most_bytes: None,
            rejected: Vec::new(),
            longest: None,
            epoch: Instant::now(),
        };
        Self { state: Arc::new(Mutex::new(state)), arrived: Arc::default(), faults: Faults::default() }
    }

    /// The same Redis, with the calls of this process.
    #[must_use]
    pub fn used_by(&self, process: &Process) -> Self {
        Self { faults: self.faults.used_by(process), ..self.clone() }
    }

    /// The faults of all fakes on these streams. Calls are named like the ports' methods.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Makes appends and handovers with a larger field fail.
    pub fn limit(&self, most_bytes: usize) {
        self.state().most_bytes = Some(most_bytes);
    }

    /// Makes every append fail that contains this text.
    pub fn reject(&self, text: impl Into<String>, error: PortError) {
        self.state().rejected.push((text.into(), error));
    }

    /// Makes appends with more bytes of keys and documents fail; their limit is not in the configuration.
    pub fn limit_append(&self, bytes: usize, error: PortError) {
        self.state().longest = Some((bytes, error));
    }

    /// Adds a raw entry, well-formed or not.
    pub fn add_raw(&self, stream: &'static str, fields: RawFields) -> EntryId {
        let id = self.state().add(stream, fields);
        self.arrived.notify_waiters();
        write_id(id)
    }

    /// Adds a dead letter of a stage, well-formed or not.
    pub fn add_letter(&self, stage: Stage, fields: RawFields) -> EntryId {
        self.add_raw(StreamKeys::from(stage).dead_letters, fields)
    }

    /// The decodable records of a stream, oldest first.
    pub fn records<T: Record>(&self, stream: &str) -> Vec<(EntryId, T)> {
        let state = self.state();
        let entries = state.streams.get(stream).into_iter().flat_map(|stream| &stream.entries);
        entries.filter_map(|(id, fields)| Some((write_id(*id), T::decode(fields.clone()).ok()?))).collect()
    }

    /// The raw entries of a stream, oldest first, including dead letters.
    pub fn raw(&self, stream: &str) -> Vec<RawFields> {
        self.state().streams.get(stream).map(|stream| stream.entries.values().cloned().collect()).unwrap_or_default()
    }

    /// Deletes one entry, as an operator's XDEL does: it stays pending if it was.
    pub fn delete_entry(&self, stream: &str, id: &EntryId) {
        if let Some(stream) = self.state().streams.get_mut(stream) {
            stream.entries.remove(&read_id(id));
        }
    }

    /// Deletes every entry of a stream, as an operator's XTRIM does.
    pub fn trim_all(&self, stream: &str) {
        if let Some(stream) = self.state().streams.get_mut(stream) {
            stream.entries.clear();
        }
    }

    /// Deletes a stream with its groups, as an operator's DEL does.
    pub fn delete_stream(&self, stream: &str) {
        self.state().streams.remove(stream);
    }

    /// Deletes a stage's group, as an operator's XGROUP DESTROY does.
    pub fn destroy_group(&self, stage: StreamKeys) {
        if let Some(stream) = self.state().streams.get_mut(stage.stream) {
            stream.groups.remove(stage.group);
        }
    }

    /// Deletes everything, as an operator's FLUSHALL does.
    pub fn wipe(&self) {
        let mut state = self.state();
        let epoch = state.epoch;
        *state = Self::new().state().clone();
        state.epoch = epoch;
    }

    /// Deletes the checkpoint.
    pub fn delete_checkpoint(&self) {
        self.state().checkpoint = None;
    }

    /// Saves the current state.
    pub fn save(&self) -> Saved {
        Saved(self.state().clone())
    }

    /// Restores a saved state, like a restart that lost its last second.
    pub fn restore(&self, saved: &Saved) {
        *self.state() = saved.0.clone();
        self.arrived.notify_waiters();
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl State {
    pub(super) fn now(&self) -> u64 {
        FIRST_MILLISECOND + u64::try_from(self.epoch.elapsed().as_millis()).expect("a test ends before the universe")
    }

    pub(super) fn add(&mut self, stream: &'static str, fields: RawFields) -> Id {
        let now = self.now();
        let stream = self.streams.entry(stream).or_default();
        let id = if stream.last.0 < now { (now, 0) } else { (stream.last.0, stream.last.1 + 1) };
        stream.last = id;
        stream.added += 1;
        stream.entries.insert(id, fields);
        id
    }

    /// Adds a record to a stage, and counts it.
    pub(super) fn add_record(&mut self, stream: &'static str, record: &impl Record) {
        let fields = record.encode().into_iter().map(|(name, value)| (name.as_bytes().to_vec(), value.into_owned()));
        self.add(stream, fields.collect());
        self.counts.entry(stream).or_default().0 += 1;
    }

    /// Fails if these changes are rejected, or a field of theirs exceeds the limit.
    pub(super) fn takes(&self, changes: &[Change], parked: &[ParkedChange]) -> PortResult<()> {
        let all = || changes.iter().chain(parked.iter().map(|parked| &parked.change));
        let texts = || all().flat_map(|change| [&change.key, change.document.as_ref().unwrap_or(&change.id)]);
        let rejected = self.rejected.iter().find(|(text, _)| texts().any(|field| field.contains(text)));
        if let Some((_, error)) = rejected {
            return Err(error.clone());
        }
        if let Some((most, error)) = &self.longest
            && texts().map(String::len).sum::<usize>() > *most
        {
            return Err(error.clone());
        }
        let fields = changes.iter().flat_map(|change| [Some(&change.key), change.document.as_ref()]).flatten();
        self.takes_bytes(fields.map(String::len).max())
    }

    /// Fails if a document or the vectors of these records exceed the limit.
    pub(super) fn takes_records(&self, records: &[Embedded]) -> PortResult<()> {
        let document = |record: &Embedded| record.change.document.as_ref().map_or(0, String::len);
        let sizes = records.iter().map(|record| document(record).max(size_of_val(record.vectors.values())));
        self.takes_bytes(sizes.max())
    }

    fn takes_bytes(&self, largest: Option<usize>) -> PortResult<()> {
        match (largest, self.most_bytes) {
            (Some(bytes), Some(most)) if bytes > most => {
                Err(PortError::transient("Protocol error: invalid bulk length"))
            }
            _ => Ok(()),
        }
    }

    /// Adds to the dead letters of stage 1.
    pub(super) fn park(&mut self, parked: &[ParkedChange]) {
        for parked in parked {
            let fields = encode_parked(parked, self.now());
            let fields = fields.into_iter().map(|(name, value)| (name.as_bytes().to_vec(), value.into_owned()));
            self.add(RAW_DEAD_LETTERS, fields.collect());
        }
    }

    /// What is stored of a target; of the plain one without a key.
    pub(super) fn target(&mut self, key: Option<&TargetId>) -> &mut TargetData {
        self.targets.entry(key.cloned()).or_default()
    }

    /// Where the values of a target of the catalog are stored: see [`State::target`].
    pub(super) fn key_of(&self, target: &TargetId) -> Option<TargetId> {
        let generation = self.catalog.generation(target);
        let plain = generation.is_some_and(|generation| generation.collection != target.collection());
        (!plain).then(|| target.clone())
    }

    /// Removes everything that is stored of a target.
    pub(super) fn forget(&mut self, target: &TargetId) {
        self.targets.remove(&self.key_of(target));
        self.lost.remove(target);
    }

    /// Records that a target has lost something.
    pub(super) fn record_loss(&mut self, target: &TargetId, reason: &str) {
        let now = self.now();
        let text = format!("{reason} at {}.{:03}{:03}", now / 1000, now % 1000, self.losses % 1000);
        self.losses += 1;
        self.lost.insert(target.clone(), text);
    }

    /// The position of a stage.
    pub(super) fn position(&self, stage: StreamKeys) -> Position {
        let no_stream = Stream::default();
        let stream = self.streams.get(stage.stream).unwrap_or(&no_stream);
        let no_group = Group::default();
        let group = stream.groups.get(stage.group).unwrap_or(&no_group);
        let unread = stream.entries.keys().find(|id| **id > group.last_delivered);
        let waiting = group.pending.keys().next().or(unread);
        Position { last: write_id(stream.last), waiting: waiting.map(|id| write_id(*id)) }
    }

    /// The damage of a stage, if any.
    pub(super) fn harm(&self, stage: StreamKeys) -> Option<Damage> {
        let (counted, trimmed) = self.counts.get(stage.stream).copied().unwrap_or_default();
        let (added, length) = self.streams.get(stage.stream).map_or((0, 0), |s| (s.added, s.entries.len() as u64));
        let harm = |what: String| Some(Damage::Entries(what));
        if added < counted {
            return harm(format!("the stream {} was deleted", stage.stream));
        }
        if added - length > trimmed {
            return harm(format!("entries of {} were deleted by another client", stage.stream));
        }
        None
    }

    /// Accepts both streams in their current state as undamaged.
    pub(super) fn accept(&mut self) {
        for stage in [STAGE_1, STAGE_2] {
            let now = self.streams.get(stage.stream).map(|s| (s.added, s.added - s.entries.len() as u64));
            self.counts.insert(stage.stream, now.unwrap_or_default());
        }
    }

    /// The stage's group, created at the stream's beginning if it is missing.
    pub(super) fn group(&mut self, stage: StreamKeys) -> (&mut BTreeMap<Id, RawFields>, &mut Group) {
        let stream = self.streams.entry(stage.stream).or_default();
        (&mut stream.entries, stream.groups.entry(stage.group).or_default())
    }

    /// The stage's group, if it exists.
    pub(super) fn existing_group(&mut self, stage: StreamKeys) -> Option<&mut Group> {
        self.streams.get_mut(stage.stream)?.groups.get_mut(stage.group)
    }
}

pub(super) fn write_id((milliseconds, sequence): Id) -> EntryId {
    EntryId(format!("{milliseconds}-{sequence}"))
}

/// Parses an id issued by a fake. Panics for other ids, which are errors in the test.
pub(super) fn read_id(id: &EntryId) -> Id {
    let parse = |(milliseconds, sequence): (&str, &str)| Some((milliseconds.parse().ok()?, sequence.parse().ok()?));
    id.0.split_once('-').and_then(parse).unwrap_or_else(|| panic!("{:?} is not an entry id", id.0))
}
