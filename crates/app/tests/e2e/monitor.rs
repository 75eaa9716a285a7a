//! Problems begin and resolve in `status`, `monitor`, the webhook, readiness and metrics.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tidewheel_core::metric;

use super::world::{World, free_port, signal, ticket};

/// Messages to the webhook: authorization header and body.
type Inbox = Arc<Mutex<Vec<(String, Value)>>>;

/// Starts a webhook receiver that rejects the first attempt; returns its URL.
async fn receiver(inbox: Inbox) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let refused = Arc::new(AtomicBool::new(false));
    let take = move |headers: HeaderMap, body: String| {
        if !refused.swap(true, Ordering::Relaxed) {
            return std::future::ready(StatusCode::SERVICE_UNAVAILABLE);
        }
        let token = headers["authorization"].to_str().unwrap().to_owned();
        inbox.lock().unwrap().push((token, serde_json::from_str(&body).unwrap()));
        std::future::ready(StatusCode::NO_CONTENT)
    };
    let router = Router::new().route("/hook/hunter2", post(take));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}/hook/hunter2")
}

fn codes(inbox: &Inbox, event: &str) -> BTreeSet<String> {
    let messages = inbox.lock().unwrap();
    let of_event = messages.iter().filter(|(_, message)| message["event"] == event);
    of_event.map(|(_, message)| message["problem"]["code"].as_str().unwrap().to_owned()).collect()
}

fn once(world: &World) -> (Option<i32>, Value) {
    let output = world.command(&["monitor", "--once", "--output", "json"]).output().unwrap();
    let line = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), line)
}

#[tokio::test(flavor = "multi_thread")]
async fn backlog_problem_is_reported_once_and_resolved_once() {
    let inbox = Inbox::default();
    let webhook = receiver(inbox.clone()).await;
    let mut world = World::new().await;
    world.write_settings(&format!(
        "monitor.interval = \"300ms\"\nmonitor.stage_2_entries = 50\nmonitor.no_progress = \"2s\"\n\
         monitor.webhook = \"{webhook}\"\nmonitor.webhook_token = \"swordfish\""
    ));
    for service in super::world::SERVICES {
        world.start(service);
    }
    world.collection("tickets").insert_many((0..100).map(ticket)).await.unwrap();
    world.equal().await;

    let mut monitor =
        world.command(&["monitor"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let mut first = String::new();
    let mut out = BufReader::new(monitor.stdout.take().unwrap());
    out.read_line(&mut first).unwrap();
    assert!(first.contains("stage 1:") && first.contains("stage 2:"), "{first}");
    let rest = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text)
    });

    world.terminate("upserter");
    world.collection("tickets").insert_many((1000..1200).map(ticket)).await.unwrap();
    world
        .until("the webhook receives the problem", || async { codes(&inbox, "problem").contains("stage-2-behind") })
        .await;
    world
        .until("the webhook receives a missing consumer or no progress", || async {
            let problems = codes(&inbox, "problem");
            problems.contains("no-consumer") || problems.contains("no-progress")
        })
        .await;
    let (code, line) = once(&world);
    assert_eq!(code, Some(1), "{line}");
    assert_eq!(line["verdict"]["state"], "stalled");
    assert!(line["stages"][1]["backlog"].as_u64().unwrap() >= 200, "{line}");

    world.start("upserter");
    world.equal().await;
    let all = codes(&inbox, "problem");
    world.until("all problems are resolved", || async { codes(&inbox, "resolved").is_superset(&all) }).await;
    world.wait(|world| once(world).0 == Some(0), "no problems").await;
    let messages = inbox.lock().unwrap().clone();
    assert!(messages.iter().all(|(token, _)| token == "Bearer swordfish"));
    let behind = |(_, message): &&(String, Value)| message["problem"]["code"] == "stage-2-behind";
    let events: Vec<_> = messages.iter().filter(behind).map(|(_, message)| &message["event"]).collect();
    assert_eq!(events, ["problem", "resolved"], "one message per transition");
    assert!(messages.iter().all(|(_, message)| message["text"].as_str().unwrap().starts_with("tidewheel: ")));

    signal(monitor.id(), "TERM");
    let output = monitor.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = rest.join().unwrap().unwrap() + &String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("new: ") && text.contains("resolved: "), "{text}");
    assert!(text.contains("failed to deliver webhook message, will retry: the webhook returned 503"), "{text}");
    assert!(!text.contains("hunter2") && !text.contains("swordfish"), "secret in the output: {text}");
}

