//! Inputs for which a server fails while it works for others, and servers that fail for every input.

mod endpoint;
mod grpc;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mongodb::bson::doc;
use serde_json::Value;
use tidewheel_stores::redis::keys::{
    EMBEDDED, EMBEDDED_DEAD_LETTERS, EMBEDDED_GROUP, RAW, RAW_DEAD_LETTERS, RAW_GROUP,
};

use self::endpoint::{Endpoint, LIMIT, Outage};
use self::grpc::Proxy;
use super::clients::{count, points};
use super::dead_letters::snapshot_is_over;
use super::world::{World, backlog, redis_command, ticket};

const SETTINGS: &str = r#"
    embedding.provider = "openai"
    embedding.model = "fake"
    embedding.timeout = "1s"
"#;

const SERVICES: [&str; 3] = ["producer", "processor", "upserter"];

/// Returns the reasons of the dead letters of a stage, by the `_id` of their document.
async fn parked(world: &World, stream: &str) -> BTreeMap<String, String> {
    let letters: Vec<(String, std::collections::HashMap<String, Vec<u8>>)> =
        world.redis(&["XRANGE", stream, "-", "+"]).await;
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    letters.iter().map(|(_, fields)| (text(&fields["id"]), text(&fields["reason"]))).collect()
}

/// Waits until this stream has so many dead letters and both stages are drained.
async fn parks(world: &mut World, stream: &str, letters: u64) {
    let url = world.stack.redis_url();
    let parked = || async { redis_command::<u64>(&url, &["XLEN", stream]).await >= letters };
    world.until("the dead letters", parked).await;
    let idle =
        || async { backlog(&url, RAW, RAW_GROUP).await == 0 && backlog(&url, EMBEDDED, EMBEDDED_GROUP).await == 0 };
    world.until("both stages are drained", idle).await;
}

fn ids(parked: &BTreeMap<String, String>) -> BTreeSet<&str> {
    parked.keys().map(String::as_str).collect()
}

