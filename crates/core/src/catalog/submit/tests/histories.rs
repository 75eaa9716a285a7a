//! Submissions to installations of any history.

use proptest::prelude::*;

use super::*;
use crate::catalog::walks::{declared, of_histories, options, worlds};
use crate::catalog::world::World;

/// The generation that the index is to serve.
fn intended(index: &Index) -> &Generation {
    let is_coming = |state| matches!(state, State::Creating | State::Filling | State::Comparing | State::Ready);
    let coming = || index.generations.iter().rev().find(|(_, generation)| is_coming(generation.state));
    let switching = index.switching.map(|switch| switch.to);
    let number = switching.or_else(|| coming().map(|(number, _)| *number)).or(index.serving).unwrap();
    &index.generations[&number]
}

/// Whether something is refused. Then nothing changes.
fn is_refused(submitted: &Submitted, world: &World) -> bool {
    let is_refused = !submitted.refused.is_empty();
    assert!(!is_refused || submitted.catalog == world.catalog, "{submitted:#?}");
    is_refused
}

proptest! {
    #![proptest_config(of_histories())]

    #[test]
    fn submitting_twice_is_submitting_once(world in worlds(), declared in declared(), options in options()) {
        let first = world.submitted(&declared, &options);
        let choice = Choice::Declared(ApplyOptions { collections: world.collections.clone(), ..options.clone() });
        prop_assert_eq!(first.expected, world.catalog.revision);
        if is_refused(&first, &world) || !first.is_new() {
            prop_assert_eq!(&first.catalog, &world.catalog);
            prop_assert!(first.changes(&world.catalog).is_empty());
            return Ok(());
        }
        prop_assert!(first.catalog.revision > world.catalog.revision);
        let second = submit(&first.catalog, &declared, &choice, world.now_ms + 5);
        prop_assert!(second.refused.is_empty() && !second.has_work() && !second.is_new(), "{:#?}", second);
        prop_assert_eq!(second.catalog, first.catalog);
    }

    #[test]
    fn every_declared_index_is_intended(world in worlds(), declared in declared(), options in options()) {
        let submitted = world.submitted(&declared, &options);
        if is_refused(&submitted, &world) {
            return Ok(());
        }
        for declaration in declared.iter().filter(|one| options.only.is_empty() || options.only.contains(&one.name)) {
            let intended = intended(&submitted.catalog.indexes[&declaration.name]);
            prop_assert!(intended.declaration.difference(declaration).is_empty(), "{:#?}", intended);
        }
    }

    #[test]
    fn only_named_generations_change(world in worlds(), declared in declared(), options in options()) {
        let submitted = world.submitted(&declared, &options);
        if is_refused(&submitted, &world) || world.catalog.is_short_form() {
            return Ok(());
        }
        for (target, after) in submitted.catalog.targets() {
            let before = world.catalog.generation(&target);
            let action = submitted.actions.iter().find(|action| action.index == target.index);
            let is_named = action.is_some_and(|action| {
                action.generation == Some(target.generation) || action.ended.contains(&target.generation)
            });
            prop_assert!(before == Some(after) || is_named, "{target}: {:#?}", submitted.actions);
            if let Some(before) = before.filter(|before| before.state.is_routed() && after.state.is_routed()) {
                prop_assert_eq!(before.since, after.since);
            }
        }
        for (name, index) in &world.catalog.indexes {
            let after = &submitted.catalog.indexes[name];
            prop_assert!(index.generations.keys().all(|number| after.generations.contains_key(number)));
            prop_assert!(after.serving == index.serving || after.serving.is_none());
        }
    }

    #[test]
    fn changes_turn_the_catalog_into_the_submitted_one(world in worlds(), declared in declared()) {
        let submitted = world.submitted(&declared, &ApplyOptions::default());
        let mut indexes = if world.catalog.is_short_form() { BTreeMap::new() } else { world.catalog.indexes.clone() };
        for (name, index) in submitted.changes(&world.catalog) {
            match index {
                Some(index) => drop(indexes.insert(name, index)),
                None => drop(indexes.remove(&name)),
            }
        }
        if submitted.is_new() {
            prop_assert_eq!(indexes, submitted.catalog.indexes);
        }
    }
}
