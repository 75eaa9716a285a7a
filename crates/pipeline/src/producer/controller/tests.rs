//! Every row of the controller's table of steps.

mod bench;
mod crashes;
mod resting;
mod session;
mod starts;

use std::time::Duration;

use bench::{Bench, MOST_LOOKS, TICKETS, remodelled, tickets};
use serde_json::json;
use tidewheel_core::catalog::{ApplyOptions, Needs, PayloadIndex, PayloadKind, Rows, State};
use tidewheel_core::change::Change;
use tidewheel_core::ports::{CollectionAdmin as _, IndexWriter as _, Journal as _, ParkedChange};
use tidewheel_testkit::contracts::samples::routed;
use tidewheel_testkit::fakes::faults::{Fault, Gate};
use tokio::time::Instant;

use crate::targets::samples::{DIMENSION, declaration};

#[tokio::test(start_paused = true)]
async fn declared_index_is_created_once_and_searchable_before_it_is_filled() {
    let mut bench = Bench::new();
    let mut declared = declaration(TICKETS);
    declared.payload_indexes.insert("status".to_owned(), PayloadIndex::new(PayloadKind::Keyword));
    bench.apply(&[declared.clone()]).await;
    bench.until("the index serves", |bench| bench.state(1) == Some(State::Serving)).await;
    assert_eq!(bench.alias(TICKETS).as_deref(), Some("tickets.g1"));
    assert!(!bench.generation(1).unwrap().is_filled());
    bench.until("the index is filled", |bench| bench.is_served_by(1)).await;
    bench.looks(10).await;
    let index = bench.index("tickets.g1");
    assert_eq!((index.calls("create"), index.payload_indexes()), (1, declared.payload_indexes));
    let record = index.record().await.unwrap().unwrap();
    assert_eq!((record.target(), record.state), (tickets().target(1), State::Serving));
    assert_eq!(bench.interruptions, 0);
}

#[tokio::test(start_paused = true)]
async fn indexes_that_are_created_together_are_routed_together() {
    let mut bench = Bench::new();
    bench.index("slow.g1").faults().once("create", Fault::Slow(Duration::from_secs(3)));
    bench.apply(&[declaration("fast"), declaration("slow")]).await;
    bench.look().await;
    let are_routed = |bench: &Bench| {
        let catalog = bench.catalog();
        let states: Vec<State> = catalog.indexes.values().map(|index| index.generations[&1].state).collect();
        assert!(states.len() == 2 && states[0] == states[1], "{states:?}");
        !states.contains(&State::Creating)
    };
    bench.until("both are routed", are_routed).await;
}

#[tokio::test(start_paused = true)]
async fn index_that_cannot_be_created_delays_no_other() {
    let mut bench = Bench::new();
    bench.index("broken.g1").faults().always("create", Fault::unreachable());
    bench.apply(&[declaration("broken"), declaration(TICKETS)]).await;
    bench.until("the other is filled", |bench| bench.is_served_by(1)).await;
    bench.index("broken.g1").faults().heal();
    let is_created = |bench: &Bench| bench.catalog().indexes.values().all(|index| index.serving == Some(1));
    bench.until("it is created", is_created).await;
}

#[tokio::test(start_paused = true)]
async fn collection_of_another_client_is_a_problem_until_it_is_deleted() {
    let mut bench = Bench::new();
    bench.apply(&[declaration(TICKETS)]).await;
    bench.index("tickets.g1").prepare(DIMENSION).await.unwrap();
    bench.until("the problem is named", |bench| bench.generation(1).is_some_and(|g| g.problem.is_some())).await;
    let problem = bench.generation(1).unwrap().problem.unwrap();
    assert!(problem.contains("tickets.g1") && problem.contains("delete"), "{problem}");
    bench.looks(100).await;
    assert_eq!(bench.state(1), Some(State::Creating));
    bench.index("tickets.g1").drop_collection();
    bench.until("the index is filled", |bench| bench.is_served_by(1)).await;
    assert_eq!(bench.generation(1).unwrap().problem, None);
}

#[tokio::test(start_paused = true)]
async fn number_of_an_existing_collection_is_not_given_again() {
    let mut bench = Bench::new();
    let spec = declaration(TICKETS);
    bench.index("tickets.g1").create(&spec.collection, &spec.vectors, DIMENSION + 1).await.unwrap();
    bench.apply(&[declaration(TICKETS)]).await;
    bench.until("the index is filled", |bench| bench.is_served_by(2)).await;
    assert_eq!(bench.alias(TICKETS).as_deref(), Some("tickets.g2"));
}

