use super::super::samples::{catalog, declaration, identity, name};
use super::super::walks::{NAMES, variant};
use super::*;
use crate::catalog::{Compared, EmbeddingSpec, Generation, Part, Rows, State, Switch};

mod histories;

const NOW: u64 = 1_000;

/// Serves `tickets`, variant 0.
fn serving() -> Catalog {
    catalog(7, [variant("tickets", 0)])
}

fn short_form() -> Catalog {
    Catalog::short_form(Arc::new(variant(NAMES[0], 0)))
}

fn submitted_with(current: &Catalog, declared: &[Declaration], options: ApplyOptions) -> Submitted {
    submit(current, declared, &Choice::Declared(options), NOW)
}

fn submitted(current: &Catalog, declared: &[Declaration]) -> Submitted {
    submitted_with(current, declared, ApplyOptions::default())
}

fn only(submitted: &Submitted) -> &IndexAction {
    assert!(submitted.refused.is_empty(), "{:?}", submitted.refused);
    let [action] = submitted.actions.as_slice() else { panic!("{:?}", submitted.actions) };
    action
}

fn reason(submitted: &Submitted) -> &str {
    let [refusal] = submitted.refused.as_slice() else { panic!("{:?}", submitted.refused) };
    &refusal.reason
}

fn states(catalog: &Catalog, index: &str) -> Vec<(u32, State)> {
    let generations = catalog.indexes[&name(index)].generations.iter();
    generations.map(|(number, generation)| (*number, generation.state)).collect()
}

/// The catalog with another generation of `tickets`.
fn with_generation(mut catalog: Catalog, number: u32, state: State, bits: u8) -> Catalog {
    let tickets = name("tickets");
    let mut generation = Generation::new(&tickets.target(number), Arc::new(variant("tickets", bits)), 7);
    generation.state = state;
    generation.filled = 7;
    generation.embedder = Some(identity("other"));
    catalog.indexes.get_mut(&tickets).unwrap().generations.insert(number, generation);
    catalog
}

#[test]
fn each_difference_has_its_action() {
    for (bits, action, part, rows) in [
        (1, Action::Generation, Part::Embedding, Some(Rows::Missing)),
        (2, Action::Adjust, Part::Filter, Some(Rows::Missing)),
        (4, Action::Text, Part::Text, Some(Rows::Text)),
        (8, Action::Payload, Part::Payload, Some(Rows::Payload)),
        (16, Action::Settings, Part::Collection, None),
    ] {
        let submitted = submitted(&serving(), &[variant("tickets", bits)]);
        let found = only(&submitted);
        assert_eq!((found.action, found.difference.parts().collect::<Vec<_>>()), (action, vec![part]));
        assert_eq!(found.needs.map(|needs| needs.rows), rows);
        assert_eq!(submitted.catalog.revision, NOW);
        let is_in_place = action != Action::Generation;
        assert_eq!(found.generation, Some(if is_in_place { 1 } else { 2 }));
        let generation = &submitted.catalog.indexes[&name("tickets")].generations[&1];
        assert_eq!(*generation.declaration == variant("tickets", bits), is_in_place);
        assert_eq!((generation.state, generation.since), (State::Serving, 7));
        assert_eq!(generation.due, if rows.is_some() && is_in_place { NOW } else { 7 });
    }
}

#[test]
fn unchanged_declaration_is_no_work() {
    let submitted = submitted(&serving(), &[variant("tickets", 0)]);
    assert_eq!(only(&submitted).action, Action::None);
    assert!(!submitted.has_work() && submitted.changes(&serving()).is_empty());
    assert_eq!(submitted.catalog, serving());
}

#[test]
fn new_generation_takes_all_differences() {
    let submitted = submitted(&serving(), &[variant("tickets", 1 | 4 | 8)]);
    let action = only(&submitted);
    assert_eq!((action.action, action.generation, action.interrupts), (Action::Generation, Some(2), false));
    assert_eq!(action.keep, Some(Duration::from_secs(86_400)));
    let index = &submitted.catalog.indexes[&name("tickets")];
    assert_eq!(*index.generations[&1].declaration, variant("tickets", 0));
    assert_eq!(*index.generations[&2].declaration, variant("tickets", 1 | 4 | 8));
    assert_eq!(states(&submitted.catalog, "tickets"), [(1, State::Serving), (2, State::Creating)]);
}

