//! Each alert of deploy/prometheus/alerts.yml and each problem code: its condition is caused on a real stack, a real
//! Prometheus fires the alert and `tidewheel monitor` reports the code, the cause is removed, and both clear.
//!
//! Conditions are combined where possible. An alert or a code that no story here covers fails a test.

mod prometheus;
mod red;
mod story;

use std::collections::BTreeSet;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use tidewheel_stores::redis::keys::{LEASE, RAW};

use super::embedder::{Behavior, Fake};
use super::verify::{NAMES, counts, damage, note, verify};
use super::world::{SERVICES, World, redis_command, repository, signal, ticket};
use prometheus::{names, rules};
use red::Red;
use story::Story;

/// Alerts and problem codes that a story causes.
struct Covers {
    alerts: &'static [&'static str],
    codes: &'static [&'static str],
}

const AWAY: Covers = Covers {
    alerts: &[
        "TidewheelNoProgress",
        "TidewheelNotReady",
        "TidewheelServerFails",
        "TidewheelStage1Behind",
        "TidewheelStage2Behind",
    ],
    codes: &[
        "embedder-unreachable",
        "mongodb-unreachable",
        "no-consumer",
        "no-producer",
        "no-progress",
        "qdrant-unreachable",
        "service-not-ready",
        "stage-1-behind",
        "stage-2-behind",
    ],
};

const REDIS: Covers = Covers {
    alerts: &[
        "TidewheelEntriesLost",
        "TidewheelGone",
        "TidewheelOplogWindowShort",
        "TidewheelRedisMemoryHigh",
        "TidewheelRedisUnreachable",
    ],
    codes: &["history-damaged", "redis-memory", "redis-unreachable"],
};

const CONTENT: Covers = Covers {
    alerts: &["TidewheelDeadLetters", "TidewheelOplogWindowShort", "TidewheelSlow", "TidewheelVectorsRejected"],
    codes: &["collection-unhealthy", "dead-letters", "latency", "oplog-window"],
};

const AUDIT: Covers = Covers { alerts: &["TidewheelDrift"], codes: &["drift"] };

/// Caused in `output.rs`, without Prometheus: no alert has this code.
const SELECTION: Covers = Covers { alerts: &[], codes: &["nothing-selected"] };

/// Caused on fakes, in `ops/src/overview/look/tests/declared.rs`: no alert has these codes.
const INDEXES: Covers = Covers {
    alerts: &[],
    codes: &["alias-moved", "declaration-differs", "embedding-missing", "generation-stuck", "index-lost"],
};

const STORIES: [Covers; 6] = [AWAY, REDIS, CONTENT, AUDIT, SELECTION, INDEXES];

