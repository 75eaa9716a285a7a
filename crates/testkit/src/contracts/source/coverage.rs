//! Several databases and selectors, exclusions, and a coverage that changes.

use std::collections::HashSet;

use serde_json::json;
use tidewheel_core::change::Operation;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Covered, SourceEvent, StartAt};

use super::steps::{Follower, covering, delete, from, insert, replace, with_timeout};
use super::{SourceHarness, SourceWrite};

/// Operation, namespace and `_id` of each event.
fn seen(events: &[SourceEvent]) -> Vec<(Operation, &str, &str)> {
    events.iter().map(|event| (event.operation, event.namespace.as_str(), event.id.as_str())).collect()
}

/// `tickets` of the database; of the other one everything except `tmp_*`.
async fn in_two_databases(harness: &dyn SourceHarness, filters: &[&str]) -> Covered {
    let (database, other) = (harness.database(), harness.other_database());
    let tickets = [format!("{database}.tickets")];
    let articles = [format!("{other}.*"), format!("!{other}.tmp_*")];
    covering(&harness.source(&[]).await, &[&tickets, &articles], filters)
}

/// Changes of all covered collections arrive on one feed, in the order of their commits.
pub async fn feed_covers_several_databases(harness: &dyn SourceHarness) {
    let source = in_two_databases(harness, &[]).await;
    let (database, other) = (harness.database(), harness.other_database());
    let start = source.now().await.unwrap();
    harness.commit(vec![insert("tickets", json!({"_id": 1}))]).await;
    harness.commit(vec![insert("articles", json!({"_id": "uncovered"}))]).await;
    harness.commit_in(&other, vec![insert("articles", json!({"_id": 2}))]).await;
    harness.commit_in(&other, vec![insert("tmp_a", json!({"_id": "excluded"}))]).await;
    harness.commit_in(&other, vec![insert("tickets", json!({"_id": 3}))]).await;
    harness.commit_in(&other, vec![delete("articles", json!(2))]).await;
    let rename = SourceWrite::Rename { from: "tmp_a".into(), to: "renamed".into() };
    harness.commit_in(&other, vec![rename]).await;
    harness.commit(vec![replace("tickets", json!({"_id": 1, "n": 1}))]).await;
    let mut feed = source.open(StartAt::Time(start)).await.unwrap();
    let (mut events, mut appeared) = (Vec::new(), Vec::new());
    while events.len() < 6 {
        let batch = with_timeout(feed.next()).await.unwrap();
        events.extend(batch.events);
        appeared.extend(batch.appeared);
    }
    let (tickets, articles) = (format!("{database}.tickets"), format!("{other}.articles"));
    let (others, renamed) = (format!("{other}.tickets"), format!("{other}.renamed"));
    let wanted = [
        (Operation::Insert, tickets.as_str(), "1"),
        (Operation::Insert, articles.as_str(), "2"),
        (Operation::Insert, others.as_str(), "3"),
        (Operation::Delete, articles.as_str(), "2"),
        (Operation::Drop, renamed.as_str(), ""),
        (Operation::Replace, tickets.as_str(), "1"),
    ];
    assert_eq!(seen(&events), wanted);
    assert_eq!(appeared, [Namespace::new(&other, "renamed")]);
    let namespaces = [&tickets, &articles, &renamed, &others].map(|name| Namespace::parse(name).unwrap());
    let listed: HashSet<Namespace> = source.collections().await.unwrap().into_iter().collect();
    assert_eq!(listed, HashSet::from(namespaces));
}

/// A dropped database ends its own collections only.
pub async fn dropped_database_leaves_the_others(harness: &dyn SourceHarness) {
    let source = in_two_databases(harness, &[]).await;
    let other = harness.other_database();
    let mut follower = Follower::now(&source).await;
    harness.commit(vec![insert("tickets", json!({"_id": 1}))]).await;
    harness.commit_in(&other, vec![insert("articles", json!({"_id": 2}))]).await;
    harness.commit_in(&other, vec![insert("notes", json!({"_id": 3}))]).await;
    follower.take(3).await;
    harness.commit_in(&other, vec![SourceWrite::DropDatabase]).await;
    let ended = follower.take(2).await;
    let names: HashSet<_> = ended.iter().map(|event| (event.operation, event.namespace.clone())).collect();
    let dropped = |collection| (Operation::Drop, Namespace::new(&other, collection));
    assert_eq!(names, HashSet::from([dropped("articles"), dropped("notes")]));
    let behind = follower.token.clone();
    harness.commit(vec![insert("tickets", json!({"_id": 4}))]).await;
    harness.commit_in(&other, vec![insert("articles", json!({"_id": 5}))]).await;
    let after = follower.take(2).await;
    assert_eq!(after.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["4", "5"]);
    assert_eq!(from(&source, StartAt::Token(behind), 2).await, after);
}

