//! What holds in every state.

use tidewheel_core::catalog::{Generation, State as Life};

use crate::model::Model;
use crate::state::{Made, Phase, State, at};

impl Model {
    /// Checks a state. `has_progress`: whether a service still has something to do.
    ///
    /// # Errors
    /// What is violated.
    pub(crate) fn check(&self, state: &State, has_progress: bool) -> Result<(), String> {
        self.searches_find_a_collection(state)?;
        self.replaced_collection_stays_away(state)?;
        self.whole_generations_equal_the_source(state)?;
        if has_progress { Ok(()) } else { self.nothing_is_left_at_rest(state) }
    }

    /// Checks the move of an alias: the generation has the document as the source had it at the position of the producer,
    /// or later. Rows that a snapshot has read may be ahead of the change stream.
    ///
    /// # Errors
    /// It has another one.
    pub(crate) fn check_move(&self, state: &State, to: u32) -> Result<(), String> {
        let has = state.collections[at(to)].document.map(|document| document.value);
        let Some(generation) = self.generation(state.catalog, to) else {
            return Err(format!("the alias moves to generation {to}, which does not exist"));
        };
        let mut positions = state.current.position..=state.committed;
        if positions.any(|position| self.member(&generation.declaration, position) == has) {
            return Ok(());
        }
        Err(format!("the alias moves to generation {to} with {has:?} at position {}", state.current.position))
    }

    /// The alias of a served index names an existing collection, or the index is plain and its collection exists; except
    /// for the moment in which an alias replaces the plain collection.
    fn searches_find_a_collection(&self, state: &State) -> Result<(), String> {
        let Some(index) = self.index(state.catalog) else { return Ok(()) };
        let Some(serving) = index.serving else { return Ok(()) };
        let named = if index.plain { Some(serving) } else { state.alias };
        let exists = named.is_some_and(|number| state.collections[at(number)].exists);
        let is_being_replaced = self.is_being_replaced(state.catalog, serving);
        if exists || is_being_replaced { Ok(()) } else { Err("searches find no collection".to_owned()) }
    }

    /// A plain collection that an alias is about to replace does not come back empty.
    fn replaced_collection_stays_away(&self, state: &State) -> Result<(), String> {
        let mut replaced = (1..).zip(state.lost).filter(|(number, _)| self.is_being_replaced(state.catalog, *number));
        let came_back = replaced.any(|(number, lost)| lost && state.collections[at(number)].exists);
        if came_back { Err("a replaced collection came back".to_owned()) } else { Ok(()) }
    }

    /// When nothing is in flight, serving, kept and ready generations hold what the source has, made as declared.
    fn whole_generations_equal_the_source(&self, state: &State) -> Result<(), String> {
        let is_drained = state.work.is_empty()
            && state.current.position == state.committed
            && state.current.phase == Phase::Done
            && !state.is_damaged;
        if !is_drained {
            return Ok(());
        }
        let is_whole = |(number, generation): &(u32, &Generation)| {
            matches!(generation.state, Life::Serving | Life::Kept | Life::Ready)
                && generation.is_filled()
                && !state.lost[at(*number)]
                && state.collections[at(*number)].exists
        };
        for (number, generation) in self.generations(state.catalog).filter(is_whole) {
            let has = state.collections[at(number)].document.map(|document| (document.value, document.made));
            let member = self.member(&generation.declaration, state.committed);
            let expected = member.map(|value| (value, Made::by(&generation.declaration)));
            if has != expected {
                return Err(format!("generation {number} has {has:?} instead of {expected:?}"));
            }
        }
        Ok(())
    }

    /// When nothing is left to do, one generation serves and the others are kept, each filled and in a collection that the
    /// catalog names; and the alias names the serving one.
    fn nothing_is_left_at_rest(&self, state: &State) -> Result<(), String> {
        for (number, collection) in (1..).zip(state.collections) {
            if collection.exists && self.generation(state.catalog, number).is_none() {
                return Err(format!("collection {number} is orphaned"));
            }
        }
        let Some(index) = self.index(state.catalog) else { return Ok(()) };
        if index.switching.is_some() {
            return Err("an intended move is never made".to_owned());
        }
        for (number, generation) in &index.generations {
            if !matches!(generation.state, Life::Serving | Life::Kept) || !generation.is_filled() {
                return Err(format!("generation {number} stays {}", generation.state));
            }
        }
        let is_named = index.plain || state.alias == index.serving;
        if is_named { Ok(()) } else { Err(format!("the alias names {:?}", state.alias)) }
    }
}
