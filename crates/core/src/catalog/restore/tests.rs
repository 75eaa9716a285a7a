use proptest::prelude::*;

use super::super::samples::{declaration, name};
use super::super::walks::{of_histories, worlds};
use super::*;
use crate::catalog::Switch;

/// Records of generations of `tickets` in these states.
fn records(states: &[(u32, State)]) -> BTreeMap<String, TargetRecord> {
    let tickets = name("tickets");
    let generations = states.iter().map(|(number, state)| {
        let declaration = Arc::new(declaration("tickets", "tickets"));
        (*number, Generation { state: *state, ..Generation::new(&tickets.target(*number), declaration, 5) })
    });
    let index = Index { generations: generations.collect(), ..Index::default() };
    let records = states.iter().map(|(number, _)| index.record(&tickets, *number, 5).unwrap());
    records.map(|record| (collection_of(&record), record)).collect()
}

fn aliases(collection: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("tickets".to_owned(), collection.to_owned())])
}

fn states(catalog: &Catalog) -> Vec<(u32, State)> {
    let index = &catalog.indexes[&name("tickets")];
    index.generations.iter().map(|(number, generation)| (*number, generation.state)).collect()
}

#[test]
fn installation_without_records_is_new() {
    assert_eq!(restore(&BTreeMap::new(), &aliases("other"), 9), Catalog::default());
}

#[test]
fn alias_decides_which_generation_serves() {
    let records = records(&[(1, State::Kept), (2, State::Serving), (3, State::Comparing)]);
    let restored = restore(&records, &aliases("tickets.g3"), 9_000);
    assert_eq!(states(&restored), [(1, State::Kept), (2, State::Kept), (3, State::Serving)]);
    let index = &restored.indexes[&name("tickets")];
    assert_eq!((index.serving, index.plain, index.switching), (Some(3), false, None::<Switch>));
    assert_eq!(restored.revision, 9_000);
    for generation in index.generations.values() {
        assert!(!generation.is_filled() && generation.may_block());
        assert_eq!((generation.since, generation.due, generation.needs), (9_000, 9_000, Needs::COMPARISON));
    }
    assert_eq!(index.generations[&1].until_ms, Some(9_000 + 86_400_000));
}

#[test]
fn recorded_state_decides_without_an_alias() {
    let restored = |all: &[(u32, State)]| states(&restore(&records(all), &BTreeMap::new(), 0));
    assert_eq!(
        restored(&[(1, State::Serving), (2, State::Filling), (3, State::Ready)]),
        [(1, State::Serving), (2, State::Retiring), (3, State::Filling)]
    );
    assert_eq!(restored(&[(1, State::Kept), (2, State::Retiring)]), [(1, State::Serving), (2, State::Retiring)]);
    assert_eq!(restored(&[(1, State::Retiring), (2, State::Creating)]), [(1, State::Retiring), (2, State::Creating)]);
}

#[test]
fn dropped_index_is_not_resurrected() {
    let restored = |all: &[(u32, State)]| restore(&records(all), &aliases("tickets.g2"), 9_000);
    let dropped = restored(&[(1, State::Kept), (2, State::Retiring), (3, State::Ready)]);
    assert_eq!(states(&dropped), [(1, State::Retiring), (2, State::Retiring), (3, State::Retiring)]);
    let index = &dropped.indexes[&name("tickets")];
    assert_eq!((index.serving, index.plain, index.generations[&2].since), (None, false, 9_000));
    assert_eq!(states(&restored(&[(1, State::Retiring), (2, State::Serving)]))[1], (2, State::Serving));

    let mut plain = records(&[(1, State::Retiring)]).into_values().next().unwrap();
    plain.plain = true;
    let dropped = restore(&[("tickets".to_owned(), plain)].into(), &BTreeMap::new(), 9_000);
    assert_eq!(states(&dropped), [(1, State::Retiring)]);
    let index = &dropped.indexes[&name("tickets")];
    assert_eq!((index.serving, index.plain), (None, true));
}

#[test]
fn generation_after_a_rollback_stays_kept() {
    let records = records(&[(1, State::Serving), (2, State::Kept), (3, State::Filling)]);
    let restored = restore(&records, &aliases("tickets.g1"), 0);
    assert_eq!(states(&restored), [(1, State::Serving), (2, State::Kept), (3, State::Filling)]);
}

#[test]
fn revision_is_newer_than_every_record() {
    assert_eq!(restore(&records(&[(1, State::Serving)]), &BTreeMap::new(), 3).revision, 6);
}

#[test]
fn copy_of_a_collection_is_ignored() {
    let mut records = records(&[(1, State::Serving), (2, State::Filling)]);
    let copied = records.remove("tickets.g2").unwrap();
    records.insert("copy".to_owned(), copied);
    assert_eq!(states(&restore(&records, &BTreeMap::new(), 9)), [(1, State::Serving)]);
}

proptest! {
    #![proptest_config(of_histories())]

    #[test]
    fn restored_catalog_serves_what_was_served(mut world in worlds()) {
        world.settle();
        let restored = restore(&world.records, &world.aliases, world.now_ms);
        let expected = if world.catalog.is_short_form() { Catalog::default() } else { world.catalog.clone() };
        prop_assert_eq!(restored.indexes.keys().collect::<Vec<_>>(), expected.indexes.keys().collect::<Vec<_>>());
        for (name, index) in &expected.indexes {
            let found = &restored.indexes[name];
            prop_assert_eq!((found.serving, found.plain), (index.serving, index.plain));
            for (number, generation) in &index.generations {
                let found = &found.generations[number];
                prop_assert_eq!(&found.collection, &generation.collection);
                prop_assert_eq!(&found.declaration, &generation.declaration);
                prop_assert_eq!(found.state.is_routed(), generation.state.is_routed());
            }
        }
    }
}
