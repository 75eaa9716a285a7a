//! The controller: it decides by the real [`advance`], and executes each step apart from its decision.

use std::collections::BTreeSet;

use tidewheel_core::catalog::{Compared, Facts, Generation, Index, State as Life, Step, advance};

use crate::model::{COLLECTIONS, Model};
use crate::safeguard::Safeguard;
use crate::state::{Collection, Effect, Next, State, at};

impl Model {
    /// What the controller does next.
    ///
    /// # Errors
    /// A move that breaks an invariant.
    pub(crate) fn control(&mut self, state: &State, next: &mut Next) -> Result<(), String> {
        if state.is_damaged {
            return Ok(());
        }
        if let Some(effect) = state.session.pending {
            return self.execute(state, effect, next);
        }
        if state.session.found.is_none()
            && let Some(step) = self.step(state)
        {
            self.decide(state, step, next);
        }
        Ok(())
    }

    /// The next step of the index.
    fn step(&self, state: &State) -> Option<Step> {
        let index = self.index(state.catalog)?;
        let current = self.checkpoint(&state.current);
        let is_applied = self.has(Safeguard::AppliedEnd);
        let mut applied = self.checkpoint(if is_applied { &state.applied } else { &state.current });
        if !self.has(Safeguard::Barrier) {
            applied.catalog = u64::MAX;
        }
        let mut lost = self.lost(state);
        if !self.has(Safeguard::WholeRollback) {
            let is_kept =
                |number: u32| index.generations.get(&number).is_some_and(|generation| generation.state == Life::Kept);
            lost.retain(|lost| !is_kept(lost.target.generation));
        }
        let compared = state.session.compared.map(|(differs, revision)| {
            let drift = u64::from(differs);
            Compared { documents: 1, drift, unexplained: drift, at_ms: 0, revision }
        });
        let deleted = (1..).zip(state.session.deleted).filter(|(_, deleted)| *deleted);
        let deleted: BTreeSet<u32> = deleted.map(|(number, _)| number).collect();
        let collections = self.existing(state);
        let facts = Facts {
            revision: self.revision(state.catalog),
            now_ms: state.now_ms(),
            current: &current,
            applied: Some(&applied),
            lost: &lost,
            // Damage ends the session.
            damaged: false,
            backlog: state.work.len() as u64,
            quiet: state.is_quiet() || !self.has(Safeguard::Rest),
            expired: state.session.has_expired,
            collections: &collections,
            alias: state.alias.map(|number| COLLECTIONS[at(number)]),
            records: self.records(state.catalog),
            settled: true,
            audit: compared.as_ref(),
            deleted: &deleted,
        };
        advance(&self.name, index, &facts)
    }

    /// Changes the catalog or the session, or takes up a step for execution.
    fn decide(&mut self, state: &State, step: Step, next: &mut Next) {
        let effect = match step {
            Step::Save(index) => {
                let intended = index.switching.filter(|switch| switch.plain);
                let is_new = self.index(state.catalog).is_some_and(|before| before.switching.is_none());
                match intended.filter(|_| is_new && !self.has(Safeguard::Intent)) {
                    Some(switch) => clear_or_move(switch.from, switch.to, true),
                    None => return next.progress("save the index", self.saved(state, Some(index))),
                }
            }
            Step::Refill { index, lost } => {
                let mut refilled = self.saved(state, Some(index));
                for number in lost {
                    refilled.lost[at(number)] = false;
                }
                return next.progress("make a lost generation due", refilled);
            }
            Step::Remove => return next.progress("remove the index", self.saved(state, None)),
            Step::Quiesce(_) => {
                let mut resting = state.clone();
                (resting.session.is_resting, resting.session.has_expired) = (true, false);
                if !state.session.is_resting {
                    next.progress("begin a rest", resting);
                }
                return;
            }
            Step::Create(number) => Effect::Create(number),
            Step::Alias { to } => Effect::Alias(to),
            Step::Compare(number) => Effect::Compare(number),
            Step::Move(switch) => clear_or_move(switch.from, switch.to, switch.plain),
            Step::Delete(number) => Effect::Delete(number),
            Step::Alter(number) => unreachable!("the record of generation {number} agrees with the catalog"),
        };
        let mut decided = state.clone();
        decided.session.pending = Some(effect);
        next.progress("decide a step", decided);
    }

