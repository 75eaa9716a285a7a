//! New generations of an index: a client searches through the alias all the time, while the model changes and services
//! are killed.

mod searching;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mongodb::Collection;
use mongodb::bson::{Document, doc};
use serde_json::Value;
use tokio::task::JoinHandle;

use self::searching::{AliasClient, CatalogClient, MARKERS, Searching};
use super::declared::{Running, serving, state};
use super::world::{AUDIT_LOG, SERVICES, World, audit_log, recorded, ticket};

/// Adds and updates documents until stopped; deletes none.
struct Growing {
    stop: Arc<AtomicBool>,
    task: JoinHandle<u64>,
}

impl Growing {
    fn start(tickets: Collection<Document>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(grow(tickets, stop.clone()));
        Self { stop, task }
    }

    /// Stops, and returns the number of documents added.
    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("every write succeeds")
    }
}

async fn grow(tickets: Collection<Document>, stop: Arc<AtomicBool>) -> u64 {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        tickets.insert_one(ticket(10_000 + number)).await.unwrap();
        let content = doc! {"$set": {"content": format!("It was found on shelf {number}.")}};
        tickets.update_one(doc! {"_id": number % MARKERS}, content).await.unwrap();
        number += 1;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    number as u64
}

/// Inserts the documents that every search has to find.
async fn insert_markers(world: &World) {
    let marker = |number| {
        let mut document = ticket(number);
        document.insert("marker", true);
        document
    };
    world.collection("tickets").insert_many((0..MARKERS).map(marker)).await.unwrap();
}

