//! Templates: their filters, and documents on which they exceed their limits.

use mongodb::bson::{DateTime, Document, doc};
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

/// Text of HTML, of Markdown and of a date.
const FILTERED: &str = "{{ subject }} ({{ at | date('%-d %B %Y') }})\\n{{ html | striptags }}\\n{{ notes | markdown | truncate(20) }}\\n{{ comments | join('; ', attribute='text') }}";

#[tokio::test(flavor = "multi_thread")]
async fn filters_turn_markup_and_dates_into_text_and_hostile_markup_is_parked() {
    let mut world = World::new().await;
    world.write_settings(&format!("documents.template = \"{FILTERED}\""));
    for service in SERVICES {
        world.start(service);
    }
    snapshot_is_over(&mut world).await;
    let document = |number: i32, html: &str, notes: &str| -> Document {
        doc! {
            "_id": number, "subject": "Parcel", "at": DateTime::from_millis(1_709_283_600_000), "html": html, "notes": notes,
            "comments": [{"text": "late"}, {"text": "lost"}],
        }
    };
    let (html, notes) = (
        "<style>p { color: red }</style><h1>Late &amp; lost</h1><p>Not <b>arri</b>ved<!-- yet --></p>",
        "## Call\n\n- the [carrier](https://example.com) today",
    );
    // The notes of the second are valid, but the tree of their parser is too large.
    let documents = [document(1, html, notes), document(2, html, &"*a".repeat(2_000_000)), document(3, "", "")];
    world.collection("tickets").insert_many(documents).await.unwrap();
    let (redis, qdrant) = (world.stack.redis_url(), world.stack.qdrant_http_url().unwrap());
    world.until("all other documents are in the index", || super::clients::count(&qdrant, 2)).await;
    world.until("stage 1 is drained", || async { backlog(&redis, RAW, RAW_GROUP).await == 0 }).await;
    let points = super::clients::points(&qdrant).await;
    let text = |number: i32| {
        let point =
            points.iter().find(|point| point["payload"]["_id"] == number).expect("the document is in the index");
        point["payload"]["_tidewheel"]["text"].as_str().unwrap().to_owned()
    };
    assert_eq!(text(1), "Parcel (1 March 2024)\nLate & lost\nNot arrived\nCall\nthe carrier…\nlate; lost");
    assert_eq!(text(3), "Parcel (1 March 2024)\n\n\nlate; lost");
    let letters: Vec<(String, std::collections::HashMap<String, Vec<u8>>)> =
        redis_command(&redis, &["XRANGE", RAW_DEAD_LETTERS, "-", "+"]).await;
    let [(_, letter)] = &letters[..] else { panic!("{} dead letters", letters.len()) };
    assert_eq!(letter["id"], b"2");
    let reason = String::from_utf8_lossy(&letter["reason"]);
    assert!(reason.contains("256 MB of intermediate text"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_filter_stops_processor_at_start_and_known_ones_are_listed() {
    let mut world = World::new().await;
    world.write_settings("documents.template = \"{{ content | strip_tags }}\"");
    world.start("processor");
    world.wait(|world| world.log("processor").contains("unknown filter"), "the processor reports the filter").await;
    let log = world.log("processor");
    assert!(log.contains("strip_tags") && log.contains("striptags, sum, title, trim, truncate"), "{log}");
}
