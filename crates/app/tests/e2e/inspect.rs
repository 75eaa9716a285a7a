//! `tidewheel inspect` for a document at every hop.

use mongodb::bson::{doc, oid::ObjectId};
use serde_json::Value;
use tidewheel_stores::redis::keys::{EMBEDDED, EMBEDDED_GROUP, RAW, RAW_GROUP};

use super::dead_letters::snapshot_is_over;
use super::embedder::{Behavior, world};
use super::world::{World, backlog, ticket};

/// Returns the JSON output of `tidewheel inspect`, and its exit code.
fn inspect(world: &World, arguments: &[&str]) -> (Value, Option<i32>) {
    let ran = world.command(&[&["inspect"], arguments, &["--output", "json"]].concat()).output().unwrap();
    let json = serde_json::from_slice(&ran.stdout);
    (json.unwrap_or_else(|error| panic!("{error}: {ran:?}")), ran.status.code())
}

fn state(found: &Value) -> String {
    found["documents"][0]["verdict"]["state"].as_str().unwrap_or_else(|| panic!("{found}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_locates_document_at_every_hop() {
    let (mut world, fake) = world().await;
    let tickets = world.collection("tickets");
    snapshot_is_over(&mut world).await;
    let id = ObjectId::new();
    let mut texts = ticket(5);
    texts.insert("_id", "5");
    tickets.insert_many([ticket(5), texts, doc! {"_id": id, "subject": "An id of its own"}]).await.unwrap();
    assert_eq!(world.equal().await.documents, 3);

    // 5 matches a number and a string; an ObjectId is found by its hex digits.
    let (found, code) = inspect(&world, &["5"]);
    assert_eq!((code, found["documents"].as_array().unwrap().len()), (Some(0), 2), "{found}");
    let kinds: Vec<&Value> = found["documents"].as_array().unwrap().iter().map(|document| &document["kind"]).collect();
    assert_eq!(kinds, ["number", "text"]);
    let (found, code) = inspect(&world, &[&id.to_hex(), "--namespace", "tickets"]);
    assert_eq!((code, state(&found).as_str()), (Some(0), "searchable"), "{found}");
    let document = &found["documents"][0];
    assert_eq!(document["source"]["digest"], document["index"]["digest"]);
    assert_eq!(document["index"]["made"]["model"], "hash:64");
    assert_eq!(document["raw"]["entries"][0]["state"]["state"], "confirmed");
    assert_eq!(document["raw"]["complete"], true);
    assert_eq!(document["hops"].as_array().unwrap().len(), 2, "{document}");
    assert_eq!(inspect(&world, &["6"]).1, Some(1), "unknown document");

    // In the backlog of stage 1 without the embedder, of stage 2 without an upserter.
    fake.set(Behavior::Broken);
    tickets.update_one(doc! {"_id": 5}, doc! {"$set": {"subject": "Changed"}}).await.unwrap();
    let of_int = r#"{"$numberInt": "5"}"#;
    world.wait(|world| state(&inspect(world, &[of_int]).0) == "on_its_way", "the change is in flight").await;
    let (found, code) = inspect(&world, &[of_int]);
    assert_eq!(code, Some(1));
    assert!(found["documents"][0]["verdict"]["text"].as_str().unwrap().contains("stage 1"), "{found}");
    world.terminate("upserter");
    fake.set(Behavior::Normal);
    let url = world.stack.redis_url();
    world.until("a backlog in stage 2", || async { backlog(&url, EMBEDDED, EMBEDDED_GROUP).await > 0 }).await;
    let (found, _) = inspect(&world, &[of_int]);
    assert!(found["documents"][0]["verdict"]["text"].as_str().unwrap().contains("stage 2"), "{found}");
    world.start("upserter");
    world.equal().await;

    // A parked change with its reason, and a deleted document.
    tickets.update_one(doc! {"_id": 5}, doc! {"$set": {"subject": "REFUSED"}}).await.unwrap();
    tickets.delete_one(doc! {"_id": "5"}).await.unwrap();
    world.wait(|world| state(&inspect(world, &[of_int]).0) == "parked", "the change is parked").await;
    let (found, code) = inspect(&world, &[of_int]);
    assert!(code == Some(1) && found["documents"][0]["dead_letters"][0]["reason"].as_str().unwrap().contains("422"));
    world.until("stage 1 is drained", || async { backlog(&url, RAW, RAW_GROUP).await == 0 }).await;
    world.wait(|world| state(&inspect(world, &[r#""5""#]).0) == "deleted", "the other document is deleted").await;

    // Text output.
    let ran = world.command(&["inspect", of_int]).output().unwrap();
    let text = String::from_utf8_lossy(&ran.stdout);
    for part in ["MongoDB", "stage 1", "stage 2", "Qdrant", "dead letter", "✖ parked"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}
