//! The installation registered in Redis.

use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{Appended, CatalogStore, Registry};
use tidewheel_stores::redis::keys::INSTALLATION;
use tidewheel_stores::redis::layout::{INITIAL_LAYOUT, LAYOUT};
use tidewheel_testkit::contracts::ownership::{
    first_installation_is_registered_and_kept, installation, newer_layout_is_rejected_and_kept,
};
use uuid::Uuid;

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
    assert_eq!(redis.layout().await, INITIAL_LAYOUT);
}

impl TestRedis {
    /// The stored layout of the keys.
    async fn layout(&self) -> u32 {
        self.command(&["HGET", INSTALLATION, "format"]).await
    }

    /// Saves an empty catalog that requires the keys of targets.
    async fn apply(&self, expected: u64) {
        let next = expected + 1;
        let saved = CatalogStore::save(&self.store, Uuid::new_v4(), expected, next, &[], Some(LAYOUT)).await.unwrap();
        assert_eq!(saved, Appended::Saved);
    }
}

/// Releases that know only the initial layout can run beside this one until a catalog is applied.
#[tokio::test]
async fn first_catalog_raises_the_layout_and_registrations_keep_it() {
    let redis = TestRedis::start().await;
    redis.store.register(&installation("shop")).await.unwrap();
    assert_eq!(redis.layout().await, INITIAL_LAYOUT);
    redis.store.replace(&installation("crm")).await.unwrap();
    assert_eq!(redis.layout().await, INITIAL_LAYOUT);
    redis.apply(0).await;
    assert_eq!(redis.layout().await, LAYOUT);
    let own = installation("shop");
    redis.store.replace(&own).await.unwrap();
    redis.store.register(&installation("crm")).await.unwrap();
    assert_eq!((redis.layout().await, redis.store.installation().await.unwrap()), (LAYOUT, Some(own.clone())));
    // An operator who deletes the registration does not open the keys to earlier releases.
    assert_eq!(redis.command::<u64>(&["DEL", INSTALLATION]).await, 1);
    redis.store.register(&own).await.unwrap();
    assert_eq!(redis.layout().await, LAYOUT);
    redis.command::<u64>(&["HDEL", INSTALLATION, "format"]).await;
    redis.store.replace(&own).await.unwrap();
    assert_eq!(redis.layout().await, LAYOUT);
}

/// After a wipe, the catalog may be written back before the registration.
#[tokio::test]
async fn layout_of_the_catalog_is_kept_by_a_later_registration() {
    let redis = TestRedis::start().await;
    redis.apply(0).await;
    assert_eq!((redis.layout().await, redis.store.installation().await.unwrap()), (LAYOUT, None));
    let own = installation("shop");
    assert_eq!(redis.store.register(&own).await.unwrap(), own);
    assert_eq!(redis.layout().await, LAYOUT);
}

#[tokio::test]
async fn catalog_never_lowers_the_layout() {
    let redis = TestRedis::start().await;
    let newer = (LAYOUT + 1).to_string();
    redis.command::<u64>(&["HSET", INSTALLATION, "format", &newer]).await;
    redis.apply(0).await;
    assert_eq!(redis.layout().await, LAYOUT + 1);
    let error = redis.store.register(&installation("shop")).await.unwrap_err();
    assert!(error.message.contains(&format!("unsupported layout {newer}")), "{error}");
    assert_eq!(redis.command::<u64>(&["HLEN", INSTALLATION]).await, 1, "nothing was registered");
}

#[tokio::test]
async fn invalid_installation_is_fatal_and_hints_at_adopt() {
    let redis = TestRedis::start().await;
    redis.command::<u64>(&["HSET", INSTALLATION, "id", "a"]).await;
    let error = redis.store.installation().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.hint.unwrap().contains("tidewheel installation adopt"));
}