/// In one database. A collection that another selector includes is covered.
pub async fn excluded_collections_have_no_events_and_are_not_listed(harness: &dyn SourceHarness) {
    let database = harness.database();
    let most = [format!("{database}.*"), format!("!{database}.tmp_*")];
    let kept = [format!("{database}.tmp_kept")];
    let source = covering(&harness.source(&[]).await, &[&most, &kept], &[]);
    let start = source.now().await.unwrap();
    for (id, collection) in ["tickets", "tmp_a", "tmp_kept", "tmp", "tmp_b"].into_iter().enumerate() {
        harness.commit(vec![insert(collection, json!({"_id": id}))]).await;
    }
    let away = SourceWrite::Rename { from: "tickets".into(), to: "tmp_tickets".into() };
    harness.commit(vec![away]).await;
    harness.commit(vec![insert("tmp", json!({"_id": "last"}))]).await;
    let events = from(&source, StartAt::Time(start), 5).await;
    let brief: Vec<_> = events.iter().map(|event| (event.operation, event.namespace.collection())).collect();
    let wanted = [
        (Operation::Insert, "tickets"),
        (Operation::Insert, "tmp_kept"),
        (Operation::Insert, "tmp"),
        (Operation::Drop, "tickets"),
        (Operation::Insert, "tmp"),
    ];
    assert_eq!(brief, wanted);
    let listed = source.collections().await.unwrap();
    assert_eq!(listed.iter().map(Namespace::collection).collect::<Vec<_>>(), ["tmp", "tmp_kept"]);
}

/// Also databases that do not exist yet.
pub async fn databases_are_matched_by_patterns(harness: &dyn SourceHarness) {
    let (database, other) = (harness.database(), harness.other_database());
    let tickets = [format!("{database}.tickets"), format!("{database}_*.tickets")];
    let source = covering(&harness.source(&[]).await, &[&tickets], &[]);
    let start = source.now().await.unwrap();
    assert_eq!(source.collections().await.unwrap(), []);
    harness.commit_in(&other, vec![insert("tickets", json!({"_id": 1}))]).await;
    harness.commit_in(&other, vec![insert("articles", json!({"_id": 2}))]).await;
    harness.commit(vec![insert("tickets", json!({"_id": 3}))]).await;
    let events = from(&source, StartAt::Time(start), 2).await;
    let namespaces = [Namespace::new(&other, "tickets"), Namespace::new(database, "tickets")];
    assert_eq!(events.iter().map(|event| &event.namespace).collect::<Vec<_>>(), namespaces.iter().collect::<Vec<_>>());
    let listed: HashSet<Namespace> = source.collections().await.unwrap().into_iter().collect();
    assert_eq!(listed, HashSet::from(namespaces));
}

/// A token is valid for the same selected collections, whatever is judged.
pub async fn scope_depends_on_selectors_and_not_on_filters(harness: &dyn SourceHarness) {
    let plain = in_two_databases(harness, &[]).await;
    assert_eq!(plain.scope(), in_two_databases(harness, &[r#"{"n": 1}"#]).await.scope());
    let one = [format!("{}.tickets", harness.database())];
    assert_ne!(plain.scope(), covering(&plain, &[&one], &[]).scope());
}

/// With the new filters from there on.
pub async fn changed_filter_resumes_at_the_token(harness: &dyn SourceHarness) {
    let tickets = [format!("{}.tickets", harness.database())];
    let source = harness.source(&[]).await;
    let coverage = |filters: &[&str]| covering(&source, &[&tickets], filters);
    let mut follower = Follower::now(&coverage(&[])).await;
    harness.commit(vec![insert("tickets", json!({"_id": 1, "n": 1}))]).await;
    follower.take(1).await;
    let (mut token, mut id) = (follower.token, 1);
    for filters in [&[r#"{"n": 2}"#][..], &[r#"{"n": 3}"#, r#"{"n": 2}"#], &[]] {
        id += 1;
        harness.commit(vec![insert("tickets", json!({"_id": id, "n": 2}))]).await;
        let feed = coverage(filters).open(StartAt::Token(token.clone())).await.unwrap();
        let mut follower = Follower { feed, token };
        let event = follower.take(1).await.remove(0);
        assert_eq!(event.id, id.to_string());
        assert_eq!(event.verdicts, filters.iter().map(|filter| filter.contains('2')).collect());
        token = follower.token;
    }
}

/// Inclusive, as at the start of any feed: nothing of a collection that stays is missed, and nothing of a new one.
pub async fn changed_scope_resumes_at_the_time(harness: &dyn SourceHarness) {
    let other = harness.other_database();
    let tickets = [format!("{}.tickets", harness.database())];
    let narrow = covering(&harness.source(&[]).await, &[&tickets], &[]);
    let wide = in_two_databases(harness, &[]).await;
    let start = narrow.now().await.unwrap();
    harness.commit(vec![insert("tickets", json!({"_id": 1}))]).await;
    harness.commit(vec![insert("tickets", json!({"_id": 2}))]).await;
    let last = from(&narrow, StartAt::Time(start), 2).await.remove(1);
    harness.commit_in(&other, vec![insert("articles", json!({"_id": 3}))]).await;
    harness.commit(vec![insert("tickets", json!({"_id": 4}))]).await;
    let ids = |events: &[SourceEvent]| -> Vec<String> { events.iter().map(|event| event.id.clone()).collect() };
    let events = from(&wide, StartAt::Time(last.time), 3).await;
    assert_eq!(ids(&events), ["2", "3", "4"]);
    assert_eq!(events[0], last);
    let events = from(&narrow, StartAt::Time(events[1].time), 1).await;
    assert_eq!(ids(&events), ["4"]);
}