#[tokio::test(start_paused = true)]
async fn new_generation_is_filled_compared_and_switched_at_rest() {
    let mut bench = Bench::serving().await;
    bench.apply(&[remodelled(TICKETS)]).await;
    let mut states = Vec::new();
    for _ in 0..MOST_LOOKS {
        if bench.state(2) == Some(State::Serving) {
            break;
        }
        let before = bench.alias(TICKETS);
        let rested = bench.controller.is_resting();
        bench.look().await;
        assert!(bench.alias(TICKETS) == before || rested, "the alias moves at rest");
        states.extend(bench.state(2).filter(|state| states.last() != Some(state)));
    }
    assert_eq!(states, [State::Creating, State::Filling, State::Comparing, State::Ready, State::Serving]);
    assert_eq!((bench.state(1), bench.interruptions), (Some(State::Kept), 0));
    bench.looks(5).await;
    assert!(!bench.controller.is_resting());
    let record = bench.index("tickets.g1").record().await.unwrap().unwrap();
    assert_eq!(record.state, State::Kept);
}

#[tokio::test(start_paused = true)]
async fn comparison_waits_until_the_collection_is_settled_or_ten_minutes() {
    let mut bench = Bench::changing(State::Filling).await;
    bench.index("tickets.g2").set_busy(true);
    bench.until("it is compared", |bench| bench.state(2) == Some(State::Comparing)).await;
    bench.looks(60).await;
    assert_eq!(bench.state(2), Some(State::Comparing));
    bench.index("tickets.g2").set_busy(false);
    bench.until("it is switched", |bench| bench.is_served_by(2)).await;

    let mut bench = Bench::changing(State::Filling).await;
    bench.index("tickets.g2").set_busy(true);
    let begun = Instant::now();
    bench.until("it is switched nevertheless", |bench| bench.is_served_by(2)).await;
    assert!(begun.elapsed().as_secs() >= 600);
}

#[tokio::test(start_paused = true)]
async fn unexplained_drift_fills_the_generation_again() {
    let mut bench = Bench::changing(State::Filling).await;
    bench.source.insert(TICKETS, json!({"_id": 1, "subject": "Grüße"}));
    bench.until("it is filled again", |bench| bench.generation(2).is_some_and(|g| g.rounds == 1)).await;
    let generation = bench.generation(2).unwrap();
    assert_eq!((generation.needs, bench.alias(TICKETS).as_deref()), (Needs::COMPARISON, Some("tickets.g1")));
    bench.source.delete(TICKETS, json!(1));
    bench.until("it is switched", |bench| bench.is_served_by(2)).await;
}

#[tokio::test(start_paused = true)]
async fn drift_that_dead_letters_explain_has_to_be_accepted() {
    let mut bench = Bench::changing(State::Filling).await;
    bench.source.insert(TICKETS, json!({"_id": 1, "subject": "Grüße"}));
    let change = Change { document: None, ..routed(1, &["tickets.g2"], &[]) };
    let parked = ParkedChange { change, reason: "too large".to_owned() };
    let journal = bench.streams().journal();
    let current = bench.current.clone();
    journal.append_and_park(Some(&current), &[], &[parked], &current).await.unwrap();
    bench.until("the problem is named", |bench| bench.generation(2).is_some_and(|g| g.problem.is_some())).await;
    let generation = bench.generation(2).unwrap();
    let compared = generation.compared.unwrap();
    assert_eq!((generation.state, compared.drift, compared.unexplained), (State::Comparing, 1, 0));
    bench.looks(100).await;
    assert_eq!(bench.alias(TICKETS).as_deref(), Some("tickets.g1"));
    let options = ApplyOptions { accept_missing: Some(1), ..ApplyOptions::default() };
    bench.apply_with(&[remodelled(TICKETS)], options).await;
    bench.until("it is switched", |bench| bench.is_served_by(2)).await;
}

#[tokio::test(start_paused = true)]
async fn held_generation_is_not_switched() {
    let mut bench = Bench::serving().await;
    let hold = ApplyOptions { hold: true, ..ApplyOptions::default() };
    bench.apply_with(&[remodelled(TICKETS)], hold).await;
    bench.until("it is ready", |bench| bench.state(2) == Some(State::Ready)).await;
    bench.looks(100).await;
    assert_eq!((bench.state(2), bench.controller.is_resting()), (Some(State::Ready), false));
    bench.apply(&[remodelled(TICKETS)]).await;
    bench.until("it is switched", |bench| bench.is_served_by(2)).await;
}

