//! The contract of [`DeadLetters`](tidewheel_core::ports::DeadLetters).

use std::time::Duration;

use tidewheel_core::change::Change;
use tidewheel_core::ports::{DeadLetter, Delivery, EntryId, Fence, FenceTarget, Letter, StageQueue};
use tidewheel_core::stage::Stage;
use tidewheel_core::version::{ClusterTime, Version};
use tidewheel_stores::redis::keys::RAW;

use super::samples::{change, embedded};
use super::streams::{NOW, StreamsHarness, append, ids, numbers, stage_1};

/// Parks the deliveries.
async fn park<T>(queue: &dyn StageQueue<T>, deliveries: &[Delivery<T>]) {
    let letter = |id: EntryId| {
        let reason = format!("reason of {}", id.0);
        DeadLetter::new(id, reason, 2)
    };
    queue.park(&ids(deliveries).into_iter().map(letter).collect::<Vec<_>>()).await.unwrap();
}

/// Appends these inserts to stage 1, and parks them.
async fn parked(harness: &dyn StreamsHarness, numbers: std::ops::RangeInclusive<u32>) -> Vec<Delivery<Change>> {
    append(harness, numbers).await;
    let queue = stage_1(harness, "a");
    let read = queue.read(100, NOW).await.unwrap();
    park(&*queue, &read).await;
    read
}

fn letter_ids(letters: &[Letter]) -> Vec<EntryId> {
    letters.iter().map(|letter| letter.id.clone()).collect()
}

/// Oldest first, with all their fields; each stage has its own.
pub async fn dead_letters_are_paged(harness: &dyn StreamsHarness) {
    let letters = harness.dead_letters();
    assert!(letters.letters(Stage::Raw, &EntryId::zero(), 10).await.unwrap().is_empty());
    let read = parked(harness, 1..=5).await;
    let first = letters.letters(Stage::Raw, &EntryId::zero(), 3).await.unwrap();
    let rest = letters.letters(Stage::Raw, &first[2].id, 10).await.unwrap();
    let all: Vec<&Letter> = first.iter().chain(&rest).collect();
    assert_eq!((first.len(), all.len(), letters.count(Stage::Raw).await.unwrap()), (3, 5, 5));
    for (number, (letter, delivery)) in (1..).zip(all.iter().zip(&read)) {
        assert_eq!((&letter.entry, letter.stream.as_str()), (&delivery.id, RAW));
        assert_eq!((letter.reason.clone(), letter.attempts), (format!("reason of {}", delivery.id.0), 2));
        assert!(letter.parked_at >= delivery.id.parts().0, "{letter:?}");
        assert_eq!(letter.record.as_ref().unwrap().change, change(number));
    }
    harness.handover().hand_over(&[embedded(7)], &[]).await.unwrap();
    let queue = harness.embedded("b");
    park(&*queue, &queue.read(10, NOW).await.unwrap()).await;
    let second = letters.letters(Stage::Embedded, &EntryId::zero(), 10).await.unwrap();
    assert_eq!(second[0].record, Ok(embedded(7)));
}

/// The same record at the same version, processed like any other; a second retry moves nothing.
pub async fn retried_dead_letter_keeps_its_record(harness: &dyn StreamsHarness) {
    let letters = harness.dead_letters();
    parked(harness, 1..=3).await;
    let ids = letter_ids(&letters.letters(Stage::Raw, &EntryId::zero(), 10).await.unwrap());
    assert_eq!(letters.retry(Stage::Raw, &ids[1..]).await.unwrap().moved, 2);
    assert_eq!(letters.retry(Stage::Raw, &ids[1..]).await.unwrap().moved, 0);
    assert_eq!(letters.retry(Stage::Raw, &[]).await.unwrap().moved, 0);
    assert_eq!(letter_ids(&letters.letters(Stage::Raw, &EntryId::zero(), 10).await.unwrap()), ids[..1]);
    let again = stage_1(harness, "b").read(10, NOW).await.unwrap();
    assert_eq!(numbers(&again), [2, 3]);
    assert_eq!(again[0].record, Ok(change(2)));
    assert_eq!(harness.raw(RAW).await.last().unwrap().len(), 8, "the entry has no fields of the dead letter");
    assert_eq!(harness.journal().positions().await.unwrap().damage, None);
    harness.handover().hand_over(&[embedded(7)], &[]).await.unwrap();
    let queue = harness.embedded("c");
    park(&*queue, &queue.read(10, NOW).await.unwrap()).await;
    let ids = letter_ids(&letters.letters(Stage::Embedded, &EntryId::zero(), 10).await.unwrap());
    assert_eq!(letters.retry(Stage::Embedded, &ids).await.unwrap().moved, 1);
    assert_eq!(queue.read(10, NOW).await.unwrap()[0].record, Ok(embedded(7)));
    assert_eq!(harness.journal().positions().await.unwrap().damage, None);
}

