use std::sync::Arc;

use proptest::prelude::*;

use super::super::samples::{catalog, name};
use super::super::walks::{NAMES, declared, of_histories, variant, worlds};
use super::super::world::World;
use super::*;
use crate::catalog::{ApplyOptions, Catalog, Choice, Declaration, Needs, Rows, State, Submitted, next_scope, submit};

mod moments;

fn options() -> ApplyOptions {
    ApplyOptions::default()
}

fn tickets() -> IndexName {
    name("tickets")
}

impl World {
    /// Submits declarations, which must not be refused.
    fn declare(&mut self, declared: &[Declaration], options: &ApplyOptions) -> Submitted {
        let submitted = self.submitted(declared, options);
        assert!(submitted.refused.is_empty(), "{:?}", submitted.refused);
        self.save(submitted.clone());
        submitted
    }

    fn state(&self, generation: u32) -> Option<State> {
        self.catalog.generation(&tickets().target(generation)).map(|generation| generation.state)
    }

    fn alias(&self) -> &str {
        &self.aliases["tickets"]
    }

    /// Checks that nothing but the declared indexes is left, each in one collection, which is served.
    fn check_end(&self, declared: &[Declaration]) {
        let mut collections = BTreeSet::new();
        for declaration in declared {
            let index = &self.catalog.indexes[&declaration.name];
            let (number, serving) = index.serving_generation().unwrap();
            assert_eq!(
                (index.generations.len(), index.switching, serving.state),
                (1, None, State::Serving),
                "{index:#?}"
            );
            assert!(serving.is_filled() && serving.declaration.difference(declaration).is_empty(), "{index:#?}");
            assert_eq!(serving.problem, None);
            let alias = self.aliases.get(declaration.name.as_str());
            let plain = index.is_plain(&declaration.name, number);
            assert_eq!(alias, (!plain).then_some(&serving.collection));
            collections.insert(serving.collection.clone());
        }
        assert_eq!(self.catalog.indexes.len(), declared.len());
        assert_eq!(self.collections, collections);
        assert!(self.lost.is_empty() && self.aliases.values().all(|collection| collections.contains(collection)));
    }
}

/// An installation with one index, which serves its first generation.
fn world() -> World {
    let mut world = World::new(catalog(7, [variant("tickets", 0)]));
    world.settle();
    world
}

#[test]
fn first_generation_gets_its_alias_before_it_is_filled() {
    let mut world = World::new(Catalog::default());
    world.declare(&[variant("tickets", 0)], &options());
    assert_eq!(world.state(1), Some(State::Creating));
    while world.state(1) == Some(State::Creating) {
        world.work();
        assert!(world.step(&tickets()));
    }
    assert_eq!((world.state(1), world.alias()), (Some(State::Serving), "tickets.g1"));
    assert!(!world.catalog.generation(&tickets().target(1)).unwrap().is_filled());
    world.settle();
    world.check_end(&[variant("tickets", 0)]);
}

#[test]
fn model_change_switches_to_a_new_generation_and_keeps_the_old_one() {
    let mut world = world();
    world.declare(&[variant("tickets", 1)], &options());
    world.settle();
    assert_eq!((world.state(1), world.state(2)), (Some(State::Kept), Some(State::Serving)));
    assert_eq!(world.alias(), "tickets.g2");
    world.now_ms += 24 * 3_600_000;
    world.settle();
    world.check_end(&[variant("tickets", 1)]);
}

#[test]
fn rollback_returns_to_the_kept_generation_although_the_pipeline_is_busy() {
    let mut world = world();
    world.declare(&[variant("tickets", 1)], &options());
    world.settle();
    world.is_busy = true;
    let submitted = submit(&world.catalog, &[], &Choice::Rollback(tickets()), world.now_ms);
    world.save(submitted);
    world.settle();
    assert_eq!(
        (world.state(1), world.state(2), world.alias()),
        (Some(State::Serving), Some(State::Kept), "tickets.g1")
    );
}

#[test]
fn plain_collection_is_replaced_by_an_alias() {
    let mut world = World::new(Catalog::short_form(Arc::new(variant(NAMES[0], 0))));
    world.declare(&[variant(NAMES[0], 1)], &options());
    world.settle();
    world.check_end(&[variant(NAMES[0], 1)]);
    assert_eq!(world.aliases[NAMES[0]], "documents.g2");
    assert!(!world.catalog.indexes[&name(NAMES[0])].plain);
}

#[test]
fn interrupted_replacement_of_a_plain_collection_is_completed_at_once() {
    let mut world = World::new(Catalog::short_form(Arc::new(variant(NAMES[0], 0))));
    world.declare(&[variant(NAMES[0], 1)], &options());
    let index = name(NAMES[0]);
    while world.catalog.indexes[&index].switching.is_none() {
        world.work();
        assert!(world.step(&index));
    }
    // The producer that deleted the collection has stopped, and the next one has not adopted the intent.
    world.collections.remove(NAMES[0]);
    assert!(world.step(&index));
    assert_eq!(world.aliases[NAMES[0]], "documents.g2");
}

