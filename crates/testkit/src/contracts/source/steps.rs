//! Building blocks of the clauses.

use std::time::Duration;

use serde_json::{Value, json};
use tidewheel_core::catalog::Selector;
use tidewheel_core::change::Operation;
use tidewheel_core::identity::Namespace;
use tidewheel_core::key;
use tidewheel_core::ports::{
    Coverage, Covered, Feed, Readable, ResumeToken, Scan, SourceEvent, SourceFilter, SourceRow, StartAt,
};

use super::SourceWrite;

/// Timeout of an expected event. It ends a hanging test; nothing is measured by it.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn insert(collection: &str, document: Value) -> SourceWrite {
    SourceWrite::Insert { collection: collection.into(), document }
}

pub(super) fn replace(collection: &str, document: Value) -> SourceWrite {
    SourceWrite::Replace { collection: collection.into(), document }
}

pub(super) fn set(collection: &str, id: Value, value: i32) -> SourceWrite {
    SourceWrite::Set { collection: collection.into(), id, field: "n".into(), value: json!(value) }
}

pub(super) fn set_field(collection: &str, id: Value, field: &str, value: Value) -> SourceWrite {
    SourceWrite::Set { collection: collection.into(), id, field: field.into(), value }
}

pub(super) fn delete(collection: &str, id: Value) -> SourceWrite {
    SourceWrite::Delete { collection: collection.into(), id }
}

/// `_id`s of every type in MongoDB's sort order: canonical and relaxed.
pub(super) fn ids() -> Vec<(Value, Value)> {
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

/// The same source, restricted to other collections: one selector for each list of patterns.
pub(super) fn covering(source: &Covered, selectors: &[&[String]], filters: &[&str]) -> Covered {
    let selectors =
        selectors.iter().map(|&patterns| Selector::parse(patterns, None).expect("valid patterns")).collect();
    Covered::new(source.source.clone(), Coverage { selectors, filters: filters.iter().copied().map(filter).collect() })
}

pub(super) fn filter(text: &str) -> SourceFilter {
    SourceFilter(text.to_owned())
}

/// Follows a feed and counts its events.
pub(super) struct Follower {
    pub(super) feed: Box<dyn Feed>,
    pub(super) token: ResumeToken,
}

impl Follower {
    pub(super) async fn open(source: &Covered, start: StartAt) -> Self {
        let mut feed = source.open(start).await.expect("a feed");
        // A new feed has a token before anything happens.
        let first = with_timeout(feed.next()).await.expect("a first batch");
        assert_eq!(first.events, [], "unexpected event");
        Self { feed, token: first.token }
    }

    pub(super) async fn now(source: &Covered) -> Self {
        Self::open(source, StartAt::Time(source.now().await.expect("a time"))).await
    }

    /// Returns exactly the next `count` events.
    pub(super) async fn take(&mut self, count: usize) -> Vec<SourceEvent> {
        let mut events = Vec::new();
        while events.len() < count {
            let batch = with_timeout(self.feed.next()).await.expect("a batch");
            events.extend(batch.events);
            self.token = batch.token;
        }
        assert_eq!(events.len(), count, "more events than expected: {events:#?}");
        events
    }
}

pub(super) async fn with_timeout<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, future).await.expect("timed out")
}

/// Returns `count` events from a start; panics if their batch holds more.
pub(super) async fn from(source: &Covered, start: StartAt, count: usize) -> Vec<SourceEvent> {
    let feed = source.open(start).await.expect("a feed");
    Follower { feed, token: ResumeToken(String::new()) }.take(count).await
}

pub(super) fn parsed(document: Option<&Readable>) -> Option<Value> {
    document.map(|document| serde_json::from_str(document.as_ref().expect("a readable document")).expect("valid JSON"))
}

/// The key of this `_id`, in canonical extended JSON.
pub(super) fn key_of(canonical: &Value) -> String {
    key::canonical(&canonical.to_string()).into_owned()
}

pub(super) fn brief(events: &[SourceEvent]) -> Vec<(Operation, &str)> {
    events.iter().map(|event| (event.operation, event.key.as_str())).collect()
}

pub(super) async fn all_rows(source: &Covered, namespace: &Namespace, after: Option<&str>) -> Vec<SourceRow> {
    let now = source.now().await.expect("a time");
    rest(source.scan(namespace, after, now, None).await.expect("a scan")).await
}

/// The remaining rows of a scan.
pub(super) async fn rest(mut scan: Box<dyn Scan>) -> Vec<SourceRow> {
    let mut rows = Vec::new();
    loop {
        let page = with_timeout(scan.next()).await.expect("a page");
        if page.is_empty() {
            return rows;
        }
        rows.extend(page);
    }
}
