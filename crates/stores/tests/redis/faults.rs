//! Broken connections, slow consumers, and operators who delete keys under a running pipeline.

use std::time::Duration;

use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{Acknowledge, Appended, Handover, Journal, Maintenance, Queue, StageInspector as _};
use tidewheel_core::stage::Stage;
use tidewheel_stores::redis::keys::{EMBEDDED, RAW, STAGE_1};
use tidewheel_testkit::contracts::samples::{change, checkpoint, embedded};
use tidewheel_testkit::proxy::Weather;

use super::server::{TestRedis, append, ids, numbers};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);
const NOW: Duration = Duration::ZERO;

/// Waits for a condition.
macro_rules! eventually {
    ($condition:expr) => {{
        let mut attempts = 2000;
        while !$condition {
            attempts -= 1;
            assert!(attempts > 0, "never: {}", stringify!($condition));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }};
}

#[tokio::test]
async fn append_with_lost_reply_is_saved_once() {
    let redis = TestRedis::start().await;
    let (proxy, store) = redis.through_proxy().await;
    append(&store, [1]).await;
    proxy.set(Weather::CutInsteadOfAnswer(1));
    let appended = store.append(Some(&checkpoint(1)), &[change(2)], &checkpoint(2)).await.unwrap();
    assert_eq!((appended, proxy.broken()), (Appended::Saved, 1));
    assert_eq!(store.load().await.unwrap(), Some(checkpoint(2)));
    assert_eq!(redis.on_stage_1().await, [1, 2]);
}

#[tokio::test]
async fn append_with_unknown_outcome_can_be_retried() {
    let redis = TestRedis::start().await;
    let (proxy, store) = redis.through_proxy().await;
    append(&store, [1]).await;
    proxy.set(Weather::CutInsteadOfAnswer(2));
    let error = store.append(Some(&checkpoint(1)), &[change(2)], &checkpoint(2)).await.unwrap_err();
    assert_eq!((error.class, proxy.broken()), (ErrorClass::Transient, 2));
    assert_eq!(redis.on_stage_1().await, [1, 2], "the first attempt was executed");
    let appended = store.append(Some(&checkpoint(1)), &[change(2)], &checkpoint(2)).await.unwrap();
    assert_eq!(appended, Appended::Saved);
    assert_eq!(redis.on_stage_1().await, [1, 2]);
}

#[tokio::test]
async fn append_without_reply_is_saved_once() {
    let redis = TestRedis::start().await;
    let (proxy, store) = redis.through_proxy().await;
    append(&store, [1]).await;
    proxy.set(Weather::SwallowAnswers);
    let call = tokio::spawn({
        let store = store.clone();
        async move { store.append(Some(&checkpoint(1)), &[change(2)], &checkpoint(2)).await }
    });
    eventually!(proxy.swallowed() > 0);
    assert!(!call.is_finished());
    proxy.set(Weather::Fair);
    proxy.cut();
    assert_eq!(call.await.unwrap().unwrap(), Appended::Saved);
    assert_eq!(redis.on_stage_1().await, [1, 2]);
}

#[tokio::test]
async fn producer_paused_past_its_lease_appends_nothing() {
    let redis = TestRedis::start().await;
    let (proxy, slow) = redis.through_proxy().await;
    let short = Duration::from_millis(100);
    assert!(slow.lease("slow", short).await.unwrap());
    append(&slow, [1]).await;
    proxy.set(Weather::Frozen);
    let late = tokio::spawn({
        let slow = slow.clone();
        async move { slow.append(Some(&checkpoint(1)), &[change(2)], &checkpoint(2)).await }
    });
    tokio::time::sleep(2 * short).await;
    assert!(redis.store.lease("fast", LONG).await.unwrap(), "the lease has expired");
    append(&redis.store, [2, 3]).await;
    assert!(!late.is_finished());
    proxy.set(Weather::Fair);
    assert_eq!(late.await.unwrap().unwrap(), Appended::Conflict);
    assert!(!slow.lease("slow", short).await.unwrap());
    slow.release("slow").await.unwrap();
    assert!(redis.store.lease("fast", LONG).await.unwrap(), "a late release does not affect the new lease");
    assert_eq!(redis.on_stage_1().await, [1, 2, 3]);
}

#[tokio::test]
async fn hand_over_with_lost_reply_can_be_retried() {
    let redis = TestRedis::start().await;
    let (proxy, store) = redis.through_proxy().await;
    append(&store, [1, 2]).await;
    let read = redis.stage_1("a").read(10, NOW).await.unwrap();
    store.hand_over(&[embedded(1)], &ids(&read[..1])).await.unwrap();
    proxy.set(Weather::CutInsteadOfAnswer(1));
    let error = store.hand_over(&[embedded(2)], &ids(&read[1..])).await.unwrap_err();
    assert_eq!((error.class, proxy.broken()), (ErrorClass::Transient, 1));
    store.hand_over(&[embedded(2)], &ids(&read[1..])).await.unwrap();
    assert_eq!(redis.store.status(Stage::Raw).await.unwrap().pending, 0);
    assert_eq!(redis.documents(EMBEDDED).await, [1, 2], "it was executed once");
}

#[tokio::test]
async fn claimed_entry_is_handed_over_once_by_either_consumer() {
    let redis = TestRedis::start().await;
    for slow_first in [true, false] {
        redis.command::<()>(&["FLUSHDB"]).await;
        append(&redis.store, [1]).await;
        let read = redis.stage_1("slow").read(10, NOW).await.unwrap();
        let claimed = redis.stage_1("quick").claim(NOW, 10).await.unwrap().deliveries;
        assert_eq!(numbers(&claimed), [1]);
        let (first, second) = if slow_first { (&read, &claimed) } else { (&claimed, &read) };
        redis.store.hand_over(&[embedded(1)], &ids(first)).await.unwrap();
        redis.store.hand_over(&[embedded(1)], &ids(second)).await.unwrap();
        redis.stage_1("slow").keep(&ids(&read)).await.unwrap();
        redis.stage_1("slow").hand_back(&ids(&read)).await.unwrap();
        assert_eq!(redis.store.status(Stage::Raw).await.unwrap().pending, 0);
        assert_eq!(redis.documents(EMBEDDED).await, [1], "the second finds nothing to hand over");
    }
}

#[tokio::test]
async fn reader_reconnects_after_its_connection_breaks() {
    let redis = TestRedis::start().await;
    let (proxy, store) = redis.through_proxy().await;
    let queue = store.queue::<tidewheel_core::change::Change>(STAGE_1, "a");
    assert!(queue.read(1, NOW).await.unwrap().is_empty());
    let reader = tokio::spawn(async move { (queue.read(10, LONG).await, queue) });
    eventually!(redis.blocked_readers().await == 1);
    proxy.cut();
    let (broken, queue) = reader.await.unwrap();
    assert_eq!(broken.unwrap_err().class, ErrorClass::Transient);
    eventually!(redis.blocked_readers().await == 0);
    append(&redis.store, [1]).await;
    assert_eq!(numbers(&queue.read(10, LONG).await.unwrap()), [1]);
}

#[tokio::test]
async fn cancelled_read_consumes_no_entry() {
    let redis = TestRedis::start().await;
    let queue = redis.stage_1("a");
    assert!(queue.read(1, NOW).await.unwrap().is_empty());
    let reader = tokio::spawn(async move { queue.read(10, LONG).await });
    eventually!(redis.blocked_readers().await == 1);
    reader.abort();
    assert!(reader.await.unwrap_err().is_cancelled());
    eventually!(redis.blocked_readers().await == 0);
    append(&redis.store, [1]).await;
    assert_eq!(numbers(&redis.stage_1("b").read(10, NOW).await.unwrap()), [1]);
}

#[tokio::test]
async fn blocked_reader_continues_after_stream_deletion() {
    let redis = TestRedis::start().await;
    append(&redis.store, [1]).await;
    let queue = redis.stage_1("a");
    let read = queue.read(10, NOW).await.unwrap();
    queue.acknowledge(&ids(&read)).await.unwrap();
    // Redis may leave such a reader blocked: its finite wait ends it.
    let reader = tokio::spawn(async move { (queue.read(10, Duration::from_millis(300)).await, queue) });
    eventually!(redis.blocked_readers().await == 1);
    redis.command::<u64>(&["DEL", RAW]).await;
    append(&redis.store, [2]).await;
    let (first, queue) = reader.await.unwrap();
    let mut seen = numbers(&first.unwrap());
    if seen.is_empty() {
        seen = numbers(&queue.read(10, NOW).await.unwrap());
    }
    assert_eq!(seen, [2]);
}

#[tokio::test]
async fn blocked_reader_recreates_a_destroyed_group() {
    let redis = TestRedis::start().await;
    append(&redis.store, [1, 2]).await;
    let queue = redis.stage_1("a");
    let read = queue.read(10, NOW).await.unwrap();
    queue.acknowledge(&ids(&read)).await.unwrap();
    let reader = tokio::spawn(async move { queue.read(10, LONG).await });
    eventually!(redis.blocked_readers().await == 1);
    redis.command::<u64>(&["XGROUP", "DESTROY", RAW, STAGE_1.group]).await;
    assert_eq!(numbers(&reader.await.unwrap().unwrap()), [1, 2], "from the beginning: no entry may be missed");
}

#[tokio::test]
async fn restart_is_transient_and_loses_nothing() {
    let redis = TestRedis::start().await;
    append(&redis.store, [1, 2]).await;
    let queue = redis.stage_1("a");
    assert_eq!(numbers(&queue.read(1, NOW).await.unwrap()), [1]);
    redis.server.kill().await;
    for error in [
        queue.read(1, NOW).await.map(drop).unwrap_err(),
        queue.claim(NOW, 1).await.map(drop).unwrap_err(),
        redis.store.load().await.map(drop).unwrap_err(),
        redis.store.append(None, &[change(3)], &checkpoint(3)).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(error.class, ErrorClass::Transient, "{error}");
    }
    redis.server.start().await.unwrap();
    assert_eq!(numbers(&queue.read(10, NOW).await.unwrap()), [2]);
    assert_eq!(numbers(&queue.claim(NOW, 10).await.unwrap().deliveries), [1, 2]);
    append(&redis.store, [3]).await;
    assert_eq!(redis.on_stage_1().await, [1, 2, 3]);
}

impl TestRedis {
    async fn blocked_readers(&self) -> usize {
        let clients: String = self.command(&["INFO", "clients"]).await;
        let line = clients.lines().find_map(|line| line.strip_prefix("blocked_clients:")).unwrap();
        line.trim().parse().unwrap()
    }
}
