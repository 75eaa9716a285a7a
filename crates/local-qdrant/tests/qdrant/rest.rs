//! REST: Qdrant's paths, JSON and status codes.

use serde_json::{Value, json};

use super::server::{Rest, TestServer};

async fn with_docs(rest: &Rest) {
    let created = rest.put("/collections/docs", json!({"vectors": {"size": 4, "distance": "Cosine"}})).await;
    assert_eq!(created, json!(true));
    let points = json!({"points": [
        {"id": 1, "vector": [1.0, 0.0, 0.0, 0.0], "payload": {"city": "Berlin", "n": 1}},
        {"id": 2, "vector": [0.0, 1.0, 0.0, 0.0], "payload": {"city": "London", "n": 2}},
        {"id": "5c56c793-69f3-4fbf-87e6-c4bf54c28c26", "vector": [0.0, 0.0, 3.0, 4.0]},
    ]});
    let outcome = rest.put("/collections/docs/points?wait=true", points).await;
    assert_eq!(outcome["status"], "completed");
    assert!(outcome["operation_id"].is_u64());
}

#[tokio::test]
async fn root_and_health_endpoints_respond() {
    let server = TestServer::start().await;
    let rest = server.rest();
    let (status, answer) = rest.call("GET", "/", None).await;
    assert_eq!(status, 200);
    assert!(answer["title"].as_str().unwrap().starts_with("qdrant"), "{answer}");
    assert_eq!(answer["version"].as_str().unwrap().split('.').count(), 3);
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(rest.call("GET", path, None).await.0, 200, "{path}");
    }
    let (status, answer) = rest.call("GET", "/nothing", None).await;
    assert_eq!(status, 404);
    assert!(answer["status"]["error"].is_string());
}

#[tokio::test]
async fn collections_match_qdrants_json() {
    let server = TestServer::start().await;
    let rest = server.rest();
    with_docs(&rest).await;
    assert_eq!(rest.get("/collections").await, json!({"collections": [{"name": "docs"}]}));
    assert_eq!(rest.get("/collections/docs/exists").await, json!({"exists": true}));
    assert_eq!(rest.get("/collections/nope/exists").await, json!({"exists": false}));
    let index = json!({"field_name": "city", "field_schema": "keyword"});
    rest.put("/collections/docs/index?wait=true", index).await;
    let text = json!({"field_name": "text", "field_schema": {"type": "text", "tokenizer": "word"}});
    rest.put("/collections/docs/index?wait=true", text).await;

    let info = rest.get("/collections/docs").await;
    assert_eq!(info["status"], "green");
    assert_eq!(info["optimizer_status"], "ok");
    assert_eq!(info["points_count"], 3);
    assert!(info["indexed_vectors_count"].is_u64() && info["segments_count"].is_u64());
    assert_eq!(info["config"]["params"]["vectors"], json!({"size": 4, "distance": "Cosine"}));
    assert_eq!(info["config"]["hnsw_config"]["m"], 16);
    assert_eq!(info["payload_schema"]["city"], json!({"data_type": "keyword", "points": 2}));
    assert_eq!(info["payload_schema"]["text"]["params"]["tokenizer"], "word");
    rest.ok("DELETE", "/collections/docs/index/text?wait=true", None).await;
    assert!(rest.get("/collections/docs").await["payload_schema"]["text"].is_null());

    let patch = json!({"optimizers_config": {"indexing_threshold": 0}});
    rest.ok("PATCH", "/collections/docs", Some(patch)).await;
    assert_eq!(rest.get("/collections/docs").await["config"]["optimizer_config"]["indexing_threshold"], 0);

    let (status, answer) =
        rest.call("PUT", "/collections/docs", Some(json!({"vectors": {"size": 4, "distance": "Dot"}}))).await;
    assert_eq!(status, 409);
    assert_eq!(answer["status"]["error"], "Wrong input: Collection `docs` already exists!");
    assert_eq!(rest.ok("DELETE", "/collections/docs", None).await, json!(true));
    let (status, answer) = rest.call("GET", "/collections/docs", None).await;
    assert_eq!(status, 404);
    assert_eq!(answer["status"]["error"], "Not found: Collection `docs` doesn't exist!");
}

