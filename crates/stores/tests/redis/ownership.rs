//! The installation that a Redis names.

use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::Registry;
use tidewheel_core::streams::INSTALLATION;
use tidewheel_testkit::contracts::ownership::the_first_installation_is_registered_and_stays;

use super::server::TestRedis;

#[tokio::test]
async fn installation_is_registered_once_and_kept() {
    let redis = TestRedis::start().await;
    the_first_installation_is_registered_and_stays(&redis.store).await;
}

#[tokio::test]
async fn unreadable_installation_is_fatal_and_names_the_command_that_replaces_it() {
    let redis = TestRedis::start().await;
    redis.command::<u64>(&["HSET", INSTALLATION, "id", "a"]).await;
    let error = redis.store.installation().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.hint.unwrap().contains("tidewheel installation adopt"));
}
