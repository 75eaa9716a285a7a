//! Graceful shutdown: quick, and without pending entries.

use std::time::Duration;

use tidewheel_stores::redis::keys::{EMBEDDED, EMBEDDED_GROUP, RAW, RAW_GROUP};

use super::world::{SERVICES, World, ticket};

#[tokio::test(flavor = "multi_thread")]
async fn services_shut_down_within_ten_seconds_without_pending_entries() {
    let mut world = World::running().await;
    world.collection("tickets").insert_many((0..300).map(ticket)).await.unwrap();
    world.equal().await;
    world.collection("tickets").insert_many((1000..3000).map(ticket)).await.unwrap();
    // The embedder last, so that work in flight is completed rather than handed back.
    for service in ["producer", "processor", "upserter", "embedder"] {
        let (status, took) = world.terminate(service);
        assert!(status.success(), "{service} ended with {status}");
        assert!(took < Duration::from_secs(10), "{service} took {took:?}");
    }
    for (stream, group) in [(RAW, RAW_GROUP), (EMBEDDED, EMBEDDED_GROUP)] {
        let pending: (u64, Option<String>, Option<String>, redis::Value) =
            world.redis(&["XPENDING", stream, group]).await;
        let consumers: Vec<redis::Value> = world.redis(&["XINFO", "CONSUMERS", stream, group]).await;
        assert_eq!(pending.0, 0, "{stream} has pending entries");
        assert!(consumers.is_empty(), "{stream} still has consumers");
    }
    for service in SERVICES {
        world.start(service);
    }
    assert_eq!(world.equal().await.documents, 2300);
}

#[tokio::test(flavor = "multi_thread")]
async fn run_converges_and_shuts_down_gracefully() {
    let mut world = World::new().await;
    world.write_settings(r#"http.listen = "off""#);
    // `embedding.url` is set, so `run` does not start an embedder.
    world.start("embedder");
    world.start("run");
    world.collection("tickets").insert_many((0..300).map(ticket)).await.unwrap();
    assert_eq!(world.equal().await.documents, 300);
    let (status, took) = world.terminate("run");
    assert!(status.success() && took < Duration::from_secs(10), "{status} after {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn upserter_rejects_collection_with_another_dimension() {
    let mut world = World::new().await;
    let qdrant = world.stack.qdrant_http_url().unwrap();
    let body = serde_json::json!({"vectors": {"size": 3, "distance": "Cosine"}});
    super::clients::put(&format!("{qdrant}/collections/documents"), &body).await;
    for service in ["embedder", "producer", "processor"] {
        world.start(service);
    }
    world.collection("tickets").insert_one(ticket(1)).await.unwrap();
    let mut upserter = world.command(&["upserter"]);
    let output = tokio::task::spawn_blocking(move || upserter.output().unwrap()).await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("64") && error.contains('3') && error.contains("documents"), "{error}");
}
