//! OpenTelemetry traces: the spans that each service exports for each change.

use std::collections::HashSet;
use std::fs::File;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use mongodb::bson::doc;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use prost::Message as _;
use tidewheel_core::identity::Namespace;
use tidewheel_core::trace::ChangeTrace;
use tokio::net::TcpListener;

use super::dead_letters::snapshot_is_over;
use super::world::{SERVICES, World, free_port, signal, ticket};

/// An OTLP/HTTP collector that records spans.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportedSpan>>>);

/// A span with its resource.
#[derive(Clone, Debug)]
struct ExportedSpan {
    service: String,
    version: String,
    instance: String,
    span: Span,
}

impl Collector {
    /// Listens on this address; accepts only requests with the right key.
    async fn listen(&self, address: &str) -> String {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let collector = self.clone();
        let take = move |headers: HeaderMap, body: Bytes| std::future::ready(collector.take(&headers, body));
        let router = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }

    fn take(&self, headers: &HeaderMap, body: Bytes) -> (StatusCode, Vec<u8>) {
        if headers["api-key"] != "hunter2" || headers["content-type"] != "application/x-protobuf" {
            return (StatusCode::UNAUTHORIZED, Vec::new());
        }
        let request = ExportTraceServiceRequest::decode(body).expect("an OTLP request");
        let mut all = self.0.lock().unwrap();
        for service in request.resource_spans {
            let of = |name| text(&service.resource.as_ref().unwrap().attributes, name).unwrap();
            let (name, version, instance) = (of("service.name"), of("service.version"), of("service.instance.id"));
            for span in service.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let (service, version, instance) = (name.clone(), version.clone(), instance.clone());
                all.push(ExportedSpan { service, version, instance, span });
            }
        }
        (StatusCode::OK, ExportTraceServiceResponse::default().encode_to_vec())
    }

    fn all(&self) -> Vec<ExportedSpan> {
        self.0.lock().unwrap().clone()
    }

    /// Returns the spans of this name for the document with this `_id`, in the order of the changes.
    fn of(&self, id: i32, name: &str) -> Vec<ExportedSpan> {
        let mut spans = self.all();
        spans.retain(|span| span.span.name == name && span.text("tidewheel.key") == Some(key(id)));
        spans.sort_by_key(|span| {
            span.text("tidewheel.version").unwrap().parse::<tidewheel_core::version::Version>().unwrap()
        });
        spans
    }

    /// Returns the child spans of this name.
    fn below(&self, parent: &ExportedSpan, name: &str) -> Vec<ExportedSpan> {
        let mut spans = self.all();
        spans.retain(|span| {
            span.span.trace_id == parent.span.trace_id
                && span.span.parent_span_id == parent.span.span_id
                && span.span.name == name
        });
        spans
    }
}

fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{name} is {other:?}"),
    }
}

impl ExportedSpan {
    fn text(&self, name: &str) -> Option<String> {
        text(&self.span.attributes, name)
    }

    fn hex(&self) -> String {
        tidewheel_core::hex::hex(&self.span.trace_id)
    }

    fn times(&self) -> (u64, u64) {
        (self.span.start_time_unix_nano, self.span.end_time_unix_nano)
    }
}

