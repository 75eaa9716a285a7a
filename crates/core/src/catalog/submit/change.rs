//! The change of one index.

use std::sync::Arc;

use super::{ApplyOptions, IndexAction, Refusal, refuse};
use crate::catalog::action::Action;
use crate::catalog::declaration::Declaration;
use crate::catalog::embedding::EmbedderIdentity;
use crate::catalog::generation::{Generation, Index, Needs, State, Switch};
use crate::catalog::name::{IndexName, TargetId};
use crate::catalog::parts::Difference;

/// Creates an index. `last` is the last generation of an earlier one of this name.
pub(super) fn create(wanted: Arc<Declaration>, last: u32, options: &ApplyOptions, next: u64) -> (Index, IndexAction) {
    let mut change = Change::new(Index { last, ..Index::default() }, wanted, options, next);
    change.add(Action::Create, Difference::default());
    (change.index, change.action)
}

/// Drops an index; `None` if that has been submitted already.
pub(super) fn drop_index(
    name: &IndexName,
    mut index: Index,
    options: &ApplyOptions,
    next: u64,
) -> Option<(Index, IndexAction)> {
    let mut action = IndexAction { action: Action::Drop, ..IndexAction::none(name) };
    action.before = index.serving_generation().map(|(_, serving)| Arc::clone(&serving.declaration));
    for (number, generation) in &mut index.generations {
        if generation.state != State::Retiring {
            end(*number, generation, next, &mut action);
        }
    }
    if let Some(collection) = behind_alias(name, &index, options) {
        action.deleted.retain(|deleted| deleted != name.as_str());
        action.details.push(format!("the alias {name} and its collection {collection} stay"));
    }
    index.serving = None;
    index.switching = None;
    (!action.ended.is_empty()).then_some((index, action))
}

/// Returns an index to its kept generation.
pub(super) fn roll_back(name: &IndexName, index: Option<&mut Index>) -> Result<IndexAction, Refusal> {
    let index = index.ok_or_else(|| refuse::unknown_index(name))?;
    let mut action = IndexAction::none(name);
    if let Some(switch) = index.switching {
        let is_rollback = index.generations.get(&switch.to).is_some_and(|to| to.state == State::Kept);
        return if is_rollback { Ok(action) } else { Err(refuse::is_switching(name, switch.to)) };
    }
    let kept = |earlier: bool| {
        let kept = index.generations.iter().rev().filter(|(_, generation)| generation.state == State::Kept);
        kept.map(|(number, _)| *number).find(|number| !earlier || Some(*number) < index.serving)
    };
    let to = kept(true).or_else(|| kept(false)).ok_or_else(|| refuse::has_no_kept_generation(name))?;
    if !index.generations[&to].is_filled() {
        return Err(refuse::is_being_filled(name, to));
    }
    action.before = index.serving_generation().map(|(_, serving)| Arc::clone(&serving.declaration));
    switch_to(to, index, &mut action);
    Ok(action)
}

/// The change of an existing index by its declaration.
pub(super) struct Change<'a> {
    index: Index,
    wanted: Arc<Declaration>,
    options: &'a ApplyOptions,
    next: u64,
    action: IndexAction,
}

impl<'a> Change<'a> {
    pub(super) fn new(index: Index, wanted: Arc<Declaration>, options: &'a ApplyOptions, next: u64) -> Self {
        let action = IndexAction::none(&wanted.name);
        Self { index, wanted, options, next, action }
    }

    /// The index and what is done for it.
    pub(super) fn declare(mut self) -> Result<(Index, IndexAction), Refusal> {
        self.decide()?;
        if self.options.drop_kept {
            self.drop_kept();
        }
        if self.action.action == Action::None && !self.action.ended.is_empty() {
            self.action.action = Action::Discard;
        }
        Ok((self.index, self.action))
    }

