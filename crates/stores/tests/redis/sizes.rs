//! Values that Redis rejects.

use tidewheel_core::change::Change;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{Appended, Journal as _};
use tidewheel_stores::redis::{RedisOptions, RedisStore};
use tidewheel_testkit::contracts::samples::{change, checkpoint};

use super::server::TestRedis;

const MEGABYTE: usize = 1 << 20;

fn large(number: u32, bytes: usize) -> Change {
    Change { document: Some("x".repeat(bytes)), ..change(number) }
}

#[tokio::test]
async fn value_limit_is_read_from_the_configuration() {
    let redis = TestRedis::start().await;
    assert_eq!(redis.store.most_bytes().await.unwrap(), Some(512 * MEGABYTE));
    redis.command::<()>(&["CONFIG", "SET", "proto-max-bulk-len", "1048576"]).await;
    assert_eq!(redis.store.most_bytes().await.unwrap(), Some(MEGABYTE));
    let appended = redis.store.append(None, &[large(1, MEGABYTE)], &checkpoint(1)).await.unwrap();
    assert_eq!(appended, Appended::Saved, "a value of exactly this size is accepted");
    redis.command::<()>(&["CONFIG", "SET", "client-query-buffer-limit", "1048576"]).await;
    assert!(redis.store.most_bytes().await.unwrap().is_some_and(|most| most < MEGABYTE));
}

#[tokio::test]
async fn value_limit_is_learned_from_failures_without_config_permission() {
    let redis = TestRedis::start().await;
    redis.command::<()>(&["ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-config"]).await;
    let url = redis.server.url().replace("redis://", "redis://app:secret@");
    let connect = async || RedisStore::connect(&RedisOptions::new(url.clone())).await.unwrap();
    // Redis closes the connection of a client that sends too much.
    let learned = async |store: &RedisStore| loop {
        match store.most_bytes().await {
            Ok(most) => break most,
            Err(error) => assert_eq!(error.class, ErrorClass::Transient, "{error}"),
        }
    };
    for (setting, bytes) in [
        ("proto-max-bulk-len", 2 * MEGABYTE),
        ("proto-max-bulk-len", 9 * MEGABYTE),
        ("client-query-buffer-limit", 3 * MEGABYTE),
    ] {
        let store = connect().await;
        assert_eq!(store.most_bytes().await.unwrap(), None);
        redis.command::<()>(&["CONFIG", "SET", setting, "1048576"]).await;
        let saved = store.load().await.unwrap();
        store.append(saved.as_ref(), &[change(7), large(8, bytes)], &checkpoint(8)).await.unwrap_err();
        assert_eq!(learned(&store).await, Some(bytes - 1), "{setting} {bytes}");
        // The connection is new, and small values succeed.
        let next = checkpoint(9);
        assert_eq!(store.append(saved.as_ref(), &[change(9)], &next).await.unwrap(), Appended::Saved);
        redis.command::<()>(&["CONFIG", "SET", setting, "1073741824"]).await;
    }
    let store = connect().await;
    let saved = store.load().await.unwrap();
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    store.append(saved.as_ref(), &[large(10, 2 * MEGABYTE)], &checkpoint(10)).await.unwrap_err();
    assert_eq!(store.most_bytes().await.unwrap(), None, "it failed for another reason");
}