#[tokio::test]
async fn points_match_qdrants_json() {
    let server = TestServer::start().await;
    let rest = server.rest();
    with_docs(&rest).await;
    let one = rest.get("/collections/docs/points/1").await;
    assert_eq!(one, json!({"id": 1, "payload": {"city": "Berlin", "n": 1}, "vector": [1.0, 0.0, 0.0, 0.0]}));
    let (status, answer) = rest.call("GET", "/collections/docs/points/99", None).await;
    assert_eq!(status, 404);
    assert_eq!(answer["status"]["error"], "Not found: Point with id 99 does not exists!");

    let body =
        json!({"ids": [2, "5c56c793-69f3-4fbf-87e6-c4bf54c28c26"], "with_payload": ["city"], "with_vector": false});
    let retrieved = rest.post("/collections/docs/points", body).await;
    assert_eq!(retrieved[0], json!({"id": 2, "payload": {"city": "London"}}));
    assert_eq!(retrieved[1]["id"], "5c56c793-69f3-4fbf-87e6-c4bf54c28c26");

    let page = rest.post("/collections/docs/points/scroll", json!({"limit": 2, "with_payload": false})).await;
    assert_eq!(page["points"], json!([{"id": 1}, {"id": 2}]));
    assert_eq!(page["next_page_offset"], "5c56c793-69f3-4fbf-87e6-c4bf54c28c26");
    let rest_of_it = json!({"limit": 2, "offset": page["next_page_offset"]});
    let page = rest.post("/collections/docs/points/scroll", rest_of_it).await;
    assert_eq!(page["next_page_offset"], Value::Null);

    let berlin = json!({"must": [{"key": "city", "match": {"value": "Berlin"}}]});
    let count = rest.post("/collections/docs/points/count", json!({"filter": berlin, "exact": true})).await;
    assert_eq!(count, json!({"count": 1}));

    let search = json!({"vector": [0.0, 0.0, 0.6, 0.8], "limit": 1, "with_vector": true});
    let found = rest.post("/collections/docs/points/search", search).await;
    assert_eq!(found[0]["id"], "5c56c793-69f3-4fbf-87e6-c4bf54c28c26");
    assert!((found[0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-5);
    assert!((found[0]["vector"][3].as_f64().unwrap() - 0.8).abs() < 1e-5);

    for query in [json!([1.0, 0.1, 0.0, 0.0]), json!({"nearest": [1.0, 0.1, 0.0, 0.0]})] {
        let body = json!({"query": query, "limit": 1, "with_payload": true});
        let found = rest.post("/collections/docs/points/query", body).await;
        assert_eq!(found["points"][0]["payload"]["city"], "Berlin");
    }
    let by_id = rest.post("/collections/docs/points/query", json!({"query": 1, "limit": 5})).await;
    assert!(by_id["points"].as_array().unwrap().iter().all(|point| point["id"] != 1));
    let batch = json!({"searches": [{"query": 1, "limit": 1}, {"query": 2, "limit": 2}]});
    let answers = rest.post("/collections/docs/points/query/batch", batch).await;
    assert_eq!(answers[1]["points"].as_array().unwrap().len(), 2);
    let fused = json!({"prefetch": [{"query": [1, 0, 0, 0]}, {"query": [1, 0.1, 0, 0]}], "query": {"fusion": "rrf"}});
    let fused = rest.post("/collections/docs/points/query", fused).await;
    assert_eq!(fused["points"][0]["id"], 1);
}

#[tokio::test]
async fn points_change_over_rest() {
    let server = TestServer::start().await;
    let rest = server.rest();
    with_docs(&rest).await;
    let payload = async |id: u64| rest.get(&format!("/collections/docs/points/{id}")).await["payload"].clone();
    rest.post("/collections/docs/points/payload?wait=true", json!({"payload": {"a": 1}, "points": [1]})).await;
    assert_eq!(payload(1).await, json!({"city": "Berlin", "n": 1, "a": 1}));
    let filter = json!({"must": [{"key": "n", "range": {"gte": 2}}]});
    rest.put("/collections/docs/points/payload?wait=true", json!({"payload": {"b": 2}, "filter": filter})).await;
    assert_eq!(payload(2).await, json!({"b": 2}));
    rest.post("/collections/docs/points/payload/delete?wait=true", json!({"keys": ["n"], "points": [1]})).await;
    assert_eq!(payload(1).await, json!({"city": "Berlin", "a": 1}));
    rest.post("/collections/docs/points/payload/clear?wait=true", json!({"points": [2]})).await;
    assert_eq!(payload(2).await, json!({}));

    let batch =
        json!({"batch": {"ids": [7, 8], "vectors": [[1, 2, 3, 4], [4, 3, 2, 1]], "payloads": [{"n": 7}, null]}});
    rest.put("/collections/docs/points?wait=true", batch).await;
    assert_eq!(payload(7).await, json!({"n": 7}));
    let conditional = json!({
        "points": [{"id": 7, "vector": [1, 1, 1, 1], "payload": {"n": 1}}, {"id": 9, "vector": [1, 1, 1, 1]}],
        "update_filter": {"must": [{"key": "n", "range": {"lt": 5}}]},
    });
    rest.put("/collections/docs/points?wait=true", conditional).await;
    assert_eq!(payload(7).await, json!({"n": 7}), "not replaced: the condition does not match");
    assert_eq!(rest.post("/collections/docs/points/count", json!({})).await, json!({"count": 6}));

    let operations = json!({"operations": [
        {"upsert": {"points": [{"id": 20, "vector": [1, 0, 0, 1], "payload": {"x": 1}}]}},
        {"set_payload": {"payload": {"y": 2}, "points": [20]}},
        {"delete": {"points": [7, 8]}},
    ]});
    let outcomes = rest.post("/collections/docs/points/batch?wait=true", operations).await;
    assert_eq!(outcomes.as_array().unwrap().len(), 3);
    assert_eq!(payload(20).await, json!({"x": 1, "y": 2}));
    let filter = json!({"must": [{"has_id": [20]}]});
    rest.post("/collections/docs/points/delete?wait=true", json!({"filter": filter})).await;
    assert_eq!(rest.post("/collections/docs/points/count", json!({})).await, json!({"count": 4}));
}

#[tokio::test]
async fn errors_match_qdrants_status_and_message() {
    let server = TestServer::start().await;
    let rest = server.rest();
    with_docs(&rest).await;
    let short = json!({"points": [{"id": 1, "vector": [1.0, 2.0, 3.0]}]});
    let errors = [
        (
            "PUT",
            "/collections/docs/points?wait=true",
            short.clone(),
            400,
            "Wrong input: Vector dimension error: expected dim: 4, got 3",
        ),
        ("PUT", "/collections/docs/points", short, 400, "Wrong input: Vector dimension error: expected dim: 4, got 3"),
        ("POST", "/collections/nope/points/scroll", json!({}), 404, "Not found: Collection `nope` doesn't exist!"),
        (
            "POST",
            "/collections/docs/points/search",
            json!({"limit": 1}),
            400,
            "Format error in JSON body: missing field `vector`",
        ),
        ("POST", "/collections/docs/points/delete", json!({}), 400, "Wrong input: No filter or points provided"),
        (
            "PUT",
            "/collections/other",
            json!({"vectors": {"size": 0, "distance": "Cosine"}}),
            400,
            "Wrong input: Vector size must be",
        ),
        (
            "PUT",
            "/collections/other",
            json!({"sparse_vectors": {"w": {}}}),
            501,
            "unsupported by tidewheel's local Qdrant: sparse vectors",
        ),
    ];
    for (method, path, body, status, message) in errors {
        let (got, answer) = rest.call(method, path, Some(body)).await;
        assert_eq!(got, status, "{method} {path}: {answer}");
        let error = answer["status"]["error"].as_str().unwrap();
        assert!(error.starts_with(message), "{error:?} should start with {message:?}");
        assert!(answer["time"].is_number());
    }
}

#[tokio::test]
async fn aliases_change_over_rest() {
    let server = TestServer::start().await;
    let rest = server.rest();
    with_docs(&rest).await;
    let create = json!({"actions": [{"create_alias": {"collection_name": "docs", "alias_name": "live"}}]});
    rest.post("/collections/aliases", create).await;
    let listed = json!({"aliases": [{"alias_name": "live", "collection_name": "docs"}]});
    assert_eq!(rest.get("/aliases").await, listed);
    assert_eq!(rest.get("/collections/docs/aliases").await, listed);
    assert_eq!(rest.post("/collections/live/points/count", json!({})).await, json!({"count": 3}));
    let rename = json!({"actions": [{"rename_alias": {"old_alias_name": "live", "new_alias_name": "now"}}]});
    rest.post("/collections/aliases", rename).await;
    assert_eq!(rest.get("/aliases").await["aliases"][0]["alias_name"], "now");
}
