//! Moves of an alias at rest.

use std::time::Duration;

use tidewheel_core::catalog::{ApplyOptions, Choice, IndexName, State};
use tidewheel_core::ports::TargetStates as _;
use tidewheel_testkit::fakes::faults::{Fault, Gate};
use tokio::time::Instant;

use super::bench::{Bench, TICKETS, remodelled, tickets};

#[tokio::test(start_paused = true)]
async fn busy_pipeline_delays_the_switch_and_goes_on_after_ten_seconds() {
    let mut bench = Bench::changing(State::Ready).await;
    bench.is_busy = true;
    let mut rests = Vec::new();
    for _ in 0..2 {
        bench.until("it rests", |bench| bench.controller.is_resting()).await;
        let begun = Instant::now();
        bench.until("it goes on", |bench| !bench.controller.is_resting()).await;
        rests.push((begun, begun.elapsed()));
    }
    assert!(rests.iter().all(|(_, took)| (9..12).contains(&took.as_secs())), "{rests:?}");
    let paused = rests[1].0 - rests[0].0;
    assert!((39..44).contains(&paused.as_secs()), "ten seconds of rest, thirty of work: {paused:?}");
    assert_eq!(bench.alias(TICKETS).as_deref(), Some("tickets.g1"));
    let begun = Instant::now();
    bench.until("it rests again", |bench| bench.controller.is_resting()).await;
    assert!((57..64).contains(&begun.elapsed().as_secs()), "twice as long: {:?}", begun.elapsed());
    bench.is_busy = false;
    bench.until("it is switched", |bench| bench.is_served_by(2)).await;
    assert!(!bench.controller.is_resting());
}

