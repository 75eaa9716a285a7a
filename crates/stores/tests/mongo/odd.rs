//! Documents that mongod stores and no driver writes: invalid UTF-8, malformed binaries, `_id`s of megabytes.

use std::collections::HashSet;
use std::time::Duration;

use bson::{RawDocumentBuf, doc};
use tidewheel_core::change::Operation;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::identity::Namespace;
use tidewheel_core::key;
use tidewheel_core::ports::{Covered, FeedError, SourceEvent, StartAt};

use super::feed::{take, text_of};
use super::server::{TestMongo, own_server};

/// Encodes an element: type, name, value.
fn element(tag: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[tag][..], name, &[0], value].concat()
}

fn document(elements: &[Vec<u8>]) -> Vec<u8> {
    let elements = elements.concat();
    let length = i32::try_from(elements.len() + 5).unwrap();
    [&length.to_le_bytes()[..], &elements, &[0]].concat()
}

fn string(name: &[u8], text: &[u8]) -> Vec<u8> {
    let length = i32::try_from(text.len() + 1).unwrap();
    element(0x02, name, &[&length.to_le_bytes()[..], text, &[0]].concat())
}

/// Encodes a binary of subtype 2 without its inner length.
fn old_binary(name: &[u8], data: &[u8]) -> Vec<u8> {
    let length = i32::try_from(data.len()).unwrap();
    element(0x05, name, &[&length.to_le_bytes()[..], &[2], data].concat())
}

async fn insert(mongo: &TestMongo, documents: &[Vec<u8>]) {
    let documents: Vec<Vec<u8>> =
        documents.iter().enumerate().map(|(at, bytes)| element(0x03, at.to_string().as_bytes(), bytes)).collect();
    let command = document(&[string(b"insert", b"tickets"), element(0x04, b"documents", &document(&documents))]);
    let command = RawDocumentBuf::from_bytes(command).unwrap();
    let answer = mongo.client.database(&mongo.database).run_raw_command(command).await.unwrap();
    assert_eq!(answer.get_i32("n").unwrap(), documents.len() as i32, "{answer}");
}

#[tokio::test]
async fn ids_with_invalid_utf_8_have_distinct_keys_and_are_found_by_them() {
    let mongo = TestMongo::start().await;
    let source = mongo.covered(&["tickets"]).await;
    let namespace = Namespace::new(&mongo.database, "tickets");
    let mut feed = source.open(StartAt::Time(source.now().await.unwrap())).await.unwrap();
    let inner = document(&[string(b"caf\xe9", b"\xff"), element(0x10, b"n", &1_i32.to_le_bytes())]);
    let ids = [
        string(b"_id", b"caf\xe8"),
        string(b"_id", b"caf\xe9"),
        string(b"_id", "caf\u{fffd}".as_bytes()),
        string(b"_id", b"caf\\udce9"),
        string(b"_id", b"\xc3"),
        element(0x03, b"_id", &inner),
        old_binary(b"_id", b"abc"),
        old_binary(b"_id", b""),
        old_binary(b"_id", b"\x03\0\0\0abc"),
    ];
    let documents: Vec<Vec<u8>> = ids.iter().map(|id| document(&[id.clone(), string(b"text", b"a")])).collect();
    insert(&mongo, &documents).await;
    let events = take(feed.as_mut(), ids.len()).await;
    let keys: Vec<String> = events.iter().map(|event| event.key.clone()).collect();
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), ids.len(), "{keys:#?}");
    let now = source.now().await.unwrap();
    assert_eq!(source.existing(&namespace, &keys, now).await.unwrap(), vec![true; keys.len()]);
    let fetched = source.fetch(&namespace, &keys, now).await.unwrap();
    assert_eq!(fetched.iter().map(|row| &row.key).collect::<HashSet<_>>(), keys.iter().collect());
    let mut scan = source.scan(&namespace, None, now, None).await.unwrap();
    let all: Vec<String> = scan.next().await.unwrap().into_iter().map(|row| row.key).collect();
    assert_eq!(all.iter().collect::<HashSet<_>>(), keys.iter().collect());
    for (at, key) in all.iter().enumerate() {
        let mut scan = source.scan(&namespace, Some(key), now, None).await.unwrap();
        let rest: Vec<String> = scan.next().await.unwrap().into_iter().map(|row| row.key).collect();
        assert_eq!(rest, all[at + 1..], "after {key}");
    }
    mongo.collection("tickets").delete_many(doc! {}).await.unwrap();
    let deleted: HashSet<String> = take(feed.as_mut(), ids.len()).await.into_iter().map(|event| event.key).collect();
    assert_eq!(deleted, keys.into_iter().collect());
}

