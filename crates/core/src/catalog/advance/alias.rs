//! The alias: its moves, and its care between them.

use super::{QUIESCE_BACKLOG, Step, View};
use crate::catalog::generation::{Generation, Index, Rows, State, Switch};

impl View<'_> {
    /// Records a move that was made.
    pub(super) fn finished_move(&self) -> Option<Step> {
        let switch = self.index.switching?;
        let to = self.index.generations.get(&switch.to)?;
        // Of a generation that is no longer whole, a late request of another producer may have moved the alias: it moves
        // back, unless the plain collection is gone.
        let is_valid = matches!(to.state, State::Ready | State::Kept) || (switch.plain && to.state.is_routed());
        (is_valid && self.is_named(to)).then(|| Step::Save(self.switched(switch)))
    }

    /// Completes the replacement of a plain collection by an alias. Between its two requests searches fail.
    pub(super) fn interrupted_move(&self) -> Option<Step> {
        let switch = self.index.switching.filter(|switch| switch.plain)?;
        let (to, from) = (self.index.generations.get(&switch.to)?, self.index.generations.get(&switch.from?)?);
        let is_between = self.facts.alias.is_none() && !self.exists(from) && self.exists(to);
        is_between.then_some(Step::Move(switch))
    }

    /// Saves the intent of a move, or moves, when nothing is in flight.
    pub(super) fn quiet_move(&self) -> Option<Step> {
        let Some(switch) = self.index.switching else {
            let to = self.ready_generation().filter(|_| self.facts.quiet)?;
            let switch = Switch { from: self.index.serving, to, plain: self.index.plain };
            return Some(Step::Save(Index { switching: Some(switch), ..self.index.clone() }));
        };
        // Both generations of a rollback are whole, and differ by what is in flight.
        let is_due = self.facts.quiet || (self.facts.expired && self.is_rollback(switch));
        (is_due && self.is_intended(switch)).then_some(Step::Move(switch))
    }

    /// Returns the alias to where it belongs.
    pub(super) fn misplaced_alias(&self) -> Option<Step> {
        if self.index.plain {
            return None;
        }
        let to = self.rightful()?;
        let is_placed = self.index.generations.get(&to).is_some_and(|generation| self.is_named(generation));
        (!is_placed).then_some(Step::Alias { to: Some(to) })
    }

    /// The generation that the alias has to name: the serving one; if that lost something, and until it is filled again,
    /// a kept one that is whole. `None` if no such collection exists.
    fn rightful(&self) -> Option<u32> {
        let (number, serving) = self.index.serving_generation()?;
        // Nothing but a loss makes every document due.
        let has_lost = self.is_lost(number) || (!serving.is_filled() && serving.needs.rows == Rows::All);
        let is_whole_and_kept = |(number, generation): &(&u32, &Generation)| {
            generation.state == State::Kept && self.is_whole(**number, generation)
        };
        let kept = || self.index.generations.iter().rev().find(is_whole_and_kept).map(|(number, _)| *number);
        let exists = self.exists(serving);
        let kept = if has_lost || !exists { kept() } else { None };
        kept.or_else(|| exists.then_some(number))
    }

    /// Withdraws the intent of a move to a generation that the alias can no longer move to.
    pub(super) fn obsolete_intent(&self) -> Option<Step> {
        let switch = self.index.switching?;
        let is_possible = self.index.generations.get(&switch.to).is_some_and(|to| {
            matches!(to.state, State::Ready | State::Kept) && !self.is_lost(switch.to) && self.exists(to)
        });
        (!is_possible).then(|| Step::Save(Index { switching: None, ..self.index.clone() }))
    }

    /// Asks for a quiesce before a move.
    pub(super) fn quiesce(&self) -> Option<Step> {
        let (to, waits_for_backlog) = match self.index.switching {
            Some(switch) => (self.is_intended(switch).then_some(switch.to)?, !self.is_rollback(switch)),
            None => (self.ready_generation()?, true),
        };
        let may_begin = !waits_for_backlog || self.facts.backlog < QUIESCE_BACKLOG;
        (may_begin && !self.facts.quiet).then_some(Step::Quiesce(to))
    }

    /// The generation that is ready for the alias.
    fn ready_generation(&self) -> Option<u32> {
        let is_ready = |(number, generation): &(&u32, &Generation)| {
            generation.state == State::Ready && !generation.hold && self.is_whole(**number, generation)
        };
        self.index.generations.iter().find(is_ready).map(|(number, _)| *number)
    }

    /// Whether the alias can move as intended.
    fn is_intended(&self, switch: Switch) -> bool {
        self.index
            .generations
            .get(&switch.to)
            .is_some_and(|to| matches!(to.state, State::Ready | State::Kept) && self.is_whole(switch.to, to))
    }

    fn is_rollback(&self, switch: Switch) -> bool {
        self.index.generations.get(&switch.to).is_some_and(|to| to.state == State::Kept)
    }

    /// The index after a move.
    fn switched(&self, switch: Switch) -> Index {
        let mut next = Index { switching: None, ..self.index.clone() };
        let keep = next.generations.values().next_back().map(|newest| newest.declaration.rules.keep);
        let Some(to) = next.generations.get_mut(&switch.to) else { return next };
        to.state = State::Serving;
        to.until_ms = None;
        to.problem = None;
        next.serving = Some(switch.to);
        if switch.plain {
            // Its collection is deleted, and its name is that of the alias now.
            next.plain = false;
            if let Some(from) = switch.from {
                next.remove(from);
            }
        } else if let Some(from) = switch.from.and_then(|from| next.generations.get_mut(&from))
            && from.state == State::Serving
        {
            let keep_ms = keep.map_or(0, |keep| u64::try_from(keep.as_millis()).unwrap_or(u64::MAX));
            from.state = State::Kept;
            from.until_ms = Some(self.facts.now_ms.saturating_add(keep_ms));
        }
        next
    }
}
