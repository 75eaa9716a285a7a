//! No text is embedded twice, according to the services' metrics.

use std::process::Stdio;

use mongodb::bson::doc;

use super::clients::http;
use super::dead_letters::snapshot_is_over;
use super::world::{World, free_port, ticket};

/// Returns the sum of a counter's series with this label.
async fn counted(address: &str, name: &str, label: &str) -> u64 {
    let text = http().get(format!("http://{address}/metrics")).send().await.unwrap().text().await.unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_changed_texts_are_embedded() {
    let mut world = World::new().await;
    let operations = format!("127.0.0.1:{}", free_port());
    for service in ["producer", "embedder", "upserter"] {
        world.start(service);
    }
    let mut processor = world.command(&["--set", &format!("http.listen={operations}"), "processor"]);
    let mut processor = processor.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Documents in both the snapshot and the change stream may be embedded twice.
    snapshot_is_over(&mut world).await;
    let tickets = world.collection("tickets");
    tickets.insert_many((0..300).map(ticket)).await.unwrap();
    world.equal().await;
    let embedder = world.embedder.clone();
    let embedded = async || counted(&embedder, "tidewheel_embedder_texts_total", "").await;
    let saved = async || counted(&operations, "tidewheel_processor_texts_total", "origin=\"index\"").await;
    let first = embedded().await;
    assert!((250..=310).contains(&first), "{first} texts for 300 documents, some with equal text");
    assert_eq!(saved().await, 0);

    // Only the payload changes.
    tickets.update_many(doc! {}, doc! {"$set": {"owner": "grace@example.com"}}).await.unwrap();
    world.equal().await;
    assert_eq!((embedded().await, saved().await), (first, 300));
    assert!(counted(&operations, "tidewheel_processor_tokens_saved_total", "origin=\"index\"").await > 300);

    // One text changes.
    tickets.update_one(doc! {"_id": 7}, doc! {"$set": {"content": "It was found in the cellar."}}).await.unwrap();
    world.equal().await;
    assert_eq!(embedded().await, first + 1);

    // Changes without new texts continue without an embedder.
    world.kill("embedder");
    tickets.update_many(doc! {}, doc! {"$set": {"owner": "ada@example.com"}}).await.unwrap();
    world.equal().await;
    assert_eq!(saved().await, 600);
    processor.kill().unwrap();
    processor.wait().unwrap();
}
