//! The contract of [`StageQueue`](tidewheel_core::ports::StageQueue), except [trimming](super::trimming).

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tidewheel_core::change::Change;
use tidewheel_core::ports::RecordError;
use tidewheel_core::ports::{Claimed, DeadLetter, EntryId};
use tidewheel_core::stage::Stage;
use tidewheel_stores::redis::keys::{EMBEDDED, RAW, RAW_DEAD_LETTERS, STAGE_1, STAGE_2};
use tidewheel_stores::redis::wire::{FORMAT, PLAIN_FORMAT, RawFields, Record as _};

use super::samples::{change, embedded};
use super::streams::{LONG, NOW, StreamsHarness, append, ids, numbers, stage_1};

/// Idle time after which entries are claimed in these tests.
const IDLE: Duration = Duration::from_millis(400);

/// Readers of one group share the entries; together they read all of them, each in order.
pub async fn each_entry_is_delivered_to_one_consumer_in_order(harness: &dyn StreamsHarness) {
    append(harness, 1..=6).await;
    let (a, b) = (stage_1(harness, "a"), stage_1(harness, "b"));
    assert_eq!(numbers(&a.read(2, NOW).await.unwrap()), [1, 2]);
    assert_eq!(numbers(&b.read(3, NOW).await.unwrap()), [3, 4, 5]);
    assert_eq!(numbers(&a.read(10, NOW).await.unwrap()), [6]);
    assert!(b.read(10, NOW).await.unwrap().is_empty());
}