#[tokio::test(start_paused = true)]
async fn rollback_moves_after_ten_seconds_of_a_busy_pipeline() {
    let mut bench = Bench::changing(State::Serving).await;
    bench.looks(5).await;
    bench.submit(&[], &Choice::Rollback(tickets())).await;
    bench.is_busy = true;
    let begun = Instant::now();
    bench.until("it is rolled back", |bench| bench.is_served_by(1)).await;
    assert!((10..16).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!((bench.alias(TICKETS).as_deref(), bench.state(2)), (Some("tickets.g1"), Some(State::Kept)));
    bench.looks(5).await;
    assert!(!bench.controller.is_resting());
}

#[tokio::test(start_paused = true)]
async fn rollback_of_an_idle_pipeline_moves_at_once() {
    let mut bench = Bench::changing(State::Serving).await;
    bench.looks(5).await;
    bench.submit(&[], &Choice::Rollback(tickets())).await;
    let begun = Instant::now();
    bench.until("it is rolled back", |bench| bench.is_served_by(1)).await;
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
}

/// A third generation, beside a kept one.
async fn third() -> Bench {
    let mut bench = Bench::changing(State::Serving).await;
    bench.looks(5).await;
    let options = ApplyOptions { forced: true, only: [tickets()].into(), ..ApplyOptions::default() };
    bench.apply_with(&[remodelled(TICKETS)], options).await;
    bench
}

#[tokio::test(start_paused = true)]
async fn generation_that_cannot_be_created_delays_no_rollback() {
    let mut bench = third().await;
    bench.index("tickets.g3").faults().always("create", Fault::unreachable());
    bench.looks(100).await;
    assert_eq!(bench.state(3), Some(State::Creating));
    bench.submit(&[], &Choice::Rollback(tickets())).await;
    bench.until("it is rolled back", |bench| bench.is_served_by(1)).await;
    bench.index("tickets.g3").faults().heal();
    bench.until("it is created", |bench| bench.state(3) != Some(State::Creating)).await;
}

#[tokio::test(start_paused = true)]
async fn comparison_delays_no_rollback() {
    let mut bench = third().await;
    bench.until("it is filled", |bench| bench.state(3) == Some(State::Filling)).await;
    let (gate, before) = (Gate::closed(), bench.source.faults().hits("collections"));
    bench.source.faults().once("collections", Fault::Held(gate.clone()));
    bench.until("it is compared", |bench| bench.source.faults().hits("collections") > before).await;
    bench.submit(&[], &Choice::Rollback(tickets())).await;
    let begun = Instant::now();
    bench.until("it is rolled back", |bench| bench.is_served_by(1)).await;
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    gate.open();
}

#[tokio::test(start_paused = true)]
async fn loss_at_rest_prevents_the_move() {
    let mut bench = Bench::changing(State::Ready).await;
    let is_intended = |bench: &Bench| bench.entry().is_some_and(|index| index.switching.is_some());
    bench.until("the intent is saved", is_intended).await;
    bench.lose(&tickets().target(2)).await;
    bench.until("it is filled again", |bench| bench.state(2) == Some(State::Filling)).await;
    assert_eq!(bench.alias(TICKETS).as_deref(), Some("tickets.g1"));
    bench.until("it is switched later", |bench| bench.is_served_by(2)).await;
}

#[tokio::test(start_paused = true)]
async fn rest_ends_although_the_index_is_unavailable() {
    let mut bench = Bench::changing(State::Ready).await;
    bench.until("it rests", |bench| bench.controller.is_resting()).await;
    bench.servers.collections.faults().always("list", Fault::unreachable());
    bench.servers.collections.faults().always("point", Fault::unreachable());
    let begun = Instant::now();
    bench.until("it goes on", |bench| !bench.controller.is_resting()).await;
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    bench.servers.collections.faults().heal();
    bench.until("it is switched", |bench| bench.is_served_by(2)).await;
}

#[tokio::test(start_paused = true)]
async fn intent_is_moved_only_once_it_is_adopted() {
    let mut bench = Bench::changing(State::Ready).await;
    bench.until("it rests", |bench| bench.controller.is_resting()).await;
    bench.adopts = false;
    let is_intended = |bench: &Bench| bench.entry().is_some_and(|index| index.switching.is_some());
    bench.until("the intent is saved", is_intended).await;
    bench.looks(10).await;
    assert_eq!(bench.alias(TICKETS).as_deref(), Some("tickets.g1"));
    bench.adopts = true;
    bench.until("it is switched", |bench| bench.is_served_by(2)).await;
}

#[tokio::test(start_paused = true)]
async fn plain_collection_is_replaced_and_its_state_forgotten() {
    let mut bench = Bench::plain().await;
    let target = IndexName::of_collection("documents").target(1);
    let state = bench.streams().target(&target, true);
    state.save_audit(Some("a place")).await.unwrap();
    bench.until("it is switched", |bench| bench.is_served_by(2)).await;
    assert_eq!(state.audit().await, Ok(None));
    assert_eq!(bench.alias("documents").as_deref(), Some("documents.g2"));
    assert!(!bench.index("documents").is_there() && bench.state(1).is_none());
    assert!(!bench.entry().unwrap().plain);
    assert!(bench.lost().await.iter().all(|(lost, _)| *lost != target));
    assert_eq!(bench.interruptions, 0, "both requests follow each other");
}

#[tokio::test(start_paused = true)]
async fn rest_lasts_until_the_alias_of_a_deleted_plain_collection_exists() {
    let mut bench = Bench::plain().await;
    bench.until("it is ready", |bench| bench.state(2) == Some(State::Ready)).await;
    bench.servers.collections.faults().always("point", Fault::unreachable());
    bench.until("it is deleted", |bench| !bench.index("documents").is_there()).await;
    bench.looks(200).await;
    assert!(bench.controller.is_resting(), "entries of the plain collection would create it again");
    bench.servers.collections.faults().heal();
    bench.until("it is switched", |bench| bench.is_served_by(2)).await;
    bench.looks(5).await;
    assert!(!bench.controller.is_resting());
}

#[tokio::test(start_paused = true)]
async fn alias_of_an_operator_moves_without_an_interruption_and_its_collection_stays() {
    let mut bench = Bench::plain_in("docs_v1").await;
    bench.until("it is switched", |bench| bench.is_served_by(2)).await;
    assert_eq!(bench.alias("documents").as_deref(), Some("documents.g2"));
    assert!(bench.index("docs_v1").is_there() && !bench.entry().unwrap().plain);
    assert_eq!((bench.state(1), bench.interruptions), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn rest_lasts_until_the_move_of_a_plain_index_is_recorded() {
    let mut bench = Bench::plain().await;
    let is_intended = |bench: &Bench| bench.entry().is_some_and(|index| index.switching.is_some());
    bench.until("the move is intended", is_intended).await;
    bench.streams().faults().always("save_catalog", Fault::unreachable());
    bench.until("the alias exists", |bench| bench.alias("documents").is_some()).await;
    bench.looks(200).await;
    assert!(bench.controller.is_resting(), "entries of the plain collection would reach the new one through the alias");
    bench.streams().faults().heal();
    bench.until("it is switched", |bench| bench.is_served_by(2)).await;
}
