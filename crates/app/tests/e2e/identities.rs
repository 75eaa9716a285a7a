//! Identity of documents: equal numbers, invalid UTF-8, legacy UUIDs, keys of an earlier release, changes that Redis
//! rejects.

use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Decimal128, Document, RawDocumentBuf, doc};
use serde_json::{Value, json};
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_stores::redis::keys::{CHECKPOINT, EMBEDDED, EMBEDDED_GROUP, RAW, RAW_DEAD_LETTERS, RAW_GROUP};

use super::clients::{points, put};
use super::dead_letters::{letters, snapshot_is_over};
use super::world::{SERVICES, World, backlog, ticket};

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse::<Decimal128>().unwrap())
}

/// Groups of `_id`s that MongoDB compares as equal, in several types.
fn equal_ids() -> Vec<Vec<Bson>> {
    let inside = |id: Bson| Bson::Document(doc! {"b": id.clone(), "a": [{"deep": id}]});
    let one = vec![Bson::Int32(1), Bson::Int64(1), Bson::Double(1.0), decimal("1.00")];
    let compound = one.iter().cloned().map(inside).collect();
    vec![
        one,
        compound,
        vec![Bson::Double(0.0), Bson::Double(-0.0), decimal("-0E+3"), Bson::Int64(0)],
        vec![Bson::Double(2.5), decimal("2.50"), decimal("25E-1")],
        vec![Bson::Int64(1 << 40), Bson::Double((1_i64 << 40) as f64), decimal("1099511627776")],
        vec![Bson::Double(f64::NAN), decimal("NaN")],
    ]
}