/// A blocked reader gets an entry on arrival, not at the end of its wait.
pub async fn blocked_reader_wakes_on_a_new_entry(harness: &dyn StreamsHarness) {
    let queue = stage_1(harness, "a");
    assert!(queue.read(10, NOW).await.unwrap().is_empty());
    let reader = tokio::spawn(async move { queue.read(10, LONG).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!reader.is_finished());
    append(harness, [1]).await;
    let woken = tokio::time::timeout(LONG / 10, reader).await.expect("woken long before its wait is over");
    assert_eq!(numbers(&woken.unwrap().unwrap()), [1]);
}

/// Without entries a read returns after its wait, and the next one works.
pub async fn read_without_entries_times_out_empty(harness: &dyn StreamsHarness) {
    let queue = stage_1(harness, "a");
    for _ in 0..2 {
        assert!(queue.read(10, Duration::from_millis(20)).await.unwrap().is_empty());
    }
    append(harness, [1]).await;
    assert_eq!(numbers(&queue.read(10, Duration::from_millis(20)).await.unwrap()), [1]);
}

/// An undecodable entry is delivered with the error, between its neighbours.
pub async fn undecodable_entry_is_delivered_as_error(harness: &dyn StreamsHarness) {
    append(harness, [1]).await;
    let broken = harness.add_raw(RAW, vec![(b"operation".to_vec(), vec![0xff, 0xfe])]).await;
    append(harness, [2]).await;
    let read = stage_1(harness, "a").read(10, NOW).await.unwrap();
    assert_eq!(read[1].id, broken);
    assert!(read[1].record.as_ref().unwrap_err().to_string().contains("operation"));
    assert_eq!((read[0].record.as_ref(), read[2].record.as_ref()), (Ok(&change(1)), Ok(&change(2))));
}

/// Appends the `number`-th insert as another release writes it.
async fn append_with(harness: &dyn StreamsHarness, number: u32, format: Option<&str>) -> EntryId {
    let change = change(number);
    let fields = change.encode().into_iter().filter(|(name, _)| *name != "format");
    let mut fields: RawFields = fields.map(|(name, value)| (name.into(), value.into_owned())).collect();
    fields.extend(format.map(|format| (b"format".to_vec(), format.into())));
    harness.add_raw(RAW, fields).await
}

/// The format is in each entry of both streams. Entries without targets have the one that earlier releases read.
pub async fn entries_carry_their_format(harness: &dyn StreamsHarness) {
    append(harness, 1..=2).await;
    harness.handover().hand_over(&[embedded(1)], &[]).await.unwrap();
    for (stream, count) in [(RAW, 2), (EMBEDDED, 1)] {
        let entries = harness.raw(stream).await;
        assert_eq!(entries.len(), count);
        assert!(entries.iter().all(|fields| field(fields, "format") == PLAIN_FORMAT.to_string()), "{stream}");
    }
}

/// Entries of the releases before the field are read like those of format 1.
pub async fn entry_without_format_is_delivered(harness: &dyn StreamsHarness) {
    append_with(harness, 1, None).await;
    assert_eq!(numbers(&stage_1(harness, "a").read(10, NOW).await.unwrap()), [1]);
}

/// An entry of a newer release is delivered as an error that names its format, between its neighbours. It stays pending
/// for a consumer of that release.
pub async fn entry_of_a_newer_format_is_delivered_as_error_and_stays_pending(harness: &dyn StreamsHarness) {
    append(harness, [1]).await;
    let newer = append_with(harness, 2, Some(&(FORMAT + 1).to_string())).await;
    append(harness, [3]).await;
    let (a, b) = (stage_1(harness, "a"), stage_1(harness, "b"));
    let read = a.read(10, NOW).await.unwrap();
    assert_eq!((read[0].record.as_ref(), read[2].record.as_ref()), (Ok(&change(1)), Ok(&change(3))));
    let expected = RecordError::Newer { found: FORMAT + 1, supported: FORMAT };
    assert_eq!((&read[1].id, read[1].record.as_ref()), (&newer, Err(&expected)));
    a.hand_back(&ids(&read)).await.unwrap();
    let claimed = b.claim(LONG, 10).await.unwrap().deliveries;
    assert_eq!((ids(&claimed), claimed[1].record.as_ref()), (ids(&read), Err(&expected)));
    let status = harness.status(Stage::Raw).await;
    assert_eq!((status.length, status.pending, status.dead_letters), (3, 3, 0));
}

/// Unacknowledged entries can be claimed, acknowledged ones are never delivered again.
pub async fn unacknowledged_entries_can_be_claimed(harness: &dyn StreamsHarness) {
    append(harness, 1..=4).await;
    let (a, b) = (stage_1(harness, "a"), stage_1(harness, "b"));
    let read = a.read(10, NOW).await.unwrap();
    a.acknowledge(&ids(&read[1..3])).await.unwrap();
    assert!(b.claim(LONG, 10).await.unwrap().deliveries.is_empty(), "not idle for long enough");
    let Claimed { deliveries, lost } = b.claim(NOW, 10).await.unwrap();
    assert_eq!((numbers(&deliveries), lost.len()), (vec![1, 4], 0));
    b.acknowledge(&ids(&deliveries)).await.unwrap();
    assert!(a.claim(NOW, 10).await.unwrap().deliveries.is_empty());
    assert_eq!(harness.status(Stage::Raw).await.pending, 0);
}

/// Kept entries count as delivered just now.
pub async fn kept_entries_are_not_claimed(harness: &dyn StreamsHarness) {
    append(harness, 1..=3).await;
    let (a, b) = (stage_1(harness, "a"), stage_1(harness, "b"));
    let read = a.read(10, NOW).await.unwrap();
    tokio::time::sleep(IDLE + IDLE / 4).await;
    a.keep(&ids(&read[1..])).await.unwrap();
    assert_eq!(numbers(&b.claim(IDLE, 10).await.unwrap().deliveries), [1]);
}

/// A slow owner that keeps entries claimed by another consumer does not get them back.
pub async fn keep_does_not_reclaim_entries(harness: &dyn StreamsHarness) {
    append(harness, 1..=2).await;
    let (a, b) = (stage_1(harness, "a"), stage_1(harness, "b"));
    let read = a.read(10, NOW).await.unwrap();
    assert_eq!(numbers(&b.claim(NOW, 1).await.unwrap().deliveries), [1]);
    a.keep(&ids(&read)).await.unwrap();
    let status = harness.status(Stage::Raw).await;
    let pending: HashMap<_, _> = status.consumers.iter().map(|c| (c.name.as_str(), c.pending)).collect();
    assert_eq!(pending, HashMap::from([("a", 1), ("b", 1)]));
    assert!(a.leave().await.is_ok_and(|left| !left));
    b.acknowledge(&ids(&read[..1])).await.unwrap();
    assert!(b.leave().await.unwrap());
}

/// After a clean shutdown no consumer waits for the idle time.
pub async fn handed_back_entries_are_claimable_immediately(harness: &dyn StreamsHarness) {
    append(harness, 1..=3).await;
    let (a, b) = (stage_1(harness, "a"), stage_1(harness, "b"));
    let read = a.read(10, NOW).await.unwrap();
    a.hand_back(&ids(&read[..2])).await.unwrap();
    assert_eq!(harness.status(Stage::Raw).await.pending, 3, "they are not acknowledged");
    assert_eq!(numbers(&b.claim(LONG, 10).await.unwrap().deliveries), [1, 2]);
    assert!(b.claim(LONG, 10).await.unwrap().deliveries.is_empty(), "now they are b's");
}

/// Handing back does not affect a consumer that has claimed the entry, or revive acknowledged ones.
pub async fn hand_back_requires_ownership(harness: &dyn StreamsHarness) {
    append(harness, 1..=2).await;
    let (a, b, c) = (stage_1(harness, "a"), stage_1(harness, "b"), stage_1(harness, "c"));
    let read = a.read(10, NOW).await.unwrap();
    a.acknowledge(&ids(&read[1..])).await.unwrap();
    assert_eq!(numbers(&b.claim(NOW, 10).await.unwrap().deliveries), [1]);
    a.hand_back(&ids(&read)).await.unwrap();
    assert!(c.claim(LONG, 10).await.unwrap().deliveries.is_empty());
}

/// Pages of a claim are small; repeated claims cover all of a dead consumer's entries, once each.
pub async fn repeated_claims_cover_all_pending_entries(harness: &dyn StreamsHarness) {
    append(harness, 1..=700).await;
    let (dead, alive) = (stage_1(harness, "dead"), stage_1(harness, "alive"));
    assert_eq!(dead.read(1000, NOW).await.unwrap().len(), 700);
    tokio::time::sleep(IDLE + IDLE / 4).await;
    let mut claimed = Vec::new();
    loop {
        let page = alive.claim(IDLE, 64).await.unwrap().deliveries;
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 64);
        claimed.extend(numbers(&page));
        alive.acknowledge(&ids(&page)).await.unwrap();
    }
    claimed.sort_unstable();
    assert_eq!(claimed, (1..=700).collect::<Vec<_>>());
}

