//! Events as documents.

use bson::{Document, Timestamp, doc};
use tidewheel_core::catalog::Selector;
use tidewheel_core::ports::{Coverage, SourceFilter};

use super::*;

const AT: Timestamp = Timestamp { time: 100, increment: 7 };

fn decoder(patterns: &[&str], filters: &[&str]) -> Decoder {
    let selectors = vec![Selector::parse(patterns, None).unwrap()];
    let filters = filters.iter().map(|filter| SourceFilter((*filter).to_owned())).collect();
    Decoder::new(Arc::new(Selection::new(&Coverage { selectors, filters }).unwrap()))
}

fn of_shop() -> Decoder {
    decoder(&["shop.tickets"], &[])
}

fn read(event: &Document) -> Meaning {
    of_shop().read(&event.to_vec().unwrap()).unwrap().unwrap()
}

fn change(event: &Document) -> SourceEvent {
    change_in(&mut of_shop(), event)
}

fn change_in(decoder: &mut Decoder, event: &Document) -> SourceEvent {
    match decoder.read(&event.to_vec().unwrap()) {
        Ok(Some(Meaning::Change(change))) => change,
        other => panic!("{other:?}"),
    }
}

fn ns() -> Document {
    doc! {"db": "shop", "coll": "tickets"}
}

