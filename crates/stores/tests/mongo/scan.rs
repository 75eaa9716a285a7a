//! Scans: a cursor that the server has forgotten, and collections that sort in their own way.

use bson::doc;
use mongodb::options::{ClusteredIndex, Collation, CollationStrength};
use serde_json::json;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Scan, Source};
use tidewheel_testkit::contracts::source::{SourceHarness, SourceWrite};

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

/// Kills the cursors of this database's scans, as the server does with one that is idle for ten minutes.
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
async fn a_scan_whose_cursor_is_gone_goes_on_at_its_last_row() {
    let mongo = TestMongo::start().await;
    let source = mongo.mongo_source(&["tickets"]).await;
    let documents = (0..6_000).map(|id| doc! {"_id": id, "text": "x".repeat(100)});
    mongo.collection("tickets").insert_many(documents).await.unwrap();
    let namespace = Namespace::new(&mongo.database, "tickets");
    let mut scan = source.scan(&namespace, None, source.now().await.unwrap(), None).await.unwrap();
    let mut keys: Vec<_> = scan.next().await.unwrap().into_iter().map(|row| row.id).collect();
    // The task is one page ahead at most, so the cursor is far from its end.
    let mut killed = 0;
    while killed == 0 {
        killed = kill_cursors(&mongo, "tickets").await;
    }
    keys.extend(rest(scan.as_mut()).await);
    assert_eq!(keys, (0..6_000).map(|id| id.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_collection_with_its_own_collation_is_read_whole_and_resumed() {
    let mongo = TestMongo::start().await;
    let source = mongo.mongo_source(&["tickets"]).await;
    let collation = Collation::builder().locale("de").strength(CollationStrength::Secondary).build();
    mongo.client.database(&mongo.database).create_collection("tickets").collation(collation).await.unwrap();
    for id in ["Zebra", "äpfel", "apfel", "birne", "Ärger"] {
        let document = json!({"_id": id});
        mongo.commit(vec![SourceWrite::Insert { collection: "tickets".into(), document }]).await;
    }
    check_resuming(&source, &Namespace::new(&mongo.database, "tickets"), 5).await;
}

#[tokio::test]
async fn a_clustered_collection_is_read_whole_and_resumed() {
    let mongo = TestMongo::start().await;
    let source = mongo.mongo_source(&["tickets"]).await;
    let database = mongo.client.database(&mongo.database);
    database.create_collection("tickets").clustered_index(ClusteredIndex::default()).await.unwrap();
    for id in [json!(3), json!("a"), json!(1.5), json!({"$oid": "65f000000000000000000001"}), json!(2)] {
        let document = json!({"_id": id});
        mongo.commit(vec![SourceWrite::Insert { collection: "tickets".into(), document }]).await;
    }
    check_resuming(&source, &Namespace::new(&mongo.database, "tickets"), 5).await;
}

async fn check_resuming(source: &dyn Source, namespace: &Namespace, count: usize) {
    let now = source.now().await.unwrap();
    let mut scan = source.scan(namespace, None, now, None).await.unwrap();
    let rows = scan.next().await.unwrap();
    assert_eq!(rows.len(), count);
    for (position, row) in rows.iter().enumerate() {
        let mut scan = source.scan(namespace, Some(&row.key), now, None).await.unwrap();
        let rest = rest(scan.as_mut()).await;
        assert!(rest.iter().eq(rows[position + 1..].iter().map(|row| &row.id)), "behind {}: {rest:?}", row.key);
    }
}

#[tokio::test]
async fn large_rows_come_in_pages_of_bounded_size() {
    const SIZE: usize = 1024 * 1024;
    let mongo = TestMongo::start().await;
    let source = mongo.mongo_source(&["tickets"]).await;
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
async fn a_damaged_key_is_refused() {
    let mongo = TestMongo::start().await;
    let source = mongo.mongo_source(&["tickets"]).await;
    let now = source.now().await.unwrap();
    let namespace = Namespace::new(&mongo.database, "tickets");
    assert!(source.scan(&namespace, Some("{"), now, None).await.is_err());
    assert!(source.scan(&Namespace::new("elsewhere", "tickets"), None, now, None).await.is_err());
}
