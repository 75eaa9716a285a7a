//! A snapshot of many documents with kills and concurrent writes.

use std::collections::HashMap;

use mongodb::Collection;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Document, doc, oid::ObjectId};
use tidewheel_stores::redis::keys::CHECKPOINT;

use super::world::{SERVICES, World, ticket};

const DOCUMENTS: i32 = 20_000;

/// Returns `_id`s of eight BSON types, in turn.
fn id(number: i32) -> Bson {
    let bytes = number.to_be_bytes();
    match number % 8 {
        0 => number.into(),
        1 => format!("ticket-{number}").into(),
        2 => ObjectId::from_bytes([[7; 8].as_slice(), &bytes].concat().try_into().unwrap()).into(),
        3 => (f64::from(number) + 0.5).into(),
        4 => DateTime::from_millis(1_600_000_000_000 + i64::from(number)).into(),
        5 => doc! {"tenant": number % 3, "number": number}.into(),
        6 => Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() }),
        _ => ((1_i64 << 40) + i64::from(number)).into(),
    }
}

fn document(number: i32) -> Document {
    let mut document = ticket(number);
    document.insert("_id", id(number));
    document
}

/// Performs every operation across the whole collection, on both sides of the scan's position.
async fn disturb(things: &Collection<Document>, round: i32) {
    for number in (round..DOCUMENTS).step_by(400) {
        let change = doc! {"$set": {"content": format!("Changed in round {round}.")}};
        things.update_one(doc! {"_id": id(number)}, change).await.unwrap();
        things.delete_one(doc! {"_id": id(number + 100)}).await.unwrap();
    }
    things.insert_many((0..80).map(|i| document(DOCUMENTS + round * 100 + i))).await.unwrap();
}

/// Returns the snapshot's state and the number of rows that it has read.
async fn progress(world: &World) -> (String, u64) {
    let checkpoint: HashMap<String, String> = world.redis(&["HGETALL", CHECKPOINT]).await;
    let rows = checkpoint.get("snapshot_rows").and_then(|rows| rows.parse().ok());
    (checkpoint.get("snapshot").cloned().unwrap_or_default(), rows.unwrap_or(0))
}

/// Waits until the snapshot has read more rows than this, then kills the producer; returns the number of rows read.
async fn kill_in_the_middle(world: &mut World, beyond: u64) -> u64 {
    loop {
        let (state, rows) = progress(world).await;
        assert_ne!(state, "done", "the snapshot completed before the producer was killed");
        if rows > beyond {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    world.kill("producer");
    let (state, rows) = progress(world).await;
    assert_eq!(state, "running");
    assert!(rows > beyond && rows < DOCUMENTS as u64, "{rows} rows were read");
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_resumes_after_kills_under_writes() {
    let mut world = World::new().await;
    // Backpressure pauses the snapshot, so that it can be killed midway.
    world.write_settings("producer.high_water = 2000");
    let things = world.collection("things");
    for first in (0..DOCUMENTS).step_by(2_000) {
        things.insert_many((first..first + 2_000).map(document)).await.unwrap();
    }
    world.start("producer");
    let first = kill_in_the_middle(&mut world, 0).await;
    disturb(&things, 1).await;
    for service in SERVICES {
        world.start(service);
    }
    disturb(&things, 2).await;
    let second = kill_in_the_middle(&mut world, first + 2_000).await;
    disturb(&things, 3).await;
    world.start("producer");
    disturb(&things, 4).await;
    // Each round deletes 50 documents of the initial set and inserts 80.
    assert_eq!(world.equal().await.documents, (DOCUMENTS + 4 * (80 - 50)) as u64);
    let (state, rows) = progress(&world).await;
    assert_eq!(state, "done");
    assert!(rows > second, "the snapshot resumed");
    let read = world.log("producer").matches("reading snapshot").count();
    assert_eq!(read, 3, "once per producer");
}