    fn decide(&mut self) -> Result<(), Refusal> {
        let serving = self.index.serving_generation().map(|(number, _)| number);
        self.action.before = serving.map(|number| self.declaration(number));
        if let Some(switch) = self.index.switching {
            let is_wanted = self.difference(switch.to).is_empty();
            return if is_wanted { Ok(()) } else { Err(refuse::is_switching(&self.wanted.name, switch.to)) };
        }
        if let Some(coming) = coming(&self.index) {
            let difference = self.difference(coming);
            if difference.is_empty() {
                return self.resume(coming);
            }
            let serving_suffices =
                !self.options.forced && serving.is_some_and(|number| !self.difference(number).needs_generation());
            if !serving_suffices && !difference.needs_generation() {
                self.edit(coming, difference);
                return Ok(());
            }
            self.end(coming);
        }
        let Some(serving) = serving else {
            if self.index.plain {
                return Err(refuse::is_being_deleted(&self.wanted.name));
            }
            self.add(Action::Create, Difference::default());
            return Ok(());
        };
        let difference = self.difference(serving);
        let is_forced =
            self.options.forced && (!difference.is_empty() || self.options.only.contains(&self.wanted.name));
        if is_forced {
            return self.replace(serving, difference);
        }
        if difference.is_empty() {
            return Ok(());
        }
        if let Some(kept) = self.kept_as_wanted() {
            switch_to(kept, &mut self.index, &mut self.action);
            self.action.difference = difference;
        } else if difference.needs_generation() {
            return self.replace(serving, difference);
        } else {
            self.edit(serving, difference);
        }
        Ok(())
    }

    fn generation(&self, number: u32) -> &Generation {
        &self.index.generations[&number]
    }

    fn declaration(&self, number: u32) -> Arc<Declaration> {
        Arc::clone(&self.generation(number).declaration)
    }

    /// The difference between what is wanted and what a generation was declared to be.
    fn difference(&self, number: u32) -> Difference {
        let generation = self.generation(number);
        let difference = self.wanted.difference(&generation.declaration);
        let known = self.options.reported.get(&self.wanted.name).zip(generation.embedder.as_ref());
        let is_replaced = |(reported, known): (&EmbedderIdentity, &EmbedderIdentity)| {
            self.wanted.embedding.is_nameless() && reported.model != known.model
        };
        match known {
            Some((reported, known)) if reported == known => difference.with_equal_identity(),
            Some(pair) if is_replaced(pair) => difference.with_other_model(),
            _ => difference,
        }
    }

    /// A kept generation that is what is wanted, and complete.
    fn kept_as_wanted(&self) -> Option<u32> {
        let numbers = self.index.generations.iter().rev();
        numbers
            .filter(|(_, generation)| generation.state == State::Kept && generation.is_filled())
            .map(|(number, _)| *number)
            .find(|number| self.difference(*number).is_empty())
    }

    /// Changes a generation in place.
    fn edit(&mut self, number: u32, difference: Difference) {
        let is_coming = Some(number) != self.index.serving;
        // A comparison that failed is made again.
        let again = (self.generation(number).problem.is_some() && is_coming).then_some(Needs::COMPARISON);
        let needs = difference.needs().or(again);
        self.action.action = if is_coming { Action::Generation } else { difference.action() };
        self.action.generation = Some(number);
        self.action.needs = needs;
        self.action.before = Some(self.declaration(number));
        self.action.after = Some(Arc::clone(&self.wanted));
        self.action.difference = difference;
        if is_coming {
            self.promise_switch();
        }
        let (next, hold) = (self.next, self.options.hold && is_coming && self.index.serving.is_some());
        let Some(generation) = self.index.generations.get_mut(&number) else { return };
        generation.declaration = Arc::clone(&self.wanted);
        generation.rounds = 0;
        generation.hold = hold;
        // A generation without a collection becomes due when that exists.
        if let Some(needs) = needs.filter(|_| generation.state != State::Creating) {
            generation.make_due(next, needs);
        }
    }

    /// Replaces the serving generation by a new one.
    fn replace(&mut self, serving: u32, difference: Difference) -> Result<(), Refusal> {
        if let Some(refusal) = refuse::replaced_embedding(&self.wanted, serving, self.generation(serving), &difference)
        {
            return Err(refusal);
        }
        self.add(Action::Generation, difference);
        self.promise_switch();
        Ok(())
    }

    /// Adds a generation.
    fn add(&mut self, action: Action, difference: Difference) {
        let name = &self.wanted.name;
        let in_index = self.options.collections.iter().filter_map(|collection| {
            let target: TargetId = collection.parse().ok()?;
            (target.index == *name).then_some(target.generation)
        });
        let number = in_index.fold(self.index.highest(), u32::max) + 1;
        let mut generation = Generation::new(&name.target(number), Arc::clone(&self.wanted), self.next);
        generation.hold = self.options.hold && self.index.serving.is_some();
        self.action.action = action;
        self.action.generation = Some(number);
        self.action.needs = Some(generation.needs);
        self.action.after = Some(Arc::clone(&self.wanted));
        self.action.difference = difference;
        self.index.generations.insert(number, generation);
    }

