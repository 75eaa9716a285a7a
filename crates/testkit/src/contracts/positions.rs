//! The contract of the positions of [`Journal`](tidewheel_core::ports::Journal), and of
//! [`CollectionRegistry`](tidewheel_core::ports::CollectionRegistry).

use tidewheel_core::ports::{Appended, Damage, EntryId, Positions, Repair};
use tidewheel_core::stage::Stage;
use tidewheel_stores::redis::keys::{EMBEDDED, RAW, STAGE_1, STAGE_2};

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

/// Moves all entries of stage 1 to stage 2.
async fn hand_over(harness: &dyn StreamsHarness) {
    let read = stage_1(harness, "a").read(100, NOW).await.unwrap();
    let records: Vec<_> = (1..).zip(&read).map(|(number, _)| embedded(number)).collect();
    harness.handover().hand_over(&records, &ids(&read)).await.unwrap();
}

/// No entries, no backlog, no damage.
pub async fn empty_pipeline_has_no_backlog(harness: &dyn StreamsHarness) {
    let Positions { raw, embedded, damage, .. } = positions(harness).await;
    assert_eq!((&raw.last, &raw.waiting, &embedded.last), (&EntryId::zero(), &None, &EntryId::zero()));
    assert!(raw.has_passed(&EntryId::zero()) && embedded.has_passed(&embedded.last));
    assert_eq!(damage, None);
}

/// The oldest entry counts as waiting until it is acknowledged.
pub async fn positions_track_both_stages(harness: &dyn StreamsHarness) {
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

/// Saved only for the expected checkpoint, and deleted by a full restart.
pub async fn applied_checkpoint_is_stored_separately(harness: &dyn StreamsHarness) {
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
    assert_eq!(harness.status(Stage::Raw).await.length, 6, "the changes were appended once");
}

/// Whether it was refilled in the meantime or not.
pub async fn deleted_stream_is_damage_until_repaired(harness: &dyn StreamsHarness) {
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

/// Unread entries and delivered ones.
pub async fn deleted_entries_are_damage(harness: &dyn StreamsHarness) {
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
    assert_eq!(waiting.raw.waiting.as_ref(), Some(&read[0].id), "it is still waiting");
    assert!(waiting.damage.is_some());
    restart(harness, Repair::Entries).await;
    assert_eq!(stage_1(harness, "b").claim(NOW, 10).await.unwrap().lost.len(), 1);
    let Some(Damage::Entries(what)) = damage(harness).await else { panic!("a pending entry was deleted") };
    assert!(what.contains(RAW), "{what}");
    restart(harness, Repair::Entries).await;
    assert_eq!(damage(harness).await, None);
}

/// A missing collection or another one than before; the first one is not damage.
pub async fn missing_or_replaced_collection_is_damage(harness: &dyn StreamsHarness) {
    let registry = harness.collection_registry();
    append(harness, [1]).await;
    registry.collection("documents", false).await.unwrap();
    registry.collection("documents", true).await.unwrap();
    registry.collection("documents", true).await.unwrap();
    assert_eq!(damage(harness).await, None);
    registry.collection("documents", false).await.unwrap();
    for _ in 0..2 {
        let Some(Damage::Collection(what)) = damage(harness).await else { panic!("expected damage") };
        assert!(what.contains("documents"), "{what}");
        registry.collection("documents", true).await.unwrap();
    }
    restart(harness, Repair::Everything).await;
    assert_eq!(damage(harness).await, None);
    registry.collection("documents", true).await.unwrap();
    assert_eq!(damage(harness).await, None);
    registry.collection("articles", true).await.unwrap();
    let Some(Damage::Collection(what)) = damage(harness).await else { panic!("expected damage") };
    assert!(what.contains("documents") && what.contains("articles"), "{what}");
    restart(harness, Repair::Everything).await;
    registry.collection("letters", false).await.unwrap();
    let Some(Damage::Collection(what)) = damage(harness).await else { panic!("expected damage") };
    assert!(what.contains("letters") && what.contains("articles"), "{what}");
    restart(harness, Repair::Everything).await;
    registry.collection("letters", true).await.unwrap();
    assert_eq!(damage(harness).await, None, "reported once");
}

/// Rewinding to the applied checkpoint does not refill a collection.
pub async fn entry_repair_does_not_clear_a_lost_collection(harness: &dyn StreamsHarness) {
    let registry = harness.collection_registry();
    append(harness, [1]).await;
    registry.collection("documents", true).await.unwrap();
    harness.delete_stream(RAW).await;
    registry.collection("documents", false).await.unwrap();
    assert!(matches!(damage(harness).await, Some(Damage::Collection(_))), "the worse damage takes precedence");
    restart(harness, Repair::Entries).await;
    assert!(matches!(damage(harness).await, Some(Damage::Collection(_))));
    restart(harness, Repair::Everything).await;
    assert_eq!(damage(harness).await, None);
}

/// Destroyed groups, regular trimming, and entries added by other clients.
pub async fn normal_operation_is_not_damage(harness: &dyn StreamsHarness) {
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
    assert!(positions(harness).await.raw.waiting.is_some(), "all entries are read again");
    harness.add_raw(EMBEDDED, vec![(b"operation".into(), b"insert".into())]).await;
    hand_over(harness).await;
    assert_eq!(damage(harness).await, None);
}
