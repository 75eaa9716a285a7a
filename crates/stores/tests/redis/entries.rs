//! Lookup of one document's entries.

use std::time::Duration;

use tidewheel_core::change::{Change, Operation};
use tidewheel_core::ports::{DeadLetter, Handover as _, Queue as _, Settlement as _, StreamLog as _};
use tidewheel_stores::redis::EntryState;
use tidewheel_stores::redis::keys::{STAGE_1, STAGE_2};
use tidewheel_stores::redis::wire::Record as _;
use tidewheel_testkit::contracts::samples::{change, changes, embedded};

use crate::server::{TestRedis, append};

#[tokio::test]
async fn entries_of_a_document_are_found_with_their_state() {
    let redis = TestRedis::start().await;
    append(&redis.store, 1..=3).await;
    let stream_log = redis.store.stream_log(STAGE_1);
    stream_log.append(&changes(2..=2)).await.unwrap();
    let drop =
        Change { operation: Operation::Drop, key: String::new(), id: String::new(), document: None, ..change(9) };
    stream_log.append(&[drop]).await.unwrap();
    let queue = redis.stage_1("anna");
    let read = queue.read(3, Duration::ZERO).await.unwrap();
    queue.acknowledge(&[read[0].id.clone()]).await.unwrap();

    let of = |number| vec![(change(number).namespace, change(number).key)];
    let found = redis.store.entries_of(STAGE_1, &of(2), 100).await.unwrap();
    assert_eq!((found.looked_at, found.complete), (5, true));
    let states: Vec<_> = found.entries.iter().map(|entry| entry.state.clone()).collect();
    assert_eq!(states[..2], [EntryState::Waiting, EntryState::Waiting], "the drop, and the second insert");
    assert!(
        matches!(&states[2], EntryState::Pending { consumer, deliveries: 1, .. } if consumer == "anna"),
        "{states:?}"
    );
    assert_eq!(Change::decode(found.entries[1].fields.clone()), Ok(change(2)));
    let found = redis.store.entries_of(STAGE_1, &of(1), 100).await.unwrap();
    assert_eq!(found.entries.last().unwrap().state, EntryState::Confirmed);
    // An incomplete scan is reported.
    let found = redis.store.entries_of(STAGE_1, &of(1), 2).await.unwrap();
    assert_eq!((found.looked_at, found.complete, found.entries.len()), (2, false, 1));
    let other = [(tidewheel_core::identity::Namespace::new("shop", "notes"), change(1).key)];
    assert!(redis.store.entries_of(STAGE_1, &other, 100).await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn found_entries_omit_vectors_and_dead_letters_are_found() {
    let redis = TestRedis::start().await;
    let of = [(change(7).namespace, change(7).key)];
    assert!(redis.store.entries_of(STAGE_2, &of, 100).await.unwrap().complete, "the stream does not exist");
    redis.store.hand_over(&[embedded(7), embedded(8)], &[]).await.unwrap();
    let found = redis.store.entries_of(STAGE_2, &of, 100).await.unwrap();
    let [entry] = &found.entries[..] else { panic!("{found:?}") };
    assert!(entry.fields.iter().all(|(name, _)| name != b"vectors") && entry.fields.len() > 8, "{entry:?}");
    let queue = redis.store.queue::<tidewheel_core::embedded::Embedded>(STAGE_2, "b");
    let read = queue.read(10, Duration::ZERO).await.unwrap();
    let letter = |id| DeadLetter { id, reason: "it was refused".into(), attempts: 1 };
    queue.park(&[letter(read[0].id.clone())]).await.unwrap();
    let letters = redis.store.letters_of(STAGE_2, &of, 100).await.unwrap();
    assert!(letters.entries[0].fields.contains(&(b"reason".to_vec(), b"it was refused".to_vec())));
}