/// The caller decides whether to retry such a dead letter.
pub async fn undecodable_dead_letter_is_listed_and_retried(harness: &dyn StreamsHarness) {
    harness.add_raw(RAW, vec![(b"a".into(), b"b".into())]).await;
    let queue = stage_1(harness, "a");
    park(&*queue, &queue.read(10, NOW).await.unwrap()).await;
    let letters = harness.dead_letters();
    let found = letters.letters(Stage::Raw, &EntryId::zero(), 10).await.unwrap();
    assert!(found[0].record.is_err() && found[0].reason.starts_with("reason of"), "{found:?}");
    assert_eq!(letters.retry(Stage::Raw, &letter_ids(&found)).await.unwrap().moved, 1);
    assert_eq!(harness.raw(RAW).await.last().unwrap(), &vec![(b"a".to_vec(), b"b".to_vec())]);
}

/// The others are kept.
pub async fn discarded_dead_letters_are_deleted(harness: &dyn StreamsHarness) {
    let letters = harness.dead_letters();
    parked(harness, 1..=3).await;
    let ids = letter_ids(&letters.letters(Stage::Raw, &EntryId::zero(), 10).await.unwrap());
    assert_eq!(letters.discard(Stage::Raw, &ids[..2]).await.unwrap(), 2);
    assert_eq!(letters.discard(Stage::Raw, &ids[..2]).await.unwrap(), 0);
    assert_eq!(letters.discard(Stage::Raw, &[]).await.unwrap(), 0);
    assert_eq!(letter_ids(&letters.letters(Stage::Raw, &EntryId::zero(), 10).await.unwrap()), ids[2..]);
    assert_eq!(letters.retry(Stage::Raw, &ids[..2]).await.unwrap().moved, 0);
}

/// The dead letter could be older than the deletion of its document.
pub async fn tombstones_are_kept_while_a_retry_is_in_flight(harness: &dyn StreamsHarness) {
    let (letters, tombstones, journal) = (harness.dead_letters(), harness.tombstones(), harness.journal());
    let pause = || tokio::time::sleep(Duration::from_millis(5));
    tombstones.raise(&[deletion(9, 5)]).await.unwrap();
    parked(harness, 1..=1).await;
    let ids = letter_ids(&letters.letters(Stage::Raw, &EntryId::zero(), 10).await.unwrap());
    pause().await;
    let before = journal.positions().await.unwrap().at;
    assert_eq!(letters.retry(Stage::Raw, &ids).await.unwrap().moved, 1);
    assert_eq!(tombstones.collect(NOW, before).await.unwrap().forgotten, 0);
    pause().await;
    let after = journal.positions().await.unwrap().at;
    assert_eq!(tombstones.collect(NOW, after).await.unwrap().forgotten, 1, "it has left the streams");
}

/// Its document may have been deleted since. Newer dead letters and deletions are retried.
pub async fn dead_letter_older_than_a_collected_tombstone_is_not_retried(harness: &dyn StreamsHarness) {
    let (letters, tombstones) = (harness.dead_letters(), harness.tombstones());
    parked(harness, 1..=3).await;
    let version = change(2).version;
    tombstones.raise(&[Fence { version, ..deletion(9, 5) }]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let settled = harness.journal().positions().await.unwrap().at;
    assert_eq!(tombstones.collect(NOW, settled).await.unwrap().forgotten, 1);
    let ids = letter_ids(&letters.letters(Stage::Raw, &EntryId::zero(), 10).await.unwrap());
    let retried = letters.retry(Stage::Raw, &ids).await.unwrap();
    assert_eq!((retried.moved, retried.outdated), (2, ids[..1].to_vec()));
    assert_eq!(letter_ids(&letters.letters(Stage::Raw, &EntryId::zero(), 10).await.unwrap()), ids[..1]);
}

fn deletion(number: u32, seconds: u32) -> Fence {
    let version = Version::of_snapshot(0, ClusterTime { seconds, increment: 1 });
    Fence { target: FenceTarget::Document(change(number).document_id()), version }
}
