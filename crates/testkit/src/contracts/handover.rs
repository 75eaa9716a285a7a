//! The contract of [`Handover`](tidewheel_core::ports::Handover).

use tidewheel_core::embedded::{Embedded, Vectors};
use tidewheel_core::stage::Stage;

use super::samples::{deletion, embedded};
use super::streams::{NOW, StreamsHarness, append, ids, stage_1};

async fn on_stage_2(harness: &dyn StreamsHarness) -> Vec<Embedded> {
    let read = harness.embedded("reader").read(10_000, NOW).await.unwrap();
    read.into_iter().map(|delivery| delivery.record.unwrap()).collect()
}

/// The records are on stage 2 unchanged, and the entries are acknowledged on stage 1.
pub async fn hand_over_moves_records_atomically(harness: &dyn StreamsHarness) {
    append(harness, 1..=3).await;
    let read = stage_1(harness, "a").read(10, NOW).await.unwrap();
    harness.handover().hand_over(&[embedded(1), embedded(2)], &ids(&read[..2])).await.unwrap();
    let status = harness.status(Stage::Raw).await;
    assert_eq!((status.pending, status.length), (1, 3), "acknowledged entries stay for replay");
    assert_eq!(harness.backlog(Stage::Embedded).backlog().await.unwrap(), 2);
    assert_eq!(on_stage_2(harness).await, [embedded(1), embedded(2)]);
}

/// A record without vectors round-trips.
pub async fn deletion_is_handed_over_without_vectors(harness: &dyn StreamsHarness) {
    append(harness, [1]).await;
    let read = stage_1(harness, "a").read(10, NOW).await.unwrap();
    harness.handover().hand_over(&[deletion(1)], &ids(&read)).await.unwrap();
    assert_eq!(on_stage_2(harness).await, [deletion(1)]);
}

/// Entries may be acknowledged without records (a newer one of the same document replaced them), and vice versa.
pub async fn hand_over_accepts_empty_records_or_ids(harness: &dyn StreamsHarness) {
    append(harness, 1..=2).await;
    let read = stage_1(harness, "a").read(10, NOW).await.unwrap();
    let handover = harness.handover();
    handover.hand_over(&[], &[]).await.unwrap();
    handover.hand_over(&[], &ids(&read)).await.unwrap();
    assert_eq!(harness.status(Stage::Raw).await.pending, 0);
    handover.hand_over(&[embedded(2)], &[]).await.unwrap();
    assert_eq!(on_stage_2(harness).await, [embedded(2)]);
}

/// 2,500 entries, more than a script can unpack at once, and 500 records of 3 KB vectors.
pub async fn large_batch_is_handed_over_completely(harness: &dyn StreamsHarness) {
    append(harness, 1..=2500).await;
    let read = stage_1(harness, "a").read(3000, NOW).await.unwrap();
    let vector = || Vectors::new(768, (0..768).map(|i| i as f32 / 7.0).collect()).expect("one vector");
    let records: Vec<Embedded> =
        (1..=500).map(|i| Embedded { chunks: vec!["one".into()], vectors: vector(), ..embedded(i) }).collect();
    harness.handover().hand_over(&records, &ids(&read)).await.unwrap();
    assert_eq!(harness.status(Stage::Raw).await.pending, 0);
    assert_eq!(on_stage_2(harness).await, records);
}

/// Retrying a step whose reply was lost may duplicate records, which versions make harmless, but loses none.
pub async fn repeated_hand_over_loses_nothing(harness: &dyn StreamsHarness) {
    append(harness, [1]).await;
    let read = stage_1(harness, "a").read(10, NOW).await.unwrap();
    for _ in 0..2 {
        harness.handover().hand_over(&[embedded(1)], &ids(&read)).await.unwrap();
    }
    assert_eq!(harness.status(Stage::Raw).await.pending, 0);
    assert!(harness.status(Stage::Embedded).await.length >= 1);
    assert!(on_stage_2(harness).await.iter().all(|record| *record == embedded(1)));
}