/// Changes the model of the only index. The producer stops in the middle of the step after this number of steps; the next
/// producer acts before or after the other services. Returns whether the change took more steps.
fn change_model_despite_a_crash(mut world: World, steps: usize, acts_first: bool) -> bool {
    let index = world.catalog.indexes.keys().next().unwrap().clone();
    let declared = [variant(index.as_str(), 1)];
    world.declare(&declared, &options());
    let mut has_more = true;
    for _ in 0..steps {
        world.work();
        has_more = world.step(&index);
    }
    world.crash(&index);
    if acts_first {
        world.step(&index);
    }
    world.settle();
    world.now_ms += 25 * 3_600_000;
    world.settle();
    world.check_end(&declared);
    has_more
}

#[test]
fn change_of_model_survives_a_crash_in_each_step() {
    let plain = World::new(Catalog::short_form(Arc::new(variant(NAMES[0], 0))));
    for start in [world(), plain] {
        for acts_first in [true, false] {
            let steps = (0..100).take_while(|steps| change_model_despite_a_crash(start.clone(), *steps, acts_first));
            assert!((8..100).contains(&steps.count()));
        }
    }
}

#[test]
fn generation_with_unexplained_drift_is_filled_again_three_times() {
    let mut world = world();
    world.declare(&[variant("tickets", 1)], &options());
    world.drift = vec![(5, 5); 4];
    world.settle();
    let generation = world.catalog.generation(&tickets().target(2)).unwrap();
    assert_eq!((generation.state, generation.rounds), (State::Comparing, Generation::MOST_ROUNDS));
    let problem = generation.problem.as_ref().unwrap();
    assert!(problem.contains("5 of 100 documents still differ after 3 repairs"), "{problem}");
    assert_eq!(world.alias(), "tickets.g1");
}

#[test]
fn generation_that_lacks_dead_lettered_documents_waits_until_they_are_accepted() {
    let mut world = world();
    world.declare(&[variant("tickets", 1)], &options());
    world.drift = vec![(5, 0)];
    world.settle();
    assert_eq!((world.state(2), world.alias()), (Some(State::Comparing), "tickets.g1"));
    world.declare(&[variant("tickets", 1)], &ApplyOptions { accept_missing: Some(5), ..options() });
    world.settle();
    assert_eq!((world.state(2), world.alias()), (Some(State::Serving), "tickets.g2"));
}

#[test]
fn held_generation_switches_when_it_is_released() {
    let mut world = world();
    world.declare(&[variant("tickets", 1)], &ApplyOptions { hold: true, ..options() });
    world.settle();
    assert_eq!((world.state(2), world.alias()), (Some(State::Ready), "tickets.g1"));
    world.declare(&[variant("tickets", 1)], &options());
    world.settle();
    assert_eq!(world.alias(), "tickets.g2");
}

#[test]
fn alias_names_the_kept_generation_while_the_lost_one_is_filled() {
    let mut world = world();
    world.declare(&[variant("tickets", 1)], &options());
    world.settle();
    world.lose(&tickets().target(2));
    assert!(world.step(&tickets()));
    assert_eq!(world.alias(), "tickets.g1");
    world.settle();
    assert_eq!((world.alias(), world.state(2)), ("tickets.g2", Some(State::Serving)));
    let serving = world.catalog.generation(&tickets().target(2)).unwrap();
    assert_eq!((serving.is_filled(), serving.needs), (true, Needs { rows: Rows::All, sweep: true }));
}

#[test]
fn lost_kept_generation_is_retired() {
    let mut world = world();
    world.declare(&[variant("tickets", 1)], &options());
    world.settle();
    world.lose(&tickets().target(1));
    world.settle();
    world.check_end(&[variant("tickets", 1)]);
}

#[test]
fn moved_alias_returns() {
    let mut world = world();
    world.aliases.insert("tickets".to_owned(), "elsewhere".to_owned());
    world.settle();
    assert_eq!(world.alias(), "tickets.g1");
}

#[test]
fn settings_are_altered_in_place() {
    let mut world = world();
    world.declare(&[variant("tickets", 16)], &options());
    world.settle();
    world.check_end(&[variant("tickets", 16)]);
    assert_eq!(world.records["tickets.g1"].declaration, variant("tickets", 16));
}

#[test]
fn short_form_never_advances() {
    let world = World::new(Catalog::short_form(Arc::new(variant(NAMES[0], 0))));
    let mut settled = world.clone();
    settled.settle();
    assert_eq!((settled.catalog, settled.collections), (world.catalog, world.collections));
}

#[test]
fn target_that_keeps_losing_records_is_filled_when_that_is_over() {
    let mut world = world();
    world.declare(&[variant("tickets", 1)], &options());
    while world.state(2) != Some(State::Filling) {
        world.work();
        assert!(world.step(&tickets()));
    }
    world.lost.push(Lost { target: tickets().target(2), recent: true });
    world.settle();
    assert_eq!((world.state(2), world.lost.len()), (Some(State::Filling), 1));
    world.lost[0].recent = false;
    world.settle();
    assert_eq!((world.state(2), world.lost.len()), (Some(State::Serving), 0));
}

proptest! {
    #![proptest_config(of_histories())]

    #[test]
    fn every_history_ends_in_the_declared_indexes(mut world in worlds(), declared in declared()) {
        world.drift.clear();
        world.settle();
        let submitted = world.declare(&declared, &options());
        world.settle();
        world.now_ms += 25 * 3_600_000;
        world.settle();
        world.check_end(&declared);
        prop_assert!(!world.submitted(&declared, &options()).has_work(), "{:#?}", submitted);
        prop_assert_eq!(next_scope(&world.catalog, &world.current, &world.lost, |_| None), None);
    }
}
