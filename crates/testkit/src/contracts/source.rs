//! The contract of [`Source`], its feed and its scan.
//!
//! Each function is one clause. [`source_contract_tests`](crate::source_contract_tests) makes a test of every clause.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde_json::{Value, json};
use tidewheel_core::change::Operation;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Feed, FeedError, ResumeToken, Source, SourceEvent, SourceRow, StartAt};
use tidewheel_core::version::ClusterTime;

/// Longest wait for something that has to happen. It ends a test that would hang; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A write to the source. Documents and values are extended JSON.
#[derive(Clone, Debug)]
pub enum SourceWrite {
    /// A new document.
    Insert {
        /// Where.
        collection: String,
        /// With its `_id`.
        document: Value,
    },
    /// Another document with the same `_id`.
    Replace {
        /// Where.
        collection: String,
        /// With its `_id`.
        document: Value,
    },
    /// One field gets another value.
    Set {
        /// Where.
        collection: String,
        /// Of which document.
        id: Value,
        /// Which field.
        field: String,
        /// Its new value.
        value: Value,
    },
    /// The document goes.
    Delete {
        /// Where.
        collection: String,
        /// Which document.
        id: Value,
    },
    /// The collection goes. Not in a transaction, as all that follow.
    Drop {
        /// Which one.
        collection: String,
    },
    /// The collection gets another name; one of that name goes.
    Rename {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// All collections go.
    DropDatabase,
}

/// What the contract needs to know of an implementation.
#[async_trait]
pub trait SourceHarness: Send + Sync {
    /// The database, which is empty at first.
    fn database(&self) -> &str;

    /// A source of these collections of the database; of all if none is named.
    async fn source(&self, collections: &[&str]) -> Arc<dyn Source>;

    /// Commits the writes: several of them in one transaction.
    async fn commit(&self, writes: Vec<SourceWrite>);
}

/// Makes one test of each clause of the contract; the expression makes a new harness and may `await`.
#[macro_export]
macro_rules! source_contract_tests {
    ($harness:expr) => {
        $crate::source_contract_tests! { $harness;
            every_operation_arrives_with_its_document
            an_update_of_a_document_that_is_gone_has_no_document
            every_kind_of_id_keeps_its_identity
            events_of_a_transaction_share_their_time_and_keep_their_order
            a_token_resumes_exactly_behind_its_batch
            a_token_resumes_in_the_middle_of_a_transaction
            a_time_starts_at_its_own_events
            an_idle_feed_moves_its_token
            a_dropped_call_loses_nothing
            an_unknown_position_is_lost_history
            the_end_of_a_collection_is_an_event
            a_renamed_collection_ends_and_appears
            a_dropped_database_does_not_end_the_feed
            a_scan_reads_in_the_order_of_ids_of_all_types
            a_scan_resumes_behind_any_row
            a_scan_sees_what_was_committed_before
            a_long_scan_comes_in_pages
            a_scan_of_nothing_ends_at_once
            scan_and_feed_together_have_no_gap
            only_selected_collections_are_listed
            the_selection_tells_choices_apart
        }
    };
    ($harness:expr; $($clause:ident)*) => {
        $(#[tokio::test]
        async fn $clause() {
            $crate::contracts::source::$clause(&$harness).await;
        })*
    };
}

fn insert(collection: &str, document: Value) -> SourceWrite {
    SourceWrite::Insert { collection: collection.into(), document }
}

fn replace(collection: &str, document: Value) -> SourceWrite {
    SourceWrite::Replace { collection: collection.into(), document }
}

fn set(collection: &str, id: Value, value: i32) -> SourceWrite {
    SourceWrite::Set { collection: collection.into(), id, field: "n".into(), value: json!(value) }
}

fn delete(collection: &str, id: Value) -> SourceWrite {
    SourceWrite::Delete { collection: collection.into(), id }
}

/// `_id`s of every type in the order in which MongoDB sorts them: canonical and relaxed.
fn ids() -> Vec<(Value, Value)> {
    let same = |value: Value| (value.clone(), value);
    let oid = json!({"$oid": "65f000000000000000000001"});
    let uuid = json!({"$binary": {"base64": "AAECAwQFBgcICQoLDA0ODw==", "subType": "04"}});
    vec![
        same(json!({"$minKey": 1})),
        same(Value::Null),
        same(json!({"$numberDouble": "NaN"})),
        (json!({"$numberInt": "-7"}), json!(-7)),
        same(json!({"$numberDecimal": "1.10"})),
        (json!({"$numberDouble": "1.5"}), json!(1.5)),
        (json!({"$numberInt": "7"}), json!(7)),
        (json!({"$numberDouble": "8.0"}), json!(8.0)),
        (json!({"$numberLong": "9"}), json!(9)),
        (json!({"$numberLong": "9007199254740993"}), json!(9_007_199_254_740_993_i64)),
        same(json!("")),
        same(json!("7")),
        same(json!("Grüße, \"😀\"\n")),
        (json!({"b": {"$numberInt": "1"}, "a": "x"}), json!({"b": 1, "a": "x"})),
        (json!({"b": {"$numberLong": "2"}, "a": oid}), json!({"b": 2, "a": oid})),
        same(json!({"$binary": {"base64": "AAEC", "subType": "00"}})),
        same(uuid),
        same(oid.clone()),
        same(json!(false)),
        same(json!(true)),
        (json!({"$date": {"$numberLong": "1700000000120"}}), json!({"$date": "2023-11-14T22:13:20.12Z"})),
        same(json!({"$timestamp": {"t": 5, "i": 6}})),
        same(json!({"$maxKey": 1})),
    ]
}

/// Follows a feed and counts what comes.
struct Follower {
    feed: Box<dyn Feed>,
    token: ResumeToken,
}

impl Follower {
    async fn open(source: &dyn Source, start: StartAt) -> Self {
        let mut feed = source.open(start).await.expect("a feed");
        // A new feed has a token before anything happens.
        let first = patiently(feed.next()).await.expect("a first batch");
        assert_eq!(first.events, [], "no event was expected yet");
        Self { feed, token: first.token }
    }

