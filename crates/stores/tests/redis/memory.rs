//! Redis at its memory limit: the producer waits, everything else drains.

use std::collections::BTreeSet;
use std::time::Duration;

use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{
    Acknowledge, Appended, Backlog, DeadLetter, Fence, FenceTarget, Handover, Journal, Maintenance, Park, Queue,
    Retention, StageInspector as _, Tombstones,
};
use tidewheel_core::stage::Stage;
use tidewheel_core::version::Version;
use tidewheel_stores::redis::keys::{EMBEDDED, STAGE_2};
use tidewheel_testkit::contracts::samples::{change, changes, checkpoint, embedded};

use super::server::{TestRedis, ids, numbers};

const NOW: Duration = Duration::ZERO;
const NOTHING: Retention = Retention { age: Duration::ZERO, entries: 0, bytes: u64::MAX };

impl TestRedis {
    /// Sets the limit below the memory in use.
    pub(super) async fn fill_memory(&self) {
        let used = self.store.inspect().await.unwrap().used_memory;
        self.command::<()>(&["CONFIG", "SET", "maxmemory", &(used - used / 10).to_string()]).await;
    }
}

#[tokio::test]
async fn redis_at_maxmemory_stops_the_producer_and_drains() {
    let redis = TestRedis::start().await;
    let mut changes = changes(1..=2000);
    for change in &mut changes {
        change.document = Some(format!(r#"{{"content":"{}"}}"#, "x".repeat(4096)));
    }
    assert_eq!(redis.store.append(None, &changes, &checkpoint(2000)).await.unwrap(), Appended::Saved);
    redis.fill_memory().await;

    let error = redis.store.append(Some(&checkpoint(2000)), &[change(2001)], &checkpoint(2001)).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert!(error.message.contains("OOM") && error.hint.is_some(), "{error:?}");
    assert_eq!(redis.store.load().await.unwrap(), Some(checkpoint(2000)), "nothing was saved");
    assert_eq!(redis.store.stream_log::<Change>(Stage::Raw).backlog().await.unwrap(), 2000);
    assert!(redis.store.lease("producer", Duration::from_secs(60)).await.unwrap(), "its lease stays alive");

    // The later stages work normally, and even start: neither group exists yet.
    let (raw, vectors) = (redis.stage_1("a"), redis.store.queue::<Embedded>(STAGE_2, "b"));
    let deletion = Fence { target: FenceTarget::Document(change(1).document_id()), version: Version::default() };
    let mut moved = BTreeSet::new();
    loop {
        let read = raw.read(100, NOW).await.unwrap();
        let Some((poison, good)) = read.split_first() else { break };
        raw.keep(&ids(&read)).await.unwrap();
        let letter = DeadLetter::new(poison.id.clone(), "too full", 1);
        raw.park(&[letter]).await.unwrap();
        let records: Vec<_> = numbers(good).into_iter().map(embedded).collect();
        redis.store.hand_over(&records, &ids(good)).await.unwrap();
        let written = vectors.read(100, NOW).await.unwrap();
        moved.extend(written.iter().map(|delivery| delivery.record.as_ref().unwrap().change.version));
        redis.store.raise(std::slice::from_ref(&deletion)).await.unwrap();
        vectors.acknowledge(&ids(&written)).await.unwrap();
        raw.trim(NOTHING).await.unwrap();
        vectors.trim(NOTHING).await.unwrap();
    }
    assert_eq!(moved.len(), 2000 - 20);
    assert_eq!(redis.store.status(Stage::Raw).await.unwrap().dead_letters, 20);
    assert!(redis.documents(EMBEDDED).await.len() < 100, "stage 2 was trimmed");

    let appended = redis.store.append(Some(&checkpoint(2000)), &[change(2001)], &checkpoint(2001)).await.unwrap();
    assert_eq!(appended, Appended::Saved, "there is room again");
}

#[tokio::test]
async fn evicting_redis_is_rejected() {
    let redis = TestRedis::start().await;
    redis.store.refuse_evicting_policy().await.unwrap();
    redis.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let error = redis.store.refuse_evicting_policy().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.message.contains("allkeys-lru"), "{error}");
    assert!(error.hint.unwrap().contains("redis-cli CONFIG SET maxmemory-policy noeviction"));
}
