//! The contract of [`Journal`](tidewheel_core::ports::Journal).

use std::time::Duration;

use tidewheel_core::catalog::Due;
use tidewheel_core::change::Change;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Appended, Checkpoint, EntryId, ParkedChange, Repair, SnapshotState, Swept};
use tidewheel_core::stage::Stage;
use tidewheel_core::version::ClusterTime;
use tidewheel_stores::redis::keys::{RAW, STAGE_1};

use super::samples::{change, changes, checkpoint};
use super::streams::{LONG, NOW, StreamsHarness, append, ids, numbers, stage_1};

/// The audit position is stored unchanged until it is removed.
pub async fn audit_position_is_stored(harness: &dyn StreamsHarness) {
    let journal = harness.journal();
    assert_eq!(journal.audit().await.unwrap(), None);
    for place in ["{}", r#"{"index": "ü"}"#] {
        journal.save_audit(Some(place)).await.unwrap();
        assert_eq!(journal.audit().await.unwrap().as_deref(), Some(place));
    }
    journal.save_audit(None).await.unwrap();
    assert_eq!(journal.audit().await.unwrap(), None);
}

/// No checkpoint, no backlog.
pub async fn new_journal_has_no_checkpoint(harness: &dyn StreamsHarness) {
    assert_eq!(harness.journal().load().await.unwrap(), None);
    assert_eq!(harness.backlog(Stage::Raw).backlog().await.unwrap(), 0);
}

/// After an append both exist, and the entries are unchanged.
pub async fn entries_and_checkpoint_are_saved_together(harness: &dyn StreamsHarness) {
    let journal = harness.journal();
    assert_eq!(journal.append(None, &changes(1..=3), &checkpoint(3)).await.unwrap(), Appended::Saved);
    assert_eq!(journal.load().await.unwrap(), Some(checkpoint(3)));
    let appended = journal.append(Some(&checkpoint(3)), &changes(4..=4), &checkpoint(4)).await.unwrap();
    assert_eq!(appended, Appended::Saved);
    let read = stage_1(harness, "a").read(10, NOW).await.unwrap();
    let records: Vec<_> = read.into_iter().map(|delivery| delivery.record.unwrap()).collect();
    assert_eq!(records, changes(1..=4));
}

/// Parked changes become dead letters of stage 1 in the same step: with the checkpoint, or not at all, and once.
pub async fn parked_changes_are_saved_with_the_checkpoint(harness: &dyn StreamsHarness) {
    let (journal, letters) = (harness.journal(), harness.dead_letters());
    let parked = |number| ParkedChange {
        change: Change { document: None, ..change(number) },
        reason: format!("reason {number}"),
    };
    let conflict = journal.append_and_park(Some(&checkpoint(9)), &[], &[parked(8)], &checkpoint(10)).await.unwrap();
    assert_eq!(conflict, Appended::Conflict);
    assert_eq!(harness.status(Stage::Raw).await.dead_letters, 0);
    for _ in 0..2 {
        let changes = [change(1), change(3)];
        let saved = journal.append_and_park(None, &changes, &[parked(2), parked(4)], &checkpoint(4)).await.unwrap();
        assert_eq!(saved, Appended::Saved);
    }
    let restarted =
        journal.restart(Some(&checkpoint(4)), &[], &[parked(5)], &checkpoint(5), Repair::Entries).await.unwrap();
    assert_eq!(restarted, Appended::Saved);
    let read = stage_1(harness, "a").read(10, NOW).await.unwrap();
    assert_eq!(numbers(&read), [1, 3]);
    let found = letters.letters(Stage::Raw, &EntryId::zero(), 10).await.unwrap();
    let about: Vec<_> = found.iter().map(|letter| (letter.reason.as_str(), letter.stream.as_str())).collect();
    assert_eq!(about, [("reason 2", RAW), ("reason 4", RAW), ("reason 5", RAW)]);
    assert!(found.iter().all(|letter| letter.reread && letter.parked_at > 0), "{found:?}");
    assert_eq!(found[0].record.as_ref().unwrap().change, parked(2).change);
    assert_eq!(journal.positions().await.unwrap().damage, None, "dead letters are not entries");
}

