//! Advances the declared indexes to what the applied catalog states.
//!
//! ```text
//!  look at the positions ──▶ advance (core::catalog), per index ──▶ step ──▶ beside the loop of the session:
//!       ▲                                                                    collections, aliases, comparison, catalog
//!       └── what the index has is read again ◀── done ◀──────────────────────────┘
//! ```
//!
//! Guarantees:
//! - **Resumable**: a step follows from the catalog and from what was read after the step before it, and each can be
//!   repeated. A producer that takes over continues at any point.
//! - **Conditional**: every change of the catalog is saved against the revision that it was made from, so that a producer
//!   that was replaced changes nothing any more.
//! - **Beside the loop**: no step and no outage of the index delays live changes. The exception is the move of an alias,
//!   for which reading [rests](rest) for a few seconds.
//! - **One step at a time** per index, beside comparisons and deletions, which take long. A failed one is repeated; if a
//!   person has to act, the catalog names the problem.
//!
//! Before a catalog is applied it does nothing.

mod compare;
mod facts;
mod memory;
mod rest;
mod saves;
mod start;
mod steps;
#[cfg(test)]
mod tests;
mod tools;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use facts::Observer;
use memory::Memory;
use rest::{Flow, Rests};
use saves::Changes;
pub(super) use start::prepare;
use steps::{Effect, Outcome, Task};
use tidewheel_core::catalog::{
    Catalog, Facts, Generation, Index, IndexName, Lost, State, Step, Switch, TargetRecord, advance_beside,
};
use tidewheel_core::ports::{Appended, Checkpoint, PortResult};
use tokio::time::Instant;
pub use tools::ControllerPorts;
use tools::{Tools, Work};
use tracing::{debug, warn};

use super::ProducerPorts;
use crate::background;
use crate::targets::Applied;

/// The pause after the catalog could not be saved.
const SAVE_PAUSE: Duration = Duration::from_secs(1);

/// What a look of the session has found.
pub(super) struct Moment<'a> {
    /// The catalog that the session routes by.
    pub(super) adopted: &'a Arc<Applied>,
    /// The revision of the store; 0 if it has no catalog.
    pub(super) revision: u64,
    /// The clock of the store, in milliseconds since the Unix epoch.
    pub(super) now_ms: u64,
    /// The saved checkpoint.
    pub(super) current: &'a Checkpoint,
    /// The applied checkpoint.
    pub(super) applied: Option<&'a Checkpoint>,
    /// The targets that lost something, read after that.
    pub(super) lost: &'a [Lost],
    /// The last barrier that has passed.
    pub(super) passed: u64,
    /// The next barrier to begin.
    pub(super) next: u64,
}

/// Advances the indexes while a session is active.
pub(super) struct Controller {
    /// `None` if there is nothing to advance.
    tools: Option<Tools>,
    observer: Observer,
    rests: Rests,
    memories: BTreeMap<IndexName, Memory>,
    /// Indexes at rest that have no step, with the revision and the number of reads for which that was decided.
    idle: BTreeMap<IndexName, (u64, u64)>,
    running: BTreeMap<Lane, Running>,
    saving: Option<Work<Appended>>,
    /// When to save again after a failure.
    save_at: Option<Instant>,
}

/// What runs at the same time: for each index one step, and beside it those of single generations that take long.
type Lane = (IndexName, Option<u32>);

/// A step that is running.
struct Running {
    effect: Effect,
    /// What its generation was due for when it began.
    due: Option<u64>,
    work: Work<Outcome>,
}

impl Controller {
    /// The controller of a session.
    pub(super) fn new(ports: &ProducerPorts) -> Self {
        Self {
            tools: Tools::of(ports),
            observer: Observer::new(),
            rests: Rests::default(),
            memories: BTreeMap::new(),
            idle: BTreeMap::new(),
            running: BTreeMap::new(),
            saving: None,
            save_at: None,
        }
    }

    /// Whether feed and snapshot must not be read, because an alias is about to move.
    pub(super) fn is_resting(&self) -> bool {
        self.rests.is_on()
    }