    /// Continues with a generation that is what is wanted and does not serve yet.
    fn resume(&mut self, number: u32) -> Result<(), Refusal> {
        let hold = self.options.hold && self.index.serving.is_some();
        let (next, accepted, name) = (self.next, self.options.accept_missing, self.wanted.name.clone());
        let Some(generation) = self.index.generations.get_mut(&number) else { return Ok(()) };
        if generation.hold != hold {
            let is_released = generation.state == State::Ready && !hold;
            self.action.action = if is_released { Action::Switch } else { Action::Generation };
            self.action.details.push(if hold {
                format!("generation {number} does not switch when it is ready")
            } else {
                format!("generation {number} switches when it is ready")
            });
            generation.hold = hold;
        }
        if generation.state == State::Comparing
            && let Some(problem) = generation.problem.clone()
        {
            let differing = generation.compared.map_or(0, |compared| compared.drift);
            match accepted {
                Some(accepted) if accepted < differing => {
                    return Err(refuse::differs_in_more(&name, number, differing, accepted));
                }
                Some(_) => {
                    generation.state = State::Ready;
                    generation.problem = None;
                    self.action.action = Action::Switch;
                    self.action.details.push(format!("generation {number} is accepted: {problem}"));
                }
                None => {
                    generation.make_due(next, Needs::COMPARISON);
                    generation.rounds = 0;
                    self.action.action = Action::Generation;
                    self.action.needs = Some(Needs::COMPARISON);
                    self.action.details.push(format!("generation {number} is filled and compared again: {problem}"));
                }
            }
        }
        if self.action.action != Action::None {
            self.action.generation = Some(number);
            self.action.after = Some(Arc::clone(&self.wanted));
            self.promise_switch();
        }
        Ok(())
    }

    fn drop_kept(&mut self) {
        let switching_to = self.index.switching.map(|switch| switch.to);
        for (number, generation) in &mut self.index.generations {
            if generation.state == State::Kept && Some(*number) != switching_to {
                end(*number, generation, self.next, &mut self.action);
            }
        }
    }

    fn end(&mut self, number: u32) {
        if let Some(generation) = self.index.generations.get_mut(&number) {
            end(number, generation, self.next, &mut self.action);
        }
    }

    /// States what the switch to the new generation means.
    fn promise_switch(&mut self) {
        let Some((_, serving)) = self.index.serving_generation() else { return };
        let name = &self.wanted.name;
        self.action.switches = true;
        if let Some(collection) = behind_alias(name, &self.index, self.options) {
            self.action.details.push(format!("the alias {name} leaves collection {collection}, which stays"));
        } else if self.index.plain {
            self.action.interrupts = true;
            self.action.deleted.push(serving.collection.clone());
        } else {
            self.action.keep = Some(self.wanted.rules.keep);
        }
    }
}

/// The collection of a plain index whose name is an alias that an operator has made.
fn behind_alias<'a>(name: &IndexName, index: &Index, options: &'a ApplyOptions) -> Option<&'a String> {
    options.aliases.get(name.as_str()).filter(|_| index.plain)
}

/// The generation that is not serving yet.
fn coming(index: &Index) -> Option<u32> {
    let is_coming = |state| matches!(state, State::Creating | State::Filling | State::Comparing | State::Ready);
    index.generations.iter().rev().find(|(_, generation)| is_coming(generation.state)).map(|(number, _)| *number)
}

/// Intends the move of the alias to a kept generation.
fn switch_to(to: u32, index: &mut Index, action: &mut IndexAction) {
    let newest = index.generations.values().next_back();
    action.action = Action::Switch;
    action.switches = true;
    action.generation = Some(to);
    action.after = index.generations.get(&to).map(|to| Arc::clone(&to.declaration));
    action.keep = newest.map(|newest| newest.declaration.rules.keep);
    index.switching = Some(Switch { from: index.serving, to, plain: index.plain });
}

fn end(number: u32, generation: &mut Generation, next: u64, action: &mut IndexAction) {
    action.ended.push(number);
    action.deleted.push(generation.collection.clone());
    generation.retire(next);
}