/// A snapshot's progress is stored for every form of key, with its targets.
pub async fn snapshot_state_round_trips(harness: &dyn StreamsHarness) {
    let journal = harness.journal();
    let time = ClusterTime { seconds: u32::MAX, increment: 1 };
    let swept = |target: Option<&str>| {
        let target = target.map(|target| target.parse().unwrap());
        Some(Swept { target, point: uuid::Uuid::from_u128(7) })
    };
    let after = |key: &str| Some((Namespace::new("shop", "tickets.eu"), key.to_owned()));
    let states = [
        SnapshotState::Running { time, after: None, rows: 0 },
        SnapshotState::Running { time, after: after(r#"{"$numberInt":"7"}"#), rows: 1 },
        SnapshotState::Running { time, after: after("\"Grüße\\n\0\""), rows: u64::MAX },
        SnapshotState::Running { time, after: after(""), rows: 3 },
        SnapshotState::Sweeping { time, rows: 4, after: None },
        SnapshotState::Sweeping { time, rows: 5, after: swept(None) },
        SnapshotState::Sweeping { time, rows: 6, after: swept(Some("tickets.g2")) },
        SnapshotState::Done { time, rows: 1 << 60 },
    ];
    let scope: Vec<Due> = ["notes.g1@16", "tickets.g2@17"].map(|due| due.parse().unwrap()).to_vec();
    let mut expected = None;
    for snapshot in states {
        let next = Checkpoint { epoch: 2, selection: String::new(), snapshot, ..checkpoint(1) };
        let of_targets = Checkpoint { catalog: 17, scope: scope.clone(), ..next.clone() };
        for next in [next, of_targets] {
            assert_eq!(journal.append(expected.as_ref(), &[], &next).await.unwrap(), Appended::Saved);
            expected = journal.load().await.unwrap();
            assert_eq!(expected.as_ref(), Some(&next));
        }
    }
    // Only the expected routing is replaced.
    let saved = expected.as_ref().expect("it was loaded");
    for other in
        [Checkpoint { catalog: 18, ..saved.clone() }, Checkpoint { scope: scope[1..].to_vec(), ..saved.clone() }]
    {
        let appended = journal.append(Some(&other), &changes(1..=1), &checkpoint(2)).await.unwrap();
        assert_eq!(appended, Appended::Conflict);
    }
}

/// With an unexpected checkpoint neither entries nor checkpoint change.
pub async fn append_with_unexpected_checkpoint_is_a_conflict(harness: &dyn StreamsHarness) {
    let journal = harness.journal();
    let conflict = journal.append(Some(&checkpoint(1)), &changes(2..=2), &checkpoint(2)).await.unwrap();
    assert_eq!(conflict, Appended::Conflict);
    assert_eq!(journal.load().await.unwrap(), None);
    append(harness, 1..=5).await;
    let near = Checkpoint { last: (checkpoint(5).last.0, 2), ..checkpoint(5) };
    for expected in [None, Some(&checkpoint(4)), Some(&near)] {
        let conflict = journal.append(expected, &changes(6..=6), &checkpoint(6)).await.unwrap();
        assert_eq!(conflict, Appended::Conflict, "{expected:?}");
    }
    assert_eq!(journal.load().await.unwrap(), Some(checkpoint(5)));
    assert_eq!(harness.status(Stage::Raw).await.length, 5);
}

/// A caller that does not know the outcome of an append repeats it.
pub async fn repeated_append_is_applied_once(harness: &dyn StreamsHarness) {
    let journal = harness.journal();
    for expected in [None, Some(checkpoint(1))] {
        let number = if expected.is_some() { 2 } else { 1 };
        for _ in 0..3 {
            let appended = journal.append(expected.as_ref(), &[change(number)], &checkpoint(number)).await.unwrap();
            assert_eq!(appended, Appended::Saved);
        }
    }
    assert_eq!(numbers(&stage_1(harness, "a").read(10, NOW).await.unwrap()), [1, 2]);
}

/// The token may advance without entries.
pub async fn checkpoint_advances_without_entries(harness: &dyn StreamsHarness) {
    let journal = harness.journal();
    append(harness, [1]).await;
    assert_eq!(journal.append(Some(&checkpoint(1)), &[], &checkpoint(9)).await.unwrap(), Appended::Saved);
    assert_eq!(journal.append(Some(&checkpoint(9)), &[], &checkpoint(9)).await.unwrap(), Appended::Saved);
    assert_eq!(journal.load().await.unwrap(), Some(checkpoint(9)));
    assert_eq!(harness.status(Stage::Raw).await.length, 1);
}

/// Producers that race append every change once, in order.
pub async fn concurrent_producers_append_each_change_once(harness: &dyn StreamsHarness) {
    const LAST: u32 = 40;
    append(harness, [1]).await;
    let mut producers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let journal = harness.journal();
        producers.spawn(async move {
            let mut conflicts = 0;
            loop {
                let saved = journal.load().await.unwrap().unwrap();
                let number = saved.last.0.increment + 1;
                if number > LAST {
                    return conflicts;
                }
                // Each saves its own progress, which distinguishes it from the others.
                match journal.append(Some(&saved), &[change(number)], &checkpoint(number)).await.unwrap() {
                    Appended::Saved => {}
                    Appended::Conflict => conflicts += 1,
                }
            }
        });
    }
    producers.join_all().await;
    assert_eq!(numbers(&stage_1(harness, "a").read(100, NOW).await.unwrap()), (1..=LAST).collect::<Vec<_>>());
}

/// 500 changes of 8 KB are appended in one step.
pub async fn large_append_is_complete(harness: &dyn StreamsHarness) {
    let mut changes = changes(1..=500);
    for change in &mut changes {
        change.document = Some(format!(r#"{{"content":"{}"}}"#, "x".repeat(8192)));
    }
    let appended = harness.journal().append(None, &changes, &checkpoint(500)).await.unwrap();
    assert_eq!(appended, Appended::Saved);
    let read = stage_1(harness, "a").read(1000, NOW).await.unwrap();
    assert!(read.into_iter().map(|delivery| delivery.record.unwrap()).eq(changes));
}

/// One owner at a time, which may renew and release; a lease that is not renewed expires.
pub async fn lease_has_one_owner_until_it_expires(harness: &dyn StreamsHarness) {
    let journal = harness.journal();
    assert!(journal.lease("a", LONG).await.unwrap());
    assert!(!journal.lease("b", LONG).await.unwrap());
    assert!(journal.lease("a", LONG).await.unwrap(), "an owner renews");
    journal.release("b").await.unwrap();
    assert!(!journal.lease("b", LONG).await.unwrap(), "only the owner releases");
    journal.release("a").await.unwrap();
    let short = Duration::from_millis(50);
    assert!(journal.lease("b", short).await.unwrap());
    tokio::time::sleep(3 * short).await;
    assert!(journal.lease("a", LONG).await.unwrap(), "a lease expires");
}

/// Unread and unacknowledged entries count, retained acknowledged ones do not.
pub async fn backlog_counts_unacknowledged_entries(harness: &dyn StreamsHarness) {
    let backlog = harness.backlog(Stage::Raw);
    append(harness, 1..=10).await;
    assert_eq!(backlog.backlog().await.unwrap(), 10, "without a group");
    let queue = stage_1(harness, "a");
    let read = queue.read(6, NOW).await.unwrap();
    assert_eq!(backlog.backlog().await.unwrap(), 10, "delivered is not acknowledged");
    queue.acknowledge(&ids(&read[..4])).await.unwrap();
    assert_eq!(backlog.backlog().await.unwrap(), 6);
    // Redis' lag is unknown while a deleted entry is unread; the backlog may then only be too high.
    let unread = stage_1(harness, "b").read(1, NOW).await.unwrap();
    harness.delete_entry(STAGE_1.stream, &unread[0].id).await;
    assert!(backlog.backlog().await.unwrap() >= 6);
    queue.acknowledge(&ids(&read[4..])).await.unwrap();
    queue.acknowledge(&ids(&unread)).await.unwrap();
    let rest = queue.read(10, NOW).await.unwrap();
    queue.acknowledge(&ids(&rest)).await.unwrap();
    assert_eq!(backlog.backlog().await.unwrap(), 0);
}
