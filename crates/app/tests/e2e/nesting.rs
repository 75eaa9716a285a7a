//! Documents up to MongoDB's nesting limit.

use mongodb::bson::{Bson, Document, bson, doc};
use tidewheel_stores::redis::keys::{EMBEDDED_DEAD_LETTERS, RAW_DEAD_LETTERS};

use super::dead_letters::{letters, snapshot_is_over};
use super::world::{SERVICES, World, ticket};

fn objects(levels: usize) -> Bson {
    (0..levels).fold(Bson::DateTime(mongodb::bson::DateTime::from_millis(-1)), |inner, _| bson!({"a": inner}))
}

fn arrays(levels: usize) -> Bson {
    (0..levels).fold(bson!("leaf"), |inner, _| bson!([inner]))
}

/// Nested as rich text: an object with a list of objects with a list.
fn mixed(levels: usize) -> Bson {
    (0..levels).fold(bson!(1), |inner, level| if level % 2 == 0 { bson!({"content": inner}) } else { bson!([inner]) })
}

const SHAPES: [fn(usize) -> Bson; 3] = [objects, arrays, mixed];

fn deep(number: i32, body: Bson) -> Document {
    let mut document = ticket(number);
    document.insert("body", body);
    document
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_beyond_nesting_limit_are_parked_without_blocking_others() {
    let mut world = World::new().await;
    let tickets = world.collection("tickets");
    // In the snapshot.
    let stored = [33, 64, 100, 120].into_iter().flat_map(|levels| SHAPES.map(|shape| shape(levels)));
    tickets.insert_many((0_i32..).zip(stored.clone()).map(|(number, body)| deep(number, body))).await.unwrap();
    for service in SERVICES {
        world.start(service);
    }
    assert_eq!(world.equal().await.documents, 12);
    snapshot_is_over(&mut world).await;

    // As changes, mixed with documents that exceed Qdrant's limit.
    tickets.insert_many((100_i32..).zip(stored).map(|(number, body)| deep(number, body))).await.unwrap();
    let too_deep = [121, 126, 130, 150].into_iter().flat_map(|levels| SHAPES.map(|shape| shape(levels)));
    let numbers = 200..212;
    let mixed = numbers.clone().zip(too_deep).flat_map(|(number, body)| [ticket(number + 100), deep(number, body)]);
    tickets.insert_many(mixed).await.unwrap();
    // If the text is unchanged, only payloads are written.
    for number in [0, 105] {
        tickets.update_one(doc! {"_id": number}, doc! {"$set": {"seen": true}}).await.unwrap();
    }
    world.wait(|world| letters(world, &["list"]).0["matching"] == 12, "documents beyond the limit are parked").await;
    for (number, reason) in [(200, "121 levels"), (207, "130 levels"), (211, "150 levels")] {
        let (letter, _) = letters(&world, &["show", &number.to_string()]);
        let text = letter[0]["reason"].as_str().unwrap();
        assert!(text.contains(reason) && text.contains("\"body\"") && text.contains("at most 120"), "{text}");
    }
    assert_eq!(world.redis::<u64>(&["XLEN", RAW_DEAD_LETTERS]).await, 0, "the processor has no nesting limit");
    assert_eq!(world.redis::<u64>(&["XLEN", EMBEDDED_DEAD_LETTERS]).await, 12);

    // Parked documents can be flattened or deleted.
    tickets.update_many(doc! {"_id": {"$gte": 200, "$lt": 206}}, doc! {"$unset": {"body": 1}}).await.unwrap();
    tickets.delete_many(doc! {"_id": {"$gte": 206, "$lt": 212}}).await.unwrap();
    assert_eq!(world.equal().await.documents, 12 + 12 + 12 + 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn excluded_field_may_exceed_nesting_limit() {
    let mut world = World::new().await;
    world.write_settings("documents.payload.exclude = [\"body\"]\ndocuments.template = \"{{ subject }}\"");
    for service in SERVICES {
        world.start(service);
    }
    let tickets = world.collection("tickets");
    let bodies = [126, 140, 160].into_iter().flat_map(|levels| SHAPES.map(|shape| shape(levels)));
    tickets.insert_many((0..).zip(bodies).map(|(number, body)| deep(number, body))).await.unwrap();
    let qdrant = world.stack.qdrant_http_url().unwrap();
    world.until("all documents are in the index", || super::clients::count(&qdrant, 9)).await;
    assert_eq!(letters(&world, &["list"]).0["matching"], 0);
}
