//! Rest: moments in which nothing is appended, so that an alias can move.
//!
//! ```text
//!  an alias may move ──▶ stop reading ──▶ everything appended is in the index ──▶ intent ──▶ alias ──▶ record ──▶ go on
//!                            └── not within LIMIT ──▶ go on, and try again later (a rollback moves now)
//! ```
//!
//! At rest, two generations that are kept up hold exactly the same changes. One index moves at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidewheel_core::catalog::{Catalog, Index, IndexName, State};
use tokio::time::Instant;
use tracing::{info, warn};

/// How long reading may stop for a move. Once the plain collection is deleted, the move is completed however long it
/// takes.
const LIMIT: Duration = Duration::from_secs(10);

/// Time until the next attempt after one that reached the limit; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

/// Maximum of that time.
const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);

/// The rests of a session.
#[derive(Debug, Default)]
pub(super) struct Rests {
    current: Option<Rest>,
    paces: BTreeMap<IndexName, Pace>,
    /// Indexes whose last rest reached the limit.
    expired: BTreeSet<IndexName>,
}

/// A rest for the move of an alias.
#[derive(Debug)]
struct Rest {
    index: IndexName,
    to: u32,
    begun: Instant,
    /// The first barrier that began after it.
    barrier: u64,
}

/// When an index may rest again.
#[derive(Clone, Copy, Debug)]
struct Pace {
    next: Instant,
    pause: Duration,
}

/// What a look has found about the pipeline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    /// Whether everything up to the saved checkpoint is in the index.
    pub(super) is_settled: bool,
    /// The last barrier that has passed.
    pub(super) passed: u64,
    /// The next barrier to begin.
    pub(super) next: u64,
    /// Whether the saved checkpoint has the revision of the catalog.
    pub(super) is_adopted: bool,
}

impl Rests {
    /// Whether nothing is to be appended.
    pub(super) fn is_on(&self) -> bool {
        self.current.is_some()
    }

    /// Whether the rest is that of another index.
    pub(super) fn is_of_another(&self, name: &IndexName) -> bool {
        self.current.as_ref().is_some_and(|rest| rest.index != *name)
    }

    /// Whether everything appended is in the index, and nothing is appended until the next step of this index is done.
    pub(super) fn is_quiet(&self, name: &IndexName, flow: Flow) -> bool {
        let began = self.current.as_ref().filter(|rest| rest.index == *name).map(|rest| rest.barrier);
        flow.is_settled && began.is_some_and(|barrier| flow.passed >= barrier)
    }

    /// Whether the last rest of this index reached the limit.
    pub(super) fn has_expired(&self, name: &IndexName) -> bool {
        self.expired.contains(name)
    }

    /// Begins a rest, unless there is one, or the last one for this index was too recent. Returns whether it begins.
    pub(super) fn begin(&mut self, name: &IndexName, to: u32, flow: Flow) -> bool {
        let now = Instant::now();
        let is_early = self.paces.get(name).is_some_and(|pace| pace.next > now);
        if self.is_on() || is_early {
            return false;
        }
        info!(index = %name, generation = to, "pausing until everything appended is in the index, to move the alias");
        self.current = Some(Rest { index: name.clone(), to, begun: now, barrier: flow.next });
        true
    }

    /// Ends the rest if the alias has moved, cannot move any more, or the limit is reached. `is_busy`: a step of the index
    /// is running. `is_between`: its plain collection is deleted, and the catalog does not state it yet: what is routed to
    /// it would create it again, or reach the new collection through the alias.
    pub(super) fn update(&mut self, catalog: &Catalog, flow: Flow, is_busy: bool, is_between: bool) {
        self.paces.retain(|name, _| catalog.indexes.get(name).is_some_and(may_move));
        self.expired.retain(|name| catalog.indexes.get(name).is_some_and(|index| index.switching.is_some()));
        let Some(rest) = &self.current else { return };
        let Some(index) = catalog.indexes.get(&rest.index) else {
            self.current = None;
            return;
        };
        let has_moved = index.switching.is_none() && index.serving == Some(rest.to);
        if (has_moved && flow.is_adopted) || (!has_moved && !is_possible(index, rest.to)) {
            self.current = None;
            return;
        }
        let is_late = rest.begun.elapsed() >= LIMIT;
        if is_late && !is_busy && !is_between && !has_moved {
            self.expire();
        }
    }

    /// The index whose alias is to move.
    pub(super) fn index(&self) -> Option<&IndexName> {
        self.current.as_ref().map(|rest| &rest.index)
    }

    fn expire(&mut self) {
        let Some(Rest { index, to, .. }) = self.current.take() else { return };
        let pause = self.paces.get(&index).map_or(FIRST_PAUSE, |pace| (pace.pause * 2).min(LONGEST_PAUSE));
        warn!(
            index = %index,
            generation = to,
            retry_seconds = pause.as_secs(),
            "the alias has not moved: the pipeline was not empty within {} s",
            LIMIT.as_secs()
        );
        self.paces.insert(index.clone(), Pace { next: Instant::now() + pause, pause });
        self.expired.insert(index);
    }
}

/// Whether an alias may still move, as intended or to a generation that is ready.
fn may_move(index: &Index) -> bool {
    index.switching.is_some() || index.generations.values().any(|generation| generation.state == State::Ready)
}

/// Whether the alias can still move to this generation.
fn is_possible(index: &Index, to: u32) -> bool {
    let state = index.generations.get(&to).map(|generation| generation.state);
    let is_intended = index.switching.is_some_and(|switch| switch.to == to);
    match state {
        Some(State::Ready) => true,
        Some(State::Kept) => is_intended,
        // The record of a plain move is missing yet.
        Some(state) => is_intended && state.is_routed(),
        None => false,
    }
}