    async fn now(source: &dyn Source) -> Self {
        Self::open(source, StartAt::Time(source.now().await.expect("a time"))).await
    }

    /// Exactly the next `count` events.
    async fn take(&mut self, count: usize) -> Vec<SourceEvent> {
        let mut events = Vec::new();
        while events.len() < count {
            let batch = patiently(self.feed.next()).await.expect("a batch");
            events.extend(batch.events);
            self.token = batch.token;
        }
        assert_eq!(events.len(), count, "more events than expected: {events:#?}");
        events
    }
}

async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// All events from a start on, until there have been `count`; it panics if there are more in their batch.
async fn from(source: &dyn Source, start: StartAt, count: usize) -> Vec<SourceEvent> {
    let feed = source.open(start).await.expect("a feed");
    Follower { feed, token: ResumeToken(String::new()) }.take(count).await
}

fn parsed(text: Option<&String>) -> Option<Value> {
    text.map(|text| serde_json::from_str(text).expect("a document is JSON"))
}

fn brief(events: &[SourceEvent]) -> Vec<(Operation, &str)> {
    events.iter().map(|event| (event.operation, event.key.as_str())).collect()
}

async fn all_rows(source: &dyn Source, namespace: &Namespace, after: Option<&str>) -> Vec<SourceRow> {
    let now = source.now().await.expect("a time");
    let mut scan = source.scan(namespace, after, now).await.expect("a scan");
    let mut rows = Vec::new();
    loop {
        let page = patiently(scan.next()).await.expect("a page");
        if page.is_empty() {
            return rows;
        }
        rows.extend(page);
    }
}

/// Insert, update, replace and delete, each with the document as it was then.
pub async fn every_operation_arrives_with_its_document(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let mut follower = Follower::now(source.as_ref()).await;
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
        assert!(Duration::from_millis(event.committed_at).abs_diff(before) < PATIENCE, "{operation}");
        last = event.time;
    }
}

/// An update is told with the document as it is now; if it is gone, its deletion follows.
pub async fn an_update_of_a_document_that_is_gone_has_no_document(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let start = source.now().await.unwrap();
    harness.commit(vec![insert("tickets", json!({"_id": 1, "n": 1}))]).await;
    harness.commit(vec![set("tickets", json!(1), 2)]).await;
    harness.commit(vec![delete("tickets", json!(1))]).await;
    let events = from(source.as_ref(), StartAt::Time(start), 3).await;
    let operations: Vec<_> = events.iter().map(|event| (event.operation, event.document.is_some())).collect();
    assert_eq!(operations, [(Operation::Insert, true), (Operation::Update, false), (Operation::Delete, false)]);
}