#[test]
fn insert_event_carries_its_document() {
    let event = doc! {
        "_id": {"_data": "82"}, "operationType": "insert", "clusterTime": AT,
        "wallTime": bson::DateTime::from_millis(100_250), "fullDocument": {"_id": 5_i64, "a": "x"}, "ns": ns(),
        "documentKey": {"shard": "s", "_id": 5_i64},
    };
    assert_eq!(
        change(&event),
        SourceEvent {
            operation: Operation::Insert,
            namespace: Namespace::new("shop", "tickets"),
            key: r#"{"$numberInt":"5"}"#.into(),
            id: "5".into(),
            shard: r#"shard="s";"#.into(),
            time: ClusterTime { seconds: 100, increment: 7 },
            committed_at: 100_250,
            document: Some(Ok(r#"{"_id":5,"a":"x"}"#.into())),
            verdicts: Verdicts::default(),
            touched: Touched::All,
        }
    );
    assert_eq!(token(&event.to_vec().unwrap()).unwrap(), r#"{"_data":"82"}"#);
}

#[test]
fn prefixed_database_name_does_not_change_namespace() {
    // Atlas prefixes the database name with the tenant name in some events.
    for database in ["shop", "5f2b_shop", "", "other"] {
        let ns = doc! {"db": database, "coll": "tickets"};
        let event = doc! {
            "_id": {"_data": "82"}, "operationType": "delete", "clusterTime": AT, "ns": ns.clone(), "documentKey": {"_id": 1},
        };
        assert_eq!(change(&event).namespace, Namespace::new("shop", "tickets"));
        let drop = doc! {"_id": {"_data": "82"}, "operationType": "drop", "clusterTime": AT, "ns": ns};
        assert_eq!(change(&drop).namespace, Namespace::new("shop", "tickets"));
    }
}

#[test]
fn event_with_malformed_document_keeps_its_key() {
    let mut event = doc! {
        "_id": {"_data": "82"}, "operationType": "insert", "clusterTime": AT, "fullDocument": {"_id": 1, "x": true},
        "ns": ns(), "documentKey": {"_id": 1},
    }
    .to_vec()
    .unwrap();
    let at = event.windows(3).position(|bytes| bytes == b"\x08x\0").unwrap();
    event[at] = 0x42;
    let mut decoder = decoder(&["shop.tickets"], &["{}"]);
    let Ok(Some(Meaning::Change(change))) = decoder.read(&event) else { panic!("no event") };
    assert_eq!(change.key, r#"{"$numberInt":"1"}"#);
    assert!(change.document.unwrap().unwrap_err().contains("malformed BSON"));
    assert!(change.verdicts.is_empty(), "nothing to judge");
}

#[test]
fn update_of_deleted_document_has_no_document() {
    let event = doc! {
        "_id": {"_data": "82"}, "operationType": "update", "clusterTime": AT, "fullDocument": null, "ns": ns(),
        "documentKey": {"_id": "k"},
    };
    let change = change(&event);
    assert_eq!((change.operation, change.document), (Operation::Update, None));
    assert_eq!(change.committed_at, 100_000, "without a wall clock, the cluster time's seconds");
}

#[test]
fn drop_rename_and_invalidate_events_are_decoded() {
    let drop = doc! {"_id": {"_data": "82"}, "operationType": "drop", "clusterTime": AT, "ns": ns()};
    assert_eq!(change(&drop).operation, Operation::Drop);
    let rename = doc! {
        "_id": {"_data": "82"}, "operationType": "rename", "clusterTime": AT, "ns": ns(),
        "to": {"db": "shop", "coll": "old"},
    };
    let (from, to) = (Namespace::new("shop", "tickets"), Namespace::new("shop", "old"));
    let at = Moment { time: ClusterTime { seconds: 100, increment: 7 }, wall: 100_000 };
    assert_eq!(read(&rename), Meaning::Renamed { from, to, at });
    let whole = doc! {"_id": {"_data": "82"}, "operationType": "dropDatabase", "clusterTime": AT, "ns": {"db": "shop"}};
    assert_eq!(read(&whole), Meaning::Nothing);
    let invalidate = doc! {"_id": {"_data": "82"}, "operationType": "invalidate", "clusterTime": AT};
    assert_eq!(read(&invalidate), Meaning::Invalidate);
}

#[test]
fn fragments_are_reassembled_into_one_event() {
    let mut decoder = of_shop();
    let first = doc! {
        "_id": {"_data": "1"}, "splitEvent": {"fragment": 1, "of": 3}, "operationType": "update",
        "clusterTime": AT, "ns": ns(),
    };
    let second = doc! {"_id": {"_data": "2"}, "splitEvent": {"fragment": 2, "of": 3}, "documentKey": {"_id": 1}};
    let third = doc! {"_id": {"_data": "3"}, "splitEvent": {"fragment": 3, "of": 3}, "fullDocument": {"_id": 1}};
    let mut read = |event: &Document| decoder.read(&event.to_vec().unwrap());
    assert_eq!(read(&first), Ok(None));
    assert_eq!(read(&second), Ok(None));
    let Ok(Some(Meaning::Change(change))) = read(&third) else { panic!("no event") };
    assert_eq!(change.document, Some(Ok(r#"{"_id":1}"#.into())));
    assert!(!decoder.inside_an_event());
}

#[test]
fn missing_fragment_is_an_error() {
    let fragment = |number: i32| doc! {"_id": {"_data": "1"}, "splitEvent": {"fragment": number, "of": 3}};
    let mut decoder = of_shop();
    assert!(decoder.read(&fragment(2).to_vec().unwrap()).is_err());
    assert_eq!(decoder.read(&fragment(1).to_vec().unwrap()), Ok(None));
    assert!(decoder.inside_an_event());
    assert!(decoder.read(&fragment(3).to_vec().unwrap()).is_err());
}

#[test]
fn event_of_several_databases_keeps_its_database() {
    let mut decoder = decoder(&["shop.tickets", "crm.*", "eu_*.tickets"], &[]);
    for (reported, database) in [("shop", "shop"), ("crm", "crm"), ("eu_shop", "eu_shop"), ("5f2b_crm", "crm")] {
        let event = doc! {
            "_id": {"_data": "82"}, "operationType": "delete", "clusterTime": AT, "documentKey": {"_id": 1},
            "ns": {"db": reported, "coll": "tickets"},
        };
        assert_eq!(change_in(&mut decoder, &event).namespace, Namespace::new(database, "tickets"));
    }
    let nameless = doc! {"_id": {"_data": "82"}, "operationType": "drop", "clusterTime": AT, "ns": {"coll": "tickets"}};
    assert!(decoder.read(&nameless.to_vec().unwrap()).is_err());
}

#[test]
fn documents_are_judged_by_every_filter() {
    let mut decoder = decoder(&["shop.tickets"], &[r#"{"n": {"$gt": 1}}"#, r#"{"n": 1}"#]);
    let mut verdicts = |operation: &str, document: Option<Document>| {
        let event = doc! {
            "_id": {"_data": "82"}, "operationType": operation, "clusterTime": AT, "ns": ns(),
            "documentKey": {"_id": 1}, "fullDocument": document,
        };
        change_in(&mut decoder, &event).verdicts
    };
    for operation in ["insert", "update", "replace"] {
        let of = verdicts(operation, Some(doc! {"_id": 1, "n": 1}));
        assert_eq!((of.get(0), of.get(1)), (Some(false), Some(true)), "{operation}");
    }
    assert!(verdicts("update", None).is_empty(), "the document is gone");
    assert!(verdicts("delete", None).is_empty());
}

#[test]
fn touched_paths_depend_on_the_operation() {
    let event = |operation: &str, more: Document| {
        let mut event = doc! {
            "_id": {"_data": "82"}, "operationType": operation, "clusterTime": AT, "ns": ns(),
            "documentKey": {"_id": 1}, "fullDocument": {"_id": 1},
        };
        event.extend(more);
        change(&event).touched
    };
    assert_eq!(event("insert", doc! {}), Touched::Nothing);
    assert_eq!(event("insert", doc! {"documentKey": {"region": "eu", "_id": 1}}), Touched::All);
    assert_eq!(event("replace", doc! {}), Touched::All);
    assert_eq!(event("update", doc! {}), Touched::All, "not requested");
    let names = doc! {"tidewheel_touched": ["status", "a.0"]};
    assert_eq!(event("update", names), Touched::Paths(vec!["status".into(), "a.0".into()]));
}