/// Pending entries deleted from the stream are reported as a data loss.
pub async fn deleted_pending_entries_are_reported_as_lost(harness: &dyn StreamsHarness) {
    append(harness, 1..=3).await;
    let (a, b) = (stage_1(harness, "a"), stage_1(harness, "b"));
    let read = a.read(10, NOW).await.unwrap();
    harness.delete_entry(RAW, &read[1].id).await;
    let claimed = b.claim(NOW, 10).await.unwrap();
    assert_eq!(claimed.lost, [read[1].id.clone()]);
    assert_eq!(numbers(&claimed.deliveries), [1, 3]);
    assert!(b.claim(NOW, 10).await.unwrap().lost.is_empty(), "once");
}

fn letter(id: &EntryId) -> DeadLetter {
    DeadLetter::new(id.clone(), "no vector for “Grüße”", 3)
}

fn field<'a>(fields: &'a RawFields, name: &str) -> &'a str {
    let value = fields.iter().find(|(field, _)| field == name.as_bytes()).map(|(_, value)| value.as_slice());
    std::str::from_utf8(value.unwrap_or_else(|| panic!("no field {name}"))).unwrap()
}

/// A dead letter holds the whole entry, so that it can be retried, and the reason.
pub async fn parked_entry_is_stored_with_its_reason(harness: &dyn StreamsHarness) {
    append(harness, 1..=3).await;
    let (a, b) = (stage_1(harness, "a"), stage_1(harness, "b"));
    let read = a.read(10, NOW).await.unwrap();
    a.park(&[letter(&read[0].id), letter(&read[2].id)]).await.unwrap();
    let letters = harness.raw(RAW_DEAD_LETTERS).await;
    let records: Vec<Change> = letters.iter().map(|fields| Change::decode(fields.clone()).unwrap()).collect();
    assert_eq!(records, [change(1), change(3)]);
    let first = &letters[0];
    assert_eq!(field(first, "reason"), "no vector for “Grüße”");
    assert_eq!(
        (field(first, "stream"), field(first, "entry"), field(first, "attempts")),
        (RAW, read[0].id.0.as_str(), "3")
    );
    let entered: u64 = read[0].id.0.split_once('-').unwrap().0.parse().unwrap();
    assert!(field(first, "parked_at").parse::<u64>().unwrap() >= entered);
    assert_eq!(numbers(&b.claim(NOW, 10).await.unwrap().deliveries), [2], "parked entries are not delivered again");
    assert_eq!(harness.status(Stage::Raw).await.dead_letters, 2);
}

/// Parking is retried if its reply was lost; an entry that another consumer has finished needs no dead letter.
pub async fn parking_is_idempotent(harness: &dyn StreamsHarness) {
    append(harness, 1..=2).await;
    let queue = stage_1(harness, "a");
    let read = queue.read(10, NOW).await.unwrap();
    queue.acknowledge(&ids(&read[1..])).await.unwrap();
    for _ in 0..2 {
        queue.park(&[letter(&read[0].id), letter(&read[1].id)]).await.unwrap();
    }
    assert_eq!(harness.status(Stage::Raw).await.dead_letters, 1);
}