#[tokio::test(start_paused = true)]
async fn kept_generation_is_deleted_behind_the_barrier_after_its_time() {
    let mut bench = Bench::changing(State::Serving).await;
    bench.edit(|index| index.generations.get_mut(&1).unwrap().until_ms = Some(0)).await;
    bench.is_busy = true;
    bench.until("it is retired", |bench| bench.state(1) == Some(State::Retiring)).await;
    bench.looks(100).await;
    assert!(bench.index("tickets.g1").is_there(), "entries that are routed to it are in flight");
    bench.is_busy = false;
    bench.until("it is deleted", |bench| bench.state(1).is_none()).await;
    assert!(!bench.index("tickets.g1").is_there());
    assert_eq!(bench.alias(TICKETS).as_deref(), Some("tickets.g2"));
}

#[tokio::test(start_paused = true)]
async fn collection_that_a_late_write_creates_again_is_deleted_too() {
    let mut bench = Bench::changing(State::Serving).await;
    bench.edit(|index| index.generations.get_mut(&1).unwrap().until_ms = Some(0)).await;
    bench.until("it is deleted", |bench| !bench.index("tickets.g1").is_there()).await;
    let spec = declaration(TICKETS);
    bench.index("tickets.g1").create(&spec.collection, &spec.vectors, DIMENSION).await.unwrap();
    bench.until("nothing is left of it", |bench| bench.state(1).is_none()).await;
    assert!(!bench.index("tickets.g1").is_there());
}

#[tokio::test(start_paused = true)]
async fn dropped_index_loses_its_alias_and_its_collections() {
    let mut bench = Bench::changing(State::Serving).await;
    bench.apply(&[]).await;
    bench.until("it is dropped", |bench| bench.entry().is_none()).await;
    assert_eq!((bench.alias(TICKETS), bench.servers.collections.names()), (None, Vec::new()));
    bench.looks(20).await;
}

