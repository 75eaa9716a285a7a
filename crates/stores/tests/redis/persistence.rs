//! A kill or a truncated append-only file leaves the beginning of a consistent history.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{Appended, Handover, Journal, Maintenance, Queue};
use tidewheel_stores::redis::keys::{EMBEDDED, STAGE_1};
use tidewheel_stores::redis::{RedisOptions, RedisStore};
use tidewheel_testkit::contracts::samples::{changes, checkpoint, embedded};

use super::server::{TestRedis, append, ids, numbers};

const NOW: Duration = Duration::ZERO;

#[tokio::test]
async fn kill_during_appends_loses_no_confirmed_append() {
    let redis = TestRedis::start().await;
    for round in 1..=3 {
        let store = RedisStore::connect(&RedisOptions::new(redis.server.url())).await.unwrap();
        let producer = tokio::spawn(async move {
            let mut saved = store.load().await.unwrap();
            loop {
                let last = saved.as_ref().map_or(0, |checkpoint| checkpoint.last.0.increment);
                let next = checkpoint(last + 3);
                match store.append(saved.as_ref(), &changes(last + 1..=last + 3), &next).await {
                    Ok(appended) => assert_eq!(appended, Appended::Saved),
                    Err(error) => {
                        assert_eq!(error.class, ErrorClass::Transient, "{error}");
                        return last;
                    }
                }
                saved = Some(next);
            }
        });
        tokio::time::sleep(Duration::from_millis(100 * round)).await;
        redis.server.kill().await;
        let confirmed = producer.await.unwrap();
        assert!(confirmed > 0, "the producer was running");
        redis.server.start().await.unwrap();
        let store = RedisStore::connect(&RedisOptions::new(redis.server.url())).await.unwrap();
        let last = store.load().await.unwrap().unwrap().last.0.increment;
        assert!(last == confirmed || last == confirmed + 3, "{last} after {confirmed} was confirmed");
        assert_eq!(redis.on_stage_1().await, (1..=last).collect::<Vec<_>>());
    }
}

/// The newest file of the append-only log.
fn log_file(redis: &TestRedis) -> PathBuf {
    let folder = redis.data.path().join("redis/appendonlydir");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.to_string_lossy().contains(".incr.")).max().unwrap()
}

#[tokio::test]
async fn truncated_aof_leaves_stages_and_checkpoint_consistent() {
    let redis = TestRedis::start().await;
    let queue = redis.stage_1("a");
    for first in (1..=600).step_by(6) {
        append(&redis.store, first..first + 6).await;
        // Some are handed over late, some never.
        let read = queue.read(4, NOW).await.unwrap();
        let records: Vec<_> = numbers(&read[1..]).into_iter().map(embedded).collect();
        redis.store.hand_over(&records, &ids(&read[1..])).await.unwrap();
    }
    let mut random = StdRng::seed_from_u64(11);
    let mut ends = BTreeSet::new();
    for round in 0..8 {
        redis.server.kill().await;
        let file = OpenOptions::new().write(true).open(log_file(&redis)).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length - random.random_range(1..=length / 6)).unwrap();
        redis.server.start().await.unwrap();

        // The old connections are gone; another test covers reconnects.
        let store = RedisStore::connect(&RedisOptions::new(redis.server.url())).await.unwrap();
        let Some(checkpoint) = store.load().await.unwrap() else { panic!("cut too much") };
        let last = checkpoint.last.0.increment;
        ends.insert(last);
        let entries = redis.on_stage_1().await;
        assert!(entries.starts_with(&(1..=last).collect::<Vec<_>>()), "no entry of the checkpoint is missing");
        // Redis 7.0 does not remove a truncated transaction, and logs later commands into it: after the next restart
        // its first commands take effect alone. Therefore entries precede the checkpoint that covers them: these are
        // appended a second time, with the same versions.
        assert!(round > 0 || entries.len() == last as usize, "a truncated transaction leaves nothing");
        // Each entry is ahead, pending, or on stage 2.
        let mut somewhere: BTreeSet<u32> = redis.documents(EMBEDDED).await.into_iter().collect();
        let heir = store.queue(STAGE_1, "heir");
        somewhere.extend(numbers(&heir.claim(NOW, 1000).await.unwrap().deliveries));
        somewhere.extend(numbers(&heir.read(1000, NOW).await.unwrap()));
        assert!(somewhere.is_superset(&(1..=last).collect()), "none is acknowledged without its record");
        // Undo the heir's reads, so that the next truncation starts from the pipeline's own history.
        redis.command::<u64>(&["XGROUP", "DELCONSUMER", STAGE_1.stream, STAGE_1.group, "heir"]).await;
        redis.command::<u64>(&["XGROUP", "DESTROY", STAGE_1.stream, STAGE_1.group]).await;
        redis.command::<()>(&["XGROUP", "CREATE", STAGE_1.stream, STAGE_1.group, "0"]).await;
    }
    assert!(ends.len() > 1, "the truncations hit different positions: {ends:?}");
}