#[test]
fn short_form_keeps_its_plain_index_of_the_same_name() {
    let declared = [variant(NAMES[0], 4), variant("tickets", 0)];
    let submitted = submitted(&short_form(), &declared);
    let actions: Vec<Action> = submitted.actions.iter().map(|action| action.action).collect();
    assert_eq!(actions, [Action::Text, Action::Create]);
    let index = &submitted.catalog.indexes[&name(NAMES[0])];
    let generation = &index.generations[&1];
    assert!(index.plain && generation.collection == NAMES[0] && generation.state == State::Serving);
    assert_eq!((generation.since, generation.filled, generation.due), (0, NOW - 1, NOW));
    assert_eq!(submitted.changes(&short_form()).len(), 2);
    let declared = [variant(NAMES[0], 0), variant("tickets", 0)];
    let unchanged = submitted_with(&short_form(), &declared, ApplyOptions::default());
    let generation = &unchanged.catalog.indexes[&name(NAMES[0])].generations[&1];
    assert!(generation.is_filled() && generation.may_block());
    assert_eq!(unchanged.changes(&short_form()).len(), 2);
}

#[test]
fn short_form_with_another_name_is_dropped_and_created() {
    let submitted = submitted(&short_form(), &[variant("tickets", 0)]);
    let actions: Vec<Action> = submitted.actions.iter().map(|action| action.action).collect();
    assert_eq!(actions, [Action::Drop, Action::Create]);
    assert_eq!(submitted.actions[0].deleted, [NAMES[0]]);
    assert_eq!(states(&submitted.catalog, NAMES[0]), [(1, State::Retiring)]);
    let declared = [variant(NAMES[0], 0), variant("tickets", 0)];
    let again = submitted_with(&submitted.catalog, &declared, ApplyOptions::default());
    assert!(reason(&again).contains("is being deleted"), "{}", reason(&again));
    assert_eq!(again.catalog, submitted.catalog);
}

#[test]
fn plain_index_states_that_its_switch_interrupts_searches() {
    let submitted = submitted(&short_form(), &[variant(NAMES[0], 1)]);
    let action = only(&submitted);
    assert_eq!((action.action, action.interrupts, action.keep), (Action::Generation, true, None));
    assert_eq!(action.deleted, [NAMES[0]]);
}

#[test]
fn alias_of_an_operator_moves_from_its_collection_or_stays_with_it() {
    let with_alias = || ApplyOptions {
        collections: ["docs_v1".to_owned()].into(),
        aliases: [(NAMES[0].to_owned(), "docs_v1".to_owned())].into(),
        ..ApplyOptions::default()
    };
    let moved = submitted_with(&short_form(), &[variant(NAMES[0], 1)], with_alias());
    let action = only(&moved);
    assert!(action.switches && !action.interrupts && action.keep.is_none() && action.deleted.is_empty(), "{action:?}");
    assert!(action.details[0].ends_with("leaves collection docs_v1, which stays"), "{action:?}");
    let dropped = submitted_with(&short_form(), &[], with_alias());
    let action = only(&dropped);
    assert!(action.action == Action::Drop && action.deleted.is_empty() && action.details.len() == 1, "{action:?}");

    let created = |alias: &str| {
        let aliases = [("tickets".to_owned(), alias.to_owned())].into();
        let options = ApplyOptions { aliases, ..ApplyOptions::default() };
        submitted_with(&Catalog::default(), &[variant("tickets", 0)], options)
    };
    assert!(reason(&created("docs_v1")).contains("\"tickets\" is an alias of collection \"docs_v1\""));
    assert_eq!(only(&created("tickets.g1")).action, Action::Create);
}

#[test]
fn first_declarations_of_an_installation_are_created() {
    let submitted = submitted(&Catalog::default(), &[variant("tickets", 0)]);
    assert_eq!((only(&submitted).action, only(&submitted).generation), (Action::Create, Some(1)));
    let index = &submitted.catalog.indexes[&name("tickets")];
    assert_eq!((index.serving, index.plain, submitted.expected), (None, false, 0));
}

