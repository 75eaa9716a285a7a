//! Documents that nest as deep as MongoDB allows.

use mongodb::bson::{Bson, Document, bson, doc};
use tidewheel_core::streams::{EMBEDDED_DEAD_LETTERS, RAW_DEAD_LETTERS};

use super::dead_letters::{letters, snapshot_is_over};
use super::world::{SERVICES, World, ticket};

fn objects(levels: usize) -> Bson {
    (0..levels).fold(Bson::DateTime(mongodb::bson::DateTime::from_millis(-1)), |inner, _| bson!({"a": inner}))
}

fn arrays(levels: usize) -> Bson {
    (0..levels).fold(bson!("leaf"), |inner, _| bson!([inner]))
}

/// As rich text nests: an object with a list of objects with a list.
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
async fn deep_documents_are_indexed_and_deeper_ones_parked_without_holding_up_neighbours() {
    let mut world = World::new().await;
    let tickets = world.collection("tickets");
    // Read by the snapshot.
    let stored = [33, 64, 100, 120].into_iter().flat_map(|levels| SHAPES.map(|shape| shape(levels)));
    tickets.insert_many((0_i32..).zip(stored.clone()).map(|(number, body)| deep(number, body))).await.unwrap();
    for service in SERVICES {
        world.start(service);
    }
    assert_eq!(world.equal().await.documents, 12);
    snapshot_is_over(&mut world).await;

    // As changes, with those that Qdrant does not store among their neighbours.
    tickets.insert_many((100_i32..).zip(stored).map(|(number, body)| deep(number, body))).await.unwrap();
    let too_deep = [121, 126, 130, 150].into_iter().flat_map(|levels| SHAPES.map(|shape| shape(levels)));
    let numbers = 200..212;
    let mixed = numbers.clone().zip(too_deep).flat_map(|(number, body)| [ticket(number + 100), deep(number, body)]);
    tickets.insert_many(mixed).await.unwrap();
    // Payloads alone are written where the text stays the same.
    for number in [0, 105] {
        tickets.update_one(doc! {"_id": number}, doc! {"$set": {"seen": true}}).await.unwrap();
    }
    world.wait(|world| letters(world, &["list"]).0["matching"] == 12, "those that are too deep are parked").await;
    for (number, reason) in [(200, "121 levels"), (207, "130 levels"), (211, "150 levels")] {
        let (letter, _) = letters(&world, &["show", &number.to_string()]);
        let told = letter[0]["reason"].as_str().unwrap();
        assert!(told.contains(reason) && told.contains("\"body\"") && told.contains("at most 120"), "{told}");
    }
    assert_eq!(world.redis::<u64>(&["XLEN", RAW_DEAD_LETTERS]).await, 0, "nothing is too deep for the processor");
    assert_eq!(world.redis::<u64>(&["XLEN", EMBEDDED_DEAD_LETTERS]).await, 12);

    // What was parked goes on like any other document: it is made flat, or deleted.
    tickets.update_many(doc! {"_id": {"$gte": 200, "$lt": 206}}, doc! {"$unset": {"body": 1}}).await.unwrap();
    tickets.delete_many(doc! {"_id": {"$gte": 206, "$lt": 212}}).await.unwrap();
    assert_eq!(world.equal().await.documents, 12 + 12 + 12 + 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn field_deeper_than_qdrant_stores_does_not_matter_where_it_is_excluded() {
    let mut world = World::new().await;
    world.write_settings("documents.payload.exclude = [\"body\"]\ndocuments.template = \"{{ subject }}\"");
    for service in SERVICES {
        world.start(service);
    }
    let tickets = world.collection("tickets");
    let bodies = [126, 140, 160].into_iter().flat_map(|levels| SHAPES.map(|shape| shape(levels)));
    tickets.insert_many((0..).zip(bodies).map(|(number, body)| deep(number, body))).await.unwrap();
    let qdrant = world.stack.qdrant_http_url().unwrap();
    world.until("all are in the index", || super::clients::count(&qdrant, 9)).await;
    assert_eq!(letters(&world, &["list"]).0["matching"], 0);
}