    /// The state with another entry of the index in the catalog, or without one.
    fn saved(&mut self, state: &State, index: Option<Index>) -> State {
        let mut catalog = self.catalog(state.catalog).clone();
        catalog.revision = catalog.next_revision(state.now_ms());
        match index {
            Some(index) => catalog.indexes.insert(self.name.clone(), index),
            None => catalog.indexes.remove(&self.name),
        };
        let mut saved = State { catalog: self.number_of(catalog), ..state.clone() };
        for (number, (lost, deleted)) in (1..).zip(saved.lost.iter_mut().zip(&mut saved.session.deleted)) {
            let exists = self.generation(saved.catalog, number).is_some();
            *lost &= exists;
            *deleted &= exists;
        }
        saved
    }

    /// Executes a step, or loses it with its session; a request for an alias may still arrive then.
    fn execute(&self, state: &State, effect: Effect, next: &mut Next) -> Result<(), String> {
        let mut done = state.clone();
        done.session.pending = None;
        let (label, named) = match effect {
            Effect::Create(number) => {
                done.collections[at(number)].exists = true;
                ("create a collection", None)
            }
            Effect::Alias(to) => {
                done.point_alias(to);
                ("set the alias", to)
            }
            Effect::Move(to) => {
                if state.collections[at(to)].exists && (state.is_quiet() || !state.session.has_expired) {
                    self.check_move(state, to)?;
                }
                done.point_alias(Some(to));
                ("move the alias", Some(to))
            }
            Effect::Clear { from, to } => {
                if state.collections[at(to)].exists {
                    if state.collections[at(from)].exists {
                        self.check_move(state, to)?;
                    }
                    done.delete(from);
                    done.session.pending = Some(Effect::Alias(Some(to)));
                }
                ("delete the plain collection", None)
            }
            Effect::Delete(number) => {
                done.delete(number);
                done.session.deleted[at(number)] = true;
                ("delete a collection", None)
            }
            Effect::Compare(number) => {
                if let Some(generation) = self.generation(state.catalog, number) {
                    let Some(differs) = self.differs(state, number, generation) else { return Ok(()) };
                    done.session.compared = Some((differs, self.revision(state.catalog)));
                }
                ("compare a generation", None)
            }
        };
        next.progress(label, done);
        if let Some(to) = named.filter(|_| state.left.late_requests > 0) {
            let mut crashed = self.crashed(state);
            crashed.late_alias = Some(to);
            crashed.left.late_requests -= 1;
            next.chance("crash after sending a request for the alias", crashed);
        }
        Ok(())
    }

    /// Whether a generation differs from the source; `None` while changes are in flight that may explain a difference.
    fn differs(&self, state: &State, number: u32, generation: &Generation) -> Option<bool> {
        let has = state.collections[at(number)].document.map(|document| document.value);
        let differs = has != self.member(&generation.declaration, state.committed);
        let is_settled = state.work.is_empty() && state.current.position == state.committed;
        (!differs || is_settled).then_some(differs)
    }
}

/// The step that moves the alias: a plain collection is deleted before.
fn clear_or_move(from: Option<u32>, to: u32, is_plain: bool) -> Effect {
    match from.filter(|_| is_plain) {
        Some(from) => Effect::Clear { from, to },
        None => Effect::Move(to),
    }
}

impl State {
    /// Deletes a collection with its aliases, and everything stored about its generation.
    fn delete(&mut self, number: u32) {
        self.collections[at(number)] = Collection::default();
        self.lost[at(number)] = false;
        self.alias = self.alias.filter(|named| *named != number);
    }
}
