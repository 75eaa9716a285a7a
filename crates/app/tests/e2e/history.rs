//! Unusable resume tokens: lost history, a changed selection, dropped collections and databases.

use mongodb::bson::{Document, doc};
use tidewheel_stores::redis::keys::CHECKPOINT;

use super::world::{SERVICES, World, ticket};

/// ChangeStreamHistoryLost.
const HISTORY_LOST: i32 = 286;

/// Makes the next commands of these names fail with [`HISTORY_LOST`].
async fn lose_history(world: &World, commands: &[&str], times: i32) {
    let data = doc! {"failCommands": commands, "errorCode": HISTORY_LOST};
    let command = doc! {"configureFailPoint": "failCommand", "mode": {"times": times}, "data": data};
    world.database.client().database("admin").run_command(command).await.unwrap();
}

/// Disables the fail point and returns how many commands it has failed since the server was started.
async fn failed(world: &World) -> i64 {
    let command = doc! {"configureFailPoint": "failCommand", "mode": "off"};
    let answer = world.database.client().database("admin").run_command(command).await.unwrap();
    answer.get_i64("count").or_else(|_| answer.get_i32("count").map(i64::from)).unwrap()
}

async fn change_everything(world: &World, first: i32) {
    let tickets = world.collection("tickets");
    tickets.delete_many(doc! {"_id": {"$gte": first, "$lt": first + 40}}).await.unwrap();
    let touched = doc! {"_id": {"$gte": first + 40, "$lt": first + 80}};
    tickets.update_many(touched, doc! {"$set": {"content": format!("Changed in the gap at {first}.")}}).await.unwrap();
    tickets.insert_many((first + 1_000..first + 1_050).map(ticket)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_beyond_oplog_are_found_by_comparing_snapshot() {
    let mut world = World::with(|options| options.mongod_parameters = vec!["enableTestCommands=1".into()]).await;
    for service in SERVICES {
        world.start(service);
    }
    world.collection("tickets").insert_many((0..300).map(ticket)).await.unwrap();
    assert_eq!(world.equal().await.documents, 300);

    // History lost while the producer was down.
    world.kill("producer");
    change_everything(&world, 0).await;
    lose_history(&world, &["aggregate"], 1).await;
    world.start("producer");
    assert_eq!(world.equal().await.documents, 310);
    assert_eq!(failed(&world).await, 1, "the change stream failed to open");
    assert_eq!(world.log("producer").matches("comparing all documents with the index").count(), 1);

    // History lost under an open change stream: it fails, and cannot be resumed.
    lose_history(&world, &["getMore", "aggregate"], 2).await;
    change_everything(&world, 100).await;
    assert_eq!(world.equal().await.documents, 320);
    let log = |world: &World| world.log("producer").matches("comparing all documents with the index").count();
    world.wait(|world| log(world) == 2, "a second comparing snapshot").await;
    assert_eq!(failed(&world).await, 1 + 2, "the change stream failed and could not be resumed");
    world.equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_selection_of_collections_is_applied_by_next_producer() {
    let mut world = World::new().await;
    world.write_settings(r#"mongodb.collection = "tickets""#);
    for service in SERVICES {
        world.start(service);
    }
    let (tickets, notes) = (world.collection("tickets"), world.collection("notes"));
    tickets.insert_many((0..100).map(ticket)).await.unwrap();
    assert_eq!(world.equal_in(&["tickets"]).await.documents, 100);
    notes.insert_many((0..100).map(ticket)).await.unwrap();

    world.kill("producer");
    tickets.delete_many(doc! {"_id": {"$lt": 10}}).await.unwrap();
    notes.delete_many(doc! {"_id": {"$lt": 20}}).await.unwrap();
    let selection: String = world.redis(&["HGET", CHECKPOINT, "selection"]).await;
    world.write_settings(r#"mongodb.collection = ["tickets", "notes"]"#);
    world.start("producer");
    assert_eq!(world.equal().await.documents, 170);
    assert_ne!(world.redis::<String>(&["HGET", CHECKPOINT, "selection"]).await, selection);
    notes.delete_many(doc! {"_id": {"$lt": 30}}).await.unwrap();
    assert_eq!(world.equal().await.documents, 160);
}

#[tokio::test(flavor = "multi_thread")]
async fn deselected_collection_is_removed_from_index() {
    let mut world = World::new().await;
    world.write_settings(r#"mongodb.collection = ["tickets", "notes"]"#);
    for service in SERVICES {
        world.start(service);
    }
    world.collection("tickets").insert_many((0..50).map(ticket)).await.unwrap();
    world.collection("notes").insert_many((0..50).map(ticket)).await.unwrap();
    assert_eq!(world.equal().await.points, 100);
    world.kill("producer");
    world.write_settings(r#"mongodb.collection = "tickets""#);
    world.start("producer");
    assert_eq!(world.equal_in(&["tickets"]).await.points, 50);
}

async fn rename(world: &World, from: &str, to: &str) {
    let command: Document = doc! {
        "renameCollection": format!("shop.{from}"), "to": format!("shop.{to}"), "dropTarget": true,
    };
    world.database.client().database("admin").run_command(command).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_renamed_and_recreated_collections_are_followed() {
    let mut world = World::running().await;
    let (tickets, notes) = (world.collection("tickets"), world.collection("notes"));
    tickets.insert_many((0..100).map(ticket)).await.unwrap();
    notes.insert_many((0..50).map(ticket)).await.unwrap();
    assert_eq!(world.equal().await.documents, 150);

    // Dropped and immediately recreated with some of the same documents.
    tickets.drop().await.unwrap();
    tickets.insert_many((50..120).map(ticket)).await.unwrap();
    assert_eq!(world.equal().await.documents, 120);

    // Renamed over another collection; some documents have the same `_id`.
    rename(&world, "tickets", "notes").await;
    tickets.insert_many((0..10).map(ticket)).await.unwrap();
    assert_eq!(world.equal().await.documents, 80);

    // The whole database dropped and recreated while the producer is down.
    world.kill("producer");
    world.database.drop().await.unwrap();
    tickets.insert_many((0..30).map(ticket)).await.unwrap();
    world.start("producer");
    assert_eq!(world.equal().await.documents, 30);
    tickets.update_one(doc! {"_id": 1}, doc! {"$set": {"content": "It goes on."}}).await.unwrap();
    tickets.delete_one(doc! {"_id": 2}).await.unwrap();
    assert_eq!(world.equal().await.documents, 29);
    let drops = world.appended().await.iter().filter(|(_, _, operation)| operation == "drop").count();
    assert!(drops >= 4, "{drops} drops");
}
