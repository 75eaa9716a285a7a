//! Dead letters: list, show, retry, drop.

use mongodb::bson::doc;
use serde_json::Value;
use tidewheel_stores::redis::keys::{RAW, RAW_GROUP};

use super::embedder::{Behavior, world};
use super::world::{World, backlog, ticket};

/// Returns the JSON output of `tidewheel dead-letters`, and its exit code.
pub(super) fn letters(world: &World, arguments: &[&str]) -> (Value, Option<i32>) {
    let ran = world.command(&[&["dead-letters"], arguments, &["--output", "json"]].concat()).output().unwrap();
    let json = serde_json::from_slice(&ran.stdout);
    (json.unwrap_or_else(|error| panic!("{error}: {ran:?}")), ran.status.code())
}

/// Waits until the initial snapshot is complete: a document that is also in the change stream would be parked twice.
pub(super) async fn snapshot_is_over(world: &mut World) {
    let over = |world: &World| world.log("producer").contains("snapshot read all documents");
    world.wait(over, "the snapshot is complete").await;
}

/// Waits until stage 1 has no backlog.
async fn drained(world: &mut World) {
    let url = world.stack.redis_url();
    world.until("stage 1 is drained", || async { backlog(&url, RAW, RAW_GROUP).await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retried_dead_letters_do_not_replace_newer_versions() {
    let (mut world, fake) = world().await;
    let tickets = world.collection("tickets");
    snapshot_is_over(&mut world).await;
    let mut documents: Vec<_> = (0..30).map(ticket).collect();
    for number in [7, 8, 9] {
        documents[number].insert("content", format!("Number {number} is REFUSED."));
    }
    tickets.insert_many(documents).await.unwrap();
    world.wait(|world| letters(world, &["list"]).0["matching"] == 3, "three dead letters").await;
    drained(&mut world).await;

    let (shown, code) = letters(&world, &["show", "8"]);
    assert_eq!((code, shown.as_array().unwrap().len()), (Some(0), 1), "{shown}");
    assert_eq!(shown[0]["document"]["content"], "Number 8 is REFUSED.");
    assert!(shown[0]["reason"].as_str().unwrap().contains("422"), "{shown}");
    assert_eq!(letters(&world, &["show", "10"]).1, Some(1));
    let (none, _) = letters(&world, &["list", "--reason", "timeout"]);
    assert_eq!(none["matching"], 0);

    // Meanwhile one is updated and one is deleted.
    tickets.update_one(doc! {"_id": 8}, doc! {"$set": {"content": "It has arrived."}}).await.unwrap();
    tickets.delete_one(doc! {"_id": 9}).await.unwrap();
    drained(&mut world).await;

    let (plan, code) = letters(&world, &["retry", "--all"]);
    assert_eq!((code, &plan["matching"], plan.get("outcome")), (Some(0), &3.into(), None));
    assert_eq!(letters(&world, &["list"]).0["matching"], 3, "a plan changes nothing");
    fake.set(Behavior::Lenient);
    let (done, code) = letters(&world, &["retry", "--all", "--yes"]);
    assert_eq!((code, &done["outcome"]["done"]), (Some(0), &3.into()), "{done}");
    assert_eq!(world.equal().await.documents, 29);
    assert_eq!(letters(&world, &["list"]).0["matching"], 0);
    assert_eq!(letters(&world, &["retry", "--all", "--yes"]).1, Some(1), "nothing to retry");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_document_is_missing_until_it_changes() {
    let (mut world, _) = world().await;
    let tickets = world.collection("tickets");
    snapshot_is_over(&mut world).await;
    let mut document = ticket(1);
    document.insert("content", "This is REFUSED.");
    tickets.insert_many([ticket(0), document, ticket(2)]).await.unwrap();
    world.wait(|world| letters(world, &["list"]).0["matching"] == 1, "one dead letter").await;
    assert_eq!(letters(&world, &["drop", "--id", "1"]).1, Some(0));
    assert_eq!(letters(&world, &["list"]).0["matching"], 1, "not confirmed with --yes");
    let (done, code) = letters(&world, &["drop", "--id", "1", "--yes"]);
    assert_eq!((code, &done["outcome"]["done"]), (Some(0), &1.into()));
    assert_eq!(letters(&world, &["list"]).0["matching"], 0);
    let qdrant = world.stack.qdrant_http_url().unwrap();
    world.until("the other two documents", || super::clients::count(&qdrant, 2)).await;
    tickets.update_one(doc! {"_id": 1}, doc! {"$set": {"content": "It can be embedded now."}}).await.unwrap();
    assert_eq!(world.equal().await.documents, 3);
}
