//! Templates that exceed their limits on some documents.

use mongodb::bson::{Document, doc};
use tidewheel_stores::redis::keys::{RAW, RAW_DEAD_LETTERS, RAW_GROUP};

use super::dead_letters::snapshot_is_over;
use super::world::{SERVICES, World, backlog, redis_command, ticket};

/// Loops, repeats and indents by numbers in the document.
const TEMPLATE: &str = "{{ subject }} {% for a in range(n) %}{% for b in range(n) %}{% for c in range(n) %}{% endfor %}{% endfor %}{% endfor %}{{ 'x' * width }}{{ content | indent(depth) }}";

#[tokio::test(flavor = "multi_thread")]
async fn document_that_exhausts_template_is_parked_and_rest_is_indexed() {
    let mut world = World::new().await;
    world.write_settings(&format!("documents.template = \"{TEMPLATE}\""));
    for service in SERVICES {
        world.start(service);
    }
    snapshot_is_over(&mut world).await;
    let tickets = world.collection("tickets");
    let with = |number: i32, n: i64, width: i64, depth: i64| -> Document {
        let mut document = ticket(number);
        document.extend(doc! {"n": n, "width": width, "depth": depth, "content": "one\ntwo\nthree"});
        document
    };
    let mut documents: Vec<_> = (0..60).map(|number| with(number, 2, 3, 1)).collect();
    // 10¹² iterations; a gigabyte; a gigabyte of indentation per line; all of them.
    documents[10] = with(10, 10_000, 3, 1);
    documents[20] = with(20, 2, 1_000_000_000, 1);
    documents[30] = with(30, 2, 3, 1_000_000_000);
    documents[40] = with(40, 5_000, 1_000_000_000, 1_000_000_000);
    tickets.insert_many(documents).await.unwrap();
    let (redis, qdrant) = (world.stack.redis_url(), world.stack.qdrant_http_url().unwrap());
    world.until("all other documents are in the index", || super::clients::count(&qdrant, 56)).await;
    world.until("stage 1 is drained", || async { backlog(&redis, RAW, RAW_GROUP).await == 0 }).await;
    let letters: Vec<(String, std::collections::HashMap<String, Vec<u8>>)> =
        redis_command(&redis, &["XRANGE", RAW_DEAD_LETTERS, "-", "+"]).await;
    let text = |fields: &std::collections::HashMap<String, Vec<u8>>, name: &str| {
        String::from_utf8_lossy(&fields[name]).into_owned()
    };
    let mut parked: Vec<String> = letters.iter().map(|(_, fields)| text(fields, "id")).collect();
    parked.sort();
    assert_eq!(parked, ["10", "20", "30", "40"]);
    for (_, fields) in &letters {
        let reason = text(fields, "reason");
        assert!(reason.contains("documents.template"), "{reason}");
    }
    let peak = world.peak_megabytes("processor");
    assert!(peak < 512, "the processor took {peak} MB");
}
