//! Saves changes of the catalog, with what has to precede and to follow them.

use std::collections::BTreeMap;

use tidewheel_core::catalog::{Catalog, Index, IndexName, State, TargetId};
use tidewheel_core::ports::{Appended, PortResult};
use tracing::{debug, info};
use uuid::Uuid;

use super::steps::forget;
use super::tools::Tools;

/// Changes of a catalog that are saved together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Changes {
    /// The revision that they were made from.
    pub(super) expected: u64,
    /// Their own revision.
    pub(super) next: u64,
    /// The indexes; `None` removes one.
    pub(super) indexes: BTreeMap<IndexName, Option<Index>>,
    /// The targets that they make due because of losses, which are forgotten afterwards.
    pub(super) refilled: Vec<TargetId>,
}

/// Saves the changes.
///
/// Before: what is stored about a plain target that an alias has replaced is deleted, while the catalog still tells where
/// it is stored. A comparison that begins starts over: an interrupted one of an earlier content has left its position.
/// After: losses are forgotten as they were read before. A crash in between repeats the refill.
pub(super) async fn save(tools: &Tools, before: &Catalog, changes: &Changes) -> PortResult<Appended> {
    let store = &tools.catalog.store;
    for target in replaced(before, changes) {
        forget(tools, &target).await?;
    }
    for (target, plain) in compared(before, changes) {
        tools.catalog.states.target(&target, plain).save_audit(None).await?;
    }
    let lost = if changes.refilled.is_empty() { Vec::new() } else { store.lost().await? };
    let Changes { expected, next, .. } = *changes;
    let indexes: Vec<_> = changes.indexes.iter().map(|(name, index)| (name.clone(), index.clone())).collect();
    let appended = store.save(Uuid::new_v4(), expected, next, &indexes, None).await?;
    match appended {
        Appended::Saved => report(before, changes),
        Appended::Conflict => debug!("the catalog was changed by another client"),
    }
    if appended == Appended::Saved {
        for (target, text) in lost.iter().filter(|(target, _)| changes.refilled.contains(target)) {
            store.found(target, text).await?;
        }
    }
    tools.targets.reload().await?;
    Ok(appended)
}

/// Whether the index begins to be routed to a generation by this change.
pub(super) fn begins_routing(before: &Index, after: Option<&Index>) -> bool {
    let is_routed = |index: &Index, number: &u32| index.generations.get(number).is_some_and(|g| g.state.is_routed());
    after.is_some_and(|after| {
        after.generations.keys().any(|number| is_routed(after, number) && !is_routed(before, number))
    })
}

/// Plain targets whose collection an alias has replaced.
fn replaced(before: &Catalog, changes: &Changes) -> Vec<TargetId> {
    let of_index = |(name, after): (&IndexName, &Option<Index>)| {
        let (before, after) = (before.indexes.get(name)?, after.as_ref()?);
        let from = before.switching.filter(|switch| switch.plain)?.from?;
        let is_replaced = before.generations.contains_key(&from) && !after.generations.contains_key(&from);
        is_replaced.then(|| name.target(from))
    };
    changes.indexes.iter().filter_map(of_index).collect()
}

/// Targets that are compared from now on, and whether each is plain.
fn compared(before: &Catalog, changes: &Changes) -> Vec<(TargetId, bool)> {
    let mut compared = Vec::new();
    for (name, after) in &changes.indexes {
        let (Some(before), Some(after)) = (before.indexes.get(name), after) else { continue };
        for (number, generation) in &after.generations {
            let was_comparing = before.generations.get(number).is_some_and(|g| g.state == State::Comparing);
            if generation.state == State::Comparing && !was_comparing {
                compared.push((name.target(*number), after.is_plain(name, *number)));
            }
        }
    }
    compared
}

fn report(before: &Catalog, changes: &Changes) {
    for (name, after) in &changes.indexes {
        let Some(after) = after.as_ref().filter(|after| !after.is_dropped()) else {
            info!(index = %name, "the index is dropped");
            continue;
        };
        let before = before.indexes.get(name);
        for (number, generation) in &after.generations {
            let earlier = before.and_then(|before| before.generations.get(number)).map(|earlier| earlier.state);
            if earlier != Some(generation.state) {
                info!(index = %name, generation = number, state = %generation.state, "the index has advanced");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::catalog::Switch;

    use super::*;
    use crate::targets::samples::catalog;

    fn changes(name: &IndexName, index: Option<Index>) -> Changes {
        Changes { indexes: [(name.clone(), index)].into(), ..Changes::default() }
    }

    #[test]
    fn plain_target_is_forgotten_only_when_its_switch_is_recorded() {
        let name = IndexName::of_collection("documents");
        let mut before = catalog(7, &[("documents", State::Serving, true)]);
        let index = before.indexes.get_mut(&name).unwrap();
        let second = catalog(7, &[("documents", State::Ready, true)]).indexes[&name].generations[&1].clone();
        index.generations.insert(2, second);
        let mut after = index.clone();
        after.generations.remove(&1);
        assert!(replaced(&before, &changes(&name, Some(after.clone()))).is_empty(), "not by a switch");
        before.indexes.get_mut(&name).unwrap().switching = Some(Switch { from: Some(1), to: 2, plain: true });
        assert_eq!(replaced(&before, &changes(&name, Some(after))), [name.target(1)]);
        let same = before.indexes[&name].clone();
        assert!(replaced(&before, &changes(&name, Some(same))).is_empty());
    }

    #[test]
    fn comparison_starts_over_and_routing_begins_where_states_say_so() {
        let name = IndexName::of_collection("tickets");
        let of = |state| catalog(7, &[("tickets", state, true)]);
        let index = |state| of(state).indexes[&name].clone();
        for (before, after, begins, compares) in [
            (State::Creating, State::Filling, true, false),
            (State::Creating, State::Serving, true, false),
            (State::Filling, State::Comparing, false, true),
            (State::Comparing, State::Comparing, false, false),
            (State::Comparing, State::Ready, false, false),
            (State::Kept, State::Retiring, false, false),
        ] {
            assert_eq!(begins_routing(&index(before), Some(&index(after))), begins, "{before} {after}");
            let compared = compared(&of(before), &changes(&name, Some(index(after))));
            assert_eq!(!compared.is_empty(), compares, "{before} {after}");
        }
        assert!(!begins_routing(&index(State::Retiring), None));
    }
}
