//! Faults of MongoDB: elections, killed cursors, and connections that break during a read.

use std::time::Duration;

use futures::TryStreamExt as _;
use mongodb::bson::{Bson, Document, doc};
use tidewheel_testkit::proxy::{Proxy, Weather};

use super::world::{SERVICES, World, ticket};

async fn admin(world: &World, command: Document) -> Document {
    world.database.client().database("admin").run_command(command).await.unwrap()
}

/// Returns the term of the replica set, which each election increments.
async fn term(world: &World) -> i64 {
    admin(world, doc! {"replSetGetStatus": 1}).await.get_i64("term").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn primary_stepdown_loses_nothing() {
    let mut world = World::running().await;
    let tickets = world.collection("tickets");
    tickets.insert_many((0..100).map(ticket)).await.unwrap();
    world.equal().await;
    let before = term(&world).await;
    for round in 1..=2 {
        admin(&world, doc! {"replSetStepDown": 1, "force": true}).await;
        // The driver waits until the node has elected itself again.
        tickets.insert_many((round * 1_000..round * 1_000 + 100).map(ticket)).await.unwrap();
        tickets.delete_many(doc! {"_id": {"$gte": 10 * round, "$lt": 10 * round + 10}}).await.unwrap();
    }
    assert!(term(&world).await >= before + 2, "elections");
    assert_eq!(world.equal().await.documents, 280);
    world.each_change_once().await;
}

/// Returns the cursors of change streams, all of which belong to the producer.
async fn stream_cursors(world: &World) -> Vec<i64> {
    let stages = [
        doc! {"$currentOp": {"idleCursors": true, "allUsers": true}},
        doc! {"$match": {"cursor.originatingCommand.pipeline.$changeStream": {"$exists": true}}},
    ];
    let operations = world.database.client().database("admin").aggregate(stages).await.unwrap();
    let operations: Vec<Document> = operations.try_collect().await.unwrap();
    let cursor = |operation: &Document| operation.get_document("cursor").ok()?.get_i64("cursorId").ok();
    operations.iter().filter_map(cursor).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_cursor_is_reopened_without_loss() {
    let mut world = World::running().await;
    let tickets = world.collection("tickets");
    tickets.insert_many((0..100).map(ticket)).await.unwrap();
    world.equal().await;
    for round in 1..=3 {
        let cursors = stream_cursors(&world).await;
        assert!(!cursors.is_empty(), "the producer reads a change stream");
        let ids: Vec<Bson> = cursors.iter().copied().map(Bson::from).collect();
        let command = doc! {"killCursors": "$cmd.aggregate", "cursors": ids};
        let answer = world.database.run_command(command).await.unwrap();
        assert_eq!(answer.get_array("cursorsKilled").unwrap().len(), cursors.len(), "{answer}");
        tickets.insert_many((round * 1_000..round * 1_000 + 50).map(ticket)).await.unwrap();
        tickets.delete_one(doc! {"_id": round}).await.unwrap();
        world.equal().await;
        assert!(stream_cursors(&world).await.iter().all(|cursor| !cursors.contains(cursor)), "a new cursor");
    }
    assert_eq!(world.equal().await.documents, 247);
    world.each_change_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_connection_during_read_loses_nothing() {
    let mut world = World::new().await;
    let proxy = Proxy::start(format!("127.0.0.1:{}", world.stack.mongod.port())).await.unwrap();
    world.detours.mongodb_uri = Some(format!("mongodb://{}/?directConnection=true", proxy.address()));
    world.write_settings("");
    for service in SERVICES {
        world.start(service);
    }
    let tickets = world.collection("tickets");
    tickets.insert_many((0..100).map(ticket)).await.unwrap();
    world.equal().await;
    for round in 1..=4 {
        let broken = proxy.broken();
        match round {
            // Between two events, and instead of a response with events.
            1 | 2 => proxy.cut(),
            _ => proxy.set(Weather::CutInsteadOfAnswer(2)),
        }
        tickets.insert_many((round * 1_000..round * 1_000 + 50).map(ticket)).await.unwrap();
        tickets.delete_one(doc! {"_id": round}).await.unwrap();
        world.equal().await;
        assert!(proxy.broken() > broken, "broken connections");
    }
    // Disconnected for longer than the driver's own retries.
    proxy.set(Weather::Refuse);
    tickets.update_many(doc! {"_id": {"$lt": 50}}, doc! {"$set": {"content": "Changed meanwhile."}}).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    proxy.set(Weather::Fair);
    assert_eq!(world.equal().await.documents, 296);
    world.each_change_once().await;
}
