//! Feeds: patterns, latency, large and invalid documents.

use std::time::{Duration, Instant};

use bson::{Bson, RawDocumentBuf, doc};
use serde_json::json;
use tidewheel_core::change::Operation;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Feed, SourceEvent, StartAt};
use tidewheel_core::secret::Secret;
use tidewheel_stores::mongo::{MongoOptions, MongoSource};
use tidewheel_testkit::contracts::source::{SourceHarness, SourceWrite};
use tidewheel_testkit::mongodb_proxy::MongodbProxy;

use super::server::{TestMongo, own_server};

/// Reads the next `count` events.
pub(crate) async fn take(feed: &mut dyn Feed, count: usize) -> Vec<SourceEvent> {
    let mut events = Vec::new();
    let all = async {
        while events.len() < count {
            events.extend(feed.next().await.expect("a batch").events);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("reading timed out");
    assert_eq!(events.len(), count, "{events:#?}");
    events
}

/// The document text of an event.
pub(crate) fn text_of(event: &SourceEvent) -> &str {
    event.document.as_ref().expect("a document").as_deref().expect("a readable document")
}

fn insert(collection: &str, id: i32) -> SourceWrite {
    SourceWrite::Insert { collection: collection.into(), document: json!({"_id": id}) }
}

#[tokio::test]
async fn patterns_select_collections_that_do_not_exist_yet() {
    let mongo = TestMongo::start().await;
    let source = mongo.covered(&["orders_*", "tickets"]).await;
    let mut feed = source.open(StartAt::Time(source.now().await.unwrap())).await.unwrap();
    let names = ["orders_eu", "orders", "tickets", "tickets_old", "ordersXeu", "orders_us"];
    for (id, name) in names.into_iter().enumerate() {
        mongo.commit(vec![insert(name, id as i32)]).await;
    }
    let events = take(feed.as_mut(), 3).await;
    let seen: Vec<_> = events.iter().map(|event| event.namespace.collection()).collect();
    assert_eq!(seen, ["orders_eu", "tickets", "orders_us"]);
    let listed = source.collections().await.unwrap();
    assert_eq!(listed.iter().map(Namespace::collection).collect::<Vec<_>>(), ["orders_eu", "orders_us", "tickets"]);
}

#[tokio::test]
async fn event_during_an_idle_get_more_is_returned_immediately() {
    let mongo = TestMongo::start().await;
    let source = mongo.covered(&["tickets"]).await;
    let mut feed = source.open(StartAt::Time(source.now().await.unwrap())).await.unwrap();
    let mut quickest = Duration::MAX;
    for id in 0..20 {
        let waiting = tokio::spawn(async move {
            let events = take(feed.as_mut(), 1).await;
            (feed, events, Instant::now())
        });
        // A getMore is in progress; without an event it returns after a second.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let written = Instant::now();
        mongo.commit(vec![insert("tickets", id)]).await;
        let (back, events, seen) = waiting.await.unwrap();
        assert_eq!(events[0].id, id.to_string());
        quickest = quickest.min(seen.saturating_duration_since(written));
        feed = back;
    }
    assert!(quickest < Duration::from_millis(500), "it waited for the end of its getMore: {quickest:?}");
}

#[tokio::test]
async fn batches_of_large_documents_are_bounded_in_bytes() {
    const SIZE: usize = 3 * 1024 * 1024;
    let mongo = TestMongo::start().await;
    let source = mongo.covered(&["tickets"]).await;
    let mut feed = source.open(StartAt::Time(source.now().await.unwrap())).await.unwrap();
    for id in 0..8 {
        mongo.collection("tickets").insert_one(doc! {"_id": id, "text": "x".repeat(SIZE)}).await.unwrap();
    }
    let (mut ids, mut tokens) = (Vec::new(), Vec::new());
    while ids.len() < 8 {
        let batch = feed.next().await.unwrap();
        let bytes: usize = batch.events.iter().map(|event| text_of(event).len()).sum();
        assert!(bytes < 4 * 1024 * 1024 + SIZE + 100, "{bytes} bytes in a batch");
        ids.extend(batch.events.into_iter().map(|event| event.id));
        tokens.push((ids.len(), batch.token));
    }
    assert_eq!(ids, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    for (read, token) in tokens.into_iter().filter(|(read, _)| *read < 8) {
        let mut feed = source.open(StartAt::Token(token)).await.unwrap();
        assert_eq!(take(feed.as_mut(), 8 - read).await[0].id, read.to_string());
    }
}

/// The event would hold the new text twice and exceed the reply limit: this server cannot split it.
#[tokio::test]
async fn update_of_nearly_16_mb_is_delivered() {
    // Its own server: with other large writes the cache of a small one is too full for it.
    let data = tempfile::tempdir().unwrap();
    let server = own_server(data.path()).await;
    let mongo = TestMongo::on(&server).await;
    let source = mongo.covered(&["tickets"]).await;
    mongo.commit(vec![insert("tickets", 1)]).await;
    let mut feed = source.open(StartAt::Time(source.now().await.unwrap())).await.unwrap();
    let text = "x".repeat(15 * 1024 * 1024 + 900 * 1024);
    mongo.collection("tickets").update_one(doc! {"_id": 1}, doc! {"$set": {"text": text}}).await.unwrap();
    mongo.commit(vec![insert("tickets", 2)]).await;
    let mut events = Vec::new();
    while events.last().is_none_or(|event: &SourceEvent| event.id != "2") {
        events.extend(feed.next().await.unwrap().events);
    }
    let update = events.iter().find(|event| event.operation == Operation::Update).expect("the update");
    assert!(text_of(update).len() > 15 * 1024 * 1024);
}

/// MongoDB does not validate strings, and keeps duplicate names.
#[tokio::test]
async fn documents_with_invalid_utf8_and_duplicate_names_are_delivered() {
    let mongo = TestMongo::start().await;
    let source = mongo.covered(&["tickets"]).await;
    let mut feed = source.open(StartAt::Time(source.now().await.unwrap())).await.unwrap();
    let command = doc! {"insert": "tickets", "documents": [{"_id": 1, "text": "a?c", "b": 1, "q": 2}]};
    let mut bytes = command.to_vec().unwrap();
    let mut patch = |from: &[u8], to: &[u8]| {
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
    };
    patch(b"a?c", b"a\xffc");
    patch(b"q\0", b"b\0");
    let command = RawDocumentBuf::from_bytes(bytes).unwrap();
    mongo.client.database(&mongo.database).run_raw_command(command).await.unwrap();
    mongo.commit(vec![insert("tickets", 2)]).await;
    let events = take(feed.as_mut(), 2).await;
    let text = "{\"_id\":1,\"text\":\"a\u{fffd}c\",\"b\":1,\"b\":2}";
    assert_eq!(text_of(&events[0]), text);
    let time = source.now().await.unwrap();
    let mut scan = source.scan(&events[0].namespace, None, time, None).await.unwrap();
    assert_eq!(scan.next().await.unwrap()[0].document.as_deref(), Ok(text));
}

#[tokio::test]
async fn every_bson_type_is_delivered_as_extended_json() {
    let mongo = TestMongo::start().await;
    let source = mongo.covered(&["tickets"]).await;
    let mut feed = source.open(StartAt::Time(source.now().await.unwrap())).await.unwrap();
    let document = json!({
        "_id": 1, "double": 1.0, "nan": {"$numberDouble": "NaN"}, "text": "ü\u{1}", "nested": {"list": [1, {"a": null}]},
        "binary": {"$binary": {"base64": "AAEC", "subType": "00"}}, "old": {"$date": {"$numberLong": "-1"}},
        "oid": {"$oid": "65f000000000000000000001"}, "yes": true, "at": {"$date": "2024-03-12T10:00:00.5Z"},
        "pattern": {"$regularExpression": {"pattern": "^a", "options": "i"}}, "code": {"$code": "f()"},
        "scoped": {"$code": "f()", "$scope": {"a": 1}}, "time": {"$timestamp": {"t": 1, "i": 2}},
        "long": 9_007_199_254_740_993_i64, "decimal": {"$numberDecimal": "9.990"}, "min": {"$minKey": 1},
        "max": {"$maxKey": 1}, "symbol": {"$symbol": "s"}, "undefined": {"$undefined": true},
    });
    let Bson::Document(bson) = Bson::try_from(document.clone()).unwrap() else { panic!("a document") };
    mongo.collection("tickets").insert_one(bson).await.unwrap();
    let events = take(feed.as_mut(), 1).await;
    let read: serde_json::Value = serde_json::from_str(text_of(&events[0])).unwrap();
    assert_eq!(read, document);
}

#[tokio::test]
async fn events_with_rewritten_database_name_keep_the_configured_namespace() {
    // Atlas adds a prefix.
    for form in ["5f2b9c_{}", "other", ""] {
        let mongo = TestMongo::start().await;
        let name = form.replace("{}", &mongo.database);
        let server = mongo.uri.trim_start_matches("mongodb://").split(['/', '?']).next().unwrap().to_owned();
        let proxy = MongodbProxy::start(&server, &name).await.unwrap();
        let names = ["tickets".to_owned(), "renamed".to_owned()];
        let options = MongoOptions::of_database(Secret::new(proxy.uri()), &mongo.database, &names);
        let source = MongoSource::connect(options).await.unwrap().covered();
        let mut feed = source.open(StartAt::Time(source.now().await.unwrap())).await.unwrap();
        let tickets = mongo.collection("tickets");
        tickets.insert_one(doc! {"_id": 1, "text": "a"}).await.unwrap();
        tickets.update_one(doc! {"_id": 1}, doc! {"$set": {"text": "b"}}).await.unwrap();
        tickets.delete_one(doc! {"_id": 1}).await.unwrap();
        tickets.insert_one(doc! {"_id": 2}).await.unwrap();
        let rename = SourceWrite::Rename { from: "tickets".into(), to: "renamed".into() };
        mongo.commit(vec![rename]).await;
        mongo.commit(vec![SourceWrite::Drop { collection: "renamed".into() }]).await;
        let events = take(feed.as_mut(), 7).await;
        let namespace = |collection: &str| Namespace::new(&mongo.database, collection);
        let seen: Vec<_> = events.iter().map(|event| (event.operation, event.namespace.clone())).collect();
        let expected = [
            (Operation::Insert, "tickets"),
            (Operation::Update, "tickets"),
            (Operation::Delete, "tickets"),
            (Operation::Insert, "tickets"),
            (Operation::Drop, "tickets"),
            (Operation::Drop, "renamed"),
            (Operation::Drop, "renamed"),
        ];
        assert_eq!(seen, expected.map(|(operation, collection)| (operation, namespace(collection))), "{name:?}");
        assert_eq!(text_of(&events[0]), r#"{"_id":1,"text":"a"}"#);
    }
}