/// An index with this embedding, beside others that it can have.
fn settings(embedding: &str) -> String {
    format!(
        r#"
        [embedding.exact]
        model = "sentence-transformers/all-MiniLM-L6-v2"
        precision = "f32"
        [embedding.small]
        model = "hash:48"
        [embedding.tiny]
        model = "hash:32"
        [[index]]
        name = "tickets"
        source = "shop.tickets"
        embedding = "{embedding}"
        "#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn model_changes_under_load_without_a_failed_or_smaller_search() {
    let mut world = World::new().await;
    world.declare(&settings("exact"));
    let exact = world.declared("tickets");
    insert_markers(&world).await;
    world.start("run");
    assert_eq!(world.equal_as(&exact, "tickets", None).await.documents, MARKERS as u64);
    let clients = [
        Searching::start(AliasClient::new(&world)),
        Searching::start(CatalogClient::new(&world, &["exact", "small", "tiny"])),
    ];
    let growing = Growing::start(world.collection("tickets"));

    // Twice to vectors of another dimension. Not every CPU computes in int8.
    for (generation, embedding) in [(2, "small"), (3, "tiny")] {
        world.declare(&settings(embedding));
        let plan = world.answer(&["plan"], 1).await;
        let planned = &plan["indexes"][0];
        assert_eq!(
            (planned["action"].as_str(), planned["generation"].as_u64()),
            (Some("generation"), Some(generation))
        );
        assert_eq!(planned["searches"]["interrupted_ms"], 0, "{plan}");
        assert_eq!(planned["rollback"], "24h after the switch", "{plan}");
        let steps = world.apply(&[]).await;
        assert_eq!(steps.last().unwrap()["result"], "done", "{steps:?}");
        let index = world.index("tickets").await;
        assert_eq!(serving(&index), Some(generation), "{index}");
        assert_eq!(world.answer(&["plan"], 0).await["todo"], false);
    }

    // Back, and forward again: both generations are kept up.
    let back = world.ran(&["rollback", "tickets", "--yes"]).await;
    assert_eq!(back.code, 0, "{back:?}");
    recorded(&audit_log(world.command(&AUDIT_LOG)), "rollback", "tickets switch 2");
    let index = world.index("tickets").await;
    assert_eq!((serving(&index), state(&index, 1), state(&index, 3)), (Some(2), "kept", "kept"), "{index}");
    let plan = world.answer(&["plan"], 1).await;
    assert_eq!((&plan["indexes"][0]["action"], &plan["indexes"][0]["generation"]), (&"switch".into(), &3.into()));
    world.apply(&[]).await;
    assert_eq!(serving(&world.index("tickets").await), Some(3));

    let added = growing.end().await;
    for client in clients {
        client.end(&world).await;
    }
    let tiny = world.declared("tickets");
    assert_eq!(world.equal_as(&tiny, "tickets", Some(32)).await.documents, MARKERS as u64 + added);
    world.equal_as(&exact, "tickets.g1", None).await;
    world.equal_as(&exact, "tickets.g2", Some(48)).await;
}

/// The step of a change of generations, as the catalog states it.
fn step(index: &Value, to: u32) -> &str {
    match serving(index) {
        _ if !index["switching"].is_null() => "switching",
        Some(serving) if serving == u64::from(to) => "serving",
        _ => state(index, to),
    }
}

/// Kills the producer and another service at every step of a change to this generation, and the command that shows the
/// change. Returns the steps.
async fn kill_at_every_step(world: &mut World, to: u32, command: &[&str]) -> BTreeSet<String> {
    let mut steps = BTreeSet::new();
    let mut shown = Running::start(world, command);
    let begun = Instant::now();
    loop {
        let index = world.index("tickets").await;
        let step = step(&index, to);
        if step == "serving" {
            return steps;
        }
        if !step.is_empty() && steps.insert(step.to_owned()) {
            drop(shown);
            world.replace_producer().await;
            let other = if steps.len().is_multiple_of(2) { "processor" } else { "upserter" };
            world.kill(other);
            world.start(other);
            shown = Running::start(world, command);
        }
        if begun.elapsed() > Duration::from_secs(120) {
            world.fail(&format!("timed out waiting for generation {to}, killed at {steps:?}: {index}"));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// An index with this embedding, none of which is a real model.
fn unreal(embedding: &str) -> String {
    format!(
        r#"
        [embedding.tiny]
        model = "hash:32"
        [[index]]
        name = "tickets"
        source = "shop.tickets"
        embedding = "{embedding}"
        "#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn model_change_survives_kills_at_every_step() {
    let mut world = World::new().await;
    world.declare(&unreal("default"));
    let first = world.declared("tickets");
    insert_markers(&world).await;
    world.collection("tickets").insert_many((1_000..1_400).map(ticket)).await.unwrap();
    for service in SERVICES {
        world.start(service);
    }
    assert_eq!(world.equal_index("tickets").await.documents, MARKERS as u64 + 400);
    let client = Searching::start(AliasClient::new(&world));
    let growing = Growing::start(world.collection("tickets"));

    world.declare(&unreal("tiny"));
    let apply = ["apply", "--yes"];
    let steps = kill_at_every_step(&mut world, 2, &apply).await;
    for step in ["creating", "filling", "comparing", "ready"] {
        assert!(steps.contains(step), "killed at {steps:?}");
    }
    let ran = world.ran(&apply).await;
    assert_eq!(ran.code, 0, "{ran:?}");

    // The command is not repeated: a second rollback would undo the first one.
    let rollback = Running::start(&world, &["rollback", "tickets", "--yes"]);
    let index = world.until_index("tickets", "the rollback", |index| step(index, 1) != "kept").await;
    if step(&index, 1) == "switching" {
        world.replace_producer().await;
    }
    world.until_index("tickets", "the earlier generation serves", |index| step(index, 1) == "serving").await;
    drop(rollback);
    kill_at_every_step(&mut world, 2, &apply).await;
    let ran = world.ran(&apply).await;
    assert_eq!(ran.code, 0, "{ran:?}");

    let added = growing.end().await;
    let second = world.declared("tickets");
    let all = MARKERS as u64 + 400 + added;
    assert_eq!(world.equal_as(&second, "tickets", Some(32)).await.documents, all);
    assert_eq!(world.equal_as(&first, "tickets.g1", Some(64)).await.documents, all);

    // The kept generation is given up.
    world.apply(&["--drop-kept", "--detach"]).await;
    world.until_index("tickets", "the kept generation retires", |index| state(index, 1) == "retiring").await;
    world.replace_producer().await;
    world.until_collections("the kept collection is deleted", |names| names == ["tickets.g2"]).await;
    world.collection("tickets").insert_one(ticket(20_000)).await.unwrap();
    assert_eq!(world.equal_as(&second, "tickets", Some(32)).await.documents, all + 1);
    client.end(&world).await;
}