/// Returns the key of the document with this number.
fn key(id: i32) -> String {
    format!(r#"{{"$numberInt":"{id}"}}"#)
}

/// Returns settings for traces; the template fails on a document with a field `broken`.
fn settings(endpoint: &str) -> String {
    format!(
        "traces.endpoint = \"{endpoint}\"\ntraces.headers = \"api-key=hunter2\"\n\
         documents.template = \"{{{{ subject }}}}\\n{{{{ content }}}}{{% if broken %}}{{{{ subject + 1 }}}}{{% endif %}}\""
    )
}

fn start_all(world: &mut World) {
    for service in SERVICES {
        world.start(service);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_of_change_spans_both_streams() {
    let (mut world, collector) = (World::new().await, Collector::default());
    let endpoint = collector.listen("127.0.0.1:0").await;
    world.write_settings(&settings(&endpoint));
    start_all(&mut world);
    let tickets = world.collection("tickets");
    snapshot_is_over(&mut world).await;
    tickets.insert_one(ticket(1)).await.unwrap();
    world.equal().await;
    tickets.update_one(doc! {"_id": 1}, doc! {"$set": {"product": "Dorado"}}).await.unwrap();
    world.equal().await;
    tickets.delete_one(doc! {"_id": 1}).await.unwrap();
    world.equal().await;
    world.until("three upsert spans", || async { collector.of(1, "upsert").len() == 3 }).await;
    world.until("three root spans", || async { collector.of(1, "change").len() == 3 }).await;
    world.until("three process spans", || async { collector.of(1, "process").len() == 3 }).await;

    let expected =
        [("insert", "embedded", "written"), ("update", "embedded", "refreshed"), ("delete", "passed_on", "deleted")];
    for (number, (operation, processed, upserted)) in expected.into_iter().enumerate() {
        let root = &collector.of(1, "change")[number];
        let version = root.text("tidewheel.version").unwrap().parse().unwrap();
        let derived = ChangeTrace::of(&Namespace::new("shop", "tickets"), &key(1), version);
        assert_eq!((&root.span.trace_id[..], &root.span.span_id[..]), (&derived.id.0[..], &derived.root.0[..]));
        assert_eq!((root.service.as_str(), root.span.kind()), ("tidewheel-producer", SpanKind::Producer));
        assert!(root.span.parent_span_id.is_empty());
        let named = ["db.system.name", "db.namespace", "db.collection.name", "messaging.destination.name"];
        let named = named.map(|name| root.text(name).unwrap());
        assert_eq!(named, ["mongodb", "shop", "tickets", "raw_document_changes"]);
        assert_eq!(root.text("tidewheel.operation").as_deref(), Some(operation));

        let [process, upsert] = ["process", "upsert"].map(|name| {
            let below = collector.below(root, name);
            let [one] = &below[..] else { panic!("{name}: {below:?}") };
            let status = one.span.status.as_ref().map_or(SpanStatus::Unset, Status::code);
            assert_eq!((one.span.kind(), status), (SpanKind::Consumer, SpanStatus::Unset));
            one.clone()
        });
        assert_eq!((process.service.as_str(), upsert.service.as_str()), ("tidewheel-processor", "tidewheel-upserter"));
        assert_eq!(process.text("tidewheel.outcome").as_deref(), Some(processed));
        assert_eq!(upsert.text("tidewheel.outcome").as_deref(), Some(upserted));
        assert_eq!(process.text("messaging.destination.name").as_deref(), Some("raw_document_changes"));
        assert_eq!(upsert.text("messaging.destination.name").as_deref(), Some("embedded_documents"));
        assert_eq!(upsert.text("db.system.name").as_deref(), Some("qdrant"));
        assert_eq!(upsert.text("db.collection.name").as_deref(), Some("documents"));

        // The second version has the same text, so its vector is reused.
        let embed = collector.below(&process, "embed");
        assert_eq!(embed.len(), usize::from(operation == "insert"), "{embed:?}");
        for embed in &embed {
            assert_eq!((embed.span.kind(), embed.text("tidewheel.chunks").as_deref()), (SpanKind::Client, Some("1")));
            assert_eq!(embed.text("gen_ai.request.model").as_deref(), Some("hash:64"));
            let (within, of) = (embed.times(), process.times());
            assert!(of.0 <= within.0 && within.1 <= of.1, "{embed:?} is not within {process:?}");
        }
        for one in [root, &process, &upsert].into_iter().chain(&embed) {
            assert!(one.times().0 <= one.times().1, "{one:?}");
            assert_eq!(one.version, env!("CARGO_PKG_VERSION"));
        }
        assert!(root.times().0 <= process.times().0 && process.times().0 <= upsert.times().0, "{root:?} {process:?}");
    }
    let instances: HashSet<String> = collector.all().into_iter().map(|span| span.instance).collect();
    assert_eq!(instances.len(), 3, "{instances:?}");

    // `tidewheel inspect` prints the same trace ids.
    let expected: HashSet<String> = collector.of(1, "change").iter().map(ExportedSpan::hex).collect();
    let ran = world.command(&["inspect", &key(1), "--output", "json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let entries = json["documents"][0]["raw"]["entries"].as_array().unwrap();
    let ids: HashSet<String> = entries.iter().map(|entry| entry["trace_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, expected, "{json}");
    let ran = world.command(&["inspect", &key(1)]).output().unwrap();
    let newest = format!("{} of its newest change", collector.of(1, "change")[2].hex());
    assert!(String::from_utf8_lossy(&ran.stdout).contains(&newest), "{ran:?}");

    let ran = world.command(&["check"]).output().unwrap();
    let fine = format!("collector accepts traces at {endpoint}/v1/traces");
    assert!(String::from_utf8_lossy(&ran.stdout).contains(&fine), "{ran:?}");

    // The span of a parked change has an error status with the reason.
    let mut broken = ticket(2);
    broken.insert("broken", true);
    tickets.insert_many([broken, ticket(3)]).await.unwrap();
    world.until("the span of the parked change", || async { collector.of(2, "process").len() == 1 }).await;
    world.until("the span of the other change", || async { collector.of(3, "upsert").len() == 1 }).await;
    let parked = &collector.of(2, "process")[0];
    let status = parked.span.status.as_ref().expect("an error status");
    assert!(status.code() == SpanStatus::Error && !status.message.is_empty(), "{status:?}");
    assert_eq!(parked.text("error.type").as_deref(), Some("poison"));
    assert_eq!(parked.text("tidewheel.outcome").as_deref(), Some("parked"));
    assert!(collector.of(2, "upsert").is_empty());
    let root = &collector.of(2, "change")[0];
    let ran = world.command(&["dead-letters", "retry", "--all", "--yes"]).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    world.until("the span of the second attempt", || async { collector.below(root, "process").len() == 2 }).await;

    // Services export queued spans on shutdown.
    tickets.insert_one(ticket(4)).await.unwrap();
    let qdrant = world.stack.qdrant_http_url().expect("the stack has a Qdrant");
    world.until("two points", || super::clients::count(&qdrant, 2)).await;
    for (service, span) in [("producer", "change"), ("processor", "process"), ("upserter", "upsert")] {
        assert!(world.terminate(service).0.success());
        assert_eq!(collector.of(4, span).len(), 1, "{service}");
        assert!(!world.log(service).contains("hunter2"), "{service} logs a secret");
    }
}

/// Returns the log lines that report the start of a collector outage.
fn outages(world: &World, service: &str) -> Vec<String> {
    let log = world.log(service);
    log.lines()
        .filter(|line| line.contains("WARN") && line.contains("changes are processed without traces"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn collector_outage_does_not_affect_pipeline() {
    let mut world = World::new().await;
    let address = format!("127.0.0.1:{}", free_port());
    world.write_settings(&settings(&format!("http://{address}")));
    start_all(&mut world);
    snapshot_is_over(&mut world).await;
    let tickets = world.collection("tickets");
    tickets.insert_many((0..300).map(ticket)).await.unwrap();
    assert_eq!(world.equal().await.documents, 300);
    const TRACED: [&str; 3] = ["producer", "processor", "upserter"];
    for service in TRACED {
        world.wait(|world| !outages(world, service).is_empty(), "the outage is logged").await;
    }
    let ran = world.command(&["check"]).output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "check passes without a collector");
    assert!(String::from_utf8_lossy(&ran.stdout).contains("! traces    no collector accepts traces at"), "{ran:?}");

    // After the collector's recovery services export new spans without a restart.
    let collector = Collector::default();
    collector.listen(&address).await;
    tickets.insert_one(ticket(1_000)).await.unwrap();
    for (service, span) in TRACED.into_iter().zip(["change", "process", "upsert"]) {
        world.until("spans after the recovery", || async { collector.of(1_000, span).len() == 1 }).await;
        world.wait(|world| world.log(service).contains("able to send traces again"), "the recovery is logged").await;
        let outages = outages(&world, service);
        assert_eq!(outages.len(), 1, "{outages:?}");
        assert!(outages[0].contains(&address) && !world.log(service).contains("hunter2"), "{outages:?}");
    }

    // Neither a collector that accepts connections without a response nor an unreachable one delays the shutdown.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (silent, closed) = (mute.local_addr().unwrap().to_string(), format!("127.0.0.1:{}", free_port()));
    for (round, address) in (0..).zip([silent, closed]) {
        for service in SERVICES {
            world.terminate(service);
        }
        world.write_settings(&settings(&format!("http://{address}")));
        start_all(&mut world);
        let first = 2_000 + round * 1_000;
        tickets.insert_many((first..first + 100).map(ticket)).await.unwrap();
        world.equal().await;
        for service in TRACED {
            let (status, took) = world.terminate(service);
            assert!(status.success() && took < Duration::from_secs(10), "{service} ended with {status} after {took:?}");
            world.start(service);
        }
    }
}

/// They may be meant for another program in the same container.
#[tokio::test(flavor = "multi_thread")]
async fn invalid_standard_variables_disable_traces_and_nothing_else() {
    let mut world = World::new().await;
    for service in ["embedder", "processor", "upserter"] {
        world.start(service);
    }
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
    let variables = [
        vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://collector:4317")],
        vec![endpoint, ("OTEL_EXPORTER_OTLP_HEADERS", "token")],
        vec![endpoint, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file.pem")],
    ];
    for (number, variables) in (0..).zip(variables) {
        let log = File::create(world.settings().with_file_name(format!("producer-otel-{number}.log"))).unwrap();
        let mut producer = world
            .command(&["--log-format", "text", "producer"])
            .envs(variables.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        world.collection("tickets").insert_one(ticket(number)).await.unwrap();
        let documents = world.equal().await.documents;
        signal(producer.id(), "TERM");
        assert!(producer.wait().unwrap().success(), "{variables:?}");
        assert_eq!(documents, number as u64 + 1);
        let warnings = world.log("producer").matches("no traces, because of a variable OTEL_*").count();
        assert_eq!(warnings, number as usize + 1, "{variables:?}");
    }
}
