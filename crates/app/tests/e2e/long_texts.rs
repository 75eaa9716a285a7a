//! Documents of thousands of chunks: their payloads, the cost of a search, and the limit on chunks.

use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use tidewheel_stores::redis::keys::RAW_DEAD_LETTERS;
use tidewheel_testkit::proxy::Proxy;

use super::clients::http;
use super::dead_letters::snapshot_is_over;
use super::verify::{counts, verify};
use super::world::{SERVICES, World, redis_command, ticket};

const MEGABYTE: usize = 1 << 20;

/// Returns a text of so many bytes with distinct chunks.
fn text(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 100);
    for number in 0.. {
        if text.len() >= bytes {
            break;
        }
        text.push_str(&format!(
            "In chapter {number} the quick brown fox jumps over the lazy dog, and writes it down. "
        ));
    }
    text
}

fn long(id: i32, bytes: usize) -> Document {
    doc! {
        "_id": id, "subject": format!("Book {id}"), "content": text(bytes), "product": "Book",
        "author": {"name": "Ada", "biography": text(20_000)}, "reviews": vec!["It is a good book."; 1_000],
    }
}

async fn post(url: String, body: Value) -> Value {
    let answer =
        http().post(url).header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
    let text = answer.error_for_status().unwrap().text().await.unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Returns all points of a document with payloads, in chunk order.
async fn points(qdrant: &str, id: i32) -> Vec<Value> {
    let mut points: Vec<Value> = Vec::new();
    let filter = json!({"must": [{"key": "_id", "match": {"value": id}}]});
    let mut offset = Value::Null;
    loop {
        let body = json!({"filter": filter, "with_payload": true, "limit": 1_000, "offset": offset});
        let answer = post(format!("{qdrant}/collections/documents/points/scroll"), body).await;
        points.extend(answer["result"]["points"].as_array().unwrap().iter().cloned());
        offset = answer["result"]["next_page_offset"].clone();
        if offset.is_null() {
            points.sort_by_key(|point| point["payload"]["_tidewheel"]["chunk"].as_u64());
            return points;
        }
    }
}

fn search(world: &World, query: &str, limit: usize) -> Vec<Value> {
    let limit = limit.to_string();
    let ran = world.command(&["search", query, "--limit", &limit, "--output", "json"]).output().unwrap();
    let json: Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    json.as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn long_document_is_stored_found_and_read_once() {
    let mut world = World::new().await;
    for service in SERVICES {
        world.start(service);
    }
    let texts = world.collection("texts");
    texts.insert_many([long(1, MEGABYTE / 4), long(2, MEGABYTE)]).await.unwrap();
    world.collection("tickets").insert_many((100..140).map(ticket)).await.unwrap();
    let report = world.equal().await;
    assert!(report.points > 1_200, "{report}");
    for service in ["processor", "upserter"] {
        let peak = world.peak_megabytes(service);
        assert!(peak < 512, "the {service} took {peak} MB");
    }

    // Large values are in the first point's payload only, small ones in all.
    let qdrant = world.stack.qdrant_http_url().unwrap();
    for (id, bytes) in [(1, MEGABYTE / 4), (2, MEGABYTE)] {
        let points = points(&qdrant, id).await;
        let stored: usize = points.iter().map(|point| point["payload"].to_string().len()).sum();
        assert!(stored < 4 * bytes, "{} points of a document of {bytes} bytes hold {stored}", points.len());
        let first = &points[0]["payload"];
        assert!(first["content"].as_str().unwrap().len() >= bytes && first["_tidewheel"].get("omitted").is_none());
        for point in &points[1..] {
            let payload = &point["payload"];
            assert_eq!((&payload["product"], &payload["author"]), (&json!("Book"), &json!({"name": "Ada"})));
            assert_eq!(payload["_tidewheel"]["omitted"], json!(["author.biography", "content", "reviews"]));
        }
    }
    let filter = json!({"must": [{"key": "product", "match": {"value": "Book"}}]});
    let count = post(format!("{qdrant}/collections/documents/points/count"), json!({"filter": filter})).await;
    assert_eq!(count["result"]["count"].as_u64().unwrap(), report.points - 40);

    // A search reads each document once, even if many of its chunks match.
    let grpc = world.stack.qdrant_grpc_url().unwrap();
    let proxy = Proxy::start(grpc.trim_start_matches("http://").to_owned()).await.unwrap();
    world.detours.qdrant_url = Some(format!("http://{}", proxy.address()));
    world.write_settings("");
    let found = search(&world, "In chapter 7 the quick brown fox jumps over the lazy dog", 10);
    assert_eq!(found.len(), 10);
    let ids: Vec<&Value> = found.iter().map(|found| &found["document"]["_id"]).collect();
    assert!(ids[..2].contains(&&json!(1)) && ids[..2].contains(&&json!(2)), "{ids:?}");
    for found in &found[..2] {
        assert!(found["document"]["content"].as_str().unwrap().len() >= MEGABYTE / 4);
        assert!(found["text"].as_str().unwrap().contains("quick brown fox"));
    }
    let read = proxy.answered() as usize;
    assert!(read < 3 * MEGABYTE, "the search read {read} bytes");
    let before = proxy.answered();
    let short = ticket(100);
    let text = format!("{}\n{}", short.get_str("subject").unwrap(), short.get_str("content").unwrap());
    let found = search(&world, &text, 1);
    assert!(found.iter().all(|found| found["document"]["product"] != "Book"), "{found:?}");
    let read = proxy.answered() - before;
    assert!(read < 1 << 20, "a search for short documents read {read} bytes");
    world.detours.qdrant_url = None;
    world.write_settings("");

    // Points of older releases, with all values in each payload, are not drift.
    let old = points(&qdrant, 1).await;
    let fields = json!({
        "content": old[0]["payload"]["content"], "author": old[0]["payload"]["author"], "reviews": old[0]["payload"]["reviews"],
    });
    let body = json!({"payload": fields, "points": [old[1]["id"], old[7]["id"]]});
    post(format!("{qdrant}/collections/documents/points/payload?wait=true"), body).await;
    let (found, code) = verify(&world, &[]);
    assert_eq!((counts(&found), code), ([0; 4], Some(0)), "{found}");
    // A wrong value is drift.
    let body = json!({"payload": {"product": "Booklet"}, "points": [old[5]["id"]]});
    post(format!("{qdrant}/collections/documents/points/payload?wait=true"), body).await;
    assert_eq!(counts(&verify(&world, &[]).0), [0, 1, 0, 0]);

    // A change of a small field only writes payloads.
    texts.update_many(doc! {}, doc! {"$set": {"product": "Volume"}}).await.unwrap();
    world.equal().await;
    let points = points(&qdrant, 1).await;
    assert!(points[1..].iter().all(|point| point["payload"].get("content").is_none()));
    assert!(points.iter().all(|point| point["payload"]["product"] == "Volume"));
    // A long document becomes short.
    texts.update_one(doc! {"_id": 2}, doc! {"$set": {"content": "A note."}}).await.unwrap();
    world.equal().await;
    assert_eq!(counts(&verify(&world, &[]).0), [0; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn document_with_too_many_chunks_is_parked_with_size_and_setting() {
    let mut world = World::new().await;
    world.write_settings("documents.max_chunks = 50");
    for service in SERVICES {
        world.start(service);
    }
    snapshot_is_over(&mut world).await;
    let texts = world.collection("texts");
    let of = |id: i32, bytes: usize| doc! {"_id": id, "content": text(bytes)};
    texts.insert_many([of(1, 40_000), of(2, 200_000), of(3, 2 * MEGABYTE), of(4, 70_000), of(5, 300)]).await.unwrap();
    let redis = world.stack.redis_url();
    let parked = async || redis_command::<u64>(&redis, &["XLEN", RAW_DEAD_LETTERS]).await;
    world.until("the long documents are parked", || async { parked().await >= 3 }).await;
    let letters: Vec<(String, std::collections::HashMap<String, Vec<u8>>)> =
        redis_command(&redis, &["XRANGE", RAW_DEAD_LETTERS, "-", "+"]).await;
    let mut parked = Vec::new();
    for (_, fields) in &letters {
        let reason = String::from_utf8_lossy(&fields["reason"]);
        assert!(reason.contains("documents.max_chunks is 50") && reason.contains("bytes has"), "{reason}");
        parked.push(String::from_utf8_lossy(&fields["id"]).into_owned());
    }
    parked.sort();
    assert_eq!(parked, ["2", "3", "4"]);
    texts.delete_many(doc! {"_id": {"$in": [2, 3, 4]}}).await.unwrap();
    assert_eq!(world.equal().await.documents, 2);
}