    /// Decides the next steps, and begins them. To be called after every look, once the session has adopted the catalog
    /// that the look has found.
    pub(super) fn look(&mut self, moment: &Moment<'_>) {
        let catalog = moment.adopted.catalog();
        if catalog.is_short_form() {
            return;
        }
        let Some(tools) = self.tools.clone() else { return };
        if self.saving.is_some() || self.save_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        if moment.revision == 0 {
            let (applied, now_ms) = (moment.adopted.clone(), moment.now_ms);
            self.saving =
                Some(background::begin(async move { start::write_back(&tools, applied.catalog(), now_ms).await }));
            return;
        }
        if moment.revision != catalog.revision {
            return;
        }
        self.prune(catalog);
        self.update_rest(catalog, moment);
        if let Some(stray) = moment.lost.iter().find(|lost| catalog.generation(&lost.target).is_none()) {
            // A service with an earlier catalog has recorded it.
            let target = stray.target.clone();
            self.saving =
                Some(background::begin(async move { steps::forget(&tools, &target).await.map(|()| Appended::Saved) }));
            return;
        }
        self.observer.update(catalog, &tools);
        let mut changes =
            Changes { expected: catalog.revision, next: catalog.next_revision(moment.now_ms), ..Changes::default() };
        for (name, index) in &catalog.indexes {
            self.decide(name, index, moment, &tools, &mut changes);
        }
        self.hold(catalog, &mut changes);
        if !changes.indexes.is_empty() {
            let applied = moment.adopted.clone();
            self.saving =
                Some(background::begin(async move { saves::save(&tools, applied.catalog(), &changes).await }));
        }
    }

    /// Decides the next step of one index: begins it, or adds it to the changes of the catalog.
    fn decide(&mut self, name: &IndexName, index: &Index, moment: &Moment<'_>, tools: &Tools, changes: &mut Changes) {
        let decided = (moment.revision, self.observer.reads());
        if moment.lost.is_empty() && self.idle.get(name) == Some(&decided) {
            return;
        }
        self.idle.remove(name);
        if self.rests.is_of_another(name) || self.running.contains_key(&(name.clone(), None)) {
            return;
        }
        let memory = self.memories.entry(name.clone()).or_default();
        if let Some(changed) = memory.problem_to_save(index) {
            changes.indexes.insert(name.clone(), Some(changed));
            return;
        }
        let memory = &*memory;
        let Some(records) = self.observer.records(name, index) else { return };
        let seen = self.observer.seen();
        let comparing = index.generations.iter().find(|(_, generation)| generation.state == State::Comparing);
        let flow = moment.flow();
        let facts = Facts {
            revision: moment.revision,
            now_ms: moment.now_ms,
            current: moment.current,
            applied: moment.applied,
            lost: moment.lost,
            // Damage ends the session before the look.
            damaged: false,
            backlog: seen.backlog,
            quiet: self.rests.is_quiet(name, flow),
            expired: self.rests.has_expired(name),
            collections: &seen.collections,
            alias: seen.aliases.get(name.as_str()).map(String::as_str),
            records,
            settled: comparing.is_some_and(|(number, _)| self.observer.is_settled(&name.target(*number))),
            audit: comparing.and_then(|(number, generation)| memory.result_for(*number, generation)),
            deleted: &memory.deleted,
        };
        // A step that takes long, or fails until a person acts, delays nothing else.
        let waits = |step: &Step| {
            let effect = Effect::of(step);
            effect.is_some_and(|effect| memory.must_wait(effect) || self.running.contains_key(&lane(name, effect)))
        };
        let Some(step) = advance_beside(name, index, &facts, waits) else {
            // Neither time nor the positions make a step due then.
            if is_at_rest(index) && flow.is_adopted && moment.lost.is_empty() {
                self.idle.insert(name.clone(), decided);
            }
            return;
        };
        let effect = Effect::of(&step);
        match step {
            Step::Save(next) => {
                changes.indexes.insert(name.clone(), Some(next));
                return;
            }
            Step::Refill { index, lost } => {
                changes.refilled.extend(lost.into_iter().map(|number| name.target(number)));
                changes.indexes.insert(name.clone(), Some(index));
                return;
            }
            Step::Remove => {
                changes.indexes.insert(name.clone(), Some(index.dropped()));
                return;
            }
            Step::Quiesce(to) => {
                if self.rests.begin(name, to, flow) {
                    self.observer.outdate(name);
                }
                return;
            }
            _ => {}
        }
        let Some(effect) = effect else { return };
        let lane = lane(name, effect);
        if memory.must_wait(effect) || self.running.contains_key(&lane) {
            return;
        }
        let record = effect.generation().and_then(|number| records.get(&number).cloned());
        self.running.insert(lane, begin(tools, name, index, moment.revision, effect, record));
    }

    /// Takes out changes that begin to route to new generations while others are still being created: together they need
    /// the feed to be opened again once.
    fn hold(&self, catalog: &Catalog, changes: &mut Changes) {
        let begins = |name: &IndexName, after: &Option<Index>| {
            catalog.indexes.get(name).is_some_and(|before| saves::begins_routing(before, after.as_ref()))
        };
        let is_failing =
            |name: &IndexName| self.observer.is_unread(name) || self.memories.get(name).is_some_and(Memory::is_failing);
        let is_being_created = |(name, index): &(&IndexName, &Index)| {
            index.generations.values().any(facts::is_being_created) && !is_failing(name)
        };
        let created = changes.indexes.iter().filter(|(name, after)| begins(name, after)).count();
        if created < catalog.indexes.iter().filter(is_being_created).count() {
            changes.indexes.retain(|name, after| !begins(name, after));
        }
    }

