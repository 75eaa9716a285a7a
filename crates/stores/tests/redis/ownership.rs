//! The installation registered in Redis.

use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::Registry;
use tidewheel_core::streams::INSTALLATION;
use tidewheel_testkit::contracts::ownership::first_installation_is_registered_and_kept;

use super::server::TestRedis;

#[tokio::test]
async fn installation_is_registered_once_and_kept() {
    let redis = TestRedis::start().await;
    first_installation_is_registered_and_kept(&redis.store).await;
}

#[tokio::test]
async fn invalid_installation_is_fatal_and_hints_at_adopt() {
    let redis = TestRedis::start().await;
    redis.command::<u64>(&["HSET", INSTALLATION, "id", "a"]).await;
    let error = redis.store.installation().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.hint.unwrap().contains("tidewheel installation adopt"));
}