#[test]
fn declaration_of_the_serving_generation_cancels_the_new_one() {
    let current = with_generation(serving(), 2, State::Filling, 1);
    let submitted = submitted(&current, &[variant("tickets", 0)]);
    let action = only(&submitted);
    assert_eq!((action.action, action.generation), (Action::Discard, None));
    assert_eq!((action.ended.as_slice(), action.deleted.as_slice()), (&[2][..], &["tickets.g2".to_owned()][..]));
    assert_eq!(states(&submitted.catalog, "tickets"), [(1, State::Serving), (2, State::Retiring)]);
    assert_eq!(submitted.catalog.indexes[&name("tickets")].generations[&2].since, NOW);
}

#[test]
fn generation_to_come_is_changed_in_place_or_replaced() {
    let current = with_generation(serving(), 2, State::Ready, 1);
    let edited = submitted(&current, &[variant("tickets", 1 | 4)]);
    assert_eq!((only(&edited).action, only(&edited).generation), (Action::Generation, Some(2)));
    assert_eq!(states(&edited.catalog, "tickets"), [(1, State::Serving), (2, State::Filling)]);
    let mut third = variant("tickets", 1);
    "third".clone_into(&mut third.embedding.model);
    let replaced = submitted(&current, &[third]);
    assert_eq!((only(&replaced).generation, only(&replaced).ended.as_slice()), (Some(3), &[2][..]));
    let back = submitted(&current, &[variant("tickets", 4)]);
    assert_eq!((only(&back).action, only(&back).generation), (Action::Text, Some(1)));
    assert_eq!(only(&back).ended, [2]);
}

#[test]
fn rollback_and_return_switch_between_kept_generations() {
    let mut current = with_generation(with_generation(serving(), 2, State::Serving, 1), 1, State::Kept, 0);
    let tickets = name("tickets");
    current.indexes.get_mut(&tickets).unwrap().serving = Some(2);
    let rollback = submit(&current, &[], &Choice::Rollback(tickets.clone()), NOW);
    assert_eq!((only(&rollback).action, only(&rollback).generation), (Action::Switch, Some(1)));
    let switch = Switch { from: Some(2), to: 1, plain: false };
    assert_eq!(rollback.catalog.indexes[&tickets].switching, Some(switch));
    let again = submit(&rollback.catalog, &[], &Choice::Rollback(tickets.clone()), NOW);
    assert_eq!(only(&again).action, Action::None);
    let refused = submitted(&rollback.catalog, &[variant("tickets", 1)]);
    assert!(reason(&refused).contains("is switching to generation 1"), "{}", reason(&refused));
    let to_kept = submitted(&current, &[variant("tickets", 0)]);
    assert_eq!((only(&to_kept).action, only(&to_kept).generation), (Action::Switch, Some(1)));
}

#[test]
fn rollback_without_a_complete_kept_generation_is_refused() {
    let rollback = |catalog: &Catalog, index| submit(catalog, &[], &Choice::Rollback(name(index)), NOW);
    assert!(reason(&rollback(&serving(), "notes")).contains("unknown index"));
    assert!(reason(&rollback(&serving(), "tickets")).contains("no kept generation"));
    let mut current = with_generation(serving(), 2, State::Kept, 1);
    current.indexes.get_mut(&name("tickets")).unwrap().generations.get_mut(&2).unwrap().due = 8;
    let refused = rollback(&current, "tickets");
    assert!(reason(&refused).contains("is being filled"));
    assert_eq!(refused.catalog, current);
}

#[test]
fn undeclared_index_is_dropped_once() {
    let dropped = submitted(&serving(), &[]);
    let action = only(&dropped);
    assert_eq!((action.action, action.ended.as_slice()), (Action::Drop, &[1][..]));
    assert_eq!(dropped.catalog.indexes[&name("tickets")].serving, None);
    let again = submitted(&dropped.catalog, &[]);
    assert!(again.actions.is_empty() && !again.has_work());
    let created = submitted(&dropped.catalog, &[variant("tickets", 0)]);
    assert_eq!((only(&created).action, only(&created).generation), (Action::Create, Some(2)));
}

