//! The contract of [`SourceInspector`](tidewheel_core::ports::SourceInspector).

use serde_json::json;

use super::{SourceHarness, SourceWrite};

fn insert(collection: &str) -> SourceWrite {
    SourceWrite::Insert { collection: collection.to_owned(), document: json!({"_id": 1}) }
}

/// A wrong selection must not look like an empty database.
pub async fn unselected_collections_are_named_if_none_is_selected(harness: &dyn SourceHarness) {
    let wrong = harness.inspector(&["tickets"]).await;
    assert!(wrong.passed_over().await.unwrap().is_empty(), "the database is empty");
    harness.commit(vec![insert("orders")]).await;
    harness.commit(vec![insert("notes")]).await;
    assert_eq!(wrong.passed_over().await.unwrap(), ["notes", "orders"]);
    assert!(harness.inspector(&["orders", "tickets"]).await.passed_over().await.unwrap().is_empty());
}

/// The oldest entry is before, the newest at or after the newest write.
pub async fn history_covers_the_newest_write(harness: &dyn SourceHarness) {
    let inspector = harness.inspector(&[]).await;
    let before = inspector.cluster_time().await.unwrap();
    harness.commit(vec![insert("tickets")]).await;
    let window = inspector.history().await.unwrap().expect("a readable history").window;
    assert!(window.first <= before && before < window.last, "{window:?} {before:?}");
    assert!(inspector.cluster_time().await.unwrap() > before);
}
