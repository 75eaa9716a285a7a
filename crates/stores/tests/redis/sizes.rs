//! Values that Redis rejects.

use tidewheel_core::change::Change;
use tidewheel_core::error::{Cause, ErrorClass};
use tidewheel_core::ports::{Appended, Journal as _};
use tidewheel_stores::redis::{RedisOptions, RedisStore};
use tidewheel_testkit::contracts::samples::{change, checkpoint};
use tidewheel_testkit::redis_proxy::{RedisProxy, Verdict};

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

/// A gateway that rejects some appends: larger than 300 KB, with a certain value, or with many arguments.
#[tokio::test]
async fn append_rejected_by_a_gateway_fails_while_an_empty_append_succeeds() {
    let redis = TestRedis::start().await;
    let server = format!("127.0.0.1:{}", redis.server.port());
    let has = |arguments: &[Vec<u8>], text: &str| {
        arguments.iter().any(|value| value.windows(text.len()).any(|part| part == text.as_bytes()))
    };
    let gateways = [
        RedisProxy::start(&server, |arguments| {
            let closes = arguments.iter().map(Vec::len).sum::<usize>() > 300_000;
            if closes { Verdict::Close } else { Verdict::Pass }
        })
        .await,
        RedisProxy::start(&server, move |arguments| {
            if has(arguments, "forbidden") { Verdict::Error("ERR value too large".into()) } else { Verdict::Pass }
        })
        .await,
        RedisProxy::start(&server, |arguments| {
            if arguments.len() > 100 { Verdict::Error("ERR too many arguments".into()) } else { Verdict::Pass }
        })
        .await,
    ];
    let rejected = [
        vec![large(7, 400_000)],
        vec![Change { document: Some(r#"{"text":"forbidden"}"#.into()), ..change(7) }],
        (7..60).map(change).collect(),
    ];
    for (gateway, rejected) in gateways.into_iter().zip(rejected) {
        let gateway = gateway.unwrap();
        let store = RedisStore::connect(&RedisOptions::new(gateway.url())).await.unwrap();
        let saved = redis.store.load().await.unwrap();
        let before = saved.clone().unwrap_or_else(|| checkpoint(1));
        assert_eq!(store.append(saved.as_ref(), &[], &before).await.unwrap(), Appended::Saved);
        let error = store.append(Some(&before), &rejected, &checkpoint(60)).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Transient, "{error}");
        assert!(matches!(error.cause, Cause::Refused | Cause::Unreachable), "{error:?}");
        assert_eq!(store.append(Some(&before), &[], &before).await.unwrap(), Appended::Saved, "the proof: {error}");
        assert_eq!(redis.on_stage_1().await, Vec::<u32>::new());
    }
}

#[tokio::test]
async fn redis_that_is_full_or_read_only_is_busy_and_rejects_an_empty_append_too() {
    let redis = TestRedis::start().await;
    let store = &redis.store;
    assert_eq!(store.append(None, &[], &checkpoint(1)).await.unwrap(), Appended::Saved);
    let cases: [(&[&str], &[&str]); 3] = [
        (&["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]),
        (&["CONFIG", "SET", "min-replicas-to-write", "3"], &["CONFIG", "SET", "min-replicas-to-write", "0"]),
        (&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]),
    ];
    for (unable, able) in cases {
        redis.command::<()>(unable).await;
        for changes in [vec![], vec![change(7)]] {
            let error = store.append(Some(&checkpoint(1)), &changes, &checkpoint(1)).await.unwrap_err();
            assert_eq!((error.class, error.cause), (ErrorClass::Transient, Cause::Busy), "{unable:?}: {error}");
        }
        redis.command::<()>(able).await;
    }
}
