//! The contracts of [`Registry`] and [`Ownable`].

use tidewheel_core::error::{Cause, ErrorClass};
use tidewheel_core::installation::{CollectionMark, Installation, SourceIdentity};
use tidewheel_core::ports::{Ownable, Registry};
use tidewheel_stores::redis::layout::LAYOUT;

use super::index::{DIMENSION, IndexHarness};

/// An installation that reads this database.
pub fn installation(database: &str) -> Installation {
    let source = SourceIdentity {
        database: database.to_owned(),
        replica_set: "rs0".to_owned(),
        hosts: vec!["db1.example:27017".to_owned(), "[2001:db8::1]:27018".to_owned()],
        cluster: "65f000000000000000000001".to_owned(),
    };
    Installation::new(source, 1_700_000_000)
}

/// The first installation is kept until it is replaced, and is returned with all its fields.
pub async fn first_installation_is_registered_and_kept(registry: &dyn Registry) {
    assert_eq!(registry.installation().await.unwrap(), None);
    let (first, second) = (installation("shop"), installation("crm"));
    assert_eq!(registry.register(&first).await.unwrap(), first);
    assert_eq!(registry.register(&second).await.unwrap(), first);
    assert_eq!(registry.installation().await.unwrap(), Some(first));
    registry.replace(&second).await.unwrap();
    assert_eq!(registry.installation().await.unwrap(), Some(second.clone()));
    let sharded =
        SourceIdentity { replica_set: String::new(), hosts: Vec::new(), cluster: String::new(), ..second.source };
    let marked = Installation { source: sharded, collection: "documents".to_owned(), ..second };
    registry.replace(&marked).await.unwrap();
    assert_eq!(registry.installation().await.unwrap(), Some(marked));
}

/// Keys that a newer release has written are rejected with both versions, and stay as they are.
pub async fn newer_layout_is_rejected_and_kept(registry: &dyn Registry, set_layout: impl AsyncFn(u32)) {
    let (first, second) = (installation("shop"), installation("crm"));
    registry.register(&first).await.unwrap();
    set_layout(LAYOUT + 1).await;
    for error in [
        registry.installation().await.unwrap_err(),
        registry.register(&second).await.unwrap_err(),
        registry.replace(&second).await.unwrap_err(),
    ] {
        assert_eq!((error.class, error.cause), (ErrorClass::Fatal, Cause::Newer));
        for part in [format!("unsupported layout {}", LAYOUT + 1), format!("layouts up to {LAYOUT}")] {
            assert!(error.message.contains(&part), "{error}");
        }
        assert!(error.hint.unwrap().contains("upgrade this service"));
    }
    set_layout(LAYOUT).await;
    assert_eq!(registry.installation().await.unwrap(), Some(first));
}

/// A mark stays with its collection, is replaced by the next one, and is deleted with the collection.
pub async fn collection_mark_is_kept_until_replaced(harness: &dyn IndexHarness, owned: &dyn Ownable) {
    let (first, second) = (installation("shop"), installation("crm"));
    assert_eq!(owned.mark().await.unwrap(), CollectionMark::NoCollection);
    owned.set_mark(&first).await.unwrap();
    assert_eq!(owned.mark().await.unwrap(), CollectionMark::NoCollection, "a mark does not create the collection");
    let index = harness.index();
    index.prepare(DIMENSION).await.unwrap();
    assert_eq!(owned.mark().await.unwrap(), CollectionMark::Unmarked);
    owned.set_mark(&first).await.unwrap();
    assert_eq!(owned.mark().await.unwrap(), CollectionMark::Of(first));
    assert!(!index.prepare(DIMENSION).await.unwrap());
    owned.set_mark(&second).await.unwrap();
    assert_eq!(owned.mark().await.unwrap(), CollectionMark::Of(second));
    harness.drop_collection().await;
    index.prepare(DIMENSION).await.unwrap();
    assert_eq!(owned.mark().await.unwrap(), CollectionMark::Unmarked, "it is a new collection");
    assert_eq!(owned.collection(), index.name());
}