#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_and_clear_for_stopped_servers_and_services() {
    // Reported sooner than by default.
    let mut story = Story::begin(World::new().await, "monitor.no_progress = \"2s\"", |rules| rules).await;
    story.world.collection("tickets").insert_many((0..50).map(ticket)).await.unwrap();
    story.world.equal().await;

    let qdrant = story.world.stack.qdrant.clone().unwrap();
    qdrant.kill().await;
    story.world.collection("tickets").insert_many((1_000..1_700).map(ticket)).await.unwrap();
    let alerts = [
        "TidewheelStage2Behind",
        "TidewheelNoProgress",
        "TidewheelNotReady service=upserter",
        "TidewheelServerFails cause=unreachable server=qdrant",
    ];
    story.begins(&alerts, &["qdrant-unreachable", "stage-2-behind", "no-progress", "service-not-ready"]).await;
    qdrant.start().await.unwrap();
    story.world.equal().await;
    story.quiet().await;

    story.world.terminate("embedder");
    story.world.collection("tickets").insert_many((2_000..3_200).map(ticket)).await.unwrap();
    let alerts = [
        "TidewheelStage1Behind",
        "TidewheelNoProgress",
        "TidewheelNotReady service=processor",
        "TidewheelServerFails cause=unreachable server=embedder",
    ];
    story.begins(&alerts, &["embedder-unreachable", "stage-1-behind"]).await;
    story.start("embedder").await;
    story.world.equal().await;
    story.quiet().await;

    story.world.terminate("upserter");
    story.world.terminate("producer");
    story.begins(&[], &["no-producer"]).await;
    story.start("producer").await;
    story.world.collection("tickets").insert_many((3_200..3_210).map(ticket)).await.unwrap();
    story.begins(&["TidewheelNoProgress"], &["no-consumer"]).await;
    story.start("upserter").await;
    story.world.equal().await;

    // A scrape that waits for MongoDB exceeds the scrape timeout here, so no alert is expected.
    let mongod = story.world.stack.mongod.clone();
    mongod.stop().await;
    story.begins(&[], &["mongodb-unreachable"]).await;
    mongod.start().await.unwrap();
    story.world.equal().await;
    story.ends(&AWAY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_and_clear_for_redis_failures_and_missing_services() {
    let mut story = Story::begin(World::new().await, "", |rules| rules).await;
    story.world.collection("tickets").insert_many((0..200).map(ticket)).await.unwrap();
    story.world.equal().await;

    // Most of the memory is other data, so that trimming the streams frees little.
    let _: u64 = story.world.redis(&["SETRANGE", "ballast", "20000000", "x"]).await;
    let memory: String = story.world.redis(&["INFO", "memory"]).await;
    let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let limit = used.trim().parse::<u64>().unwrap() * 100 / 88;
    let () = story.world.redis(&["CONFIG", "SET", "maxmemory", &limit.to_string()]).await;
    story.begins(&["TidewheelRedisMemoryHigh"], &["redis-memory"]).await;
    let () = story.world.redis(&["CONFIG", "SET", "maxmemory", "0"]).await;
    story.quiet().await;

    // While Redis is down, other writes fill the oplog: the alert fires although the resume token is in Redis.
    resize_oplog(&story.world, LARGE).await;
    let redis = story.world.stack.redis.clone();
    redis.stop().await;
    story.begins(&["TidewheelRedisUnreachable"], &["redis-unreachable"]).await;
    fill_oplog(&story.world).await;
    story.begins(&["TidewheelOplogWindowShort"], &[]).await;
    resize_oplog(&story.world, LARGE).await;
    redis.start().await.unwrap();
    story.quiet().await;

    // Pending entries are removed manually.
    story.world.terminate("embedder");
    story.world.collection("tickets").insert_many((200..220).map(ticket)).await.unwrap();
    let url = story.world.stack.redis_url();
    let pending = || async {
        let summary: redis::Value = redis_command(&url, &["XPENDING", RAW, "embedding_processors"]).await;
        matches!(summary, redis::Value::Array(summary) if summary.first() == Some(&redis::Value::Int(20)))
    };
    story.world.until("20 pending entries", pending).await;
    story.world.terminate("producer");
    story.world.kill("processor");
    let removed: u64 = story.world.redis(&["XTRIM", RAW, "MAXLEN", "0"]).await;
    assert!(removed >= 20);
    story.begins(&["TidewheelEntriesLost"], &["history-damaged"]).await;
    // The consumer that claims them detects the loss.
    story.start("processor").await;
    story.start("embedder").await;
    let seen = |world: &World| world.log("processor").contains("entries were removed from the stream");
    story.world.wait(seen, "the loss is logged").await;
    story.start("producer").await;
    story.world.equal().await;
    story.quiet().await;

    for service in SERVICES {
        story.world.terminate(service);
    }
    story.begins(&["TidewheelGone"], &[]).await;
    for service in SERVICES {
        story.start(service).await;
    }
    story.ends(&REDIS).await;
}

/// Oplog sizes in megabytes: more than these stories can fill, and MongoDB's minimum.
const LARGE: f64 = 100_000.0;
const SMALL: f64 = 990.0;

/// Fills a small oplog with writes to another database.
async fn fill_oplog(world: &World) {
    resize_oplog(world, SMALL).await;
    let noise = world.database.client().database("elsewhere").collection::<Document>("noise");
    for _ in 0..4 {
        noise.insert_many((0..10).map(|_| doc! {"bytes": "x".repeat(1 << 20)})).await.unwrap();
    }
}

/// Resizes the oplog, as the runbook describes.
async fn resize_oplog(world: &World, megabytes: f64) {
    let command = doc! {"replSetResizeOplog": 1, "size": megabytes};
    world.database.client().database("admin").run_command(command).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_and_clear_for_dead_letters_latency_and_short_oplog() {
    let mut world = World::new().await;
    let (fake, url) = Fake::start(&world.embedder).await;
    let red = Red::start(&world.stack.qdrant_grpc_url().unwrap()).await;
    (world.detours.embedding_url, world.detours.qdrant_url) = (Some(url), Some(red.url.clone()));
    resize_oplog(&world, LARGE).await;
    // Lowers the latency objective to a second, in the settings and in the rules.
    let objective = |rules: String| {
        assert_eq!(rules.matches("_bucket[5s]))) > 30\n").count(), 1);
        rules.replace("_bucket[5s]))) > 30\n", "_bucket[5s]))) > 1\n")
    };
    let mut story = Story::begin(world, "monitor.latency = \"1s\"", objective).await;
    let tickets = story.world.collection("tickets");

    fake.set(Behavior::Slow);
    let trickle = tokio::spawn(async move {
        for number in 0.. {
            tickets.insert_one(ticket(number)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    story.begins(&["TidewheelSlow"], &["latency"]).await;
    trickle.abort();
    fake.set(Behavior::Normal);

    let mut poison = ticket(100_000);
    poison.insert("content", "This one comes back as NAN.");
    let tickets = story.world.collection("tickets");
    tickets.insert_one(poison).await.unwrap();
    let alerts = [format!("TidewheelDeadLetters stream={RAW}"), "TidewheelVectorsRejected reason=not_finite".into()];
    story.begins(&alerts.each_ref().map(String::as_str), &["dead-letters"]).await;
    let content = doc! {"$set": {"content": "It can be embedded now."}};
    tickets.update_one(doc! {"_id": 100_000}, content).await.unwrap();
    story.world.equal().await;
    let dropped = story.world.command(&["dead-letters", "drop", "--all", "--yes"]).output().unwrap();
    assert!(dropped.status.success(), "{dropped:?}");

    red.set(true);
    story.begins(&[], &["collection-unhealthy"]).await;
    red.set(false);

    fill_oplog(&story.world).await;
    story.begins(&["TidewheelOplogWindowShort"], &["oplog-window"]).await;
    resize_oplog(&story.world, LARGE).await;
    story.ends(&CONTENT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_and_clear_for_index_drift() {
    let mut story = Story::begin(World::new().await, "audit.interval = \"2s\"", |rules| rules).await;
    story.world.collection("notes").insert_many(NAMES.map(note)).await.unwrap();
    story.world.collection("tickets").insert_many((0..300).map(ticket)).await.unwrap();
    story.world.equal().await;
    let audited = |world: &World| world.log("producer").matches("audit passed: the index matches MongoDB").count();
    story.world.wait(|world| audited(world) >= 1, "an audit without drift").await;

    let planted = damage(&story.world.stack.qdrant_http_url().unwrap()).await;
    let kinds = ["missing", "stale", "extra", "surplus"].map(|kind| format!("TidewheelDrift kind={kind}"));
    story.begins(&kinds.each_ref().map(String::as_str), &["drift"]).await;
    // The audit compares digests, so it misses a field that was changed without its digest.
    let found = [planted[0], planted[1] - 1, planted[2], planted[3]];
    let shown = story.metrics().await.concat();
    for (kind, count) in ["missing", "stale", "extra", "surplus"].into_iter().zip(found) {
        let line = format!("tidewheel_drift_documents{{index=\"documents\",kind=\"{kind}\"}} {count}\n");
        assert!(shown.contains(&line), "{line}{shown}");
    }
    let text = "audit found drift between index and MongoDB; run `tidewheel verify --repair` to repair it";
    assert!(story.world.log("producer").contains(text));

    // Another producer takes over and audits from here on. The old one still runs, but must not report its old result.
    story.start_another("producer").await;
    let (url, lease): (_, String) = (story.world.stack.redis_url(), story.world.redis(&["GET", LEASE]).await);
    let pid: u32 = lease.rsplit('-').nth(1).unwrap().parse().unwrap();
    signal(pid, "STOP");
    let taken_over = || async {
        let now: Option<String> = redis_command(&url, &["GET", LEASE]).await;
        now.is_some_and(|now| now != lease)
    };
    story.world.until("the other producer takes over", taken_over).await;
    signal(pid, "CONT");
    let standing_by = |world: &World| world.log("producer").matches("standing by").count();
    story.world.wait(|world| standing_by(world) == 2, "the old producer stands by").await;

    let (repaired, code) = verify(&story.world, &["--repair"]);
    assert_eq!((code, counts(&repaired), &repaired["repaired"]["left"]), (Some(0), planted, &0.into()), "{repaired}");
    story.world.equal().await;
    story.quiet().await;
    let unknown = r#"tidewheel_drift_documents{index="documents",kind="missing"} NaN"#;
    assert!(story.metrics().await.iter().any(|text| text.contains(unknown)), "the old producer reports NaN");
    story.ends(&AUDIT).await;
}

#[test]
fn stories_cover_every_alert() {
    let rules = rules();
    let caused: BTreeSet<&str> = STORIES.iter().flat_map(|story| story.alerts).copied().collect();
    assert_eq!(caused, names(&rules).into_iter().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn stories_and_runbook_cover_every_problem_code() {
    let mut world = World::new().await;
    let port = super::world::free_port();
    world.write_settings(&format!("http.listen = \"127.0.0.1:{port}\""));
    world.start("processor");
    let url = format!("http://127.0.0.1:{port}/metrics");
    let shown = || async { super::clients::http().get(&url).send().await.ok()?.text().await.ok() };
    world
        .until("metrics with problem codes", || async { shown().await.is_some_and(|text| text.contains("_problem{")) })
        .await;
    let text = shown().await.unwrap();
    let codes = text.lines().filter_map(|line| line.strip_prefix("tidewheel_problem{code=\"")?.split('"').next());
    let codes: BTreeSet<&str> = codes.collect();
    let covered: BTreeSet<&str> = STORIES.iter().flat_map(|story| story.codes).copied().collect();
    assert_eq!(covered, codes);
    let runbook = std::fs::read_to_string(repository("docs/runbook.md")).unwrap();
    let of_alerts = rules();
    let of_alerts = of_alerts.lines().filter_map(|line| line.split("code: ").nth(1)?.strip_suffix('}'));
    for code in codes.iter().copied().chain(of_alerts) {
        assert!(codes.contains(code) && runbook.contains(&format!("\n### `{code}`\n")), "{code}");
    }
}
