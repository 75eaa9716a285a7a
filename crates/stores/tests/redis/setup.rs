//! Users, keys of the wrong type, flushed scripts, and a status beside Redis' own bookkeeping.

use std::time::Duration;

use tidewheel_core::change::Change;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{
    Acknowledge, Backlog, Damage, Journal, Maintenance, Queue, Repair, Retention, StageInspector as _,
};
use tidewheel_core::stage::Stage;
use tidewheel_stores::redis::keys::{CHECKPOINT, RAW, STAGE_1};
use tidewheel_stores::redis::{RedisOptions, RedisStore};

use super::server::{TestRedis, append, ids};

const NOW: Duration = Duration::ZERO;

#[tokio::test]
async fn invalid_credentials_and_missing_permissions_are_fatal_and_redacted() {
    let redis = TestRedis::start().await;
    redis.command::<()>(&["ACL", "SETUSER", "reader", "on", ">hunter2", "~*", "+@read", "+ping"]).await;
    redis.command::<()>(&["ACL", "SETUSER", "default", ">letmein"]).await;
    let at = |user: &str| RedisOptions::new(format!("redis://{user}@127.0.0.1:{}/", redis.server.port()));

    for (user, hint) in [("", "password"), (":hunter3", "password"), ("reader:hunter3", "password")] {
        let options = if user.is_empty() { RedisOptions::new(redis.server.url()) } else { at(user) };
        // `default` keeps `nopass` until it is removed, so an anonymous client is accepted.
        match RedisStore::connect(&options).await {
            Err(error) => {
                assert_eq!(error.class, ErrorClass::Fatal, "{error}");
                assert!(error.hint.as_deref().unwrap().contains(hint), "{error:?}");
                assert!(!format!("{error:?}").contains("hunter"), "{error:?}");
            }
            Ok(_) => assert!(user != "reader:hunter3", "{user} was accepted"),
        }
    }
    let store = RedisStore::connect(&at("reader:hunter2")).await.unwrap();
    assert_eq!(store.load().await.unwrap(), None);
    let error = store.lease("a", Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.hint.unwrap().contains("ACL"));
    let facts = store.inspect().await;
    assert_eq!(facts.unwrap_err().class, ErrorClass::Fatal, "INFO is not in @read");
}

#[tokio::test]
async fn url_selects_the_database() {
    let redis = TestRedis::start().await;
    let url = format!("{}3", redis.server.url());
    let store = RedisStore::connect(&RedisOptions::new(url)).await.unwrap();
    append(&store, [1]).await;
    assert_eq!(redis.store.load().await.unwrap(), None);
    assert!(store.load().await.unwrap().is_some());
}

#[tokio::test]
async fn key_of_wrong_type_is_fatal_and_untouched() {
    let redis = TestRedis::start().await;
    redis.command::<()>(&["SET", CHECKPOINT, "mine"]).await;
    let error = redis.store.load().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    redis.command::<()>(&["SET", RAW, "mine"]).await;
    let error = redis.stage_1("a").read(1, NOW).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.hint.unwrap().contains("database in redis.url"));
    assert_eq!(redis.command::<String>(&["GET", RAW]).await, "mine");
}

#[tokio::test]
async fn invalid_checkpoint_error_names_field() {
    let redis = TestRedis::start().await;
    append(&redis.store, [1]).await;
    redis.command::<u64>(&["HSET", CHECKPOINT, "epoch", "x"]).await;
    let error = redis.store.load().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.message.contains("epoch"), "{error}");
    redis.command::<u64>(&["DEL", CHECKPOINT]).await;
    assert_eq!(redis.store.load().await.unwrap(), None);
}

#[tokio::test]
async fn flushed_scripts_are_reloaded() {
    let redis = TestRedis::start().await;
    for number in 1..=3 {
        append(&redis.store, [number]).await;
        redis.command::<()>(&["SCRIPT", "FLUSH"]).await;
    }
    assert_eq!(redis.on_stage_1().await, [1, 2, 3]);
}

#[tokio::test]
async fn keep_and_hand_back_do_not_count_deliveries() {
    let redis = TestRedis::start().await;
    append(&redis.store, [1]).await;
    let queue = redis.stage_1("a");
    let read = queue.read(10, NOW).await.unwrap();
    queue.keep(&ids(&read)).await.unwrap();
    queue.hand_back(&ids(&read)).await.unwrap();
    queue.keep(&ids(&read)).await.unwrap();
    let pending: Vec<(String, String, u64, u64)> =
        redis.command(&["XPENDING", RAW, STAGE_1.group, "-", "+", "10"]).await;
    let [(_, owner, idle, deliveries)] = &pending[..] else { panic!("{pending:?}") };
    assert_eq!((owner.as_str(), *deliveries), ("a", 1));
    assert!(*idle < 60_000, "redelivered now, not in 1970: {idle}");
}

