//! Feeds: delivered events, their order, and resumption.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tidewheel_core::change::Operation;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{FeedError, ResumeToken, StartAt};
use tidewheel_core::version::ClusterTime;

use super::steps::{
    Follower, TIMEOUT, all_rows, brief, delete, from, ids, insert, key_of, parsed, replace, set, with_timeout,
};
use super::{SourceHarness, SourceWrite};

/// Insert, update, replace and delete, each with the document at that time.
pub async fn every_operation_is_delivered_with_its_document(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let mut follower = Follower::now(&source).await;
    let before = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let writes = [
        (insert("tickets", json!({"_id": 1, "n": 1})), Operation::Insert, Some(json!({"_id": 1, "n": 1}))),
        (set("tickets", json!(1), 2), Operation::Update, Some(json!({"_id": 1, "n": 2}))),
        (replace("tickets", json!({"_id": 1, "m": [3]})), Operation::Replace, Some(json!({"_id": 1, "m": [3]}))),
        (delete("tickets", json!(1)), Operation::Delete, None),
    ];
    let mut last = ClusterTime::default();
    for (write, operation, document) in writes {
        harness.commit(vec![write]).await;
        let event = follower.take(1).await.remove(0);
        assert_eq!(event.operation, operation);
        assert_eq!(event.namespace, Namespace::new(harness.database(), "tickets"));
        assert_eq!((event.key.as_str(), event.id.as_str()), (r#"{"$numberInt":"1"}"#, "1"));
        assert_eq!(parsed(event.document.as_ref()), document, "{operation}");
        assert!(event.time > last, "{operation}: {:?} is not after {last:?}", event.time);
        assert!(Duration::from_millis(event.committed_at).abs_diff(before) < TIMEOUT, "{operation}");
        last = event.time;
    }
}

/// An update carries the document's current state; if it is gone, its deletion follows.
pub async fn update_of_deleted_document_has_no_document(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let start = source.now().await.unwrap();
    harness.commit(vec![insert("tickets", json!({"_id": 1, "n": 1}))]).await;
    harness.commit(vec![set("tickets", json!(1), 2)]).await;
    harness.commit(vec![delete("tickets", json!(1))]).await;
    let events = from(&source, StartAt::Time(start), 3).await;
    let operations: Vec<_> = events.iter().map(|event| (event.operation, event.document.is_some())).collect();
    assert_eq!(operations, [(Operation::Insert, true), (Operation::Update, false), (Operation::Delete, false)]);
}

/// The key is the exact identity, for every type.
pub async fn ids_of_every_type_keep_their_identity(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let mut follower = Follower::now(&source).await;
    for (canonical, relaxed) in ids() {
        harness.commit(vec![insert("tickets", json!({"_id": canonical, "text": "a"}))]).await;
        harness.commit(vec![delete("tickets", canonical.clone())]).await;
        let events = follower.take(2).await;
        let key = key_of(&canonical);
        assert_eq!(brief(&events), [(Operation::Insert, key.as_str()), (Operation::Delete, key.as_str())]);
        for event in &events {
            assert_eq!(serde_json::from_str::<Value>(&event.id).unwrap(), relaxed, "{key}");
        }
        assert_eq!(parsed(events[0].document.as_ref()), Some(json!({"_id": relaxed, "text": "a"})), "{key}");
    }
}

/// MongoDB treats equal numbers as the same `_id`, regardless of type: they have one key.
pub async fn id_with_changed_number_type_keeps_its_key(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let mut follower = Follower::now(&source).await;
    let namespace = Namespace::new(harness.database(), "tickets");
    let one = [
        "{\"$numberInt\":\"1\"}",
        "{\"$numberLong\":\"1\"}",
        "{\"$numberDouble\":\"1.0\"}",
        "{\"$numberDecimal\":\"1.00\"}",
    ]
    .map(|id| serde_json::from_str::<Value>(id).unwrap());
    let zero = [json!({"$numberDouble": "0.0"}), json!({"$numberDouble": "-0.0"}), json!({"$numberDecimal": "-0E+3"})];
    let compound = [&one[0], &one[1], &one[2]].map(|id| json!({"b": id, "a": {"list": [id]}}));
    for forms in [&one[..], &zero, &compound] {
        let key = key_of(&forms[0]);
        harness.commit(vec![insert("tickets", json!({"_id": forms[0], "n": 0}))]).await;
        for id in forms {
            harness.commit(vec![replace("tickets", json!({"_id": id, "n": 1}))]).await;
            let rows = all_rows(&source, &namespace, None).await;
            assert_eq!(rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), [key.as_str()], "{id}");
            let now = source.now().await.unwrap();
            assert_eq!(source.existing(&namespace, std::slice::from_ref(&key), now).await.unwrap(), [true], "{id}");
        }
        harness.commit(vec![delete("tickets", forms[0].clone())]).await;
        let events = follower.take(forms.len() + 2).await;
        assert!(events.iter().all(|event| event.key == key), "{events:#?}");
        assert_eq!(events.last().unwrap().operation, Operation::Delete);
    }
}

/// One transaction has one cluster time; also with two updates of one document.
pub async fn transaction_events_share_cluster_time_and_keep_order(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let mut follower = Follower::now(&source).await;
    harness.commit(vec![insert("tickets", json!({"_id": 1, "n": 0}))]).await;
    harness.commit(vec![insert("tickets", json!({"_id": 9, "n": 0}))]).await;
    follower.take(2).await;
    harness
        .commit(vec![
            set("tickets", json!(1), 1),
            insert("tickets", json!({"_id": 2})),
            set("tickets", json!(1), 2),
            delete("tickets", json!(9)),
        ])
        .await;
    let events = follower.take(4).await;
    assert_eq!(
        brief(&events),
        [
            (Operation::Update, r#"{"$numberInt":"1"}"#),
            (Operation::Insert, r#"{"$numberInt":"2"}"#),
            (Operation::Update, r#"{"$numberInt":"1"}"#),
            (Operation::Delete, r#"{"$numberInt":"9"}"#),
        ]
    );
    let times: HashSet<_> = events.iter().map(|event| event.time).collect();
    assert_eq!(times.len(), 1, "{times:?}");
}

/// After every batch: exactly the later events.
pub async fn token_resumes_exactly_after_its_batch(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let mut follower = Follower::now(&source).await;
    let mut tokens = vec![follower.token.clone()];
    let mut events = Vec::new();
    for number in 0..6 {
        harness.commit(vec![insert("tickets", json!({"_id": number}))]).await;
        harness.commit(vec![insert("noise", json!({"_id": number}))]).await;
        events.extend(follower.take(1).await);
        tokens.push(follower.token.clone());
    }
    // Both the open feed and a new one continue.
    harness.commit(vec![insert("tickets", json!({"_id": "last"}))]).await;
    events.extend(follower.take(1).await);
    for (position, token) in tokens.into_iter().enumerate() {
        let rest = from(&source, StartAt::Token(token), events.len() - position).await;
        assert_eq!(rest, events[position..], "after batch {position}");
    }
}

/// More events of one time than a batch holds.
pub async fn token_resumes_within_a_transaction(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let mut follower = Follower::now(&source).await;
    harness.commit((0..1_200).map(|number| insert("tickets", json!({"_id": number}))).collect()).await;
    let (mut events, mut tokens) = (Vec::new(), Vec::new());
    while events.len() < 1_200 {
        let batch = with_timeout(follower.feed.next()).await.unwrap();
        assert!(batch.events.len() <= 500, "{} events in a batch", batch.events.len());
        events.extend(batch.events);
        tokens.push((events.len(), batch.token));
    }
    assert!(tokens.iter().any(|(read, _)| (1..1_200).contains(read)), "the transaction came in one batch");
    for (read, token) in tokens {
        let rest = from(&source, StartAt::Token(token), 1_200 - read).await;
        assert_eq!(brief(&rest), brief(&events[read..]), "after {read} events");
    }
}

/// A narrow feed starts with one event per batch, and its batches grow: each token resumes after its batch.
pub async fn narrow_feed_delivers_every_event_once_in_growing_batches(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let start = StartAt::Time(source.now().await.unwrap());
    harness.commit((0..40).map(|number| insert("tickets", json!({"_id": number}))).collect()).await;
    let all = from(&source, start.clone(), 40).await;
    let mut feed = source.open_narrow(start, 1).await.unwrap();
    let (mut events, mut sizes) = (Vec::new(), Vec::new());
    while events.len() < 40 {
        let batch = with_timeout(feed.next()).await.unwrap();
        if batch.events.is_empty() {
            continue;
        }
        sizes.push(batch.events.len());
        events.extend(batch.events);
        let rest = from(&source, StartAt::Token(batch.token), 40 - events.len()).await;
        assert_eq!(brief(&rest), brief(&all[events.len()..]), "after {} events", events.len());
    }
    assert_eq!(brief(&events), brief(&all));
    assert!(sizes.iter().enumerate().all(|(at, size)| *size <= 1 << at), "{sizes:?}");
}

/// The start time is inclusive.
pub async fn start_time_is_inclusive(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let start = source.now().await.unwrap();
    for number in 0..4 {
        harness.commit(vec![insert("tickets", json!({"_id": number}))]).await;
    }
    let events = from(&source, StartAt::Time(start), 4).await;
    for (position, event) in events.iter().enumerate() {
        let rest = from(&source, StartAt::Time(event.time), 4 - position).await;
        assert_eq!(rest, events[position..]);
    }
    let now = source.now().await.unwrap();
    assert!(now >= events[3].time, "{now:?} is before {:?}", events[3].time);
}

/// With writes to an unselected collection, the token advances, and no later event is missed.
pub async fn idle_feed_advances_its_token(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let mut follower = Follower::now(&source).await;
    let first = follower.token.clone();
    let moved = async {
        let mut number = 0;
        loop {
            harness.commit(vec![insert("noise", json!({"_id": number}))]).await;
            number += 1;
            let batch = follower.feed.next().await.expect("a batch");
            assert_eq!(batch.events, []);
            if batch.token != first {
                return batch.token;
            }
        }
    };
    let token = with_timeout(moved).await;
    harness.commit(vec![insert("tickets", json!({"_id": 1}))]).await;
    let events = from(&source, StartAt::Token(token), 1).await;
    assert_eq!(brief(&events), [(Operation::Insert, r#"{"$numberInt":"1"}"#)]);
}

/// No event arrives after the batch that covers its time; and every commit is covered before long, regardless of the
/// last write.
pub async fn feed_reports_time_up_to_which_it_is_complete(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let mut feed = source.open(StartAt::Time(source.now().await.unwrap())).await.unwrap();
    let (mut through, mut seen) = (ClusterTime::default(), 0);
    let writes: [Vec<SourceWrite>; 4] = [
        Vec::new(),
        vec![insert("tickets", json!({"_id": 1}))],
        (1_000..2_200).map(|number| insert("tickets", json!({"_id": number}))).collect(),
        vec![insert("noise", json!({"_id": 1}))],
    ];
    let mut expected = 0;
    for writes in writes {
        expected += writes.iter().filter(|write| !format!("{write:?}").contains("noise")).count();
        if !writes.is_empty() {
            harness.commit(writes).await;
        }
        let now = source.now().await.unwrap();
        let covered = async {
            while through < now {
                let batch = feed.next().await.expect("a batch");
                for event in &batch.events {
                    assert!(event.time > through, "{event:?} should have come by {through:?}");
                }
                assert!(batch.through >= through, "{:?} after {through:?}", batch.through);
                (through, seen) = (batch.through, seen + batch.events.len());
            }
        };
        with_timeout(covered).await;
        assert_eq!(seen, expected, "up to {now:?}");
    }
}

/// Repeatedly cancels a waiting call of `next`.
pub async fn cancelled_next_loses_no_event(harness: &dyn SourceHarness) {
    const WRITES: usize = 40;
    let source = harness.source(&["tickets"]).await;
    let mut follower = Follower::now(&source).await;
    let writing = async {
        for number in 0..WRITES {
            harness.commit(vec![insert("tickets", json!({"_id": number}))]).await;
        }
    };
    let reading = async {
        let (mut keys, mut dropped) = (Vec::new(), 0);
        while keys.len() < WRITES {
            match tokio::time::timeout(Duration::from_micros(300), follower.feed.next()).await {
                Ok(batch) => keys.extend(batch.expect("a batch").events.into_iter().map(|event| event.id)),
                Err(_) => dropped += 1,
            }
        }
        (keys, dropped)
    };
    let ((), (keys, dropped)) = with_timeout(async { tokio::join!(writing, reading) }).await;
    assert_eq!(keys, (0..WRITES).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(dropped > 0, "no call was cancelled");
}

/// An unknown token is not a transient error.
pub async fn unknown_token_is_history_lost(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    for token in ["", "nowhere", r#"{"_data":"zz"}"#, r#"{"_data":"8265"}"#, r#"{"data":1}"#] {
        let start = StartAt::Token(ResumeToken(token.into()));
        let error = match source.open(start).await {
            Err(error) => error,
            Ok(mut feed) => with_timeout(feed.next()).await.expect_err("a batch from an unknown token"),
        };
        assert!(matches!(error, FeedError::HistoryLost(_)), "{token:?}: {error:?}");
    }
}
