//! Several declared indexes of one installation: what each holds, what it costs to add one, and what a changed file means.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mongodb::Collection;
use mongodb::bson::{Document, doc};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::declared::{Running, serving, state};
use super::world::{SERVICES, World, free_port, ticket};

/// Three indexes over two databases: one with a filter, and a collection that feeds two of them.
const THREE: &str = r#"
    [[index]]
    name = "support"
    source = ["shop.tickets", "shop.notes_*", "!shop.notes_tmp"]
    filter = { status = { "$ne" = "draft" } }
    text.template = "{{ subject }}\n{{ content }}"
    chunk = { tokens = 40, overlap = 8, prefix = "{{ subject }}" }
    payload.exclude = ["owner"]
    payload.rename = { "customer.name" = "customer" }
    payload.indexes = { status = "keyword", date = "datetime" }

    [[index]]
    name = "titles"
    source = ["shop.tickets", "crm.leads"]
    text.fields = ["subject"]
    payload.include = ["subject", "product", "customer.name"]

    [[index]]
    name = "contacts"
    source = "crm.*"
    payload.full = true
"#;

/// A ticket with a status.
fn document(number: i32, status: &str) -> Document {
    let mut document = ticket(number);
    document.insert("status", status);
    document
}

/// Writes to a collection until stopped: documents enter and leave the filter, change their text, come and go.
struct Flow {
    stop: Arc<AtomicBool>,
    task: JoinHandle<i32>,
}

impl Flow {
    fn start(collection: Collection<Document>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(flow(collection, stop.clone()));
        Self { stop, task }
    }

    /// Stops, and returns the number of rounds.
    async fn end(self) -> i32 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("every write succeeds")
    }
}

async fn flow(collection: Collection<Document>, stop: Arc<AtomicBool>) -> i32 {
    const STATUS: [&str; 3] = ["open", "draft", "closed"];
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        let first = 1_000 + round * 3;
        let status = STATUS[round as usize % 3];
        collection.insert_many((first..first + 3).map(|number| document(number, status))).await.unwrap();
        let hot = doc! {"_id": round % 7};
        collection.update_one(hot, doc! {"$set": {"status": status}}).upsert(true).await.unwrap();
        let text = format!("Version {round}. {}", "It grows and shrinks. ".repeat((round as usize * 13) % 40));
        collection.update_one(doc! {"_id": (round + 2) % 7}, doc! {"$set": {"content": text}}).await.unwrap();
        if round % 3 == 0 {
            collection.delete_one(doc! {"_id": (round + 3) % 7}).await.unwrap();
            collection.replace_one(doc! {"_id": first}, document(first, "draft")).await.unwrap();
        }
        if round % 5 == 0 {
            let all = doc! {"_id": {"$gte": first - 6, "$lt": first}};
            collection.update_many(all, doc! {"$set": {"status": "open"}}).await.unwrap();
            collection.delete_one(doc! {"_id": first - 4}).await.unwrap();
        }
        round += 1;
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    round
}

#[tokio::test(flavor = "multi_thread")]
async fn three_indexes_over_two_databases_equal_their_oracles_despite_kills() {
    let mut world = World::new().await;
    world.declare(THREE);
    let client = world.database.client().clone();
    let (shop, crm) = (client.database("shop"), client.database("crm"));
    let collection = |name: &str| shop.collection::<Document>(name);
    let lead = |name: &str| crm.collection::<Document>(name);
    for name in ["tickets", "notes_a", "notes_tmp", "staging"] {
        collection(name).insert_many((0..60).map(|number| document(number, "open"))).await.unwrap();
    }
    for name in ["leads", "people"] {
        lead(name).insert_many((0..40).map(|number| document(number, "draft"))).await.unwrap();
    }
    for service in SERVICES.into_iter().chain(["processor", "upserter"]) {
        world.start(service);
    }
    let flows = [
        Flow::start(collection("tickets")),
        Flow::start(collection("notes_b.c")),
        Flow::start(collection("notes_tmp")),
        Flow::start(lead("leads")),
    ];
    let pause = || tokio::time::sleep(Duration::from_millis(600));
    for round in 0..2 {
        pause().await;
        world.kill("processor");
        world.start("processor");
        pause().await;
        if round == 0 {
            world.replace_producer().await;
            // A collection is dropped and created again, and another one comes into the selection.
            lead("people").drop().await.unwrap();
            lead("people").insert_many((20..50).map(|number| document(number, "open"))).await.unwrap();
            let rename = doc! {"renameCollection": "shop.staging", "to": "shop.notes_d"};
            client.database("admin").run_command(rename).await.unwrap();
        } else {
            collection("notes_a").drop().await.unwrap();
        }
        world.kill_oldest("upserter");
        world.start("upserter");
    }
    pause().await;
    for flow in flows {
        assert!(flow.end().await > 20);
    }
    let support = world.equal_index("support").await;
    let titles = world.equal_index("titles").await;
    let contacts = world.equal_index("contacts").await;
    let drafts = collection("tickets").count_documents(doc! {"status": "draft"}).await.unwrap();
    assert!(drafts > 10, "{drafts} documents are outside of the filter");
    assert!(support.points > support.documents, "some documents have several chunks: {support}");
    assert!(titles.documents > 100 && contacts.documents > 100, "{titles}\n{contacts}");
    assert_eq!(world.redis::<u64>(&["XLEN", tidewheel_stores::redis::keys::RAW_DEAD_LETTERS]).await, 0);
}