/// Starts a pipeline with a fake OpenAI endpoint.
async fn with_endpoint(more: &str) -> (World, Endpoint) {
    let mut world = World::new().await;
    let (endpoint, url) = Endpoint::start().await;
    world.detours.embedding_url = Some(url);
    world.write_settings(&format!("{SETTINGS}{more}"));
    for service in SERVICES {
        world.start(service);
    }
    snapshot_is_over(&mut world).await;
    (world, endpoint)
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_fail_at_endpoint_are_parked_and_batch_limit_is_learned() {
    let (mut world, endpoint) = with_endpoint("").await;
    let mut documents: Vec<_> = (0..300).map(ticket).collect();
    let bad: Vec<String> = (0..).step_by(37).zip(endpoint::BAD).map(|(id, _): (i32, _)| id.to_string()).collect();
    for (id, mark) in bad.iter().zip(endpoint::BAD) {
        documents[id.parse::<usize>().unwrap()].insert("content", format!("{mark} this one"));
    }
    // Blank texts cause neither alerts nor requests.
    for (number, blank) in [(290, ""), (291, " \n"), (292, "\u{200b}"), (293, "\u{a0}\t")] {
        documents[number] = doc! {"_id": number as i32, "subject": blank, "content": blank};
    }
    world.collection("tickets").insert_many(documents).await.unwrap();
    parks(&mut world, RAW_DEAD_LETTERS, bad.len() as u64).await;
    let qdrant = world.stack.qdrant_http_url().unwrap();
    world.until("all other documents are in the index", || count(&qdrant, 294)).await;
    let letters = parked(&world, RAW_DEAD_LETTERS).await;
    assert_eq!(ids(&letters), bad.iter().map(String::as_str).collect(), "{letters:?}");
    for (id, reason) in bad.iter().zip(["422", "NaN", "no response", "vectors", "403", "no response"]) {
        assert!(letters[id].contains(reason), "{letters:?}");
    }
    let (requests, too_many) = endpoint.requests();
    assert!(too_many * 4 < requests, "{too_many} of {requests} requests had more than {LIMIT} texts");
    assert!(endpoint.texts().iter().all(|text| !text.trim().is_empty() && text != "\u{200b}"));
    let blank: Vec<Value> = points(&qdrant)
        .await
        .into_iter()
        .filter(|point| point["payload"]["_id"].as_i64() >= Some(290) && point["payload"]["_id"].as_i64() <= Some(293))
        .collect();
    assert_eq!(blank.len(), 4);
    assert!(blank.iter().all(|point| point["vector"].as_object().is_none_or(serde_json::Map::is_empty)), "{blank:?}");

    // The learned limit is applied, and the documents are corrected.
    let content = doc! {"$set": {"content": "It can be embedded now."}};
    let all: Vec<i32> = bad.iter().map(|id| id.parse().unwrap()).chain([292]).collect();
    world.collection("tickets").update_many(doc! {"_id": {"$in": all}}, content).await.unwrap();
    world.collection("tickets").insert_many((1_000..1_300).map(ticket)).await.unwrap();
    world.equal().await;
    let (_, after) = endpoint.requests();
    assert!(after <= too_many + 5, "{after} after {too_many}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_outage_is_waited_out_and_reported() {
    let (mut world, endpoint) = with_endpoint("").await;
    let outages = [
        (400, r#"{"error": {"message": "API key not valid. Please pass a valid API key."}}"#, "400: API key not valid"),
        (401, r#"{"error": {"message": "Incorrect API key provided"}}"#, "401: Incorrect API key"),
        (404, r#"{"error": {"message": "The model `fake` does not exist"}}"#, "404: The model"),
        (403, "<html>Forbidden</html>", "403: <html>Forbidden"),
        (422, r#"{"error": {"message": "input rejected"}}"#, "422: input rejected"),
        (500, r#"{"error": "unsupported value: NaN"}"#, "500: unsupported value: NaN"),
        (200, r#"{"data": []}"#, "with 0 vectors"),
    ];
    for (round, (status, body, reported)) in (0..).zip(outages) {
        endpoint.fails(Some(Outage { status, body }));
        world.collection("tickets").insert_many((round * 100..round * 100 + 40).map(ticket)).await.unwrap();
        let asked = endpoint.clone();
        world.until("repeated retries", || async { asked.refused() >= 12 }).await;
        assert_eq!(parked(&world, RAW_DEAD_LETTERS).await, BTreeMap::new(), "{reported}");
        world.wait(|world| world.log("processor").contains(reported), "the outage is reported").await;
        endpoint.fails(None);
        assert_eq!(world.equal().await.documents, (round as u64 + 1) * 40, "{reported}");
    }
    assert_eq!(parked(&world, RAW_DEAD_LETTERS).await, BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_fail_in_qdrant_are_parked_and_outage_parks_nothing() {
    let mut world = World::new().await;
    let (proxy, url) = Proxy::start(&world.stack.qdrant_grpc_url().unwrap()).await;
    world.detours.qdrant_url = Some(url);
    world.write_settings("qdrant.timeout = \"1s\"\nprocessor.known_vectors = \"ignore\"");
    for service in super::world::SERVICES {
        world.start(service);
    }
    snapshot_is_over(&mut world).await;
    let tickets = world.collection("tickets");

    // Reads succeed and all writes fail: an outage.
    tickets.insert_many((1_000..1_040).map(ticket)).await.unwrap();
    world.equal().await;
    proxy.fails(true);
    tickets.insert_many((1_040..1_080).map(ticket)).await.unwrap();
    tickets.delete_many(doc! {"_id": {"$gte": 1_000, "$lt": 1_010}}).await.unwrap();
    let asked = proxy.clone();
    world.until("repeated retries", || async { asked.refused() >= 30 }).await;
    proxy.fails(false);
    assert_eq!(world.equal().await.documents, 70);
    assert_eq!(parked(&world, EMBEDDED_DEAD_LETTERS).await, BTreeMap::new());

    let mut documents: Vec<_> = (0..200).map(ticket).collect();
    let bad: Vec<String> = (0..).step_by(31).zip(grpc::BAD).map(|(id, _): (i32, _)| id.to_string()).collect();
    for (id, mark) in bad.iter().zip(grpc::BAD) {
        documents[id.parse::<usize>().unwrap()].insert("note", mark);
    }
    tickets.insert_many(documents).await.unwrap();
    parks(&mut world, EMBEDDED_DEAD_LETTERS, bad.len() as u64).await;
    let letters = parked(&world, EMBEDDED_DEAD_LETTERS).await;
    assert_eq!(ids(&letters), bad.iter().map(String::as_str).collect(), "{letters:?}");
    let qdrant = world.stack.qdrant_http_url().unwrap();
    world.until("all other documents are in the index", || count(&qdrant, 70 + 195)).await;
    let all: Vec<i32> = bad.iter().map(|id| id.parse().unwrap()).collect();
    tickets.update_many(doc! {"_id": {"$in": all}}, doc! {"$unset": {"note": ""}}).await.unwrap();
    assert_eq!(world.equal().await.documents, 270);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_redis_rejects_are_parked_and_others_are_indexed() {
    let mut world = World::new().await;
    let (_endpoint, url) = Endpoint::lenient(4_096).await;
    world.detours.embedding_url = Some(url);
    world.write_settings(&format!("{SETTINGS}documents.chunk_tokens = 50\ndocuments.chunk_overlap = 0"));
    world.redis::<()>(&["CONFIG", "SET", "proto-max-bulk-len", "1048576"]).await;
    for service in SERVICES {
        world.start(service);
    }
    snapshot_is_over(&mut world).await;
    let mut documents: Vec<_> = (0..20).map(ticket).collect();
    for (bad, chunks) in [(3, 70), (8, 90), (9, 66)] {
        // Each chunk has a vector of 16 KiB.
        documents[bad].insert("content", "word ".repeat(chunks * 50));
    }
    world.collection("tickets").insert_many(documents).await.unwrap();
    parks(&mut world, RAW_DEAD_LETTERS, 3).await;
    let letters = parked(&world, RAW_DEAD_LETTERS).await;
    assert_eq!(ids(&letters), BTreeSet::from(["3", "8", "9"]), "{letters:?}");
    let short = doc! {"$set": {"content": "short"}};
    world.collection("tickets").update_many(doc! {"_id": {"$in": [3, 8, 9]}}, short).await.unwrap();
    assert_eq!(world.equal().await.documents, 20);
}

/// In one batch, deletes document 1 and reinserts it with a rejected text, and updates document 2 with one.
async fn deleted_and_poisoned(policy: &str) -> (World, BTreeSet<i64>) {
    let (mut world, _) = with_endpoint(&format!("documents.on_dead_letter = \"{policy}\"")).await;
    let tickets = world.collection("tickets");
    tickets.insert_many((0..5).map(ticket)).await.unwrap();
    world.equal().await;
    world.terminate("processor");
    tickets.delete_one(doc! {"_id": 1}).await.unwrap();
    let mut poison = ticket(1);
    poison.insert("content", "REJECTED");
    tickets.insert_one(poison).await.unwrap();
    tickets.update_one(doc! {"_id": 2}, doc! {"$set": {"content": "REJECTED"}}).await.unwrap();
    let url = world.stack.redis_url();
    world.until("a backlog of three changes", || async { backlog(&url, RAW, RAW_GROUP).await == 3 }).await;
    world.start("processor");
    parks(&mut world, RAW_DEAD_LETTERS, 2).await;
    assert_eq!(ids(&parked(&world, RAW_DEAD_LETTERS).await), BTreeSet::from(["1", "2"]));
    let qdrant = world.stack.qdrant_http_url().unwrap();
    let left = if policy == "keep" { 4 } else { 3 };
    world.until("the deletion is applied", || count(&qdrant, left)).await;
    let ids = points(&qdrant).await.iter().map(|point| point["payload"]["_id"].as_i64().unwrap()).collect();
    (world, ids)
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_insert_keeps_older_deletion_and_on_dead_letter_decides_on_older_version() {
    let (_, kept) = deleted_and_poisoned("keep").await;
    assert_eq!(kept, BTreeSet::from([0, 2, 3, 4]));
    let (mut world, removed) = deleted_and_poisoned("remove").await;
    assert_eq!(removed, BTreeSet::from([0, 3, 4]));
    // On a retry the same changes win against their own removal.
    world.terminate("processor");
    let (_endpoint, url) = Endpoint::lenient(endpoint::DIMENSION).await;
    world.detours.embedding_url = Some(url);
    world.write_settings(SETTINGS);
    world.start("processor");
    let retried = world.command(&["dead-letters", "retry", "--all", "--yes"]).output().unwrap();
    assert!(retried.status.success(), "{retried:?}");
    assert_eq!(world.equal().await.documents, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn blank_documents_are_skipped_with_setting_and_verify_reports_no_drift() {
    let (mut world, _) = with_endpoint("documents.blank = \"skip\"").await;
    let tickets = world.collection("tickets");
    tickets.insert_many((0..5).map(ticket)).await.unwrap();
    world.equal().await;
    for (id, blank) in [(1, " "), (2, "\u{200b}")] {
        tickets.replace_one(doc! {"_id": id}, doc! {"subject": blank, "content": ""}).await.unwrap();
    }
    tickets.insert_one(doc! {"_id": 10, "subject": null, "content": "\u{feff}"}).await.unwrap();
    let qdrant = world.stack.qdrant_http_url().unwrap();
    world.until("blank documents are removed", || count(&qdrant, 3)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let verified = world.command(&["verify", "--output", "json"]).output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
    assert_eq!(parked(&world, RAW_DEAD_LETTERS).await, BTreeMap::new());
    tickets
        .update_many(doc! {"_id": {"$in": [1, 2]}}, doc! {"$set": {"subject": "new", "content": "text"}})
        .await
        .unwrap();
    tickets.delete_one(doc! {"_id": 10}).await.unwrap();
    assert_eq!(world.equal().await.documents, 5);
}
