//! The contracts of [`StageInspector`](tidewheel_core::ports::StageInspector) and
//! [`EntryFinder`](tidewheel_core::ports::EntryFinder).

use std::time::Duration;

use tidewheel_core::change::{Change, Operation};
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{DeadLetter, EntryState};
use tidewheel_stores::redis::keys::{STAGE_1, STAGE_2};
use tidewheel_stores::redis::wire::Record as _;

use super::samples::{change, changes, embedded};
use super::streams::{NOW, StreamsHarness, append, stage_1};

/// Of the document and of its whole collection, newest first.
pub async fn entries_of_a_document_are_found_with_their_state(harness: &dyn StreamsHarness) {
    append(harness, 1..=3).await;
    let stream_log = harness.stream_log();
    stream_log.append(&changes(2..=2)).await.unwrap();
    let drop =
        Change { operation: Operation::Drop, key: String::new(), id: String::new(), document: None, ..change(9) };
    stream_log.append(&[drop]).await.unwrap();
    let queue = stage_1(harness, "anna");
    let read = queue.read(3, NOW).await.unwrap();
    queue.acknowledge(&[read[0].id.clone()]).await.unwrap();

    let finder = harness.finder();
    let of = |number| vec![(change(number).namespace, change(number).key)];
    let found = finder.entries_of(STAGE_1, &of(2), 100).await.unwrap();
    assert_eq!((found.looked_at, found.complete), (5, true));
    let states: Vec<_> = found.entries.iter().map(|entry| entry.state.clone()).collect();
    assert_eq!(states[..2], [EntryState::Waiting, EntryState::Waiting], "the drop, and the second insert");
    assert!(
        matches!(&states[2], EntryState::Pending { consumer, deliveries: 1, .. } if consumer == "anna"),
        "{states:?}"
    );
    assert_eq!(Change::decode(found.entries[1].fields.clone()), Ok(change(2)));
    let found = finder.entries_of(STAGE_1, &of(1), 100).await.unwrap();
    assert_eq!(found.entries.last().unwrap().state, EntryState::Confirmed);
    // An incomplete scan is reported.
    let found = finder.entries_of(STAGE_1, &of(1), 2).await.unwrap();
    assert_eq!((found.looked_at, found.complete, found.entries.len()), (2, false, 1));
    let other = [(Namespace::new("shop", "notes"), change(1).key)];
    assert!(finder.entries_of(STAGE_1, &other, 100).await.unwrap().entries.is_empty());
}

/// Vectors can be megabytes.
pub async fn found_entries_omit_vectors_and_dead_letters_are_found(harness: &dyn StreamsHarness) {
    let finder = harness.finder();
    let of = [(change(7).namespace, change(7).key)];
    assert!(finder.entries_of(STAGE_2, &of, 100).await.unwrap().complete, "the stream does not exist");
    harness.handover().hand_over(&[embedded(7), embedded(8)], &[]).await.unwrap();
    let found = finder.entries_of(STAGE_2, &of, 100).await.unwrap();
    let [entry] = &found.entries[..] else { panic!("{found:?}") };
    assert!(entry.fields.iter().all(|(name, _)| name != b"vectors") && entry.fields.len() > 8, "{entry:?}");
    let queue = harness.embedded("b");
    let read = queue.read(10, NOW).await.unwrap();
    let letter = |id| DeadLetter { id, reason: "it was refused".into(), attempts: 1 };
    queue.park(&[letter(read[0].id.clone())]).await.unwrap();
    let letters = finder.letters_of(STAGE_2, &of, 100).await.unwrap();
    assert!(letters.entries[0].fields.contains(&(b"reason".to_vec(), b"it was refused".to_vec())));
}

/// Only while the lease is held.
pub async fn leader_is_the_holder_of_the_lease(harness: &dyn StreamsHarness) {
    let (journal, stages) = (harness.journal(), harness.stages());
    assert_eq!(stages.leader().await.unwrap(), None);
    assert!(journal.lease("anna", Duration::from_secs(60)).await.unwrap());
    assert_eq!(stages.leader().await.unwrap().as_deref(), Some("anna"));
    journal.release("anna").await.unwrap();
    assert_eq!(stages.leader().await.unwrap(), None);
}
