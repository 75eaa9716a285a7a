//! The controller in the session of a producer.

use std::time::Duration;

use tidewheel_core::catalog::{Choice, Index, State};
use tidewheel_core::ports::{Acknowledge as _, CatalogStore as _, Journal as _, Queue as _};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::bench::{Bench, MOST_LOOKS, TICKETS, options, remodelled, tickets};
use crate::producer::Producer;
use crate::targets::samples::declaration;

/// Acknowledges what the producer appends, and reports models, until this generation serves and is filled.
async fn serve(bench: &Bench, number: u32) {
    let queue = bench.streams().changes("tests");
    for _ in 0..MOST_LOOKS {
        bench.identify().await;
        let read = queue.read(1_000, Duration::ZERO).await.unwrap();
        let ids: Vec<_> = read.into_iter().map(|delivery| delivery.id).collect();
        queue.acknowledge(&ids).await.unwrap();
        let (catalog, _) = bench.streams().catalog().load().await.unwrap();
        let index = catalog.indexes.get(&tickets()).filter(|index| index.switching.is_none());
        let serving = index.and_then(Index::serving_generation);
        if serving.is_some_and(|(serving, generation)| serving == number && generation.is_filled()) {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("generation {number} never serves: {:#?}", bench.streams().catalog().load().await);
}

#[tokio::test(start_paused = true)]
async fn producer_applies_fills_and_switches_declared_indexes() {
    let bench = Bench::new();
    let options = options(vec![declaration(TICKETS)], true);
    let producer = Producer::new(options, bench.ports.clone());
    let running = tokio::spawn(producer.run(CancellationToken::new()));
    serve(&bench, 1).await;
    assert_eq!(bench.alias(TICKETS).as_deref(), Some("tickets.g1"));

    bench.apply(&[remodelled(TICKETS)]).await;
    serve(&bench, 2).await;
    assert_eq!(bench.alias(TICKETS).as_deref(), Some("tickets.g2"));

    bench.submit(&[], &Choice::Rollback(tickets())).await;
    serve(&bench, 1).await;
    assert_eq!(bench.alias(TICKETS).as_deref(), Some("tickets.g1"));
    sleep(Duration::from_secs(5)).await;
    let (catalog, _) = bench.streams().catalog().load().await.unwrap();
    assert_eq!(catalog.indexes[&tickets()].generations[&2].state, State::Kept);
    let checkpoint = bench.streams().journal().load().await.unwrap().unwrap();
    assert_eq!(checkpoint.catalog, catalog.revision, "the last revision is adopted");
    assert!(!running.is_finished());
    running.abort();
}
