//! The contracts of [`StreamLog`] and [`Follower`](tidewheel_core::ports::Follower).

use tidewheel_core::ports::{Delivery, EntryId, StreamLog};
use tidewheel_stores::redis::keys::{EMBEDDED, RAW};

use super::samples::{change, changes, embedded};
use super::streams::{NOW, StreamsHarness, append, ids, numbers, stage_1};

async fn all<T>(stream_log: &dyn StreamLog<T>, page: usize) -> Vec<Delivery<T>> {
    let (mut after, mut all) = (EntryId::zero(), Vec::new());
    loop {
        let page = stream_log.page(&after, page).await.unwrap();
        let Some(last) = page.last() else { return all };
        after = last.id.clone();
        all.extend(page);
    }
}

/// Acknowledged or not, page by page.
pub async fn archive_reads_every_retained_entry(harness: &dyn StreamsHarness) {
    let stream_log = harness.stream_log();
    let empty = stream_log.extent().await.unwrap();
    assert_eq!((empty.first, empty.last, empty.entries, empty.whole), (None, EntryId::zero(), 0, true));
    append(harness, 1..=10).await;
    let queue = stage_1(harness, "a");
    let read = queue.read(5, NOW).await.unwrap();
    queue.acknowledge(&ids(&read)).await.unwrap();
    let held = all(&*stream_log, 3).await;
    assert_eq!(numbers(&held), (1..=10).collect::<Vec<_>>());
    let extent = stream_log.extent().await.unwrap();
    assert_eq!((extent.first.as_ref(), &extent.last), (Some(&held[0].id), &held[9].id));
    assert_eq!((extent.entries, extent.whole), (10, true));
    assert_eq!(stream_log.backlog().await.unwrap(), 5);
    harness.delete_entry(RAW, &held[0].id).await;
    assert!(!stream_log.extent().await.unwrap().whole);
}

/// Replayed entries are processed like any others, and do not hide that a stream was deleted.
pub async fn replayed_entries_are_delivered(harness: &dyn StreamsHarness) {
    append(harness, 1..=3).await;
    let stream_log = harness.stream_log();
    stream_log.append(&[]).await.unwrap();
    stream_log.append(&changes(1..=2)).await.unwrap();
    assert_eq!(numbers(&stage_1(harness, "a").read(10, NOW).await.unwrap()), [1, 2, 3, 1, 2]);
    assert_eq!(harness.journal().positions().await.unwrap().damage, None);
    harness.delete_stream(RAW).await;
    stream_log.append(&[change(9)]).await.unwrap();
    assert!(harness.journal().positions().await.unwrap().damage.is_some(), "still reported as deleted");
}

/// The group of a replay starts at the given id, reads every later entry, and is removed at the end.
pub async fn follower_reads_every_entry_after_its_start(harness: &dyn StreamsHarness) {
    let (handover, follower) = (harness.handover(), harness.follower());
    for number in 1..=3 {
        handover.hand_over(&[embedded(number)], &[]).await.unwrap();
    }
    let main = harness.embedded("a");
    let read = main.read(10, NOW).await.unwrap();
    main.acknowledge(&ids(&read)).await.unwrap();
    follower.begin(&read[0].id).await.unwrap();
    follower.begin(&read[2].id).await.unwrap();
    let position = follower.position().await.unwrap();
    assert_eq!((position.waiting.as_ref(), position.has_passed(&read[0].id)), (Some(&read[1].id), true));
    let queue = harness.replay("b");
    let seen = queue.read(10, NOW).await.unwrap();
    assert_eq!(ids(&seen), ids(&read[1..]));
    let everything = tidewheel_core::ports::Retention { age: NOW, entries: 0, bytes: 0 };
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    main.trim(everything).await.unwrap();
    assert_eq!(harness.raw(EMBEDDED).await.len(), 2, "entries it has not acknowledged are kept");
    queue.acknowledge(&ids(&seen)).await.unwrap();
    assert!(follower.position().await.unwrap().has_passed(&read[2].id));
    follower.end().await.unwrap();
    main.trim(everything).await.unwrap();
    assert_eq!(harness.raw(EMBEDDED).await.len(), 0);
    assert_eq!(follower.position().await.unwrap().waiting, None);
}
