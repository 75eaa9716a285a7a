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
use tidewheel_testkit::redis_proxy::{RedisProxy, Verdict};

use self::endpoint::{Endpoint, LIMIT, Outage};
use self::grpc::Proxy;
use super::clients::{count, points};
use super::dead_letters::snapshot_is_over;
use super::world::{AUDIT_LOG, World, audit_log, backlog, recorded, redis_command, ticket};

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
    let bad: Vec<String> = (0..).step_by(28).zip(endpoint::BAD).map(|(id, _): (i32, _)| id.to_string()).collect();
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
    world.until("all other documents are in the index", || count(&qdrant, 300 - bad.len() as u64)).await;
    let letters = parked(&world, RAW_DEAD_LETTERS).await;
    assert_eq!(ids(&letters), bad.iter().map(String::as_str).collect(), "{letters:?}");
    let reasons = [
        "422",
        "NaN",
        "no response",
        "vectors",
        "403",
        "no response",
        "an empty vector",
        "dimension 7 instead of 8",
        "dimension 16 instead of 8",
        "invalid type: null",
        "redirects to",
    ];
    for (id, reason) in bad.iter().zip(reasons) {
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
        (200, r#"{"data": []}"#, "returned 0 vectors"),
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
    records_that_redis_rejects("keep").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_redis_rejects_remove_older_versions_by_policy() {
    records_that_redis_rejects("remove").await;
}

async fn records_that_redis_rejects(policy: &str) {
    let mut world = World::new().await;
    let (_endpoint, url) = Endpoint::lenient(4_096).await;
    world.detours.embedding_url = Some(url);
    let documents = "documents.chunk_tokens = 50\ndocuments.chunk_overlap = 0";
    world.write_settings(&format!("{SETTINGS}{documents}\ndocuments.on_dead_letter = \"{policy}\""));
    world.redis::<()>(&["CONFIG", "SET", "proto-max-bulk-len", "1048576"]).await;
    let tickets = world.collection("tickets");
    tickets.insert_many((0..10).map(ticket)).await.unwrap();
    for service in SERVICES {
        world.start(service);
    }
    snapshot_is_over(&mut world).await;
    assert_eq!(world.equal().await.documents, 10);
    let mut documents: Vec<_> = (10..20).map(ticket).collect();
    // Each chunk has a vector of 16 KiB.
    let long = |chunks: usize| "word ".repeat(chunks * 50);
    documents[8].insert("content", long(90));
    tickets.update_one(doc! {"_id": 3}, doc! {"$set": {"content": long(70)}}).await.unwrap();
    tickets.insert_many(documents).await.unwrap();
    tickets.update_one(doc! {"_id": 9}, doc! {"$set": {"content": long(66)}}).await.unwrap();
    parks(&mut world, RAW_DEAD_LETTERS, 3).await;
    let letters = parked(&world, RAW_DEAD_LETTERS).await;
    assert_eq!(ids(&letters), BTreeSet::from(["3", "18", "9"]), "{letters:?}");
    let qdrant = world.stack.qdrant_http_url().unwrap();
    let gone: &[i64] = if policy == "keep" { &[18] } else { &[3, 9, 18] };
    let expected: BTreeSet<i64> = (0..20).filter(|id| !gone.contains(id)).collect();
    let indexed = || async {
        let points = points(&qdrant).await;
        points.iter().map(|point| point["payload"]["_id"].as_i64().unwrap()).collect::<BTreeSet<_>>() == expected
    };
    world.until("the others, and older versions by policy", indexed).await;
    let short = doc! {"$set": {"content": "short"}};
    tickets.update_many(doc! {"_id": {"$in": [3, 9, 18]}}, short).await.unwrap();
    assert_eq!(world.equal().await.documents, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn single_text_with_empty_or_odd_vector_is_parked_and_processor_continues() {
    let (mut world, _endpoint) = with_endpoint("").await;
    let tickets = world.collection("tickets");
    for (id, mark) in (0..).zip(["EMPTY", "SHORTER", "LONGER", "REDIRECTED"]) {
        // Alone in its request.
        let mut document = ticket(id);
        document.insert("content", mark);
        tickets.insert_one(document).await.unwrap();
        parks(&mut world, RAW_DEAD_LETTERS, id as u64 + 1).await;
        tickets.insert_one(ticket(100 + id)).await.unwrap();
        let qdrant = world.stack.qdrant_http_url().unwrap();
        world.until("a later document is in the index", || count(&qdrant, id as u64 + 1)).await;
    }
    tickets.update_many(doc! {"_id": {"$lt": 100}}, doc! {"$set": {"content": "fine"}}).await.unwrap();
    assert_eq!(world.equal().await.documents, 8);
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
    recorded(&audit_log(world.command(&AUDIT_LOG)), "dead-letters retry", "2: ");
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

/// Rejects a value above 300 KB, a command above 2 MB and two texts, each in another way.
fn gateway(arguments: &[Vec<u8>]) -> Verdict {
    let has = |text: &[u8]| arguments.iter().any(|value| value.windows(text.len()).any(|part| part == text));
    let sizes = || arguments.iter().map(Vec::len);
    if sizes().any(|bytes| bytes > 300_000) || sizes().sum::<usize>() > 2_000_000 || has(b"closes the connection") {
        Verdict::Close
    } else if has(b"exceeds a quota") {
        Verdict::Error("ERR value too large".into())
    } else {
        Verdict::Pass
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_a_redis_gateway_rejects_are_parked_and_rest_is_indexed() {
    let mut world = World::new().await;
    let server = world.stack.redis_url().trim_start_matches("redis://").trim_end_matches('/').to_owned();
    let proxy = RedisProxy::start(server, gateway).await.unwrap();
    world.detours.redis_url = Some(proxy.url());
    world.write_settings("");
    let tickets = world.collection("tickets");
    let with = |number: i32, field: &str, text: String| {
        let mut document = ticket(number);
        document.insert(field, text);
        document
    };
    // Some for the snapshot, others for the feed. All small ones together exceed the limit of a command.
    let rejected = [
        with(1, "attachment", "x".repeat(400_000)),
        with(2, "content", "It exceeds a quota.".to_owned()),
        with(103, "content", "It closes the connection.".to_owned()),
        with(104, "attachment", "x".repeat(350_000)),
        with(105, "content", "It exceeds a quota, too.".to_owned()),
    ];
    tickets.insert_many([ticket(0), rejected[0].clone(), rejected[1].clone(), ticket(3)]).await.unwrap();
    for service in super::world::SERVICES {
        world.start(service);
    }
    let qdrant = world.stack.qdrant_http_url().unwrap();
    world.until("the neighbours in the snapshot", || count(&qdrant, 2)).await;
    let small = (10..100).map(|number| with(number, "attachment", "y".repeat(40_000)));
    tickets.insert_many(small.chain(rejected[2..].iter().cloned()).chain([ticket(106)])).await.unwrap();
    world.until("the neighbours in the feed", || count(&qdrant, 2 + 90 + 1)).await;
    parks(&mut world, RAW_DEAD_LETTERS, 5).await;
    let letters = parked(&world, RAW_DEAD_LETTERS).await;
    assert_eq!(ids(&letters), BTreeSet::from(["1", "2", "103", "104", "105"]), "{letters:#?}");
    assert!(letters.values().all(|reason| reason.contains("Redis rejects the change")), "{letters:#?}");
    world.each_change_once().await;
    tickets.delete_many(doc! {"_id": {"$in": [1, 2, 103, 104, 105]}}).await.unwrap();
    assert_eq!(world.equal().await.documents, 2 + 90 + 1);
}