/// Replaces a document by one whose `_id` differs only in its type: MongoDB compares both as equal.
async fn replace(world: &World, id: &Bson, with: &Bson, text: &str) {
    let document = doc! {"_id": with.clone(), "subject": "A number", "content": text};
    let replaced = world.collection("things").replace_one(doc! {"_id": id.clone()}, document).await.unwrap();
    assert_eq!(replaced.matched_count, 1, "{id} {with}");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_equal_value_are_one_document() {
    let mut world = World::running().await;
    let things = world.collection("things");
    let all = equal_ids();
    for ids in &all {
        things.insert_one(doc! {"_id": ids[0].clone(), "subject": "A number", "content": "first"}).await.unwrap();
    }
    assert_eq!(world.equal().await.documents, all.len() as u64);
    for ids in &all {
        for pair in ids.windows(2) {
            replace(&world, &pair[0], &pair[1], "replaced").await;
        }
    }
    assert_eq!(world.equal().await.documents, all.len() as u64);
    let ran = world.command(&["inspect", "1", "--namespace", "things", "--output", "json"]).output().unwrap();
    let found: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(found["documents"][0]["verdict"]["state"], "searchable", "{found}");
    // Deleted by an `_id` of another type.
    for ids in &all {
        assert_eq!(things.delete_one(doc! {"_id": ids[0].clone()}).await.unwrap().deleted_count, 1);
    }
    assert_eq!(world.equal().await.documents, 0);
    let found: u64 = points(&world.stack.qdrant_http_url().unwrap()).await.len() as u64;
    assert_eq!(found, 0, "no orphaned points");
}

/// Returns the point with the key of an earlier release.
fn former(mut point: Value, key: &str) -> Value {
    let document = DocumentId::new(&Namespace::new("shop", "things"), key);
    point["id"] = document.point(0).to_string().into();
    point["payload"]["_tidewheel"]["key"] = key.into();
    point["payload"]["_tidewheel"]["document"] = document.to_string().into();
    point
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_earlier_release_converges_after_upgrade() {
    let mut world = World::running().await;
    let things = world.collection("things");
    let ids = [
        (Bson::Int64(1), r#"{"$numberLong":"1"}"#),
        (Bson::Double(2.0), r#"{"$numberDouble":"2.0"}"#),
        (decimal("3.50"), r#"{"$numberDecimal":"3.50"}"#),
        (Bson::Document(doc! {"b": 4_i64}), r#"{"b":{"$numberLong":"4"}}"#),
    ];
    let documents = ids.iter().map(|(id, _)| doc! {"_id": id.clone(), "subject": "A number", "content": "old"});
    things.insert_many(documents).await.unwrap();
    world.collection("tickets").insert_many((0..20).map(ticket)).await.unwrap();
    assert_eq!(world.equal().await.documents, 24);
    snapshot_is_over(&mut world).await;
    world.terminate("producer");

    // Adds the points and the entry that an earlier release wrote.
    let qdrant = world.stack.qdrant_http_url().unwrap();
    let all = points(&qdrant).await;
    let present = |key: &str| {
        let canonical = tidewheel_core::key::canonical(key).into_owned();
        all.iter().find(|point| point["payload"]["_tidewheel"]["key"] == canonical.as_str()).unwrap().clone()
    };
    let old: Vec<Value> = ids
        .iter()
        .map(|(_, key)| former(present(key), key))
        .map(|point| json!({"id": point["id"], "payload": point["payload"], "vector": point["vector"]}))
        .collect();
    put(&format!("{qdrant}/collections/documents/points?wait=true"), &json!({"points": old})).await;
    let entry = [
        "XADD",
        RAW,
        "*",
        "operation",
        "insert",
        "namespace",
        "shop.things",
        "id",
        "1",
        "key",
        ids[0].1,
        "version",
        "0.1600000000.1.1",
        "committed_at",
        "1600000000000",
        "document",
        r#"{"_id":1,"subject":"Older still"}"#,
    ];
    world.redis::<String>(&entry).await;
    world.redis::<u64>(&["HINCRBY", "{raw_document_changes}:counts", "raw", "1"]).await;
    let selection: String = world.redis(&["HGET", CHECKPOINT, "selection"]).await;
    let (bare, _) = selection.split_once(" keys=").expect("the form of keys is in the checkpoint");
    world.redis::<u64>(&["HSET", CHECKPOINT, "selection", bare]).await;
    things.delete_one(doc! {"_id": 2}).await.unwrap();

    world.start("producer");
    assert_eq!(world.equal().await.documents, 23);
    assert_eq!(points(&qdrant).await.len(), 23, "no points of the earlier release remain");
    let again: String = world.redis(&["HGET", CHECKPOINT, "selection"]).await;
    assert_eq!(again, selection);
}

/// Inserts a document with these bytes as string `_id`, and a binary of subtype 2 without its inner length.
async fn insert_raw(world: &World, id: &[u8], number: i32) {
    let command = doc! {"insert": "notes", "documents": [{
        "_id": "?".repeat(id.len()), "subject": "Odd", "content": format!("Number {number}"),
        "odd": Binary { subtype: BinarySubtype::Generic, bytes: b"abc".to_vec() },
    }]};
    let mut bytes = command.to_vec().unwrap();
    let place = |bytes: &[u8], from: &[u8]| bytes.windows(from.len()).position(|window| window == from).unwrap();
    let at = place(&bytes, "?".repeat(id.len()).as_bytes());
    bytes[at..at + id.len()].copy_from_slice(id);
    let at = place(&bytes, b"\x03\0\0\0\0abc");
    bytes[at + 4] = 2;
    let command = RawDocumentBuf::from_bytes(bytes).unwrap();
    let answer = world.database.run_raw_command(command).await.unwrap();
    assert_eq!(answer.get_i32("n").unwrap(), 1, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_with_invalid_utf_8_in_id_are_indexed_and_removed() {
    let mut world = World::new().await;
    // Some for the snapshot, others for the feed.
    for (number, id) in [(1, &b"caf\xe8"[..]), (2, b"caf\xe9"), (3, b"plain")] {
        insert_raw(&world, id, number).await;
    }
    for service in SERVICES {
        world.start(service);
    }
    let qdrant = world.stack.qdrant_http_url().unwrap();
    let count = |count: u64| super::clients::count(&qdrant, count);
    world.until("the snapshot is in the index", || count(3)).await;
    snapshot_is_over(&mut world).await;
    insert_raw(&world, b"odd\xff", 4).await;
    insert_raw(&world, b"odd\xfe", 5).await;
    world.until("the feed is in the index", || count(5)).await;
    let all = points(&qdrant).await;
    assert!(all.iter().all(|point| point["payload"]["odd"] == "YWJj"), "{all:#?}");
    world.collection("notes").delete_many(doc! {"subject": "Odd"}).await.unwrap();
    world.until("all documents are removed", || count(0)).await;
    assert_eq!(world.redis::<u64>(&["XLEN", RAW_DEAD_LETTERS]).await, 0);
}

fn with_attachment(id: impl Into<Bson>, megabytes: usize) -> Document {
    let mut document = ticket(7);
    document.insert("_id", id.into());
    document.insert("attachment", "x".repeat(megabytes << 20));
    document
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_too_large_for_redis_are_parked_by_id_and_retried_from_mongodb() {
    what_redis_does_not_take("keep").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_does_not_take_removes_older_versions_by_policy_until_retried() {
    what_redis_does_not_take("remove").await;
}

async fn what_redis_does_not_take(policy: &str) {
    let mut world = World::new().await;
    world.write_settings(&format!("documents.on_dead_letter = \"{policy}\""));
    let limit = ["CONFIG", "SET", "proto-max-bulk-len"];
    world.redis::<()>(&[limit[0], limit[1], limit[2], "1048576"]).await;
    let tickets = world.collection("tickets");
    let cache = doc! {"setParameter": 1, "wiredTigerEngineRuntimeConfig": "cache_size=1GB"};
    world.database.client().database("admin").run_command(cache).await.unwrap();
    tickets.insert_many([ticket(1), with_attachment(2, 2), ticket(3)]).await.unwrap();
    for service in SERVICES {
        world.start(service);
    }
    let qdrant = world.stack.qdrant_http_url().unwrap();
    let count = |count: u64| super::clients::count(&qdrant, count);
    world.until("its neighbours are in the index", || count(2)).await;
    snapshot_is_over(&mut world).await;
    // An event with an `_id` of 4 MB exceeds MongoDB's reply limit; the others have small `_id`s and large documents.
    tickets.insert_one(with_attachment("k".repeat(4 << 20), 0)).await.unwrap();
    tickets.insert_many([ticket(4), with_attachment("large", 3), ticket(5)]).await.unwrap();
    tickets.update_one(doc! {"_id": 1}, doc! {"$set": {"attachment": "x".repeat(2 << 20)}}).await.unwrap();
    tickets.insert_one(ticket(6)).await.unwrap();
    let expected: &[i64] = if policy == "keep" { &[1, 3, 4, 5, 6] } else { &[3, 4, 5, 6] };
    let indexed = || async {
        let mut ids: Vec<i64> =
            points(&qdrant).await.iter().filter_map(|point| point["payload"]["_id"].as_i64()).collect();
        ids.sort_unstable();
        ids == expected
    };
    world.until("the neighbours, and the older version by policy, are in the index", indexed).await;

    let (list, _) = letters(&world, &["list"]);
    let of = |id: &str| {
        let letters = list["letters"].as_array().unwrap();
        letters.iter().find(|letter| letter["document_id"] == id).cloned().unwrap_or_else(|| panic!("{id}: {list}"))
    };
    for id in ["1", "2", "large"] {
        let letter = of(id);
        assert!(letter["reason"].as_str().unwrap().contains("too large for Redis"), "{letter}");
        assert_eq!((&letter["reread"], &letter["attempts"]), (&true.into(), &1.into()));
    }
    let clipped =
        list["letters"].as_array().unwrap().iter().find(|letter| letter["key"].to_string().contains("$clipped"));
    let clipped = clipped.unwrap_or_else(|| panic!("{list}"));
    assert!(clipped.to_string().len() < 2_000, "{clipped}");

    let (done, code) = letters(&world, &["retry", "--all", "--yes"]);
    assert_eq!(
        (code, &done["outcome"]["done"], &done["outcome"]["unreadable"]),
        (Some(1), &0.into(), &4.into()),
        "{done}"
    );
    world.redis::<()>(&[limit[0], limit[1], limit[2], "536870912"]).await;
    tickets.delete_one(doc! {"_id": "large"}).await.unwrap();
    let (done, _) = letters(&world, &["retry", "--all", "--yes"]);
    assert_eq!((&done["outcome"]["done"], &done["outcome"]["unreadable"]), (&3.into(), &1.into()), "{done}");
    world.until("the large document is in the index", || count(6)).await;
    let (shown, _) = letters(&world, &["list"]);
    assert_eq!(shown["matching"], 1, "only the document with the large `_id`: {shown}");
    assert_eq!(letters(&world, &["drop", "--all", "--yes"]).1, Some(0));
    tickets.delete_one(doc! {"_id": {"$gt": "kk"}}).await.unwrap();
    assert_eq!(world.equal().await.documents, 6);
    let url = world.stack.redis_url();
    for (stream, group) in [(RAW, RAW_GROUP), (EMBEDDED, EMBEDDED_GROUP)] {
        world.until("the streams are drained", || async { backlog(&url, stream, group).await == 0 }).await;
    }
}
