//! Several declared indexes.

use serde_json::json;
use tidewheel_testkit::source_write::SourceWrite;

use crate::declared::{Installation, LARGE, SMALL, declaration, open, ticket};
use crate::world::{SERVICES, seconds};

/// All tickets, the open tickets by another model, and the notes of all databases.
async fn three() -> Installation {
    let declared = [
        declaration("tickets", &["shop.tickets"], SMALL),
        open(declaration("queue", &["shop.tickets"], LARGE)),
        declaration("notes", &["*.notes"], SMALL),
    ];
    let mut installation = Installation::new(&declared);
    for (id, status) in (0..6).zip(["open", "closed"].into_iter().cycle()) {
        installation.source.insert("tickets", ticket(id, &format!("tide {id}"), status));
    }
    installation.source.insert("notes", ticket(0, "ebb", "open"));
    installation.source.in_database("crm").insert("notes", ticket(0, "flow", "closed"));
    installation.start_all();
    installation.settle("at the start").await;
    installation
}

#[tokio::test(start_paused = true)]
async fn each_index_equals_its_source_despite_crashes() {
    let mut installation = three().await;
    let (points, queued) =
        (installation.collection("tickets.g1").points().len(), installation.collection("queue.g1").points().len());
    assert_eq!((points, queued, installation.collection("notes.g1").points().len()), (6, 3, 2));
    for (round, service) in (0..6).zip(SERVICES.into_iter().cycle()) {
        installation.source.replace("tickets", ticket(round, &format!("wave {round}"), "open"));
        seconds(0.5).await;
        installation.kill(service);
        installation.source.replace("tickets", ticket((round + 1) % 6, &format!("surf {round}"), "closed"));
        installation.source.in_database("crm").insert("notes", ticket(10 + round, "foam", "open"));
        installation.source.insert("tickets", ticket(10 + round, "spray", "open"));
        installation.start(service);
        seconds(5.0).await;
    }
    installation.settle("after the crashes").await;
}

#[tokio::test(start_paused = true)]
async fn deletion_and_drop_reach_every_index_of_a_collection() {
    let installation = three().await;
    installation.source.delete("tickets", json!(0));
    installation.settle("one document less").await;
    installation.source.write(SourceWrite::Drop { collection: "tickets".to_owned() });
    installation.source.insert("tickets", ticket(1, "again", "open"));
    installation.settle("after the drop").await;
    let count = |name: &str| installation.collection(name).points().len();
    assert_eq!((count("tickets.g1"), count("queue.g1"), count("notes.g1")), (1, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn further_index_embeds_only_its_own_texts() {
    let installation = three().await;
    let mut declared = vec![
        declaration("tickets", &["shop.tickets"], SMALL),
        open(declaration("queue", &["shop.tickets"], LARGE)),
        declaration("notes", &["*.notes"], SMALL),
        declaration("archive", &["shop.tickets"], SMALL),
    ];
    let before = installation.embedded();
    installation.apply(&declared).await;
    installation.settle("with a fourth index").await;
    assert_eq!(installation.embedded(), before, "another index has these texts by this model");
    let mut titles = declaration("titles", &["shop.tickets"], SMALL);
    titles.text.fields = vec!["title".to_owned()];
    declared.push(titles);
    installation.apply(&declared).await;
    installation.settle("with a fifth index").await;
    assert_eq!(installation.embedded(), (before.0 + 6, before.1));
}

#[tokio::test(start_paused = true)]
async fn dropped_index_leaves_nothing_behind_and_the_others_alone() {
    let installation = three().await;
    let written = installation.collection("tickets.g1").calls("upsert");
    let remaining = [declaration("tickets", &["shop.tickets"], SMALL), declaration("notes", &["*.notes"], SMALL)];
    installation.apply(&remaining).await;
    installation.source.insert("notes", ticket(1, "spray", "open"));
    installation.settle("without it").await;
    assert_eq!((installation.collections.names().len(), installation.alias("queue")), (2, None));
    assert_eq!(installation.collection("tickets.g1").calls("upsert"), written);
}

#[tokio::test(start_paused = true)]
async fn lost_collection_is_filled_again_alone() {
    let installation = three().await;
    let calls = || ["tickets.g1", "notes.g1"].map(|name| installation.collection(name).calls("upsert"));
    let before = calls();
    installation.collection("queue.g1").drop_collection();
    installation.settle("filled again").await;
    assert_eq!((calls(), installation.collection("queue.g1").points().len()), (before, 3));
}