#[tokio::test(start_paused = true)]
async fn alias_that_is_deleted_or_moved_returns() {
    let mut bench = Bench::changing(State::Serving).await;
    for to in [None, Some("tickets.g1"), Some("elsewhere")] {
        bench.servers.collections.set_alias(TICKETS, to);
        bench.until("it returns", |bench| bench.alias(TICKETS).as_deref() == Some("tickets.g2")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn settings_and_payload_indexes_are_altered_before_they_are_recorded() {
    let mut bench = Bench::serving().await;
    let mut changed = declaration(TICKETS);
    changed.collection.settings.insert("on_disk_payload".to_owned(), json!(true));
    changed.payload_indexes.insert("status".to_owned(), PayloadIndex::new(PayloadKind::Keyword));
    let index = bench.index("tickets.g1");
    let before = (index.calls("alter"), index.calls("field_indexes"));
    index.faults().once("field_indexes", Fault::unreachable());
    bench.apply(&[changed.clone()]).await;
    bench.looks(40).await;
    let record = index.record().await.unwrap().unwrap();
    assert_eq!((record.declaration, index.payload_indexes()), (changed.clone(), changed.payload_indexes));
    assert_eq!(index.spec().unwrap().settings, changed.collection.settings);
    assert_eq!((index.calls("alter"), index.calls("field_indexes")), (before.0 + 2, before.1 + 2));
}

#[tokio::test(start_paused = true)]
async fn recreated_collection_gets_its_payload_indexes_and_record_again() {
    let mut bench = Bench::new();
    let mut declared = declaration(TICKETS);
    declared.payload_indexes.insert("status".to_owned(), PayloadIndex::new(PayloadKind::Keyword));
    bench.apply(&[declared.clone()]).await;
    bench.until("the index is filled", |bench| bench.is_served_by(1)).await;
    let index = bench.index("tickets.g1");
    index.drop_collection();
    bench.lose(&tickets().target(1)).await;
    index.create(&declared.collection, &declared.vectors, DIMENSION).await.unwrap();
    bench.looks(40).await;
    assert_eq!(index.payload_indexes(), declared.payload_indexes);
    assert_eq!(index.record().await.unwrap().unwrap().state, State::Serving);
    assert_eq!(bench.alias(TICKETS).as_deref(), Some("tickets.g1"));
}

#[tokio::test(start_paused = true)]
async fn lost_target_is_due_and_its_loss_is_forgotten() {
    let mut bench = Bench::serving().await;
    let before = bench.generation(1).unwrap().due;
    bench.lose(&tickets().target(1)).await;
    bench.until("the loss is forgotten", |bench| bench.generation(1).is_some_and(|g| g.due > before)).await;
    assert_eq!(bench.generation(1).unwrap().needs, Needs { rows: Rows::All, sweep: true });
    bench.until("it is filled again", |bench| bench.is_served_by(1)).await;
    assert!(bench.lost().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn comparison_delays_no_other_step_and_ends_with_its_generation() {
    let mut bench = Bench::changing(State::Filling).await;
    let gate = Gate::closed();
    bench.source.faults().once("collections", Fault::Held(gate.clone()));
    bench.until("it is compared", |bench| bench.source.faults().hits("collections") == 1).await;
    let before = bench.generation(1).unwrap().due;
    bench.lose(&tickets().target(1)).await;
    bench.until("the other is filled", |bench| bench.generation(1).is_some_and(|g| g.due > before)).await;
    bench.lose(&tickets().target(2)).await;
    bench.until("it is filled", |bench| bench.state(2) == Some(State::Filling)).await;
    bench.until("it is switched without the first comparison", |bench| bench.is_served_by(2)).await;
    gate.open();
}

#[tokio::test(start_paused = true)]
async fn loss_during_a_refill_is_not_forgotten() {
    let mut bench = Bench::serving().await;
    bench.lose(&tickets().target(1)).await;
    let gate = Gate::closed();
    bench.streams().faults().once("save_catalog", Fault::Held(gate.clone()));
    bench.looks(3).await;
    bench.lose(&tickets().target(1)).await;
    gate.open();
    let before = bench.generation(1).unwrap().due;
    bench.until("it is due", |bench| bench.generation(1).is_some_and(|g| g.due > before)).await;
    assert_eq!(bench.lost().await.len(), 1);
    let first = bench.generation(1).unwrap().due;
    bench.until("it is due again", |bench| bench.generation(1).is_some_and(|g| g.due > first)).await;
    bench.until("it is filled", |bench| bench.is_served_by(1)).await;
    assert!(bench.lost().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn lost_kept_generation_is_given_up() {
    let mut bench = Bench::changing(State::Serving).await;
    bench.index("tickets.g1").drop_collection();
    bench.lose(&tickets().target(1)).await;
    bench.until("it is forgotten", |bench| bench.state(1).is_none()).await;
    assert!(bench.lost().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn loss_of_a_target_that_is_gone_is_forgotten() {
    let mut bench = Bench::serving().await;
    bench.lose(&tickets().target(7)).await;
    bench.looks(3).await;
    assert!(bench.lost().await.is_empty() && bench.is_served_by(1));
}

#[tokio::test(start_paused = true)]
async fn outage_of_the_index_ends_nothing() {
    let mut bench = Bench::serving().await;
    bench.servers.collections.faults().always("list", Fault::unreachable());
    bench.apply(&[remodelled(TICKETS)]).await;
    bench.looks(100).await;
    assert_eq!(bench.state(2), Some(State::Creating));
    bench.servers.collections.faults().heal();
    bench.until("it is switched", |bench| bench.is_served_by(2)).await;
}

#[tokio::test(start_paused = true)]
async fn unavailable_collection_delays_no_other_index() {
    let mut bench = Bench::serving().await;
    bench.apply(&[declaration("broken"), declaration(TICKETS)]).await;
    let is_served = |bench: &Bench| {
        let indexes = bench.catalog().indexes;
        indexes.len() == 2 && indexes.values().all(|index| index.serving == Some(1))
    };
    bench.until("both serve", is_served).await;
    bench.index("broken.g1").faults().always("record", Fault::unreachable());
    bench.apply(&[remodelled("broken"), remodelled(TICKETS)]).await;
    bench.until("the other is switched", |bench| bench.is_served_by(2)).await;
    assert_eq!(bench.catalog().indexes.values().next().unwrap().serving, Some(1));
    bench.index("broken.g1").faults().heal();
    let is_switched = |bench: &Bench| bench.catalog().indexes.values().all(|index| index.serving == Some(2));
    bench.until("it is switched too", is_switched).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_called_before_a_catalog_is_applied_and_little_at_rest() {
    let mut bench = Bench::new();
    bench.servers.collections.faults().always("list", Fault::Slow(Duration::ZERO));
    bench.looks(100).await;
    assert_eq!(bench.servers.collections.faults().hits("list"), 0);

    let mut bench = Bench::serving().await;
    bench.looks(20).await;
    bench.servers.collections.faults().always("list", Fault::Slow(Duration::ZERO));
    bench.index("tickets.g1").faults().always("record", Fault::Slow(Duration::ZERO));
    let begun = Instant::now();
    bench.looks(200).await;
    let most = begun.elapsed().as_secs() / 5 + 1;
    assert!(bench.servers.collections.faults().hits("list") <= most, "more than once in five seconds");
    assert_eq!(bench.index("tickets.g1").faults().hits("record"), 0);
}