/// The key is the exact identity, whatever the type.
pub async fn every_kind_of_id_keeps_its_identity(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let mut follower = Follower::now(source.as_ref()).await;
    for (canonical, relaxed) in ids() {
        harness.commit(vec![insert("tickets", json!({"_id": canonical, "text": "a"}))]).await;
        harness.commit(vec![delete("tickets", canonical.clone())]).await;
        let events = follower.take(2).await;
        let key = canonical.to_string();
        assert_eq!(brief(&events), [(Operation::Insert, key.as_str()), (Operation::Delete, key.as_str())]);
        for event in &events {
            assert_eq!(serde_json::from_str::<Value>(&event.id).unwrap(), relaxed, "{key}");
        }
        assert_eq!(parsed(events[0].document.as_ref()), Some(json!({"_id": relaxed, "text": "a"})), "{key}");
    }
}

/// One transaction, one time; also with two updates of one document.
pub async fn events_of_a_transaction_share_their_time_and_keep_their_order(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let mut follower = Follower::now(source.as_ref()).await;
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

/// Behind every batch: what came after it, all of it and nothing else.
pub async fn a_token_resumes_exactly_behind_its_batch(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let mut follower = Follower::now(source.as_ref()).await;
    let mut tokens = vec![follower.token.clone()];
    let mut events = Vec::new();
    for number in 0..6 {
        harness.commit(vec![insert("tickets", json!({"_id": number}))]).await;
        harness.commit(vec![insert("noise", json!({"_id": number}))]).await;
        events.extend(follower.take(1).await);
        tokens.push(follower.token.clone());
    }
    // Both the feed that is open and a new one go on.
    harness.commit(vec![insert("tickets", json!({"_id": "last"}))]).await;
    events.extend(follower.take(1).await);
    for (position, token) in tokens.into_iter().enumerate() {
        let rest = from(source.as_ref(), StartAt::Token(token), events.len() - position).await;
        assert_eq!(rest, events[position..], "behind batch {position}");
    }
}

/// More events of one time than a batch holds.
pub async fn a_token_resumes_in_the_middle_of_a_transaction(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let mut follower = Follower::now(source.as_ref()).await;
    harness.commit((0..1_200).map(|number| insert("tickets", json!({"_id": number}))).collect()).await;
    let (mut events, mut tokens) = (Vec::new(), Vec::new());
    while events.len() < 1_200 {
        let batch = patiently(follower.feed.next()).await.unwrap();
        assert!(batch.events.len() <= 500, "{} events in a batch", batch.events.len());
        events.extend(batch.events);
        tokens.push((events.len(), batch.token));
    }
    assert!(tokens.iter().any(|(read, _)| (1..1_200).contains(read)), "the transaction came in one batch");
    for (read, token) in tokens {
        let rest = from(source.as_ref(), StartAt::Token(token), 1_200 - read).await;
        assert_eq!(brief(&rest), brief(&events[read..]), "behind {read} events");
    }
}

/// The start time is inclusive.
pub async fn a_time_starts_at_its_own_events(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let start = source.now().await.unwrap();
    for number in 0..4 {
        harness.commit(vec![insert("tickets", json!({"_id": number}))]).await;
    }
    let events = from(source.as_ref(), StartAt::Time(start), 4).await;
    for (position, event) in events.iter().enumerate() {
        let rest = from(source.as_ref(), StartAt::Time(event.time), 4 - position).await;
        assert_eq!(rest, events[position..]);
    }
    let now = source.now().await.unwrap();
    assert!(now >= events[3].time, "{now:?} is before {:?}", events[3].time);
}

/// Beside a busy collection that is not selected, the token moves, and nothing is missed behind it.
pub async fn an_idle_feed_moves_its_token(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let mut follower = Follower::now(source.as_ref()).await;
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
    let token = patiently(moved).await;
    harness.commit(vec![insert("tickets", json!({"_id": 1}))]).await;
    let events = from(source.as_ref(), StartAt::Token(token), 1).await;
    assert_eq!(brief(&events), [(Operation::Insert, r#"{"$numberInt":"1"}"#)]);
}

/// A call of `next` that is dropped while it waits, again and again.
pub async fn a_dropped_call_loses_nothing(harness: &dyn SourceHarness) {
    const WRITES: usize = 40;
    let source = harness.source(&["tickets"]).await;
    let mut follower = Follower::now(source.as_ref()).await;
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
    let ((), (keys, dropped)) = patiently(async { tokio::join!(writing, reading) }).await;
    assert_eq!(keys, (0..WRITES).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(dropped > 0, "no call was dropped");
}

/// A token of nowhere is no error that passes.
pub async fn an_unknown_position_is_lost_history(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    for token in ["", "nowhere", r#"{"_data":"zz"}"#, r#"{"_data":"8265"}"#, r#"{"data":1}"#] {
        let start = StartAt::Token(ResumeToken(token.into()));
        let error = match source.open(start).await {
            Err(error) => error,
            Ok(mut feed) => patiently(feed.next()).await.expect_err("a batch from nowhere"),
        };
        assert!(matches!(error, FeedError::HistoryLost(_)), "{token:?}: {error:?}");
    }
}

/// A drop comes after what was before and before what comes after.
pub async fn the_end_of_a_collection_is_an_event(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let mut follower = Follower::now(source.as_ref()).await;
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

/// The old name ends; the new one, if it is selected, ends as well, for it may have replaced another, and has to be read.
pub async fn a_renamed_collection_ends_and_appears(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets", "archive"]).await;
    harness.commit(vec![insert("tickets", json!({"_id": 1}))]).await;
    harness.commit(vec![insert("archive", json!({"_id": 2}))]).await;
    harness.commit(vec![insert("outside", json!({"_id": 3}))]).await;
    let start = source.now().await.unwrap();
    for (from, to) in [("tickets", "archive"), ("archive", "elsewhere"), ("outside", "tickets")] {
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
    patiently(all).await;
    ended.sort_unstable();
    assert_eq!(ended, ["archive", "archive", "tickets", "tickets"], "each was renamed away once and to once");
    assert_eq!(appeared, ["archive", "tickets"]);
    let rows = all_rows(source.as_ref(), &Namespace::new(harness.database(), "tickets"), None).await;
    let keys: Vec<_> = rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(keys, ["3", r#""last""#]);
}

/// Every collection ends, and what is written afterwards arrives, on the same feed and from every token.
pub async fn a_dropped_database_does_not_end_the_feed(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets", "orders"]).await;
    let mut follower = Follower::now(source.as_ref()).await;
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
    assert_eq!(from(source.as_ref(), StartAt::Token(behind), 1).await, after);
    let all = from(source.as_ref(), StartAt::Token(before), 3).await;
    assert_eq!(all[2], after[0]);
}

/// Mixed types, each row with its exact identity.
pub async fn a_scan_reads_in_the_order_of_ids_of_all_types(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    fill_with_all_ids(harness).await;
    let rows = all_rows(source.as_ref(), &Namespace::new(harness.database(), "tickets"), None).await;
    let keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
    assert_eq!(keys, ids().iter().map(|(canonical, _)| canonical.to_string()).collect::<Vec<_>>());
    for (row, (_, relaxed)) in rows.iter().zip(ids()) {
        assert_eq!(serde_json::from_str::<Value>(&row.id).unwrap(), relaxed);
        assert_eq!(parsed(Some(&row.document)), Some(json!({"_id": relaxed, "n": 1.0})));
    }
}

async fn fill_with_all_ids(harness: &dyn SourceHarness) {
    let ids = ids();
    // Not in their order: every seventh, and the number of ids is no multiple of seven.
    for position in 0..ids.len() {
        let (canonical, _) = &ids[position * 7 % ids.len()];
        let document = json!({"_id": canonical, "n": {"$numberDouble": "1.0"}});
        harness.commit(vec![insert("tickets", document)]).await;
    }
}

/// Also behind a row that has gone since.
pub async fn a_scan_resumes_behind_any_row(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let namespace = Namespace::new(harness.database(), "tickets");
    fill_with_all_ids(harness).await;
    let keys: Vec<_> = all_rows(source.as_ref(), &namespace, None).await.into_iter().map(|row| row.key).collect();
    assert_eq!(keys.len(), ids().len());
    for (position, key) in keys.iter().enumerate() {
        let rest = all_rows(source.as_ref(), &namespace, Some(key)).await;
        let rest: Vec<_> = rest.into_iter().map(|row| row.key).collect();
        assert_eq!(rest, keys[position + 1..], "behind {key}");
    }
    let (gone, _) = &ids()[6];
    harness.commit(vec![delete("tickets", gone.clone())]).await;
    let rest = all_rows(source.as_ref(), &namespace, Some(&gone.to_string())).await;
    assert!(rest.iter().map(|row| &row.key).eq(&keys[7..]), "behind a row that is gone");
}

/// Everything up to the time that it is given.
pub async fn a_scan_sees_what_was_committed_before(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let namespace = Namespace::new(harness.database(), "tickets");
    for number in 1..=20_usize {
        harness.commit(vec![insert("tickets", json!({"_id": number}))]).await;
        assert_eq!(all_rows(source.as_ref(), &namespace, None).await.len(), number);
    }
}

/// Bounded pages, nothing twice, nothing left out.
pub async fn a_long_scan_comes_in_pages(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let namespace = Namespace::new(harness.database(), "tickets");
    for thousand in 0..3 {
        let range = thousand * 1_000..(thousand + 1) * 1_000;
        harness.commit(range.map(|number| insert("tickets", json!({"_id": number}))).collect()).await;
    }
    let now = source.now().await.unwrap();
    let mut scan = source.scan(&namespace, None, now).await.unwrap();
    let (mut ids, mut pages) = (Vec::new(), 0);
    loop {
        let page = patiently(scan.next()).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 1_000, "{} rows in a page", page.len());
        pages += 1;
        ids.extend(page.into_iter().map(|row| row.id));
    }
    assert_eq!(ids, (0..3_000).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(pages >= 3);
    assert_eq!(source.estimate(&namespace).await.unwrap(), 3_000);
}

/// The end can be asked for again.
pub async fn a_scan_of_nothing_ends_at_once(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let namespace = Namespace::new(harness.database(), "tickets");
    let now = source.now().await.unwrap();
    for after in [None, Some(r#"{"$numberInt":"1"}"#)] {
        let mut scan = source.scan(&namespace, after, now).await.unwrap();
        for _ in 0..2 {
            assert_eq!(patiently(scan.next()).await.unwrap(), []);
        }
    }
    assert_eq!(source.estimate(&namespace).await.unwrap(), 0);
}

/// What is written while a scan reads is in the scan or in the feed from its start on.
pub async fn scan_and_feed_together_have_no_gap(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let namespace = Namespace::new(harness.database(), "tickets");
    harness.commit((0..500).map(|number| insert("tickets", json!({"_id": number}))).collect()).await;
    let start = source.now().await.unwrap();
    let writing = async {
        for number in 500..550 {
            harness.commit(vec![insert("tickets", json!({"_id": number}))]).await;
        }
    };
    let reading = async {
        let mut scan = source.scan(&namespace, None, start).await.unwrap();
        let mut keys = HashSet::new();
        loop {
            let page = scan.next().await.unwrap();
            if page.is_empty() {
                return keys;
            }
            keys.extend(page.into_iter().map(|row| row.id));
        }
    };
    let ((), mut keys) = patiently(async { tokio::join!(writing, reading) }).await;
    let mut feed = source.open(StartAt::Time(start)).await.unwrap();
    let rest = async {
        while !keys.contains("549") || keys.len() < 550 {
            keys.extend(feed.next().await.unwrap().events.into_iter().map(|event| event.id));
        }
    };
    patiently(rest).await;
    assert_eq!(keys, (0..550).map(|number| number.to_string()).collect());
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

/// A saved token is good for the same choice only.
pub async fn the_selection_tells_choices_apart(harness: &dyn SourceHarness) {
    let one = harness.source(&["a"]).await.selection();
    assert_eq!(one, harness.source(&["a"]).await.selection());
    assert_ne!(one, harness.source(&["a", "b"]).await.selection());
    assert_ne!(one, harness.source(&[]).await.selection());
}
