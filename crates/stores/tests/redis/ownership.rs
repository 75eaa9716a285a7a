//! The installation registered in Redis.

use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::Registry;
use tidewheel_stores::redis::keys::INSTALLATION;
use tidewheel_stores::redis::layout::LAYOUT;
use tidewheel_testkit::contracts::ownership::{
    first_installation_is_registered_and_kept, installation, newer_layout_is_rejected_and_kept,
};

use super::server::TestRedis;

#[tokio::test]
async fn installation_is_registered_once_and_kept() {
    let redis = TestRedis::start().await;
    first_installation_is_registered_and_kept(&redis.store).await;
}

#[tokio::test]
async fn newer_layout_of_the_keys_is_rejected_and_kept() {
    let redis = TestRedis::start().await;
    let set_layout = async |layout: u32| {
        redis.command::<u64>(&["HSET", INSTALLATION, "format", &layout.to_string()]).await;
    };
    newer_layout_is_rejected_and_kept(&redis.store, set_layout).await;
}

/// The releases before the layout wrote none, or ignored it.
#[tokio::test]
async fn installation_without_layout_is_read_and_gets_one_when_it_is_replaced() {
    let redis = TestRedis::start().await;
    let own = installation("shop");
    redis.store.register(&own).await.unwrap();
    assert_eq!(redis.command::<u64>(&["HDEL", INSTALLATION, "format"]).await, 1);
    assert_eq!(redis.store.installation().await.unwrap(), Some(own.clone()));
    redis.store.replace(&own).await.unwrap();
    assert_eq!(redis.command::<u32>(&["HGET", INSTALLATION, "format"]).await, LAYOUT);
}

#[tokio::test]
async fn invalid_installation_is_fatal_and_hints_at_adopt() {
    let redis = TestRedis::start().await;
    redis.command::<u64>(&["HSET", INSTALLATION, "id", "a"]).await;
    let error = redis.store.installation().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.hint.unwrap().contains("tidewheel installation adopt"));
}
