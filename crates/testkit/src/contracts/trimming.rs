//! The contract of [`Maintenance::trim`](tidewheel_core::ports::Maintenance::trim): acknowledged entries are removed, all others
//! are kept.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidewheel_core::ports::{EntryId, Retention};
use tidewheel_core::stage::Stage;
use tidewheel_stores::redis::keys::{RAW, RAW_DEAD_LETTERS, STAGE_1, StreamKeys};

use super::streams::{LONG, NOW, StreamsHarness, append, ids, numbers, stage_1};

/// Another group on stage 1, such as a user's own consumer.
const OTHER: StreamKeys = StreamKeys { stream: RAW, group: "auditors", dead_letters: RAW_DEAD_LETTERS };

const NOTHING: Retention = Retention { age: Duration::ZERO, entries: 0, bytes: u64::MAX };

fn newest(entries: u64) -> Retention {
    Retention { age: LONG, entries, bytes: u64::MAX }
}

async fn confirm(harness: &dyn StreamsHarness, stage: StreamKeys, count: usize) {
    let queue = harness.changes(stage, "confirmer");
    let read = queue.read(count, NOW).await.unwrap();
    assert_eq!(read.len(), count);
    queue.acknowledge(&ids(&read)).await.unwrap();
}

async fn length(harness: &dyn StreamsHarness) -> u64 {
    harness.status(Stage::Raw).await.length
}