    /// Forgets what the catalog no longer has, and ends comparisons that it no longer asks for.
    fn prune(&mut self, catalog: &Catalog) {
        let generation = |name: &IndexName, number: u32| catalog.indexes.get(name)?.generations.get(&number);
        self.memories.retain(|name, memory| {
            // After a loss of the catalog, an index that is created again may have the same first generation.
            memory.deleted.retain(|number| generation(name, *number).is_some_and(|one| one.state == State::Retiring));
            catalog.indexes.contains_key(name)
        });
        self.idle.retain(|name, _| catalog.indexes.contains_key(name));
        self.running.retain(|(name, _), running| match running.effect {
            Effect::Compare(number) => generation(name, number)
                .is_some_and(|generation| generation.state == State::Comparing && Some(generation.due) == running.due),
            _ => true,
        });
    }

    fn update_rest(&mut self, catalog: &Catalog, moment: &Moment<'_>) {
        let resting = self.rests.index().and_then(|name| Some((name, catalog.indexes.get(name)?)));
        let is_busy = resting.is_some_and(|(name, _)| self.running.contains_key(&(name.clone(), None)));
        let is_between = resting.is_some_and(|(name, index)| self.is_between(name, index));
        self.rests.update(catalog, moment.flow(), is_busy, is_between);
    }

    /// Whether the plain collection of an index is deleted, or its alias has moved, or may have, and that is not recorded.
    fn is_between(&self, name: &IndexName, index: &Index) -> bool {
        let Some(Switch { from: Some(from), to, .. }) = index.switching.filter(|switch| switch.plain) else {
            return false;
        };
        let (seen, collection) =
            (self.observer.seen(), |number: &u32| Some(&index.generations.get(number)?.collection));
        let exists = collection(&from).is_some_and(|from| seen.collections.contains(from));
        let has_moved = seen.aliases.get(name.as_str()).is_some_and(|named| collection(&to) == Some(named));
        self.observer.records(name, index).is_none() || !exists || has_moved
    }

    /// Continues what is running; returns when some of it has ended, so that a look can decide what follows. Cancel-safe.
    pub(super) async fn next(&mut self) {
        poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(saving) = &mut self.saving
            && let Poll::Ready(saved) = saving.as_mut().poll(context)
        {
            self.saving = None;
            self.save_at = None;
            if let Err(error) = saved {
                warn!("failed to save the catalog: {error}");
                self.save_at = Some(Instant::now() + SAVE_PAUSE);
            }
            return Poll::Ready(());
        }
        let ended = self.running.iter_mut().find_map(|(lane, running)| match running.work.as_mut().poll(context) {
            Poll::Ready(outcome) => Some((lane.clone(), outcome)),
            Poll::Pending => None,
        });
        if let Some((lane, outcome)) = ended {
            if let Some(running) = self.running.remove(&lane) {
                self.ended(&lane.0, &running, outcome);
            }
            return Poll::Ready(());
        }
        self.observer.poll(context)
    }

    fn ended(&mut self, name: &IndexName, running: &Running, outcome: PortResult<Outcome>) {
        self.observer.outdate(name);
        let memory = self.memories.entry(name.clone()).or_default();
        match outcome {
            Ok(outcome) => memory.succeeded(running.effect, running.due, &outcome),
            Err(error) => {
                let verb = running.effect.verb();
                if memory.is_failing() {
                    debug!(index = %name, "failed to {verb}: {error}");
                } else {
                    warn!(index = %name, "failed to {verb}: {error}");
                }
                memory.failed(running.effect, &error);
            }
        }
    }
}

/// Whether an index has one generation, which serves and is filled.
fn is_at_rest(index: &Index) -> bool {
    let is_final = |generation: &Generation| generation.state == State::Serving && generation.is_filled();
    index.switching.is_none() && index.generations.len() == 1 && index.generations.values().all(is_final)
}

/// Where a step runs.
fn lane(name: &IndexName, effect: Effect) -> Lane {
    (name.clone(), effect.generation().filter(|_| effect.takes_long()))
}

impl Moment<'_> {
    fn flow(&self) -> Flow {
        Flow {
            is_settled: self.applied == Some(self.current),
            passed: self.passed,
            next: self.next,
            is_adopted: self.current.catalog >= self.revision,
        }
    }
}

/// Begins a step.
fn begin(
    tools: &Tools,
    name: &IndexName,
    index: &Index,
    revision: u64,
    effect: Effect,
    record: Option<TargetRecord>,
) -> Running {
    let due = effect.generation().and_then(|number| index.generations.get(&number)).map(|generation| generation.due);
    let task = Task { name: name.clone(), index: index.clone(), revision, effect, record };
    let tools = tools.clone();
    Running { effect, due, work: background::begin(async move { steps::execute(&tools, &task).await }) }
}
