//! Scans: an expired cursor, and collections with a special sort order.

use bson::doc;
use mongodb::options::{ClusteredIndex, Collation, CollationStrength};
use serde_json::json;
use tidewheel_core::catalog::Selector;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Coverage, Covered, Judged, Scan, SourceFilter, StartAt, Verdicts};
use tidewheel_testkit::contracts::source::{SourceHarness, SourceWrite};

use super::feed::take;
use super::server::TestMongo;

async fn rest(scan: &mut dyn Scan) -> Vec<String> {
    let mut keys = Vec::new();
    loop {
        let page = scan.next().await.expect("a page");
        if page.is_empty() {
            return keys;
        }
        keys.extend(page.into_iter().map(|row| row.id));
    }
}

/// Kills the cursors of this database's scans, as the server does after ten idle minutes.
async fn kill_cursors(mongo: &TestMongo, collection: &str) -> usize {
    let admin = mongo.client.database("admin");
    let pipeline = vec![
        doc! {"$currentOp": {"idleCursors": true}},
        doc! {"$match": {"type": "idleCursor", "ns": format!("{}.{collection}", mongo.database)}},
    ];
    let mut cursor = admin.aggregate(pipeline).await.unwrap();
    let mut ids = Vec::new();
    while cursor.advance().await.unwrap() {
        let operation = bson::Document::try_from(cursor.current()).unwrap();
        ids.push(operation.get_document("cursor").unwrap().get_i64("cursorId").unwrap());
    }
    let count = ids.len();
    let command = doc! {"killCursors": collection, "cursors": ids};
    mongo.client.database(&mongo.database).run_command(command).await.unwrap();
    count
}

