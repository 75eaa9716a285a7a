//! Crashes of the producer at every call of the controller, and producers that act after they were replaced.

use std::time::Duration;

use tidewheel_core::catalog::{Index, State};
use tidewheel_core::ports::{Appended, CatalogStore as _, TargetStates as _};
use tidewheel_testkit::fakes::process::{CrashPoint, Moment, Process};
use tokio::time::timeout;

use super::super::prepare;
use super::super::saves::{Changes, save};
use super::super::tools::Tools;
use super::bench::{Bench, MOST_LOOKS, TICKETS, options, remodelled, tickets};
use crate::targets::samples::declaration;

/// Looks until the condition holds. A producer that dies is replaced.
async fn survive(bench: &mut Bench, process: &mut Process, what: &str, holds: impl Fn(&Bench) -> bool) {
    for _ in 0..MOST_LOOKS {
        if holds(bench) {
            return;
        }
        if timeout(Duration::ZERO, process.died()).await.is_ok() {
            *process = Process::default();
            bench.restart(process);
            prepare(&options(Vec::new(), false), &bench.ports).await.unwrap();
        }
        bench.look().await;
    }
    panic!("{what} never happens: {:#?}", bench.catalog());
}

/// Changes the model, and gives the earlier generation up.
async fn change_of_model(mut process: Process) -> Bench {
    let mut bench = Bench::serving().await;
    bench.restart(&process);
    bench.apply(&[remodelled(TICKETS)]).await;
    survive(&mut bench, &mut process, "the switch", |bench| bench.is_served_by(2)).await;
    bench.edit(|index| index.generations.get_mut(&1).unwrap().until_ms = Some(0)).await;
    survive(&mut bench, &mut process, "the end of the earlier generation", |bench| bench.state(1).is_none()).await;
    assert_eq!(bench.servers.collections.names(), ["tickets.g2"]);
    assert_eq!(bench.alias(TICKETS).as_deref(), Some("tickets.g2"));
    assert_eq!(bench.interruptions, 0, "searches never fail");
    bench
}

/// Replaces a plain collection.
async fn replacement(mut process: Process) -> Bench {
    let mut bench = Bench::plain().await;
    bench.restart(&process);
    survive(&mut bench, &mut process, "the replacement", |bench| bench.is_served_by(2)).await;
    assert_eq!(bench.servers.collections.names(), ["documents.g2"]);
    assert_eq!(bench.alias("documents").as_deref(), Some("documents.g2"));
    assert!(bench.interruptions <= 1, "searches fail until the next producer starts");
    bench
}

/// Creates, serves and drops an index.
async fn creation_and_drop(mut process: Process) -> Bench {
    let mut bench = Bench::new();
    bench.restart(&process);
    bench.apply(&[declaration(TICKETS)]).await;
    survive(&mut bench, &mut process, "the fill", |bench| bench.is_served_by(1)).await;
    bench.apply(&[]).await;
    survive(&mut bench, &mut process, "the drop", |bench| bench.entry().is_none()).await;
    assert!(bench.servers.collections.names().is_empty() && bench.alias(TICKETS).is_none());
    assert_eq!(bench.interruptions, 0);
    bench
}

/// Runs a story once for each call in it and each side of its effect.
async fn at_every_call<F: Future<Output = Bench>>(story: impl Fn(Process) -> F) {
    let process = Process::default();
    story(process.clone()).await;
    let calls = process.calls();
    assert!(calls.contains_key("save_catalog") && calls.contains_key("list"), "{calls:?}");
    for (call, count) in calls {
        for number in 1..=count {
            for moment in [Moment::Before, Moment::After] {
                story(Process::crashing(CrashPoint { call, number, moment })).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn change_of_model_survives_a_crash_at_every_call() {
    at_every_call(change_of_model).await;
}

#[tokio::test(start_paused = true)]
async fn replacement_of_a_plain_collection_survives_a_crash_at_every_call() {
    at_every_call(replacement).await;
}

#[tokio::test(start_paused = true)]
async fn creation_and_drop_survive_a_crash_at_every_call() {
    at_every_call(creation_and_drop).await;
}

#[tokio::test(start_paused = true)]
async fn comparison_resumes_after_a_crash_and_starts_over_after_a_refill() {
    let place = r#"{"source_is_done": true, "documents": 41, "is_settled": true}"#;
    let mut bench = Bench::changing(State::Comparing).await;
    bench.restart(&Process::default());
    let state = bench.streams().target(&tickets().target(2), false);
    state.save_audit(Some(place)).await.unwrap();
    bench.until("it is compared", |bench| bench.generation(2).is_some_and(|g| g.compared.is_some())).await;
    assert_eq!(bench.generation(2).unwrap().compared.unwrap().documents, 41);

    let mut bench = Bench::changing(State::Filling).await;
    let state = bench.streams().target(&tickets().target(2), false);
    state.save_audit(Some(place)).await.unwrap();
    bench.until("it is compared", |bench| bench.generation(2).is_some_and(|g| g.compared.is_some())).await;
    assert_eq!(bench.generation(2).unwrap().compared.unwrap().documents, 0);
}

#[tokio::test(start_paused = true)]
async fn late_alias_of_a_replaced_producer_is_moved_back() {
    let mut bench = Bench::changing(State::Comparing).await;
    bench.servers.collections.set_alias(TICKETS, Some("tickets.g2"));
    bench.until("it is moved back", |bench| bench.alias(TICKETS).as_deref() == Some("tickets.g1")).await;
    bench.until("it is switched", |bench| bench.is_served_by(2)).await;
}

#[tokio::test(start_paused = true)]
async fn alias_that_moved_before_the_record_is_recorded() {
    let mut bench = Bench::changing(State::Ready).await;
    let is_intended = |bench: &Bench| bench.entry().is_some_and(|index| index.switching.is_some());
    bench.until("the move is intended", is_intended).await;
    bench.servers.collections.set_alias(TICKETS, Some("tickets.g2"));
    bench.restart(&Process::default());
    bench.is_busy = true;
    bench.until("it is recorded", |bench| bench.is_served_by(2)).await;
    assert!(!bench.controller.is_resting());
}

#[tokio::test(start_paused = true)]
async fn replaced_producer_cannot_change_the_catalog() {
    let bench = Bench::serving().await;
    let (before, _) = bench.streams().catalog().load().await.unwrap();
    bench.edit(|index| index.generations.get_mut(&1).unwrap().hold = true).await;
    let (stored, now_ms) = bench.streams().catalog().load().await.unwrap();
    let index = Index { serving: None, ..before.indexes[&tickets()].clone() };
    let changes = Changes {
        expected: before.revision,
        next: before.next_revision(now_ms),
        indexes: [(tickets(), Some(index))].into(),
        refilled: vec![tickets().target(1)],
    };
    bench.lose(&tickets().target(1)).await;
    let tools = Tools::of(&bench.ports).unwrap();
    assert_eq!(save(&tools, &before, &changes).await, Ok(Appended::Conflict));
    assert_eq!(bench.streams().catalog().load().await.unwrap().0, stored);
    assert_eq!(bench.lost().await.len(), 1, "the loss is not forgotten");
}
