use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::catalog::{EmbeddingSpec, Selector};

fn declaration() -> Arc<Declaration> {
    let source = Selector::parse(&["shop.tickets"], None).unwrap();
    let embedding = EmbeddingSpec::new("default", "tidewheel", "minilm");
    Arc::new(Declaration::new(IndexName::new("tickets").unwrap(), source, embedding))
}

fn generation(state: State, filled: u64, due: u64) -> Generation {
    let target = IndexName::new("tickets").unwrap().target(2);
    Generation { state, filled, due, ..Generation::new(&target, declaration(), due) }
}

#[test]
fn short_form_has_one_plain_index_that_serves() {
    let catalog = Catalog::short_form(declaration());
    assert!(catalog.is_short_form());
    let targets: Vec<_> = catalog.routed().collect();
    let [(target, generation)] = targets.as_slice() else { panic!("{targets:?}") };
    assert_eq!((target.to_string().as_str(), generation.collection.as_str()), ("tickets.g1", "tickets"));
    assert_eq!(catalog.generation(target), Some(*generation));
    let index = &catalog.indexes[&target.index];
    assert!(index.is_plain(&target.index, 1) && !index.is_plain(&target.index, 2));
    assert_eq!(index.serving_generation(), Some((1, *generation)));
}

#[test]
fn states_route_and_block_as_documented() {
    for state in State::ALL {
        assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        assert_eq!(state.is_routed(), !matches!(state, State::Creating | State::Retiring), "{state}");
    }
    let may_block = |state, filled| generation(state, filled, 7).may_block();
    assert!(may_block(State::Serving, 5) && may_block(State::Kept, 0));
    assert!(!may_block(State::Serving, 0) && !may_block(State::Ready, 7));
    assert!(generation(State::Serving, 7, 7).is_filled() && !generation(State::Serving, 5, 7).is_filled());
}

#[test]
fn needs_combine_to_what_satisfies_both() {
    let needs = |rows, sweep| Needs { rows, sweep };
    assert_eq!(needs(Rows::Missing, true).and(needs(Rows::Text, false)), needs(Rows::Text, true));
    assert_eq!(needs(Rows::Payload, false).and(Needs::default()), needs(Rows::Payload, false));
    assert!(Rows::Missing < Rows::Payload && Rows::Payload < Rows::Text && Rows::Text < Rows::All);
}

#[test]
fn record_repeats_the_generation() {
    let catalog = Catalog::short_form(declaration());
    let name = IndexName::new("tickets").unwrap();
    let record = catalog.indexes[&name].record(&name, 1, 17).unwrap();
    assert_eq!((record.target().to_string().as_str(), record.plain, record.revision), ("tickets.g1", true, 17));
    assert_eq!(record.parts, declaration().parts());
    assert_eq!(serde_json::from_value::<TargetRecord>(json!(record)).unwrap(), record);
    assert_eq!(catalog.indexes[&name].record(&name, 2, 17), None);
}

#[test]
fn json_never_changes_between_releases() {
    let mut index = Index {
        plain: false,
        serving: Some(1),
        switching: Some(Switch { from: Some(1), to: 2, plain: false }),
        generations: BTreeMap::from([(2, generation(State::Ready, 3, 4))]),
        last: 0,
    };
    let generation = index.generations.get_mut(&2).unwrap();
    generation.embedder = Some(EmbedderIdentity { model: "minilm".into(), revision: "r".into(), dimension: 384 });
    generation.compared = Some(Compared { documents: 9, drift: 2, unexplained: 1, at_ms: 5, revision: 4 });
    let json = json!({
        "plain": false,
        "serving": 1,
        "switching": {"from": 1, "to": 2, "plain": false},
        "generations": {"2": {
            "collection": "tickets.g2",
            "state": "ready",
            "declaration": *declaration(),
            "embedder": {"model": "minilm", "revision": "r", "dimension": 384},
            "since": 4,
            "due": 4,
            "needs": {"rows": "missing", "sweep": true},
            "filled": 3,
            "rounds": 0,
            "compared": {"documents": 9, "drift": 2, "unexplained": 1, "at_ms": 5, "revision": 4},
            "until_ms": null,
            "problem": null,
        }},
    });
    assert_eq!(serde_json::to_value(&index).unwrap(), json);
    assert_eq!(serde_json::from_value::<Index>(json.clone()).unwrap(), index);
    assert_eq!(serde_json::from_str::<Index>(&json.to_string()).unwrap(), index);
}

#[test]
fn dropped_index_keeps_the_highest_number_of_its_generations() {
    let generations = [1, 3, 4].map(|number| (number, generation(State::Retiring, 0, 4)));
    let mut index = Index { serving: Some(1), generations: generations.into(), ..Index::default() };
    assert!(index.highest() == 4 && !index.is_dropped());
    index.remove(4);
    index.remove(3);
    assert_eq!((index.highest(), index.last, index.is_dropped()), (4, 4, false));
    let dropped = index.dropped();
    assert!(dropped.is_dropped() && dropped.serving.is_none() && !Index::default().is_dropped());
    assert_eq!(serde_json::to_value(&dropped).unwrap()["last"], 4);

    let (tickets, notes) = (IndexName::new("tickets").unwrap(), IndexName::new("notes").unwrap());
    let mut catalog = Catalog { revision: 7, ..Catalog::default() };
    catalog.insert(tickets.clone(), index.clone());
    catalog.insert(notes.clone(), dropped.clone());
    assert_eq!(catalog.indexes.keys().collect::<Vec<_>>(), [&tickets]);
    assert_eq!(catalog.dropped, [(notes.clone(), 4)].into());
    let stored: Vec<_> = catalog.stored().collect();
    assert_eq!(stored, [(tickets.clone(), index.clone()), (notes.clone(), dropped.clone())]);
    assert_eq!(serde_json::from_value::<Catalog>(json!(catalog)).unwrap(), catalog);
    catalog.insert(tickets.clone(), dropped);
    catalog.insert(notes.clone(), index);
    assert_eq!((catalog.indexes.contains_key(&tickets), catalog.dropped), (false, [(tickets, 4)].into()));
}

#[test]
fn absent_fields_have_defaults_and_unknown_fields_are_ignored() {
    let least = json!({"collection": "tickets.g2", "state": "filling", "declaration": *declaration(), "shards": 3});
    let generation: Generation = serde_json::from_value(least).unwrap();
    assert_eq!((generation.since, generation.due, generation.filled), (0, 0, 0));
    assert_eq!(generation.needs, Needs::default());
    assert_eq!(serde_json::from_value::<Index>(json!({"partitions": 4})).unwrap(), Index::default());
    assert_eq!(serde_json::from_value::<Needs>(json!({"sweep": true})).unwrap().rows, Rows::Missing);
    assert_eq!(serde_json::from_value::<Catalog>(json!({})).unwrap(), Catalog::default());
}

proptest! {
    #[test]
    fn revisions_always_increase(revision in 0..u64::MAX, now_ms: u64) {
        let catalog = Catalog { revision, ..Catalog::default() };
        let next = catalog.next_revision(now_ms);
        prop_assert!(next > revision && next >= now_ms);
    }
}