#[test]
fn number_of_a_dropped_index_is_not_given_again() {
    let dropped = Catalog { dropped: [(name("notes"), 3)].into(), ..serving() };
    let created = submitted(&dropped, &[variant("tickets", 0), variant("notes", 0)]);
    assert_eq!((created.actions[0].action, created.actions[0].generation), (Action::Create, Some(4)));
    assert_eq!(created.catalog.indexes[&name("notes")].generations[&4].collection, "notes.g4");
    assert!(created.catalog.dropped.is_empty());
    assert_eq!(created.changes(&dropped).len(), 1);
    let mut discarded = serving();
    discarded.indexes.get_mut(&name("tickets")).unwrap().last = 5;
    assert_eq!(only(&submitted(&discarded, &[variant("tickets", 1)])).generation, Some(6));
}

#[test]
fn selected_indexes_alone_are_considered() {
    let current = catalog(7, [variant("notes", 0), variant("tickets", 0)]);
    let options = ApplyOptions { only: [name("tickets")].into(), ..ApplyOptions::default() };
    let submitted = submitted_with(&current, &[variant("tickets", 2)], options);
    assert_eq!(only(&submitted).index, name("tickets"));
    assert_eq!(states(&submitted.catalog, "notes"), [(1, State::Serving)]);
    assert_eq!(submitted.changes(&current).len(), 1);
    let unknown = ApplyOptions { only: [name("other")].into(), ..ApplyOptions::default() };
    assert!(reason(&submitted_with(&current, &[variant("tickets", 2)], unknown)).contains("unknown index \"other\""));
}

#[test]
fn forced_generation_is_new_although_the_difference_is_in_place() {
    let forced = |only: &[&str]| ApplyOptions {
        forced: true,
        only: only.iter().map(|index| name(index)).collect(),
        ..ApplyOptions::default()
    };
    let text = submitted_with(&serving(), &[variant("tickets", 4)], forced(&[]));
    assert_eq!((only(&text).action, only(&text).generation), (Action::Generation, Some(2)));
    let equal = submitted_with(&serving(), &[variant("tickets", 0)], forced(&[]));
    assert_eq!(only(&equal).action, Action::None);
    let named = submitted_with(&serving(), &[variant("tickets", 0)], forced(&["tickets"]));
    assert_eq!(only(&named).action, Action::Generation);
}

#[test]
fn model_of_equal_identity_is_only_recorded() {
    let mut current = serving();
    let generation = current.indexes.get_mut(&name("tickets")).unwrap().generations.get_mut(&1).unwrap();
    generation.embedder = Some(identity("same"));
    let reported = BTreeMap::from([(name("tickets"), identity("same"))]);
    let options = ApplyOptions { reported, ..ApplyOptions::default() };
    let submitted = submitted_with(&current, &[variant("tickets", 1)], options);
    assert_eq!((only(&submitted).action, only(&submitted).needs), (Action::Settings, None));
}

#[test]
fn kept_generations_are_given_up_on_request() {
    let current = with_generation(serving(), 2, State::Kept, 1);
    let options = ApplyOptions { drop_kept: true, ..ApplyOptions::default() };
    let dropped = submitted_with(&current, &[variant("tickets", 0)], options);
    assert_eq!((only(&dropped).action, only(&dropped).ended.as_slice()), (Action::Discard, &[2][..]));
}

#[test]
fn generation_number_is_new_in_catalog_and_index() {
    let collections = ["tickets.g6", "notes.g9", "tickets.gx"].map(String::from).into();
    let options = ApplyOptions { collections, ..ApplyOptions::default() };
    let submitted = submitted_with(&serving(), &[variant("tickets", 1)], options);
    assert_eq!(only(&submitted).generation, Some(7));
}

#[test]
fn comparison_with_differences_is_accepted_or_made_again() {
    let mut current = with_generation(serving(), 2, State::Comparing, 1);
    let generation = current.indexes.get_mut(&name("tickets")).unwrap().generations.get_mut(&2).unwrap();
    generation.problem = Some("12 of 100 documents differ".to_owned());
    generation.compared = Some(Compared { drift: 12, revision: 7, ..Compared::default() });
    let accept = |accept_missing| {
        let options = ApplyOptions { accept_missing, ..ApplyOptions::default() };
        submitted_with(&current, &[variant("tickets", 1)], options)
    };
    assert!(reason(&accept(Some(11))).contains("differs from the source in 12 documents"));
    let accepted = accept(Some(12));
    assert_eq!((only(&accepted).action, states(&accepted.catalog, "tickets")[1].1), (Action::Switch, State::Ready));
    let again = accept(None);
    assert_eq!((only(&again).action, states(&again.catalog, "tickets")[1].1), (Action::Generation, State::Filling));
}