/// Exactly as many acknowledged entries are kept as the retention allows.
pub async fn acknowledged_entries_beyond_retention_are_trimmed(harness: &dyn StreamsHarness) {
    append(harness, 1..=300).await;
    for number in 301..=310 {
        append(harness, [number]).await;
    }
    confirm(harness, STAGE_1, 310).await;
    let queue = stage_1(harness, "a");
    assert_eq!(queue.trim(newest(1000)).await.unwrap(), 0);
    for entries in [305, 304, 210, 50, 7] {
        let before = length(harness).await;
        assert_eq!(queue.trim(newest(entries)).await.unwrap(), before - entries);
        assert_eq!(length(harness).await, entries);
    }
    harness.destroy_group(STAGE_1).await;
    let kept = queue.read(100, NOW).await.unwrap();
    assert_eq!(numbers(&kept), (304..=310).collect::<Vec<_>>(), "the newest are kept");
    queue.acknowledge(&ids(&kept)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(queue.trim(NOTHING).await.unwrap(), 7);
    append(harness, [311]).await;
    assert_eq!(numbers(&queue.read(10, NOW).await.unwrap()), [311], "an empty stream continues");
}

/// About as many acknowledged entries are kept as fit into the memory limit.
pub async fn retention_limits_memory(harness: &dyn StreamsHarness) {
    append(harness, 1..=2000).await;
    confirm(harness, STAGE_1, 2000).await;
    let queue = stage_1(harness, "a");
    let keep = |bytes| Retention { age: LONG, entries: u64::MAX, bytes };
    assert_eq!(queue.trim(keep(64 << 20)).await.unwrap(), 0);
    assert!(queue.trim(keep(100_000)).await.unwrap() > 0);
    let left = length(harness).await;
    assert!((100..=1500).contains(&left), "{left} of 2000 entries with 100 to 300 bytes each are kept");
    append(harness, [2001]).await;
    queue.trim(keep(0)).await.unwrap();
    assert_eq!(length(harness).await, 1, "unacknowledged entries are kept");
}

/// Age alone removes old entries, regardless of their number.
pub async fn entries_within_retention_age_are_kept(harness: &dyn StreamsHarness) {
    append(harness, 1..=250).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    append(harness, 251..=260).await;
    confirm(harness, STAGE_1, 260).await;
    let queue = stage_1(harness, "a");
    let removed =
        queue.trim(Retention { age: Duration::from_millis(250), entries: 1000, bytes: u64::MAX }).await.unwrap();
    // On a slow machine the second batch may be old too and is removed; the first always is.
    assert!(removed == 250 || removed == 260, "{removed}");
    assert_eq!(queue.trim(newest(1000)).await.unwrap(), 0);
}

/// The oldest unacknowledged entry retains everything after it.
pub async fn pending_and_unread_entries_are_kept(harness: &dyn StreamsHarness) {
    append(harness, 1..=10).await;
    let queue = stage_1(harness, "a");
    assert_eq!(queue.trim(NOTHING).await.unwrap(), 0, "no entry is read");
    let read = queue.read(6, NOW).await.unwrap();
    let confirmed = [&ids(&read[..3])[..], &ids(&read[4..])].concat();
    queue.acknowledge(&confirmed).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(queue.trim(NOTHING).await.unwrap(), 3);
    assert_eq!(length(harness).await, 7);
    queue.acknowledge(&ids(&read)).await.unwrap();
    assert_eq!(queue.trim(NOTHING).await.unwrap(), 3);
    assert_eq!(numbers(&queue.read(10, NOW).await.unwrap()), [7, 8, 9, 10]);
    assert_eq!(queue.trim(NOTHING).await.unwrap(), 0);
}

/// Another group of the same stream retains its unacknowledged entries.
pub async fn slowest_group_limits_trimming(harness: &dyn StreamsHarness) {
    append(harness, 1..=10).await;
    confirm(harness, STAGE_1, 10).await;
    let other = harness.changes(OTHER, "auditor");
    let read = other.read(4, NOW).await.unwrap();
    other.acknowledge(&ids(&read[..2])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let queue = stage_1(harness, "a");
    assert_eq!(queue.trim(NOTHING).await.unwrap(), 2);
    other.acknowledge(&ids(&read)).await.unwrap();
    assert_eq!(other.trim(NOTHING).await.unwrap(), 2);
    harness.destroy_group(OTHER).await;
    assert_eq!(queue.trim(NOTHING).await.unwrap(), 6);
}

/// Without acknowledgements every entry is kept.
pub async fn nothing_is_trimmed_without_a_group(harness: &dyn StreamsHarness) {
    let queue = stage_1(harness, "a");
    assert_eq!(queue.trim(NOTHING).await.unwrap(), 0, "the stream does not exist");
    append(harness, 1..=3).await;
    assert_eq!(queue.trim(NOTHING).await.unwrap(), 0);
    assert_eq!(length(harness).await, 3);
}

/// The remaining work of one group.
struct Reader {
    stage: StreamKeys,
    next: u32,
    pending: Vec<(EntryId, u32)>,
}

impl Reader {
    async fn read(&mut self, harness: &dyn StreamsHarness, max: usize) {
        let read = harness.changes(self.stage, "reader").read(max, NOW).await.unwrap();
        for (id, number) in ids(&read).into_iter().zip(numbers(&read)) {
            assert_eq!(number, self.next, "group {} missed an entry", self.stage.group);
            self.next += 1;
            self.pending.push((id, number));
        }
    }

    fn first_needed(&self) -> u32 {
        self.pending.iter().map(|(_, number)| *number).min().unwrap_or(self.next)
    }
}

/// Appends, reads, acknowledges and trims of two groups in random order: each group reads every entry once, pending
/// entries stay in the stream, and a trim by length is exact.
pub async fn random_schedule_never_trims_unacknowledged_entries(harness: &dyn StreamsHarness) {
    let mut random = StdRng::seed_from_u64(7);
    let mut readers = [STAGE_1, OTHER].map(|stage| Reader { stage, next: 1, pending: Vec::new() });
    for reader in &readers {
        // A group that does not exist yet protects nothing.
        assert!(harness.changes(reader.stage, "reader").read(1, NOW).await.unwrap().is_empty());
    }
    let mut appended = 0;
    let mut trimmed = 0;
    for _ in 0..400 {
        let reader = random.random_range(0..2);
        match random.random_range(0..6) {
            0 | 1 => {
                let count = random.random_range(1..8);
                append(harness, appended + 1..=appended + count).await;
                appended += count;
            }
            2 => readers[reader].read(harness, random.random_range(1..10)).await,
            3 | 4 => {
                let reader = &mut readers[reader];
                let mut done = Vec::new();
                reader.pending.retain(|(id, _)| {
                    let keep = random.random_bool(0.3);
                    if !keep {
                        done.push(id.clone());
                    }
                    keep
                });
                harness.changes(reader.stage, "reader").acknowledge(&done).await.unwrap();
            }
            _ => {
                let retention = newest(random.random_range(0..12));
                let removed = harness.changes(readers[reader].stage, "reader").trim(retention).await.unwrap();
                let before = u64::from(appended) - trimmed;
                let confirmed =
                    u64::from(readers.iter().map(Reader::first_needed).min().unwrap_or(1) - 1).saturating_sub(trimmed);
                assert_eq!(removed, confirmed.min(before.saturating_sub(retention.entries)));
                trimmed += removed;
                assert_eq!(length(harness).await, before - removed);
            }
        }
    }
    assert!(trimmed > 0, "the schedule trims");
    for reader in &mut readers {
        reader.read(harness, 100_000).await;
        assert_eq!(reader.next, appended + 1);
        let claimed = harness.changes(reader.stage, "heir").claim(NOW, 100_000).await.unwrap();
        assert!(claimed.lost.is_empty(), "pending entries were trimmed");
        let pending: BTreeSet<u32> = reader.pending.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers(&claimed.deliveries).into_iter().collect::<BTreeSet<_>>(), pending);
    }
}