#[tokio::test]
async fn undecodable_values_are_delivered_with_their_neighbours() {
    let mongo = TestMongo::start().await;
    let source = mongo.covered(&["tickets"]).await;
    let mut feed = source.open(StartAt::Time(source.now().await.unwrap())).await.unwrap();
    let id = |number: i32| element(0x10, b"_id", &number.to_le_bytes());
    let odd = [
        old_binary(b"v", b"abc"),
        old_binary(b"v", b""),
        old_binary(b"v", b"\xff\xff\xff\xff"),
        element(0x04, b"v", &document(&[old_binary(b"0", b"\x09\0\0\0")])),
        element(0x13, b"v", &[0xFF; 16]),
        element(0x0D, b"v", &[&2_i32.to_le_bytes()[..], b"\xff\0"].concat()),
        element(0x0B, b"v", b"\xff\0\0"),
    ];
    let documents: Vec<Vec<u8>> =
        (0..).zip(&odd).map(|(number, odd)| document(&[id(number), odd.clone(), string(b"text", b"a")])).collect();
    insert(&mongo, &documents).await;
    let events = take(feed.as_mut(), odd.len()).await;
    for event in &events {
        let read: serde_json::Value = serde_json::from_str(text_of(event)).unwrap();
        assert_eq!(read["text"], "a", "{read}");
    }
    assert!(text_of(&events[0]).contains(r#"{"$binary":{"base64":"YWJj","subType":"02"}}"#), "{events:#?}");
    let now = source.now().await.unwrap();
    let mut scan = source.scan(&events[0].namespace, None, now, None).await.unwrap();
    let rows = scan.next().await.unwrap();
    assert!(rows.iter().zip(&events).all(|(row, event)| row.document.as_deref() == Ok(text_of(event))));
}

/// Reads as the producer does: reopens the feed at the last position after an error. Ends with the event whose `_id` is
/// `last`.
async fn follow(source: &Covered, mut at: StartAt, last: i32) -> Vec<SourceEvent> {
    let (mut events, mut failures): (Vec<SourceEvent>, _) = (Vec::new(), 0);
    let all = async {
        while events.last().is_none_or(|event| event.id != last.to_string()) {
            assert!(failures < 40, "no progress after {} events", events.len());
            let mut feed = source.open(at.clone()).await.expect("a feed");
            loop {
                match feed.next().await {
                    Ok(batch) => {
                        assert!(batch.token.0.len() < 100_000, "a token is saved with every append");
                        at = StartAt::Token(batch.token);
                        events.extend(batch.events);
                    }
                    Err(FeedError::Port(error)) => {
                        assert_eq!(error.class, ErrorClass::Transient, "{error:?}");
                        failures += 1;
                        break;
                    }
                    Err(error) => panic!("{error}"),
                }
                if events.last().is_some_and(|event| event.id == last.to_string()) {
                    break;
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(100), all).await.expect("the last event within 100 s");
    events
}

#[tokio::test]
async fn feed_continues_after_ids_of_up_to_7_mb() {
    let data = tempfile::tempdir().unwrap();
    let server = own_server(data.path()).await;
    let mongo = TestMongo::on(&server).await;
    let source = mongo.covered(&["tickets"]).await;
    let tickets = mongo.collection("tickets");
    let start = StartAt::Time(source.now().await.unwrap());
    let mut expected = Vec::new();
    // A reply contains the `_id` up to nine times. Events of the first two arrive whole, those of up to 4 MB without
    // their document; one event stands for the others.
    for (number, megabytes) in [(1, 1), (2, 3), (3, 4), (4, 6), (5, 7)] {
        let id = format!("{number}{}", "x".repeat(megabytes << 20));
        tickets.insert_one(doc! {"_id": &id, "text": "large"}).await.unwrap();
        tickets.insert_one(doc! {"_id": number, "text": "small"}).await.unwrap();
        tickets.delete_one(doc! {"_id": &id}).await.unwrap();
        expected.push(number.to_string());
    }
    tickets.insert_one(doc! {"_id": 99}).await.unwrap();
    expected.push("99".to_owned());
    let events = follow(&source, start, 99).await;
    let is_small = |event: &&SourceEvent| event.id.len() < 5;
    let small: Vec<_> = events.iter().filter(is_small).map(|event| event.id.clone()).collect();
    assert_eq!(small, expected, "each once, in order");
    assert!(events.iter().filter(is_small).all(|event| matches!(event.document, Some(Ok(_)))));
    let large: Vec<_> =
        events.iter().filter(|event| !is_small(event) && event.operation != Operation::Delete).collect();
    assert!(!large.is_empty(), "omitted events are reported: {}", large.len());
    for event in large {
        assert!(event.key.len() > key::MAX_BYTES || key::is_clipped(&event.key), "{}", event.key);
    }
}