#[tokio::test]
async fn scan_with_expired_cursor_continues_at_its_last_row() {
    let mongo = TestMongo::start().await;
    let source = mongo.covered(&["tickets"]).await;
    let documents = (0..6_000).map(|id| doc! {"_id": id, "text": "x".repeat(100)});
    mongo.collection("tickets").insert_many(documents).await.unwrap();
    let namespace = Namespace::new(&mongo.database, "tickets");
    let mut scan = source.scan(&namespace, None, source.now().await.unwrap(), None).await.unwrap();
    let mut keys: Vec<_> = scan.next().await.unwrap().into_iter().map(|row| row.id).collect();
    // The task prefetches at most one page, so the cursor is far from its end.
    let mut killed = 0;
    while killed == 0 {
        killed = kill_cursors(&mongo, "tickets").await;
    }
    keys.extend(rest(scan.as_mut()).await);
    assert_eq!(keys, (0..6_000).map(|id| id.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn scan_of_collection_with_collation_is_complete_and_resumable() {
    let mongo = TestMongo::start().await;
    let source = mongo.covered(&["tickets"]).await;
    let collation = Collation::builder().locale("de").strength(CollationStrength::Secondary).build();
    mongo.client.database(&mongo.database).create_collection("tickets").collation(collation).await.unwrap();
    for id in ["Zebra", "äpfel", "apfel", "birne", "Ärger"] {
        let document = json!({"_id": id});
        mongo.commit(vec![SourceWrite::Insert { collection: "tickets".into(), document }]).await;
    }
    check_resuming(&source, &Namespace::new(&mongo.database, "tickets"), 5).await;
}

/// `find` compares with the collation of the collection, filters compare bytes.
#[tokio::test]
async fn collation_of_a_collection_does_not_change_a_filter() {
    let mongo = TestMongo::start().await;
    let collation = Collation::builder().locale("de").strength(CollationStrength::Secondary).build();
    mongo.client.database(&mongo.database).create_collection("tickets").collation(collation).await.unwrap();
    let filter = SourceFilter(r#"{"status": "open"}"#.into());
    let selector = Selector::of_database(&mongo.database, &["tickets"]);
    let coverage = Coverage { selectors: vec![selector], filters: vec![filter.clone()] };
    let covered = Covered::new(mongo.covered(&[]).await.source, coverage);
    let start = covered.now().await.unwrap();
    for (id, status) in [(1, "OPEN"), (2, "open"), (3, "shut")] {
        let document = json!({"_id": id, "status": status});
        mongo.commit(vec![SourceWrite::Insert { collection: "tickets".into(), document }]).await;
    }
    let verdicts = |is_open: bool| -> Verdicts { [is_open].into_iter().collect() };
    let wanted =
        [("1".to_owned(), verdicts(false)), ("2".to_owned(), verdicts(true)), ("3".to_owned(), verdicts(false))];
    let events = take(covered.open(StartAt::Time(start)).await.unwrap().as_mut(), 3).await;
    let events: Vec<(String, Verdicts)> = events.into_iter().map(|event| (event.id, event.verdicts)).collect();
    assert_eq!(events, wanted);
    let (source, namespace) = (covered.source, Namespace::new(&mongo.database, "tickets"));
    let now = source.now().await.unwrap();
    let judged = Judged { filters: vec![filter.clone()], pushed: Some(filter.clone()) };
    let rows = source.scan(&namespace, None, now, &judged).await.unwrap().next().await.unwrap();
    let rows: Vec<(String, Verdicts)> = rows.into_iter().map(|row| (row.id, row.verdicts)).collect();
    assert_eq!(rows, wanted, "nothing is left to a comparison that differs");
    let keys = [1, 2, 3].map(|id| format!(r#"{{"$numberInt":"{id}"}}"#));
    assert_eq!(source.existing(&namespace, &keys, now, Some(&filter)).await.unwrap(), [false, true, false]);
    // A condition of its own is compared by the server.
    let only = source.scan(&namespace, None, now, &Judged::only(Some(filter))).await.unwrap().next().await.unwrap();
    assert_eq!(only.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["1", "2"]);
}

#[tokio::test]
async fn scan_of_clustered_collection_is_complete_and_resumable() {
    let mongo = TestMongo::start().await;
    let source = mongo.covered(&["tickets"]).await;
    let database = mongo.client.database(&mongo.database);
    database.create_collection("tickets").clustered_index(ClusteredIndex::default()).await.unwrap();
    for id in [json!(3), json!("a"), json!(1.5), json!({"$oid": "65f000000000000000000001"}), json!(2)] {
        let document = json!({"_id": id});
        mongo.commit(vec![SourceWrite::Insert { collection: "tickets".into(), document }]).await;
    }
    check_resuming(&source, &Namespace::new(&mongo.database, "tickets"), 5).await;
}

async fn check_resuming(source: &Covered, namespace: &Namespace, count: usize) {
    let now = source.now().await.unwrap();
    let mut scan = source.scan(namespace, None, now, None).await.unwrap();
    let rows = scan.next().await.unwrap();
    assert_eq!(rows.len(), count);
    for (position, row) in rows.iter().enumerate() {
        let mut scan = source.scan(namespace, Some(&row.key), now, None).await.unwrap();
        let rest = rest(scan.as_mut()).await;
        assert!(rest.iter().eq(rows[position + 1..].iter().map(|row| &row.id)), "after {}: {rest:?}", row.key);
    }
}

#[tokio::test]
async fn pages_of_large_rows_are_bounded_in_bytes() {
    const SIZE: usize = 1024 * 1024;
    let mongo = TestMongo::start().await;
    let source = mongo.covered(&["tickets"]).await;
    for id in 0..12 {
        mongo.collection("tickets").insert_one(doc! {"_id": id, "text": "x".repeat(SIZE)}).await.unwrap();
    }
    let namespace = Namespace::new(&mongo.database, "tickets");
    let mut scan = source.scan(&namespace, None, source.now().await.unwrap(), None).await.unwrap();
    let mut rows = 0;
    loop {
        let page = scan.next().await.unwrap();
        if page.is_empty() {
            break;
        }
        let bytes: usize = page.iter().map(|row| row.document.as_ref().unwrap().len()).sum();
        assert!(bytes < 4 * 1024 * 1024 + SIZE + 100, "{bytes} bytes in a page");
        rows += page.len();
    }
    assert_eq!(rows, 12);
}

#[tokio::test]
async fn invalid_key_is_rejected() {
    let mongo = TestMongo::start().await;
    let source = mongo.covered(&["tickets"]).await;
    let now = source.now().await.unwrap();
    let namespace = Namespace::new(&mongo.database, "tickets");
    assert!(source.scan(&namespace, Some("{"), now, None).await.is_err());
}
