//! The contract of [`Journal`](tidewheel_core::ports::Journal) as the record of how far everything has come, and of
//! [`Alarm`](tidewheel_core::ports::Alarm).

use tidewheel_core::ports::{Appended, Damage, EntryId, Positions, Repair};
use tidewheel_core::streams::{EMBEDDED, RAW, STAGE_1, STAGE_2};

use super::samples::{checkpoint, embedded};
use super::streams::{NOW, StreamsHarness, append, ids, stage_1};

async fn positions(harness: &dyn StreamsHarness) -> Positions {
    harness.journal().positions().await.unwrap()
}

async fn damage(harness: &dyn StreamsHarness) -> Option<Damage> {
    positions(harness).await.damage
}

async fn restart(harness: &dyn StreamsHarness, repair: Repair) {
    let journal = harness.journal();
    let saved = journal.load().await.unwrap();
    let next = saved.clone().unwrap_or_else(|| checkpoint(0));
    assert_eq!(journal.restart(saved.as_ref(), &[], &[], &next, repair).await.unwrap(), Appended::Saved);
}

/// Moves everything that stage 1 holds on to stage 2.
async fn hand_over(harness: &dyn StreamsHarness) {
    let read = stage_1(harness, "a").read(100, NOW).await.unwrap();
    let records: Vec<_> = (1..).zip(&read).map(|(number, _)| embedded(number)).collect();
    harness.handover().hand_over(&records, &ids(&read)).await.unwrap();
}

/// Nothing is there, nothing waits, nothing is wrong.
pub async fn an_empty_pipeline_has_passed_everything(harness: &dyn StreamsHarness) {
    let Positions { raw, embedded, damage, .. } = positions(harness).await;
    assert_eq!((&raw.last, &raw.waiting, &embedded.last), (&EntryId::zero(), &None, &EntryId::zero()));
    assert!(raw.has_passed(&EntryId::zero()) && embedded.has_passed(&embedded.last));
    assert_eq!(damage, None);
}

/// The oldest entry waits until it is acknowledged, whoever has read it.
pub async fn positions_follow_both_stages(harness: &dyn StreamsHarness) {
    append(harness, 1..=3).await;
    let unread = positions(harness).await.raw;
    assert!(!unread.has_passed(&unread.last));
    let queue = stage_1(harness, "a");
    let first = queue.read(1, NOW).await.unwrap();
    let rest = queue.read(10, NOW).await.unwrap();
    let read = positions(harness).await.raw;
    assert!(read.last == unread.last && !read.has_passed(&first[0].id), "read is not acknowledged");
    queue.acknowledge(&ids(&rest)).await.unwrap();
    let waiting = positions(harness).await.raw;
    assert_eq!(waiting.waiting.as_ref(), Some(&first[0].id));
    harness.handover().hand_over(&[embedded(1)], &ids(&first)).await.unwrap();
    let Positions { raw, embedded, damage, .. } = positions(harness).await;
    assert_eq!((raw.last, raw.waiting), (unread.last, None));
    assert!(embedded.waiting.is_some() && !embedded.has_passed(&embedded.last));
    let queue = harness.embedded("b");
    let read = queue.read(10, NOW).await.unwrap();
    assert_eq!(read[0].id, embedded.last);
    queue.acknowledge(&ids(&read)).await.unwrap();
    assert_eq!(positions(harness).await.embedded.waiting, None);
    assert_eq!(damage, None);
}

/// Only on top of the expected checkpoint, and forgotten by a producer that begins anew.
pub async fn the_applied_checkpoint_is_saved_beside_the_other(harness: &dyn StreamsHarness) {
    let journal = harness.journal();
    assert_eq!(journal.applied().await.unwrap(), None);
    append(harness, 1..=5).await;
    assert_eq!(journal.confirm(&checkpoint(4), &checkpoint(3)).await.unwrap(), Appended::Conflict);
    assert_eq!(journal.applied().await.unwrap(), None);
    for applied in [2, 4] {
        assert_eq!(journal.confirm(&checkpoint(5), &checkpoint(applied)).await.unwrap(), Appended::Saved);
        assert_eq!(journal.applied().await.unwrap(), Some(checkpoint(applied)));
    }
    assert_eq!(journal.load().await.unwrap(), Some(checkpoint(5)));
    let changes = super::samples::changes(6..=6);
    let wrong = journal.restart(Some(&checkpoint(4)), &changes, &[], &checkpoint(6), Repair::Everything).await.unwrap();
    assert_eq!(wrong, Appended::Conflict);
    let rewound = journal.restart(Some(&checkpoint(5)), &[], &[], &checkpoint(4), Repair::Entries).await.unwrap();
    assert_eq!((rewound, journal.load().await.unwrap()), (Appended::Saved, Some(checkpoint(4))));
    assert_eq!(journal.applied().await.unwrap(), Some(checkpoint(4)));
    for _ in 0..2 {
        let anew =
            journal.restart(Some(&checkpoint(4)), &changes, &[], &checkpoint(6), Repair::Everything).await.unwrap();
        assert_eq!((anew, journal.applied().await.unwrap()), (Appended::Saved, None));
    }
    assert_eq!(harness.status(STAGE_1).await.length, 6, "the changes were appended once");
}