/// Returns status and body of a page of the operations server.
async fn page(port: u16, path: &str) -> (u16, String) {
    match super::clients::http().get(format!("http://127.0.0.1:{port}{path}")).send().await {
        Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap()),
        Err(_) => (0, String::new()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outage_shows_in_readiness_metrics_and_status_with_few_log_lines() {
    let mut world = World::new().await;
    let ports: Vec<u16> = super::world::SERVICES.iter().map(|_| free_port()).collect();
    for (service, port) in super::world::SERVICES.into_iter().zip(&ports) {
        world.write_settings(&format!("http.listen = \"127.0.0.1:{port}\"\nlog.level = \"info\""));
        world.start(service);
        world.until("the service responds", || async { page(*port, "/health").await.0 == 200 }).await;
    }
    let upserter = ports[3];
    world.collection("tickets").insert_many((0..100).map(ticket)).await.unwrap();
    world.equal().await;
    // Documents of the snapshot have no latency; changes do.
    world.collection("tickets").insert_many((100..200).map(ticket)).await.unwrap();
    world.equal().await;
    world.until("the upserter is ready", || async { page(upserter, "/ready").await.0 == 200 }).await;

    let names: BTreeSet<&str> = metric::ALL.iter().map(|meter| meter.name).collect();
    let mut seen = BTreeSet::new();
    for port in &ports {
        let (_, text) = page(*port, "/metrics").await;
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        for name in types.filter(|name| name.starts_with("tidewheel_")) {
            seen.insert(names.get(name).copied().unwrap_or_else(|| panic!("{name} is not in the list")));
        }
    }
    for name in [
        metric::SEARCHABLE,
        metric::PRODUCER_CHANGES,
        metric::EMBEDDER_TOKENS,
        metric::OPLOG_TIME_TO_LOSS,
        metric::REDIS_MEMORY,
        metric::ENTRIES_FINISHED,
        metric::STREAM_BACKLOG,
        metric::PROBLEM,
    ] {
        assert!(seen.contains(name), "{name} is missing");
    }
    let (_, text) = page(upserter, "/metrics").await;
    let count = "tidewheel_commit_to_searchable_seconds_count{index=\"documents\"} ";
    let count = text.lines().find_map(|line| line.strip_prefix(count));
    let count: u64 = count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count: {text}"));
    assert!((100..=200).contains(&count), "{text}");
    let bucket = "tidewheel_commit_to_searchable_seconds_bucket{index=\"documents\",le=\"10\"}";
    assert!(text.contains(bucket), "{text}");

    let status = |world: &World| -> Value {
        let output = world.command(&["status", "--output", "json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    world.wait(|world| status(world)["services"].as_array().unwrap().len() == 4, "all services report").await;
    world.wait(|world| status(world)["verdict"]["state"] == "in_sync", "the index is in sync").await;
    world.wait(|world| status(world)["latency"]["changes"] == count, "the latency is known").await;
    // Unknown on a new server.
    let left = status(&world)["source"]["oplog_time_to_loss_seconds"].as_u64();
    assert!(left.is_none_or(|left| left > 7_200), "{left:?}");

    let qdrant = world.stack.qdrant.clone().unwrap();
    qdrant.kill().await;
    world.collection("tickets").insert_many((1000..1400).map(ticket)).await.unwrap();
    world
        .until("the upserter reports why it is not ready", || async {
            let (code, text) = page(upserter, "/ready").await;
            code == 503 && text.contains("failing to write to Qdrant")
        })
        .await;
    assert_eq!(page(upserter, "/health").await.0, 200, "liveness");
    world.wait(|world| status(world)["verdict"]["state"] == "stalled", "status reports the outage").await;
    world
        .until("the error is counted", || async {
            page(upserter, "/metrics").await.1.contains("server=\"qdrant\",cause=\"unreachable\"}")
        })
        .await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    qdrant.start().await.unwrap();
    world.equal().await;
    world.until("the upserter is ready again", || async { page(upserter, "/ready").await.0 == 200 }).await;
    world.wait(|world| status(world)["verdict"]["state"] == "in_sync", "the index is in sync again").await;
    let log = world.log("upserter");
    let story: Vec<&str> = log.lines().filter(|line| line.contains("WARN") || line.contains("able to write")).collect();
    assert!((2..=8).contains(&story.len()), "few log lines per outage:\n{}", story.join("\n"));
    assert!(story.iter().any(|line| line.contains("able to write to Qdrant again")), "{story:?}");
}
