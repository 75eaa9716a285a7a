//! No text is embedded twice: seen in what the services count.

use std::process::Stdio;

use mongodb::bson::doc;

use super::clients::http;
use super::dead_letters::snapshot_is_over;
use super::world::{World, free_port, ticket};

/// The sum of a counter's values, of those lines that have this label.
async fn counted(address: &str, name: &str, label: &str) -> u64 {
    let text = http().get(format!("http://{address}/metrics")).send().await.unwrap().text().await.unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_has_another_text_is_embedded() {
    let mut world = World::new().await;
    let operations = format!("127.0.0.1:{}", free_port());
    for service in ["producer", "embedder", "upserter"] {
        world.start(service);
    }
    let mut processor = world.command(&["--set", &format!("http.listen={operations}"), "processor"]);
    let mut processor = processor.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // What it and the feed have both seen may be embedded twice.
    snapshot_is_over(&mut world).await;
    let tickets = world.collection("tickets");
    tickets.insert_many((0..300).map(ticket)).await.unwrap();
    world.equal().await;
    let embedder = world.embedder.clone();
    let embedded = async || counted(&embedder, "tidewheel_embedder_texts_total", "").await;
    let saved = async || counted(&operations, "tidewheel_processor_texts_total", "origin=\"index\"").await;
    let first = embedded().await;
    assert!((250..=310).contains(&first), "{first} texts for 300 documents, some of which have the same text");
    assert_eq!(saved().await, 0);

    // The payload alone.
    tickets.update_many(doc! {}, doc! {"$set": {"owner": "grace@example.com"}}).await.unwrap();
    world.equal().await;
    assert_eq!((embedded().await, saved().await), (first, 300));
    assert!(counted(&operations, "tidewheel_processor_tokens_saved_total", "origin=\"index\"").await > 300);

    // One text.
    tickets.update_one(doc! {"_id": 7}, doc! {"$set": {"content": "It was found in the cellar."}}).await.unwrap();
    world.equal().await;
    assert_eq!(embedded().await, first + 1);

    // Without an embedder, what needs none goes on.
    world.kill("embedder");
    tickets.update_many(doc! {}, doc! {"$set": {"owner": "ada@example.com"}}).await.unwrap();
    world.equal().await;
    assert_eq!(saved().await, 600);
    processor.kill().unwrap();
    processor.wait().unwrap();
}
