use tidewheel_core::catalog::{Declaration, EmbeddingSpec, Selector};

use super::*;
use crate::indexes::Step;
use crate::overview::samples::{declared, healthy, thresholds};
use crate::overview::{Overview, Probe};

/// The states of the indexes.
fn states(overview: &Overview) -> Vec<(&str, SyncState)> {
    overview.indexes.iter().map(|index| (index.name.as_str(), index.state)).collect()
}

/// The sample, with one index changed.
fn with(name: &str, change: impl FnOnce(&mut IndexOverview)) -> Overview {
    let mut overview = declared();
    change(overview.indexes.iter_mut().find(|index| index.name.as_str() == name).unwrap());
    overview.judged(&thresholds())
}

#[test]
fn index_has_a_state_of_its_own() {
    let overview = declared();
    assert_eq!(overview.verdict.state, SyncState::InSync, "no search reads the generation that is filled");
    let expected = [("articles", SyncState::InSync), ("tickets", SyncState::InSync), ("users", SyncState::Empty)];
    assert_eq!(states(&overview), expected);
    assert!(overview.problems.is_empty(), "{:?}", overview.problems);

    let backlog = declared().with_stage(1, |stage| stage.backlog = 5).judged(&thresholds());
    assert!(states(&backlog).iter().all(|(_, state)| *state == SyncState::Syncing), "{backlog:?}");

    let filled = with("users", |users| users.operation.as_mut().unwrap().step = Step::Filling);
    assert_eq!(states(&filled)[2], ("users", SyncState::Syncing));

    let mut blind = declared();
    blind.stages = [Probe::Unknown("refused".into()), Probe::Unknown("refused".into())];
    assert!(states(&blind.judged(&thresholds())).iter().all(|(_, state)| *state == SyncState::Unknown));
}

#[test]
fn only_index_has_the_state_of_the_verdict() {
    let sampled = [healthy(), crate::overview::samples::syncing(), crate::overview::samples::outage()];
    for overview in sampled.into_iter().chain([crate::overview::samples::empty()]) {
        assert_eq!(overview.indexes[0].state, overview.verdict.state, "{overview:?}");
    }
}

#[test]
fn critical_problem_of_an_index_stalls_this_index_alone() {
    let overview = with("tickets", |tickets| tickets.alias_moved = Some(MovedAlias { to: None }));
    let expected = [("articles", SyncState::InSync), ("tickets", SyncState::Stalled), ("users", SyncState::Empty)];
    assert_eq!(states(&overview), expected);
    let summary = "Searches affected: searches of index tickets fail: its alias is missing";
    assert_eq!((overview.verdict.state, overview.verdict.summary.as_str()), (SyncState::Stalled, summary));
}

#[test]
fn drift_names_its_index() {
    let found = Audit { seconds_ago: 90.0, missing: 4, stale: 0, extra: 1, surplus: 0 };
    let overview = with("tickets", |tickets| tickets.drift = Some(found));
    assert_eq!(states(&overview)[1], ("tickets", SyncState::Drifted));
    assert_eq!(states(&overview)[0], ("articles", SyncState::InSync));
    let summary =
        "Drifted: index tickets differs from MongoDB in 5 documents, although all changes read are searchable";
    assert_eq!((overview.verdict.state, overview.verdict.summary.as_str()), (SyncState::Drifted, summary));
    let [problem] = &overview.problems[..] else { panic!("{:?}", overview.problems) };
    assert_eq!((problem.code, problem.index.as_ref().map(IndexName::as_str)), ("drift", Some("tickets")));
    assert!(problem.message.starts_with("index tickets differs from MongoDB in 5 documents"), "{}", problem.message);
    assert!(problem.action.contains("`tidewheel verify --index tickets --repair`"), "{}", problem.action);
}

#[test]
fn problems_of_single_indexes_name_them() {
    let slow = Latency { changes: 9, p50_seconds: 1.0, p95_seconds: 31.0, p99_seconds: 31.0 };
    let of = |overview: &Overview| {
        let problems = overview.problems.iter();
        problems.map(|problem| (problem.code, problem.index.as_ref().map(IndexName::to_string))).collect::<Vec<_>>()
    };
    let tickets = |code: &'static str| vec![(code, Some("tickets".to_owned()))];
    assert_eq!(of(&with("tickets", |index| index.latency = Some(slow.clone()))), tickets("latency"));
    let red = with("tickets", |index| index.generations[0].status = Some("red".into()));
    assert_eq!(of(&red), tickets("collection-unhealthy"));
    assert!(red.problems[0].message.contains("tickets.g2"));
    let stuck = with("tickets", |index| index.operation.as_mut().unwrap().problem = Some("why".into()));
    assert_eq!(of(&stuck), tickets("generation-stuck"));
    assert_eq!(stuck.problems[0].message, "generation 4 of index tickets does not advance: why");
    let waiting = with("tickets", |index| {
        let operation = index.operation.as_mut().unwrap();
        (operation.step, operation.stalled_seconds) = (Step::Ready, 720.0);
    });
    let message = "generation 4 of index tickets has waited for an empty pipeline for 12 min: 0 changes waiting";
    assert_eq!(waiting.problems[0].message, message);
    let dropped = with("tickets", |index| {
        index.declared = Declared::Absent;
        index.generations.iter_mut().for_each(|generation| generation.state = State::Retiring);
    });
    assert!(of(&dropped).is_empty(), "it is being dropped");
    assert_eq!(of(&with("tickets", |index| index.declared = Declared::Absent)), tickets("declaration-differs"));
    let json = serde_json::to_value(&stuck).unwrap();
    assert_eq!(json["problems"][0]["index"], "tickets");
    assert_eq!(json["indexes"][1]["operation"]["step"], "filling");
    assert_eq!(json["indexes"][1]["serving"]["collection"], "tickets.g3");
}

/// A generation in this state that is whole.
fn whole(name: &IndexName, number: u32, state: State) -> (u32, Generation) {
    let selector = Selector::of_database::<&str>("shop", &[]);
    let declaration = Declaration::new(name.clone(), selector, EmbeddingSpec::new("default", "tidewheel", "minilm"));
    let generation = Generation::new(&name.target(number), declaration.into(), 7);
    (number, Generation { state, filled: 7, ..generation })
}

#[test]
fn kept_generation_stands_in_for_a_lost_one_only() {
    let name = IndexName::of_collection("tickets");
    let generations = [whole(&name, 1, State::Kept), whole(&name, 2, State::Serving)].into();
    let index = Index { serving: Some(2), generations, ..Index::default() };
    let naming = |collection: &str| BTreeMap::from([("tickets".to_owned(), collection.to_owned())]);
    let is_moved = |index: &Index, lost: &[(TargetId, String)], collection: &str| {
        moved_alias(&name, index, lost, &naming(collection)).is_some()
    };
    let lost = [(name.target(2), "missing".to_owned())];
    assert!(!is_moved(&index, &[], "tickets.g2") && is_moved(&index, &[], "tickets.g1"));
    assert!(!is_moved(&index, &lost, "tickets.g2") && !is_moved(&index, &lost, "tickets.g1"));
    assert!(is_moved(&index, &lost, "other"));
    let plain = Index { plain: true, ..index.clone() };
    assert!(!is_moved(&plain, &[], "other"), "a plain collection has no alias");
}
