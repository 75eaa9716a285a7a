//! Created, dropped and renamed collections.

use std::collections::HashSet;

use serde_json::json;
use tidewheel_core::change::Operation;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::StartAt;

use super::steps::{Follower, all_rows, brief, from, insert, with_timeout};
use super::{SourceHarness, SourceWrite};

/// A drop is ordered between earlier and later events.
pub async fn dropped_collection_emits_a_drop(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let mut follower = Follower::now(&source).await;
    harness.commit(vec![insert("tickets", json!({"_id": 1}))]).await;
    harness.commit(vec![SourceWrite::Drop { collection: "tickets".into() }]).await;
    harness.commit(vec![insert("tickets", json!({"_id": 2}))]).await;
    let events = follower.take(3).await;
    let wanted = [
        (Operation::Insert, r#"{"$numberInt":"1"}"#),
        (Operation::Drop, ""),
        (Operation::Insert, r#"{"$numberInt":"2"}"#),
    ];
    assert_eq!(brief(&events), wanted);
    assert_eq!((events[1].namespace.collection(), events[1].id.as_str(), &events[1].document), ("tickets", "", &None));
    assert!(events[0].time < events[1].time && events[1].time < events[2].time);
}

/// The old name is dropped; the new one, if selected, is dropped too, because it may have replaced another, and has to
/// be read.
pub async fn renamed_collection_is_dropped_and_appears(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets", "stream_log"]).await;
    harness.commit(vec![insert("tickets", json!({"_id": 1}))]).await;
    harness.commit(vec![insert("stream_log", json!({"_id": 2}))]).await;
    harness.commit(vec![insert("outside", json!({"_id": 3}))]).await;
    let start = source.now().await.unwrap();
    for (from, to) in [("tickets", "stream_log"), ("stream_log", "elsewhere"), ("outside", "tickets")] {
        harness.commit(vec![SourceWrite::Rename { from: from.into(), to: to.into() }]).await;
    }
    harness.commit(vec![insert("tickets", json!({"_id": "last"}))]).await;
    let mut feed = source.open(StartAt::Time(start)).await.unwrap();
    let (mut ended, mut appeared) = (Vec::new(), Vec::new());
    let all = async {
        loop {
            let batch = feed.next().await.unwrap();
            appeared.extend(batch.appeared.into_iter().map(|namespace| namespace.collection().to_owned()));
            for event in batch.events {
                match event.operation {
                    Operation::Drop => ended.push(event.namespace.collection().to_owned()),
                    _ if event.id == r#""last""# => return,
                    _ => {}
                }
            }
        }
    };
    with_timeout(all).await;
    ended.sort_unstable();
    assert_eq!(ended, ["stream_log", "stream_log", "tickets", "tickets"], "each was renamed away once and to once");
    assert_eq!(appeared, ["stream_log", "tickets"]);
    let rows = all_rows(&source, &Namespace::new(harness.database(), "tickets"), None).await;
    let keys: Vec<_> = rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(keys, ["3", r#""last""#]);
}

/// Every collection is dropped, and later writes are delivered, on the same feed and from every token.
pub async fn feed_survives_a_dropped_database(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets", "orders"]).await;
    let mut follower = Follower::now(&source).await;
    harness.commit(vec![insert("tickets", json!({"_id": 1}))]).await;
    harness.commit(vec![insert("orders", json!({"_id": 1}))]).await;
    follower.take(2).await;
    let before = follower.token.clone();
    harness.commit(vec![SourceWrite::DropDatabase]).await;
    let ended = follower.take(2).await;
    let names: HashSet<_> = ended.iter().map(|event| (event.operation, event.namespace.collection())).collect();
    assert_eq!(names, HashSet::from([(Operation::Drop, "tickets"), (Operation::Drop, "orders")]));
    let behind = follower.token.clone();
    harness.commit(vec![insert("tickets", json!({"_id": 2}))]).await;
    let after = follower.take(1).await;
    assert_eq!(brief(&after), [(Operation::Insert, r#"{"$numberInt":"2"}"#)]);
    assert_eq!(from(&source, StartAt::Token(behind), 1).await, after);
    let all = from(&source, StartAt::Token(before), 3).await;
    assert_eq!(all[2], after[0]);
}

/// In the order of their names.
pub async fn only_selected_collections_are_listed(harness: &dyn SourceHarness) {
    for collection in ["b", "a", "c"] {
        harness.commit(vec![insert(collection, json!({"_id": 1}))]).await;
    }
    let namespaces =
        |names: &[&str]| -> Vec<_> { names.iter().map(|name| Namespace::new(harness.database(), name)).collect() };
    let some = harness.source(&["c", "a", "missing"]).await;
    assert_eq!(some.collections().await.unwrap(), namespaces(&["a", "c"]));
    let all = harness.source(&[]).await;
    assert_eq!(all.collections().await.unwrap(), namespaces(&["a", "b", "c"]));
}

/// A saved token is valid for the same selection only.
pub async fn scope_differs_between_selections(harness: &dyn SourceHarness) {
    let one = harness.source(&["a"]).await.scope();
    assert_eq!(one, harness.source(&["a"]).await.scope());
    assert_ne!(one, harness.source(&["a", "b"]).await.scope());
    assert_ne!(one, harness.source(&[]).await.scope());
}