#[tokio::test]
async fn idle_consumers_are_removed_unless_entries_are_pending() {
    let redis = TestRedis::start().await;
    assert_eq!(redis.stage_1("a").forget_consumers(NOW).await.unwrap(), 0, "the stream does not exist");
    append(&redis.store, [1, 2]).await;
    assert_eq!(redis.stage_1("holder").read(1, NOW).await.unwrap().len(), 1);
    let read = redis.stage_1("gone").read(1, NOW).await.unwrap();
    redis.stage_1("gone").acknowledge(&ids(&read)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let queue = redis.stage_1("a");
    assert_eq!(queue.forget_consumers(Duration::from_secs(3600)).await.unwrap(), 0);
    assert_eq!(queue.forget_consumers(Duration::from_millis(10)).await.unwrap(), 1);
    let consumers = redis.store.status(Stage::Raw).await.unwrap().consumers;
    assert_eq!(consumers.iter().map(|consumer| consumer.name.as_str()).collect::<Vec<_>>(), ["holder"]);
    assert_eq!(redis.stage_1("heir").claim(NOW, 10).await.unwrap().deliveries.len(), 1);
}

/// Reads and acknowledges until the stream is empty: a read is bounded in bytes, regardless of its COUNT.
async fn drain(queue: &impl Queue<Change>) {
    loop {
        let read = queue.read(10_000, NOW).await.unwrap();
        if read.is_empty() {
            return;
        }
        queue.acknowledge(&ids(&read)).await.unwrap();
    }
}

#[tokio::test]
async fn long_stream_is_trimmed_in_steps() {
    let redis = TestRedis::start().await;
    let queue = redis.stage_1("a");
    for (round, retention) in [
        Retention { age: Duration::from_secs(600), entries: 10, bytes: u64::MAX },
        Retention { age: Duration::from_millis(1), entries: 1_000_000, bytes: u64::MAX },
    ]
    .into_iter()
    .enumerate()
    {
        let first = 1 + 5000 * round as u32;
        append(&redis.store, first..first + 5000).await;
        drain(&queue).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        let before = redis.store.status(Stage::Raw).await.unwrap().length;
        let kept = if round == 0 { 10 } else { 0 };
        assert_eq!(queue.trim(retention).await.unwrap(), before - kept);
        assert_eq!(redis.store.status(Stage::Raw).await.unwrap().length, kept);
    }
}

#[tokio::test]
async fn externally_trimmed_entries_are_damage_until_repaired() {
    let redis = TestRedis::start().await;
    append(&redis.store, 1..=10).await;
    let queue = redis.stage_1("a");
    let read = queue.read(6, NOW).await.unwrap();
    queue.acknowledge(&ids(&read)).await.unwrap();
    let damage = async || redis.store.positions().await.unwrap().damage;
    redis.command::<u64>(&["XTRIM", RAW, "MAXLEN", "3"]).await;
    assert!(matches!(damage().await, Some(Damage::Entries(_))));
    let saved = redis.store.load().await.unwrap();
    let next = saved.clone().unwrap();
    redis.store.restart(saved.as_ref(), &[], &[], &next, Repair::Entries).await.unwrap();
    assert_eq!(damage().await, None);
    // After a restart the group's position in the append-only file is outdated; that is not damage.
    redis.command::<String>(&["BGREWRITEAOF"]).await;
    let rest = queue.read(10, NOW).await.unwrap();
    queue.acknowledge(&ids(&rest)).await.unwrap();
    redis.server.restart().await.unwrap();
    while redis.store.ping().await.is_err() {}
    assert_eq!(damage().await, None);
    assert_eq!(redis.store.stream_log::<Change>(STAGE_1).backlog().await.unwrap(), 0);
}

#[tokio::test]
async fn lag_is_correct_after_unread_entries_are_trimmed_externally() {
    let redis = TestRedis::start().await;
    append(&redis.store, 1..=10).await;
    let queue = redis.stage_1("a");
    let read = queue.read(1, NOW).await.unwrap();
    queue.acknowledge(&ids(&read)).await.unwrap();
    redis.command::<u64>(&["XTRIM", RAW, "MAXLEN", "2"]).await;
    let status = redis.store.status(Stage::Raw).await.unwrap();
    assert_eq!(status.length, 2);
    assert!(status.lag.unwrap() <= 2, "{status:?}");
    drain(&queue).await;
    assert_eq!(redis.store.status(Stage::Raw).await.unwrap().lag, Some(0), "though Redis itself still counts them");
    assert_eq!(redis.store.stream_log::<Change>(STAGE_1).backlog().await.unwrap(), 0);
}

#[tokio::test]
async fn inspect_reports_server_configuration() {
    let redis = TestRedis::start().await;
    let facts = redis.store.inspect().await.unwrap();
    assert!(facts.version.starts_with(|digit: char| digit.is_ascii_digit()), "{facts:?}");
    assert_eq!((facts.role.as_str(), facts.max_memory_policy.as_str()), ("master", "noeviction"));
    assert_eq!(facts.append_fsync.as_deref(), Some("always"));
    assert!(facts.append_only && facts.config_permitted && !facts.cluster && facts.used_memory > 0, "{facts:?}");
    redis.command::<()>(&["ACL", "SETUSER", "managed", "on", "nopass", "~*", "+@all", "-config"]).await;
    let url = format!("redis://managed:any@127.0.0.1:{}/", redis.server.port());
    let facts = RedisStore::connect(&RedisOptions::new(url)).await.unwrap().inspect().await.unwrap();
    assert!(!facts.config_permitted && facts.append_fsync.is_none() && facts.append_only, "{facts:?}");
}