/// The CPU time of a process so far in seconds, and its resident memory in MB.
fn usage(running: &Running) -> (f64, f64) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", running.pid())).expect("it runs");
    let (stat, status) = (read("stat"), read("status"));
    let (_, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
    let ticks: f64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<f64>().expect("ticks")).sum();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS on Linux");
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    (ticks / 100.0, kilobytes / 1_000.0)
}

/// Returns the sum of the series of a counter whose labels contain all of these.
pub async fn counted(address: &str, name: &str, labels: &[&str]) -> u64 {
    let page = super::clients::http().get(format!("http://{address}/metrics")).send().await.unwrap();
    let page = page.text().await.unwrap();
    let is_counted = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
    page.lines().filter(is_counted).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn fourth_index_embeds_only_its_own_texts() {
    let mut world = World::new().await;
    world.declare(THREE);
    let tickets = world.collection("tickets");
    tickets.insert_many((0..100).map(|number| document(number, "open"))).await.unwrap();
    for service in ["embedder", "producer", "upserter"] {
        world.start(service);
    }
    let operations = format!("127.0.0.1:{}", free_port());
    let _processor = Running::start(&world, &["--set", &format!("http.listen={operations}"), "processor"]);
    assert_eq!(world.equal_index("support").await.documents, 100);
    assert_eq!(world.equal_index("titles").await.documents, 100);
    let texts = async |index: &str, origin: &str| {
        let labels = [format!("index=\"{index}\""), format!("origin=\"{origin}\"")];
        counted(&operations, "tidewheel_processor_texts_total", &labels.each_ref().map(String::as_str)).await
    };
    let embedded = async || {
        let mut all = Vec::new();
        for index in ["support", "titles", "contacts", "products", "copy"] {
            all.push(texts(index, "embedder").await);
        }
        all
    };
    let before = embedded().await;
    assert!(before[0] >= 100 && before[1] >= 100 && before[2..] == [0, 0, 0], "{before:?}");

    // Its texts are those of no other index.
    let products =
        "[[index]]\nname = \"products\"\nsource = \"shop.tickets\"\ntext.fields = [\"product\", \"content\"]\n";
    world.declare(&format!("{THREE}\n{products}"));
    world.apply(&[]).await;
    assert_eq!(world.equal_index("products").await.documents, 100);
    assert_eq!(embedded().await, [before[0], before[1], before[2], 100, 0]);

    // Another one has the texts and the model of an index that exists.
    let copy =
        "[[index]]\nname = \"copy\"\nsource = \"shop.tickets\"\ntext.fields = [\"subject\"]\npayload.full = true\n";
    world.declare(&format!("{THREE}\n{products}\n{copy}"));
    let plan = world.answer(&["plan"], 1).await;
    let of = |name: &str| plan["indexes"].as_array().unwrap().iter().find(|index| index["index"] == name).unwrap();
    assert_eq!((&of("copy")["action"], &of("copy")["cost"]["texts"]), (&"create".into(), &0.into()), "{plan}");
    assert_eq!(of("support")["action"], "none");
    let requested = counted(&world.embedder, "tidewheel_embedder_texts_total", &[]).await;
    world.apply(&[]).await;
    assert_eq!(world.equal_index("copy").await.documents, 100);
    assert_eq!(embedded().await, [before[0], before[1], before[2], 100, 0]);
    assert_eq!(texts("copy", "index").await, 100);
    assert_eq!(counted(&world.embedder, "tidewheel_embedder_texts_total", &[]).await, requested);

    // An index that is no longer declared is dropped. Its entry in the catalog stays until no late request can write to it.
    world.declare(&format!("{THREE}\n{copy}"));
    world.apply(&["--index", "products", "--detach"]).await;
    world.until_collections("the collection is deleted", |names| !names.iter().any(|name| name == "products.g1")).await;
    assert_eq!(state(&world.index("products").await, 1), "retiring");
    world.until_collections("the others exist", |names| names.iter().any(|name| name == "copy.g1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn run_with_a_changed_declaration_continues_with_the_applied_one() {
    let applied =
        "[[index]]\nname = \"tickets\"\nsource = \"shop.tickets\"\npayload.include = [\"subject\", \"status\"]\n";
    let notes = "[[index]]\nname = \"notes\"\nsource = \"shop.notes\"\n";
    let changed = format!("{applied}filter = {{ status = \"open\" }}\n{notes}");
    let mut world = World::new().await;
    world.declare(applied);
    let first = world.declared("tickets");
    let tickets = world.collection("tickets");
    tickets.insert_many((0..40).map(|number| document(number, "open"))).await.unwrap();
    world.collection("notes").insert_one(document(1, "open")).await.unwrap();
    world.start("run");
    assert_eq!(world.equal_index("tickets").await.documents, 40);
    assert_eq!(world.answer(&["plan"], 0).await["todo"], false);

    world.declare(&changed);
    assert!(world.terminate("run").0.success());
    world.start("run");
    tickets.insert_many((40..80).map(|number| document(number, "draft"))).await.unwrap();
    tickets.delete_one(doc! {"_id": 3}).await.unwrap();
    assert_eq!(world.equal_as(&first, "tickets", Some(64)).await.documents, 79);
    let warned = |world: &World| {
        world.log("run").contains("index tickets is not applied as these settings declare it; the services continue")
    };
    world.wait(warned, "the log states it").await;
    let status = until_declared(&world, "differs").await;
    let notes = &status["indexes"][0];
    assert_eq!((notes["name"].as_str(), notes["declared"].as_str()), (Some("notes"), Some("differs")), "{status}");
    assert_eq!(notes["serving"], Value::Null);
    let problems = status["problems"].as_array().unwrap();
    let differing = problems.iter().filter(|problem| problem["code"] == "declaration-differs");
    let mut differing: Vec<&str> = differing.filter_map(|problem| problem["index"].as_str()).collect();
    differing.sort_unstable();
    assert_eq!(differing, ["notes", "tickets"]);
    assert_eq!(world.index("notes").await, Value::Null);
    let plan = world.answer(&["plan"], 1).await;
    assert_eq!((&plan["indexes"][0]["action"], &plan["indexes"][1]["action"]), (&"create".into(), &"adjust".into()));

    // Nothing has to be restarted.
    world.apply(&[]).await;
    until_declared(&world, "applied").await;
    assert_eq!(world.equal_index("tickets").await.documents, 39);
    assert_eq!(world.equal_index("notes").await.documents, 1);
    let index = world.index("tickets").await;
    assert_eq!((serving(&index), state(&index, 1)), (Some(1), "serving"), "changed in place");
}

/// Waits until the status states how the settings of the services declare the index `tickets`.
async fn until_declared(world: &World, declared: &str) -> Value {
    for _ in 0..60 {
        let status = world.ran(&["status", "--output", "json"]).await.json();
        let indexes = status["indexes"].as_array().unwrap();
        let tickets = indexes.iter().find(|index| index["name"] == "tickets").unwrap();
        if tickets["declared"] == declared {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    world.fail(&format!("the declaration of index tickets is not {declared}"));
}

/// Declares this many indexes of small collections.
fn many(count: usize) -> String {
    let index = |number| format!("[[index]]\nname = \"i{number}\"\nsource = \"shop.c{number}\"\n");
    (0..count).map(index).collect()
}

/// An installation whose indexes are filled and idle.
async fn idle(count: usize) -> (World, Running) {
    let world = World::new().await;
    world.declare(&many(count));
    for number in 0..count {
        world.collection(&format!("c{number}")).insert_one(ticket(number as i32)).await.unwrap();
    }
    let run = Running::start(&world, &["run"]);
    for name in [0, count - 1].map(|number| format!("i{number}")) {
        world.until_index(&name, "it is filled", |index| index["generations"]["1"]["filled"].as_u64() > Some(0)).await;
        assert_eq!(world.equal_index(&name).await.documents, 1);
    }
    (world, run)
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_idle_indexes_cost_at_most_half_more() {
    const SECONDS: u64 = 15;
    let (one, fifty) = (idle(1).await, idle(50).await);
    // What the first snapshot and the first reports leave behind is over.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let both = || [usage(&one.1), usage(&fifty.1)];
    let before = both();
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let after = both();
    let [one, fifty] = [0, 1].map(|side| (after[side].0 - before[side].0, after[side].1));
    let figures = format!("{one:?} with 1 index, {fifty:?} with 50 (CPU seconds within {SECONDS} s, MB)");
    // Linux counts CPU time in steps of 10 ms.
    assert!(fifty.0 <= 1.5 * one.0 + 0.05, "{figures}");
    assert!(fifty.1 <= 1.5 * one.1, "{figures}");
}