#[test]
fn short_form_is_saved_as_it_is_only_if_declarations_replace_it() {
    let declared = [variant(NAMES[0], 0)];
    let kept = submitted(&short_form(), &declared);
    assert!(!kept.has_work() && !kept.is_new(), "{kept:?}");
    let adopt = || ApplyOptions { adopt: true, ..ApplyOptions::default() };
    let adopted = submitted_with(&short_form(), &declared, adopt());
    assert!(!adopted.has_work() && adopted.is_new(), "{adopted:?}");
    assert_eq!((adopted.catalog.revision, adopted.changes(&short_form()).len()), (NOW, 1));
    let (_, generation) = adopted.catalog.indexes[&name(NAMES[0])].serving_generation().unwrap();
    assert!(generation.is_filled() && generation.state == State::Serving);
    assert!(!submitted_with(&Catalog::default(), &[], adopt()).is_new());
    assert!(!submitted_with(&serving(), &[variant("tickets", 0)], adopt()).is_new());
}

#[test]
fn ambiguous_names_are_refused() {
    let twice = submitted(&serving(), &[variant("tickets", 0), variant("tickets", 2)]);
    assert!(reason(&twice).contains("index \"tickets\" is declared twice"));
    assert_eq!(twice.catalog, serving());
    let mut collection = declaration("notes", "notes");
    collection.name = IndexName::of_collection("tickets.g3");
    let collides = submitted(&serving(), &[variant("tickets", 0), collection]);
    assert!(reason(&collides).contains("collections of index \"tickets\" have such names"));
    let options = ApplyOptions { collections: ["notes".to_owned()].into(), ..ApplyOptions::default() };
    let exists = submitted_with(&serving(), &[variant("tickets", 0), variant("notes", 0)], options);
    assert!(reason(&exists).contains("collection \"notes\" exists"));
    assert!(exists.has_work() && exists.catalog == serving());
}

#[test]
fn replaced_embedding_that_both_generations_need_is_refused() {
    let spec = |name: &str, model: &str| {
        let mut spec = EmbeddingSpec::new(name, "tei", model);
        spec.url = Some(format!("http://{model}"));
        spec
    };
    let with = |embedding| Declaration { embedding, ..variant("tickets", 0) };
    let current = catalog(7, [with(spec("default", "a"))]);
    let refused = submitted(&current, &[with(spec("default", "b"))]);
    assert!(reason(&refused).contains("embedding \"default\" is replaced while generation 1 needs it"));
    assert_eq!(only(&submitted(&current, &[with(spec("second", "b"))])).action, Action::Generation);
}

#[test]
fn replaced_default_model_of_an_own_embedder_is_noticed_by_its_identity() {
    let with =
        |name: &str| Declaration { embedding: EmbeddingSpec::new(name, "tidewheel", ""), ..variant("tickets", 0) };
    let mut current = catalog(7, [with("default")]);
    let generation = current.indexes.get_mut(&name("tickets")).unwrap().generations.get_mut(&1).unwrap();
    generation.embedder = Some(identity("a"));
    let submitted = |declared: Declaration, model: &str| {
        let reported = BTreeMap::from([(name("tickets"), identity(model))]);
        submitted_with(&current, &[declared], ApplyOptions { reported, ..ApplyOptions::default() })
    };
    assert_eq!(only(&submitted(with("default"), "a")).action, Action::None);
    assert_eq!(only(&submitted(with("second"), "a")).action, Action::Settings, "another name of the same model");
    let refused = submitted(with("default"), "b");
    assert!(reason(&refused).contains("embedding \"default\" is replaced while generation 1 needs it"));
    assert_eq!(only(&submitted(with("second"), "b")).action, Action::Generation);
}
