//! Standard clients against the running pipeline: plain HTTP, redis-cli's commands, Python's qdrant-client.

use std::collections::HashMap;
use std::process::Command;

use serde_json::{Value, json};
use tidewheel_stores::redis::keys::{EMBEDDED, EMBEDDED_GROUP, RAW, RAW_GROUP};

use super::world::{World, repository, ticket};

/// Returns a plain HTTP client.
pub fn http() -> reqwest::Client {
    // Fails after the first call.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

async fn get(url: &str) -> Value {
    let text = http().get(url).send().await.unwrap().error_for_status().unwrap().text().await.unwrap();
    serde_json::from_str(&text).unwrap()
}

fn with_body(request: reqwest::RequestBuilder, body: &Value) -> reqwest::RequestBuilder {
    request.header("content-type", "application/json").body(body.to_string())
}

async fn post(url: &str, body: &Value) -> Value {
    let response = with_body(http().post(url), body).send().await.unwrap();
    let text = response.error_for_status().unwrap().text().await.unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Sends a PUT that must succeed.
pub async fn put(url: &str, body: &Value) {
    with_body(http().put(url), body).send().await.unwrap().error_for_status().unwrap();
}

/// Whether the collection has this many points.
pub async fn count(qdrant: &str, points: u64) -> bool {
    let url = format!("{qdrant}/collections/documents/points/count");
    let Ok(response) = with_body(http().post(url), &json!({"exact": true})).send().await else { return false };
    let body: Value = serde_json::from_str(&response.text().await.unwrap_or_default()).unwrap_or_default();
    body["result"]["count"] == points
}

/// Returns all points of a small collection, with payloads.
pub async fn points(qdrant: &str) -> Vec<Value> {
    let body = json!({"limit": 10_000, "with_payload": true, "with_vector": true});
    let answer = post(&format!("{qdrant}/collections/documents/points/scroll"), &body).await;
    answer["result"]["points"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn embedder_endpoints_follow_contract() {
    let mut world = World::new().await;
    world.start("embedder");
    let base = format!("http://{}", world.embedder);
    let ready = format!("{base}/ready");
    world
        .until("the embedder is ready", || async {
            http().get(&ready).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    let one = post(&format!("{base}/encode"), &json!({"text": "hello"})).await;
    let many = post(&format!("{base}/encode_batch"), &json!({"texts": ["hello", "world"]})).await;
    assert_eq!(one["embedding"].as_array().unwrap().len(), 64);
    assert_eq!(many["embeddings"][0], one["embedding"]);
    assert_ne!(many["embeddings"][1], one["embedding"]);
    let openai = post(&format!("{base}/v1/embeddings"), &json!({"input": "hello", "model": "hash:64"})).await;
    assert_eq!(openai["data"][0]["embedding"], one["embedding"]);
    assert_eq!(get(&format!("{base}/info")).await["dimension"], 64);
    assert!(http().get(format!("{base}/health")).send().await.unwrap().status().is_success());
    assert!(
        http()
            .get(format!("{base}/metrics"))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
            .contains("tidewheel_embedder")
    );
    let bad = http().post(format!("{base}/encode")).header("content-type", "application/json").body("{\"txt\":1}");
    let bad = bad.send().await.unwrap();
    assert_eq!(bad.status().as_u16(), 400);
    assert!(bad.text().await.unwrap().contains("txt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_commands_follow_a_document_through_both_streams() {
    let mut world = World::running().await;
    // The snapshot may read the first document; the second one is a change.
    world.collection("tickets").insert_one(ticket(1)).await.unwrap();
    world.equal().await;
    let mut before = HashMap::new();
    for stream in [RAW, EMBEDDED] {
        before.insert(stream, world.redis::<u64>(&["XLEN", stream]).await);
    }
    world.collection("tickets").insert_one(ticket(7)).await.unwrap();
    world.equal().await;
    for (stream, group) in [(RAW, RAW_GROUP), (EMBEDDED, EMBEDDED_GROUP)] {
        assert_eq!(world.redis::<u64>(&["XLEN", stream]).await, before[stream] + 1);
        let entries: Vec<(String, HashMap<String, Vec<u8>>)> =
            world.redis(&["XREVRANGE", stream, "+", "-", "COUNT", "1"]).await;
        let fields = &entries[0].1;
        let text = |field: &str| String::from_utf8(fields[field].clone()).unwrap();
        assert_eq!((text("id").as_str(), text("operation").as_str()), ("7", "insert"));
        assert_eq!(text("namespace"), "shop.tickets");
        let document: Value = serde_json::from_str(&text("document")).unwrap();
        assert_eq!(document["subject"], "Ticket 7");
        assert_eq!(document["date"]["$date"], "2023-11-14T22:13:20.007Z");
        assert_eq!(fields.contains_key("vectors"), stream == EMBEDDED);
        if stream == EMBEDDED {
            assert_eq!(fields["vectors"].len(), 64 * 4);
        }
        let groups: Vec<HashMap<String, redis::Value>> = world.redis(&["XINFO", "GROUPS", stream]).await;
        assert_eq!(groups[0]["name"], redis::Value::BulkString(group.into()));
        let url = world.stack.redis_url();
        world.until("no pending entries", || async { super::world::backlog(&url, stream, group).await == 0 }).await;
        let pending: (u64, Option<String>, Option<String>, redis::Value) =
            world.redis(&["XPENDING", stream, group]).await;
        assert_eq!(pending.0, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_client_reads_index_over_rest_and_grpc() {
    let mut world = World::running().await;
    world.collection("tickets").insert_many((0..20).map(ticket)).await.unwrap();
    world.equal().await;
    let qdrant = world.stack.qdrant_http_url().unwrap();
    let collection = get(&format!("{qdrant}/collections/documents")).await;
    assert_eq!(collection["result"]["points_count"], 20);
    assert_eq!(collection["result"]["config"]["params"]["vectors"]["size"], 64);
    assert!(count(&qdrant, 20).await);
    let vector = points(&qdrant).await[0]["vector"].clone();
    let body = json!({"vector": vector, "limit": 3, "with_payload": true});
    let hits = post(&format!("{qdrant}/collections/documents/points/search"), &body).await;
    assert_eq!(hits["result"].as_array().unwrap().len(), 3);
    assert!(hits["result"][0]["score"].as_f64().unwrap() > 0.99);

    let grpc = world.stack.qdrant_grpc_url().unwrap();
    let (rest_port, grpc_port) = (port(&qdrant), port(&grpc));
    let script = repository("crates/app/tests/e2e/read_with_python.py");
    let output = tokio::task::spawn_blocking(move || {
        Command::new(python()).arg(script).args([rest_port, grpc_port]).output().unwrap()
    });
    let output = output.await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert_eq!(out.trim(), "rest: 20 points\ngrpc: 20 points");
}

fn port(url: &str) -> String {
    url.rsplit(':').next().unwrap().trim_end_matches('/').to_owned()
}

/// Returns a Python with Qdrant's own client, created once in the cache directory.
pub fn python() -> std::path::PathBuf {
    let cache = tidewheel_local::provision::default_cache().unwrap();
    let environment = cache.join("test-python-qdrant-client-1");
    let python = environment.join("bin/python");
    let finished = environment.join("finished");
    if !finished.exists() {
        let run = |program: &std::path::Path, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        run("python3".as_ref(), &["-m", "venv", environment.to_str().unwrap()]);
        run(&python, &["-m", "pip", "install", "--quiet", "qdrant-client==1.15.1"]);
        std::fs::write(finished, "").unwrap();
    }
    python
}