/// Leaving with pending entries would discard them.
pub async fn consumer_leaves_only_without_pending_entries(harness: &dyn StreamsHarness) {
    append(harness, [1]).await;
    let queue = stage_1(harness, "a");
    let read = queue.read(10, NOW).await.unwrap();
    assert!(!queue.leave().await.unwrap());
    assert_eq!(harness.status(Stage::Raw).await.pending, 1);
    queue.acknowledge(&ids(&read)).await.unwrap();
    assert!(queue.leave().await.unwrap());
    assert!(harness.status(Stage::Raw).await.consumers.is_empty());
}

/// A missing group is recreated where no entry can be missed.
pub async fn destroyed_group_restarts_at_the_beginning(harness: &dyn StreamsHarness) {
    append(harness, 1..=3).await;
    let queue = stage_1(harness, "a");
    let read = queue.read(2, NOW).await.unwrap();
    queue.acknowledge(&ids(&read)).await.unwrap();
    harness.destroy_group(STAGE_1).await;
    // Calls in flight in the meantime succeed.
    queue.keep(&ids(&read)).await.unwrap();
    queue.hand_back(&ids(&read)).await.unwrap();
    queue.acknowledge(&ids(&read)).await.unwrap();
    queue.park(&[letter(&read[0].id)]).await.unwrap();
    assert!(queue.leave().await.unwrap());
    assert_eq!(numbers(&queue.read(10, NOW).await.unwrap()), [1, 2, 3]);
    harness.destroy_group(STAGE_1).await;
    assert!(queue.claim(NOW, 10).await.unwrap().deliveries.is_empty());
    assert_eq!(numbers(&queue.read(10, NOW).await.unwrap()), [1, 2, 3]);
}

/// A deleted stream is recreated with its next entry.
pub async fn deleted_stream_continues_with_new_entries(harness: &dyn StreamsHarness) {
    append(harness, 1..=3).await;
    let queue = stage_1(harness, "a");
    let read = queue.read(2, NOW).await.unwrap();
    harness.delete_stream(RAW).await;
    queue.keep(&ids(&read)).await.unwrap();
    queue.acknowledge(&ids(&read)).await.unwrap();
    assert!(queue.leave().await.unwrap());
    assert!(queue.read(10, Duration::from_millis(20)).await.unwrap().is_empty());
    append(harness, [4]).await;
    assert_eq!(numbers(&queue.read(10, NOW).await.unwrap()), [4]);
}

/// The numbers that `tidewheel status` shows.
pub async fn status_reports_stage_counts(harness: &dyn StreamsHarness) {
    let empty = harness.status(Stage::Embedded).await;
    assert_eq!((empty.length, empty.lag, empty.pending, empty.oldest_age_ms), (0, Some(0), 0, None));
    assert_eq!((empty.stream.as_str(), empty.group.as_str()), (STAGE_2.stream, STAGE_2.group));
    append(harness, 1..=5).await;
    assert_eq!(harness.status(Stage::Raw).await.lag, Some(5), "without a group all entries are unread");
    let (a, b) = (stage_1(harness, "a"), stage_1(harness, "b"));
    let read = a.read(3, NOW).await.unwrap();
    a.acknowledge(&ids(&read[..1])).await.unwrap();
    b.read(1, NOW).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let status = harness.status(Stage::Raw).await;
    assert_eq!((status.length, status.lag, status.pending, status.dead_letters), (5, Some(1), 3, 0));
    assert_eq!(status.appended, 5);
    assert!(status.oldest_age_ms.unwrap() >= 20);
    let consumers: BTreeSet<_> = status.consumers.iter().map(|c| (c.name.as_str(), c.pending)).collect();
    assert_eq!(consumers, BTreeSet::from([("a", 2), ("b", 1)]));
    b.claim(NOW, 10).await.unwrap();
    b.acknowledge(&ids(&read)).await.unwrap();
    let rest = b.read(10, NOW).await.unwrap();
    b.acknowledge(&ids(&rest)).await.unwrap();
    let status = harness.status(Stage::Raw).await;
    assert_eq!((status.lag, status.pending), (Some(0), 1));
}

/// Calls without entries do nothing.
pub async fn calls_without_entries_do_nothing(harness: &dyn StreamsHarness) {
    let queue = stage_1(harness, "a");
    queue.keep(&[]).await.unwrap();
    queue.hand_back(&[]).await.unwrap();
    queue.acknowledge(&[]).await.unwrap();
    queue.park(&[]).await.unwrap();
    assert!(queue.claim(NOW, 10).await.unwrap().deliveries.is_empty());
}
