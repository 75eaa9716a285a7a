//! `tidewheel plan` and `tidewheel apply`: what they print, their exit codes, and the way from the short form to a declared
//! index.

use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mongodb::bson::doc;
use serde_json::{Value, json};

use super::clients::http;
use super::declared::{serving, state};
use super::indexes::counted;
use super::world::{World, free_port, signal, ticket};

/// An index over the tickets with these settings, and embeddings that it can have.
fn tickets(settings: &str) -> String {
    format!(
        r#"
        [embedding.tiny]
        model = "hash:32"
        [embedding.wide]
        model = "hash:48"
        [[index]]
        name = "tickets"
        source = "shop.tickets"
        {settings}
        "#
    )
}

const NOTES: &str = r#"
    [[index]]
    name = "notes"
    source = "shop.notes"
"#;

/// The plan, without numbers that differ from run to run.
fn shape(mut plan: Value) -> Value {
    plan.as_object_mut().unwrap().shift_remove("revision");
    for index in plan["indexes"].as_array_mut().unwrap() {
        index.as_object_mut().unwrap().shift_remove("cost");
    }
    plan
}

/// Waits until a plan states that nothing is being done.
async fn at_rest(world: &World) -> Value {
    for _ in 0..60 {
        let plan = world.ran(&["plan", "--output", "json"]).await.json();
        if plan["running"] == json!([]) {
            return plan;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    world.fail("an operation does not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_exit_codes_and_json() {
    let mut world = World::new().await;
    world.declare(&format!("{}{NOTES}", tickets("")));
    world.collection("tickets").insert_many((0..60).map(ticket)).await.unwrap();
    world.collection("notes").insert_many((0..10).map(ticket)).await.unwrap();

    // Before the first start.
    let plan = world.answer(&["plan"], 1).await;
    assert_eq!((&plan["revision"], &plan["todo"]), (&0.into(), &true.into()), "{plan}");
    assert_eq!((&plan["indexes"][1]["index"], &plan["indexes"][1]["action"]), (&"tickets".into(), &"create".into()));
    assert_eq!(plan["indexes"][1]["cost"]["documents"], 60, "{plan}");
    let warnings = plan["warnings"].to_string();
    assert!(warnings.contains("no producer has run yet: its first start applies the declarations"), "{warnings}");
    assert_eq!(world.index("tickets").await, Value::Null, "a plan changes nothing");

    world.start("run");
    assert_eq!(world.equal_index("tickets").await.documents, 60);
    assert_eq!(world.equal_index("notes").await.documents, 10);
    at_rest(&world).await;
    let plan = world.answer(&["plan"], 0).await;
    let revision = plan["revision"].clone();
    let none = |index: &str| json!({"index": index, "action": "none"});
    let nothing = json!({
        "todo": false, "indexes": [none("notes"), none("tickets")], "running": [], "refused": [], "warnings": [],
    });
    assert_eq!(shape(plan), nothing);
    let ran = world.ran(&["plan"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("tickets  no change") && ran.out.contains("Nothing to do."), "{ran:?}");
    assert_eq!(world.ran(&["apply"]).await.code, 0, "nothing has to be confirmed");

    // In place: some documents leave.
    world.declare(&format!("{}{NOTES}", tickets("filter = { product = \"Atlas\" }")));
    let plan = world.answer(&["plan", "--index", "tickets"], 1).await;
    let cost = plan["indexes"][0]["cost"].clone();
    assert_eq!((&cost["documents"], &cost["texts"], &cost["sampled"]), (&0.into(), &0.into(), &60.into()), "{cost}");
    let adjusted = json!({
        "index": "tickets", "action": "adjust", "parts": ["filter"], "generation": 1,
        "details": ["filter none → {\"product\":\"Atlas\"}"],
    });
    let expected = json!({"todo": true, "indexes": [adjusted], "running": [], "refused": [], "warnings": []});
    assert_eq!(shape(plan), expected);
    let ran = world.ran(&["plan"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("write 0 documents, embed nothing") && ran.out.contains("remove about 40"), "{ran:?}");
    let ran = world.ran(&["apply"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("Plan only, nothing was changed. Add --yes to apply it."), "{ran:?}");

    // A new generation, and an index that is no longer declared.
    world.declare(&tickets("embedding = \"tiny\""));
    let plan = world.answer(&["plan"], 1).await;
    assert_eq!((&plan["revision"], plan["indexes"][1]["cost"]["texts"].as_u64()), (&revision, Some(60)), "{plan}");
    let expected = json!({
        "todo": true,
        "indexes": [
            {"index": "notes", "action": "drop", "collections": ["notes.g1"], "points": 10},
            {
                "index": "tickets", "action": "generation", "parts": ["embedding", "rules"], "generation": 2,
                "details": ["model hash:64 → hash:32, 64 → 32 dimensions", "embedding default → tiny"],
                "searches": {"interrupted_ms": 0}, "rollback": "24h after the switch",
            },
        ],
        "running": [], "refused": [], "warnings": [],
    });
    assert_eq!(shape(plan), expected);
    let ran = world.ran(&["plan"]).await;
    for line in [
        "notes    drop: collection notes.g1 with 10 points",
        "tickets  new generation 2: model hash:64 → hash:32, 64 → 32 dimensions",
        "searches: no interruption · rollback: 24 h after the switch",
        "2 changes. Run `tidewheel apply` to make them.",
    ] {
        assert!(ran.out.contains(line), "{line}: {ran:?}");
    }

    // What cannot be applied, and what cannot be known.
    let unknown = world.ran(&["plan", "--index", "articles"]).await;
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(unknown.out.contains("unknown index \"articles\"") && unknown.out.contains("Refused"), "{unknown:?}");
    world.declare(&tickets("filter = { \"$where\" = \"true\" }"));
    let refused = world.ran(&["plan"]).await;
    assert!(refused.code == 2 && refused.err.contains("$where"), "{refused:?}");
    world.declare(&tickets(""));
    let nowhere = format!("redis.url=redis://127.0.0.1:{}", free_port());
    let away = world.ran(&["plan", "--set", &nowhere]).await;
    assert!(away.code == 2 && away.err.contains("error"), "{away:?}");
}

/// Starts `apply`, to be interrupted.
fn applying(world: &World, more: &[&str]) -> Child {
    let mut command = world.command(&[&["apply", "--yes", "--output", "json"], more].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary starts")
}

/// The exit code of a command, and its last line of JSON.
fn ended(child: Child) -> (Option<i32>, Value) {
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().next_back().map(|line| serde_json::from_str(line).expect("a line of JSON"));
    (output.status.code(), last.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_is_interrupted_and_continued() {
    let mut world = World::new().await;
    world.declare(&tickets(""));
    world.collection("tickets").insert_many((0..300).map(ticket)).await.unwrap();
    for service in ["embedder", "producer", "processor", "upserter"] {
        world.start(service);
    }
    let first = world.declared("tickets");
    assert_eq!(world.equal_index("tickets").await.documents, 300);
    at_rest(&world).await;

    // Without a processor the new generation does not advance.
    world.kill("processor");
    world.declare(&tickets("embedding = \"tiny\""));
    let apply = applying(&world, &[]);
    world.until_index("tickets", "the submission", |index| state(index, 2) == "creating").await;
    // The command may not follow its submission yet.
    signal(apply.id(), "INT");
    let (code, last) = ended(apply);
    assert_eq!((code, &last["result"]), (Some(1), &"interrupted".into()), "{last}");
    // While it plans: this Redis accepts the connection and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("redis.url=redis://{}", silent.local_addr().unwrap());
    let apply = applying(&world, &["--set", &address]);
    let _connection = tokio::task::spawn_blocking(move || silent.accept()).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    signal(apply.id(), "INT");
    assert_eq!(ended(apply), (Some(1), json!({"result": "interrupted", "submitted": false})));
    let plan = world.answer(&["plan"], 0).await;
    assert_eq!((&plan["todo"], &plan["running"][0]["step"]), (&false.into(), &"creating".into()), "{plan}");
    let late = world.ran(&["apply", "--yes", "--timeout", "1s", "--output", "json"]).await;
    assert_eq!((late.code, &late.lines().last().unwrap()["result"]), (1, &"timed_out".into()), "{late:?}");

    world.start("processor");
    let mut apply = applying(&world, &[]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    apply.kill().expect("it is killed, or has ended");
    apply.wait().expect("it ends");
    let steps = world.apply(&[]).await;
    assert_eq!(steps.last().unwrap()["result"], "done", "{steps:?}");
    assert_eq!(serving(&world.index("tickets").await), Some(2));
    assert_eq!(world.equal_as(&first, "tickets", Some(32)).await.documents, 300);

    // On hold, and released.
    world.declare(&tickets("embedding = \"wide\""));
    let steps = world.apply(&["--hold"]).await;
    assert_eq!(steps[steps.len() - 2]["step"], "held", "{steps:?}");
    let index = world.index("tickets").await;
    assert_eq!((serving(&index), state(&index, 3)), (Some(2), "ready"), "{index}");
    world.apply(&[]).await;
    assert_eq!(serving(&world.index("tickets").await), Some(3));
    world.equal_as(&first, "tickets", Some(48)).await;

    // A submission without a watch, and its return before it is over.
    world.declare(&tickets("embedding = \"default\""));
    let back = world.apply(&["--detach"]).await;
    assert_eq!(back.last().unwrap()["result"], "submitted", "{back:?}");
    world.until_index("tickets", "the kept generation serves", |index| serving(index) == Some(1)).await;
    assert_eq!(world.equal_index("tickets").await.documents, 300);
}

/// The short form over every collection of the database, and embeddings for later.
const SHORT_FORM: &str = r#"
    mongodb.database = "shop"
    [embedding.tiny]
    model = "hash:32"
"#;

/// The same, declared, with these settings.
fn documents(settings: &str) -> String {
    format!(
        r#"
        [embedding.tiny]
        model = "hash:32"
        [[index]]
        name = "documents"
        source = "shop.*"
        {settings}
        "#
    )
}

/// Counts points in the index until stopped; returns the longest time without an answer.
async fn watch(qdrant: String, stop: Arc<AtomicBool>) -> Duration {
    let (client, url) = (http(), format!("{qdrant}/collections/documents/points/count"));
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let answer = client.post(&url).json(&json!({"exact": true})).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    longest.max(last.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_index_gets_a_generation_after_confirmation() {
    let mut world = World::new().await;
    world.declare(SHORT_FORM);
    world.collection("tickets").insert_many((0..100).map(ticket)).await.unwrap();
    world.start("run");
    assert_eq!(world.equal_at("documents", &["tickets"]).await.documents, 100);

    world.declare(&documents("embedding = \"tiny\""));
    let plan = world.answer(&["plan"], 1).await;
    let planned = &plan["indexes"][0];
    assert_eq!((&planned["action"], &planned["generation"]), (&"generation".into(), &2.into()), "{plan}");
    assert_eq!(
        (&planned["searches"], &planned["rollback"]),
        (&json!({"interrupted_ms": null}), &"not possible".into())
    );
    let asked = world.ran(&["apply"]).await;
    assert_eq!(asked.code, 1, "{asked:?}");
    assert!(asked.out.contains("searches fail for some milliseconds at the switch"), "{asked:?}");
    assert_eq!(world.index("documents").await, Value::Null, "nothing was changed");

    let stop = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(watch(world.stack.qdrant_http_url().unwrap(), stop.clone()));
    world.apply(&[]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    let gap = watching.await.unwrap();
    assert!(gap < Duration::from_secs(2), "searches failed for {gap:?}");
    let index = world.index("documents").await;
    assert_eq!((&index["plain"], serving(&index)), (&false.into(), Some(2)), "{index}");
    world.until_collections("the plain collection is gone", |names| names == ["documents.g2"]).await;

    let declared = world.declared("documents");
    world.collection("notes").insert_many((0..20).map(ticket)).await.unwrap();
    world.collection("tickets").delete_one(doc! {"_id": 7}).await.unwrap();
    assert_eq!(world.equal_as(&declared, "documents", Some(32)).await.documents, 119);
    let back = world.ran(&["rollback", "documents", "--yes"]).await;
    assert_eq!(back.code, 1, "{back:?}");
    assert!(back.out.contains("has no kept generation"), "{back:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn short_form_then_declared_keeps_the_collection() {
    let mut world = World::new().await;
    world.declare(SHORT_FORM);
    let tickets = world.collection("tickets");
    tickets.insert_many((0..100).map(ticket)).await.unwrap();
    world.start("run");
    assert_eq!(world.equal_at("documents", &["tickets"]).await.documents, 100);
    assert!(world.terminate("run").0.success());

    // The short form stays in effect until somebody applies its successor.
    world.declare(&documents(""));
    world.start("run");
    tickets.insert_many((100..110).map(ticket)).await.unwrap();
    tickets.update_one(doc! {"_id": 7}, doc! {"$set": {"owner": "grace@example.com"}}).await.unwrap();
    let waits = |world: &World| world.log("run").contains("the declared indexes are not applied");
    world.wait(waits, "the producer waits for an apply").await;
    let plan = world.answer(&["plan"], 1).await;
    let adopted = json!({
        "index": "documents", "action": "none", "details": ["its declaration replaces the short form"],
    });
    assert_eq!((&plan["todo"], &plan["indexes"]), (&true.into(), &json!([adopted])), "{plan}");
    world.apply(&[]).await;
    assert_eq!(world.equal_index("documents").await.documents, 110);
    let index = world.index("documents").await;
    assert_eq!((&index["plain"], serving(&index)), (&true.into(), Some(1)), "{index}");
    world.until_collections("the collection is the same", |names| names == ["documents"]).await;
    assert_eq!(world.answer(&["plan"], 0).await["todo"], false);

    // Only the new documents were embedded.
    assert_eq!(counted(&world.embedder, "tidewheel_embedder_texts_total", &[]).await, 10);

    // It changes in place like any other index.
    world.declare(&documents("payload.rename = { owner = \"agent\" }"));
    assert_eq!(world.answer(&["plan"], 1).await["indexes"][0]["action"], "payload");
    world.apply(&[]).await;
    assert_eq!(world.equal_index("documents").await.documents, 110);
}