/// Whether it was refilled meanwhile or not.
pub async fn a_deleted_stream_is_damage_until_the_producer_goes_on(harness: &dyn StreamsHarness) {
    append(harness, 1..=3).await;
    hand_over(harness).await;
    append(harness, 4..=6).await;
    for stage in [STAGE_1, STAGE_2] {
        assert_eq!(damage(harness).await, None);
        harness.delete_stream(stage.stream).await;
        for _ in 0..2 {
            let Some(Damage::Entries(what)) = damage(harness).await else { panic!("{} is gone", stage.stream) };
            assert!(what.contains(stage.stream), "{what}");
            append(harness, [7]).await;
            hand_over(harness).await;
        }
        restart(harness, Repair::Entries).await;
    }
    assert_eq!(damage(harness).await, None);
}

/// Unread ones, and those that a consumer has read.
pub async fn entries_that_vanish_are_damage(harness: &dyn StreamsHarness) {
    append(harness, 1..=3).await;
    let queue = stage_1(harness, "a");
    let read = queue.read(2, NOW).await.unwrap();
    let unread = positions(harness).await.raw.last;
    harness.delete_entry(RAW, &unread).await;
    assert!(matches!(damage(harness).await, Some(Damage::Entries(_))), "an unread entry was deleted");
    restart(harness, Repair::Entries).await;
    assert_eq!(damage(harness).await, None);

    harness.delete_entry(RAW, &read[0].id).await;
    let waiting = positions(harness).await;
    assert_eq!(waiting.raw.waiting.as_ref(), Some(&read[0].id), "it still waits");
    assert!(waiting.damage.is_some());
    restart(harness, Repair::Entries).await;
    assert_eq!(stage_1(harness, "b").claim(NOW, 10).await.unwrap().lost.len(), 1);
    let Some(Damage::Entries(what)) = damage(harness).await else { panic!("a pending entry was deleted") };
    assert!(what.contains(RAW), "{what}");
    restart(harness, Repair::Entries).await;
    assert_eq!(damage(harness).await, None);
}

/// Or another one than before; the first one is not.
pub async fn a_collection_that_is_gone_is_damage(harness: &dyn StreamsHarness) {
    let alarm = harness.alarm();
    append(harness, [1]).await;
    alarm.collection("documents", false).await.unwrap();
    alarm.collection("documents", true).await.unwrap();
    alarm.collection("documents", true).await.unwrap();
    assert_eq!(damage(harness).await, None);
    alarm.collection("documents", false).await.unwrap();
    for _ in 0..2 {
        let Some(Damage::Collection(what)) = damage(harness).await else { panic!("it is gone") };
        assert!(what.contains("documents"), "{what}");
        alarm.collection("documents", true).await.unwrap();
    }
    restart(harness, Repair::Everything).await;
    assert_eq!(damage(harness).await, None);
    alarm.collection("documents", true).await.unwrap();
    assert_eq!(damage(harness).await, None);
    alarm.collection("articles", true).await.unwrap();
    let Some(Damage::Collection(what)) = damage(harness).await else { panic!("it is another one") };
    assert!(what.contains("documents") && what.contains("articles"), "{what}");
    restart(harness, Repair::Everything).await;
    alarm.collection("letters", false).await.unwrap();
    let Some(Damage::Collection(what)) = damage(harness).await else { panic!("it has yet to be made") };
    assert!(what.contains("letters") && what.contains("articles"), "{what}");
    restart(harness, Repair::Everything).await;
    alarm.collection("letters", true).await.unwrap();
    assert_eq!(damage(harness).await, None, "once is enough");
}

/// Going back to the applied checkpoint does not fill a collection.
pub async fn lost_entries_do_not_make_a_lost_collection_good(harness: &dyn StreamsHarness) {
    let alarm = harness.alarm();
    append(harness, [1]).await;
    alarm.collection("documents", true).await.unwrap();
    harness.delete_stream(RAW).await;
    alarm.collection("documents", false).await.unwrap();
    assert!(matches!(damage(harness).await, Some(Damage::Collection(_))), "the worse damage comes first");
    restart(harness, Repair::Entries).await;
    assert!(matches!(damage(harness).await, Some(Damage::Collection(_))));
    restart(harness, Repair::Everything).await;
    assert_eq!(damage(harness).await, None);
}

/// Groups that are destroyed, streams that are trimmed as they should be, entries that somebody adds.
pub async fn what_is_normal_is_no_damage(harness: &dyn StreamsHarness) {
    append(harness, 1..=20).await;
    hand_over(harness).await;
    let queue = stage_1(harness, "a");
    let retention = tidewheel_core::ports::Retention { age: NOW, entries: 5, bytes: u64::MAX };
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    queue.trim(retention).await.unwrap();
    assert_eq!(damage(harness).await, None);
    append(harness, 21..=22).await;
    let read = queue.read(1, NOW).await.unwrap();
    queue.acknowledge(&ids(&read)).await.unwrap();
    harness.destroy_group(STAGE_1).await;
    harness.destroy_group(STAGE_2).await;
    assert_eq!(damage(harness).await, None);
    assert!(positions(harness).await.raw.waiting.is_some(), "all that is there is read again");
    harness.add_raw(EMBEDDED, vec![(b"operation".into(), b"insert".into())]).await;
    hand_over(harness).await;
    assert_eq!(damage(harness).await, None);
}
