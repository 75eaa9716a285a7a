//! Changes of the catalog while a processor works.

use tidewheel_core::ports::Maintenance as _;

use super::*;

#[tokio::test]
async fn planner_keeps_what_it_has_learned_while_its_declaration_is_applied() {
    let bench = Bench::with(&two(State::Serving, true)).await;
    bench.deliver([update(1, 1, &["tickets"], &[])]).await.unwrap();
    let lanes = bench.work.current.lock().unwrap().clone();
    let planner = Arc::downgrade(&lanes.get(1).ready().expect("that of tickets").planner);
    drop(lanes);
    bench.apply(&Catalog { revision: REVISION + 1, ..two(State::Serving, true) }).await;
    bench.deliver([update(2, 2, &["tickets"], &[])]).await.unwrap();
    assert!(planner.upgrade().is_some());
}

#[tokio::test]
async fn nothing_is_left_out_by_a_catalog_that_the_store_has_lost() {
    let bench = Bench::with(&two(State::Serving, true)).await;
    let before = bench.servers.streams.save();
    bench.apply(&Catalog { revision: REVISION + 1, ..two(State::Retiring, true) }).await;
    bench.servers.streams.restore(&before);
    bench.deliver([update(1, 1, &["tickets", "notes"], &[])]).await.unwrap();
    let targets: Vec<String> = bench.written().into_iter().map(|(target, _, _)| target).collect();
    assert_eq!((targets, bench.pending()), (vec!["notes.g1".to_owned(), "tickets.g1".to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn model_of_a_dropped_index_is_no_longer_waited_for() {
    for call in ["info", "embed"] {
        let (bench, other) = with_two_models(State::Serving, true).await;
        other.faults().always(call, Fault::unreachable());
        {
            let mut batch = std::pin::pin!(bench.deliver([update(1, 1, &["tickets", "notes"], &[])]));
            assert!(tokio::time::timeout(Duration::from_secs(3_600), batch.as_mut()).await.is_err(), "{call}");
            bench.apply(&Catalog { revision: REVISION + 1, ..two(State::Retiring, true) }).await;
            let ended = batch.await;
            assert_eq!(matches!(ended, Err(RetryError::Shutdown)), call == "embed", "{call}: {ended:?}");
        }
        if call == "embed" {
            // Claimed, as every entry that is pending for long.
            assert_eq!(bench.pending(), 1);
            let claimed = bench.queue.claim(Duration::ZERO, 100).await.unwrap();
            bench.work.batch(claimed.deliveries).await.unwrap();
        }
        let targets: Vec<String> = bench.written().into_iter().map(|(target, _, _)| target).collect();
        assert_eq!((targets, bench.pending()), (vec!["tickets.g1".to_owned()], 0), "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn changes_for_a_model_that_the_settings_lack_are_left_to_other_processors() {
    let (servers, embedder) = servers();
    let mut declared = two(State::Serving, true);
    declare_model(&mut declared, "notes", "elsewhere");
    servers.apply(&declared).await;
    let targets = servers.targets();
    let bench = Bench::new(servers, embedder, targets).await;
    let ended = bench.deliver([update(1, 1, &["tickets", "notes"], &[])]).await;
    assert!(matches!(ended, Err(RetryError::Shutdown)), "{ended:?}");
    assert!(bench.work.retry.health.readiness().reasons.iter().any(|reason| reason.contains("missing settings")));
    bench.deliver([update(2, 2, &["tickets"], &[])]).await.unwrap();
    assert_eq!((bench.written().len(), bench.pending()), (1, 1));
}
