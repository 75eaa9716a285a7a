//! Reads of a stream are bounded in bytes, and periodic checks read no large entries.

use std::time::Duration;

use tidewheel_core::change::Change;
use tidewheel_core::ports::{
    Acknowledge, Appended, Backlog, DeadLetter, DeadLetters, Delivery, EntryId, Journal, Maintenance, Park, Queue,
    READ_BYTES, Retention, StageInspector as _, StreamLog, Tombstones,
};
use tidewheel_core::stage::Stage;
use tidewheel_stores::redis::keys::{
    COUNTS, DAMAGE, RAW, RAW_GROUP, STAGE_1, TOMBSTONE_LOG, TOMBSTONE_STATE, TOMBSTONES,
};
use tidewheel_testkit::contracts::samples::{change, changes, checkpoint};

use super::server::{TestRedis, ids, numbers};

const NOW: Duration = Duration::ZERO;
const MEGABYTE: usize = 1 << 20;

/// Appends these documents, each of `bytes` bytes, after the existing entries.
async fn append(redis: &TestRedis, numbers: std::ops::RangeInclusive<u32>, bytes: usize) {
    for number in numbers {
        let document = Some(format!(r#"{{"_id":{number},"content":"{}"}}"#, "x".repeat(bytes)));
        let saved = redis.store.load().await.unwrap();
        let changes = [Change { document, ..change(number) }];
        let appended = redis.store.append(saved.as_ref(), &changes, &checkpoint(number)).await.unwrap();
        assert_eq!(appended, Appended::Saved);
    }
}

fn bytes(deliveries: &[Delivery<Change>]) -> usize {
    deliveries.iter().map(|delivery| delivery.record.as_ref().unwrap().document.as_ref().unwrap().len()).sum()
}

/// Whether a read is bounded: only its last entry may exceed the limit.
fn is_bounded(deliveries: &[Delivery<Change>]) -> bool {
    let last = deliveries.len().saturating_sub(1);
    bytes(&deliveries[..last]) < READ_BYTES
}

/// Reads everything in pieces; returns the numbers read.
async fn drain(queue: &dyn Queue<Change>) -> Vec<u32> {
    let mut all = Vec::new();
    loop {
        let read = queue.read(256, NOW).await.unwrap();
        if read.is_empty() {
            return all;
        }
        assert!(is_bounded(&read), "{} entries of {} bytes at once", read.len(), bytes(&read));
        queue.acknowledge(&ids(&read)).await.unwrap();
        all.extend(numbers(&read));
    }
}

#[tokio::test]
async fn reads_are_bounded_in_bytes_for_all_entry_sizes() {
    let redis = TestRedis::start().await;
    append(&redis, 1..=20, 10).await;
    append(&redis, 21..=36, 3 * MEGABYTE).await;
    append(&redis, 37..=60, 10).await;
    append(&redis, 61..=260, 100 << 10).await;
    append(&redis, 261..=262, 15 * MEGABYTE).await;
    append(&redis, 263..=300, 10).await;
    assert_eq!(drain(&redis.stage_1("a")).await, (1..=300).collect::<Vec<_>>());
    // Small entries are read in the requested number, regardless of earlier large ones.
    append(&redis, 301..=400, 10).await;
    assert_eq!(redis.stage_1("a").read(256, NOW).await.unwrap().len(), 100);
}

/// An older release keeps no record of large entries.
#[tokio::test]
async fn entries_of_an_older_release_are_read_within_the_limit() {
    let redis = TestRedis::start().await;
    append(&redis, 1..=12, 3 * MEGABYTE).await;
    redis.command::<u64>(&["DEL", COUNTS]).await;
    assert_eq!(drain(&redis.stage_1("a")).await, (1..=12).collect::<Vec<_>>());
}

#[tokio::test]
async fn recreated_group_is_read_within_the_limit() {
    let redis = TestRedis::start().await;
    append(&redis, 1..=12, 3 * MEGABYTE).await;
    append(&redis, 13..=20, 10).await;
    let queue = redis.stage_1("a");
    assert_eq!(drain(&queue).await.len(), 20);
    redis.command::<u64>(&["XGROUP", "DESTROY", RAW, RAW_GROUP]).await;
    assert_eq!(drain(&queue).await, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn claims_are_bounded_in_bytes() {
    let redis = TestRedis::start().await;
    append(&redis, 1..=12, 3 * MEGABYTE).await;
    append(&redis, 13..=40, 10).await;
    let (dead, alive) = (redis.stage_1("dead"), redis.stage_1("alive"));
    while !dead.read(256, NOW).await.unwrap().is_empty() {}
    let mut all = Vec::new();
    loop {
        let claimed = alive.claim(NOW, 256).await.unwrap().deliveries;
        if claimed.is_empty() {
            break;
        }
        assert!(is_bounded(&claimed), "{} bytes at once", bytes(&claimed));
        alive.acknowledge(&ids(&claimed)).await.unwrap();
        all.extend(numbers(&claimed));
    }
    all.sort_unstable();
    assert_eq!(all, (1..=40).collect::<Vec<_>>());
}

#[tokio::test]
async fn replays_and_dead_letters_are_bounded_in_bytes() {
    let redis = TestRedis::start().await;
    append(&redis, 1..=12, 3 * MEGABYTE).await;
    let stream_log = redis.store.stream_log::<Change>(STAGE_1);
    let (mut after, mut count) = (EntryId::zero(), 0);
    loop {
        let page = stream_log.page(&after, 500).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(is_bounded(&page), "{} bytes at once", bytes(&page));
        (after, count) = (last.id.clone(), count + page.len());
    }
    assert_eq!(count, 12);

    let queue = redis.stage_1("a");
    let mut parked = Vec::new();
    loop {
        let read = queue.read(256, NOW).await.unwrap();
        if read.is_empty() {
            break;
        }
        parked.extend(ids(&read));
    }
    let letter = |id: &EntryId| DeadLetter::new(id.clone(), "too long", 1);
    // All of them in one call.
    queue.park(&parked.iter().map(letter).collect::<Vec<_>>()).await.unwrap();
    let mut letters = Vec::new();
    loop {
        let after = letters.last().cloned().unwrap_or_else(EntryId::zero);
        let page = redis.store.letters(Stage::Raw, &after, 500).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 3, "{} letters of 3 MB at once", page.len());
        letters.extend(page.into_iter().map(|letter| letter.id));
    }
    assert_eq!(letters.len(), 12);
    assert_eq!(redis.store.retry(Stage::Raw, &letters).await.unwrap().moved, 12);
    assert_eq!(drain(&queue).await, (1..=12).collect::<Vec<_>>());
}

/// How often a command was called, those of scripts included.
async fn calls(redis: &TestRedis, command: &str) -> u64 {
    let stats: String = redis.command(&["INFO", "commandstats"]).await;
    let name = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|line| line.strip_prefix(name.as_str()));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn periodic_checks_read_no_entries() {
    let redis = TestRedis::start().await;
    append(&redis, 1..=4, 3 * MEGABYTE).await;
    let queue = redis.stage_1("a");
    let read = queue.read(1, NOW).await.unwrap();
    for acknowledged in [false, true] {
        if acknowledged {
            queue.acknowledge(&ids(&read)).await.unwrap();
        }
        redis.store.status(Stage::Raw).await.unwrap();
        redis.command::<String>(&["CONFIG", "RESETSTAT"]).await;
        for _ in 0..20 {
            let positions = redis.store.positions().await.unwrap();
            assert!(positions.raw.waiting.is_some() && positions.damage.is_none());
            let stream_log = redis.store.stream_log::<Change>(STAGE_1);
            assert_eq!(stream_log.backlog().await.unwrap(), if acknowledged { 3 } else { 4 });
            assert!(redis.store.status(Stage::Raw).await.unwrap().oldest_age_ms.is_some());
        }
        for command in ["xinfo|stream", "xrevrange"] {
            assert_eq!(calls(&redis, command).await, 0, "{command} returns entries");
        }
        // The remaining calls look after the newest entry, and return nothing.
        let memory: String = redis.command(&["INFO", "memory"]).await;
        let lua = memory.lines().find_map(|line| line.strip_prefix("used_memory_vm_eval:")).unwrap();
        assert!(lua.trim().parse::<usize>().unwrap() < 64 * MEGABYTE, "scripts hold {lua} bytes");
        assert!(calls(&redis, "xrange").await <= 20 * 2, "only positions look after the newest entry");
    }
}

/// Such as an entry added by another client, and a stream written by an older release.
#[tokio::test]
async fn unrecorded_entries_are_found_and_recorded() {
    let redis = TestRedis::start().await;
    append(&redis, 1..=3, 10).await;
    let added: String = redis.command(&["XADD", RAW, "*", "operation", "insert"]).await;
    let raw = redis.store.positions().await.unwrap().raw;
    assert_eq!(raw.last, EntryId(added.clone()));
    redis.command::<u64>(&["XDEL", RAW, &added]).await;
    assert!(redis.store.positions().await.unwrap().damage.is_some(), "it was recorded");

    let redis = TestRedis::start().await;
    append(&redis, 1..=3, 10).await;
    redis.command::<u64>(&["HDEL", COUNTS, "raw_last"]).await;
    for _ in 0..2 {
        let positions = redis.store.positions().await.unwrap();
        assert!(!positions.raw.has_passed(&positions.raw.last), "nothing is acknowledged");
        assert_eq!(positions.damage, None);
    }
    assert_eq!(redis.command::<u64>(&["EXISTS", DAMAGE]).await, 0);
}

#[tokio::test]
async fn trimming_large_entries_completes() {
    let redis = TestRedis::start().await;
    append(&redis, 1..=12, 3 * MEGABYTE).await;
    let queue = redis.stage_1("a");
    drain(&queue).await;
    let retention = Retention { age: Duration::from_secs(3600), entries: 2, bytes: u64::MAX };
    assert_eq!(queue.trim(retention).await.unwrap(), 10);
    assert_eq!(redis.store.positions().await.unwrap().damage, None);
}

/// They are only in the hash, and their grace period starts with the upgrade.
#[tokio::test]
async fn tombstones_of_older_release_are_collected() {
    let redis = TestRedis::start().await;
    let fields: Vec<String> = changes(1..=3000).iter().map(|change| change.document_id().to_string()).collect();
    for fields in fields.chunks(500) {
        let mut words = vec!["HSET", TOMBSTONES];
        words.extend(fields.iter().flat_map(|field| [field.as_str(), "0.7.1.1"]));
        redis.command::<u64>(&words).await;
    }
    redis.command::<u64>(&["HSET", TOMBSTONES, "ns:shop.old", "0.7.1.1", "ns:shop.older", "0.6.1.1"]).await;
    let collect = async |grace: Duration| {
        let (mut forgotten, mut pages) = (0, 0);
        loop {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let settled = redis.store.positions().await.unwrap().at;
            let page = redis.store.collect(grace, settled).await.unwrap();
            (forgotten, pages) = (forgotten + page.forgotten, pages + 1);
            assert!(page.forgotten <= 1_000);
            if !page.more {
                return (forgotten, pages);
            }
        }
    };
    let (forgotten, pages) = collect(Duration::from_secs(3600)).await;
    assert_eq!(forgotten, 0, "their grace period is not over");
    assert!(pages > 3, "page by page");
    assert_eq!(redis.command::<u64>(&["XLEN", TOMBSTONE_LOG]).await, 3000);
    assert_eq!(collect(NOW).await.0, 3000);
    assert_eq!(redis.command::<u64>(&["HLEN", TOMBSTONES]).await, 2, "those of collections stay");
    assert_eq!(redis.command::<String>(&["HGET", TOMBSTONE_STATE, "forgotten"]).await, "0.7.1.1");
    assert_eq!(collect(NOW).await, (0, 1), "and are not scanned again");
}
