//! Tells where everything is, and what to type next.

use tidewheel_local::stack::Stack;

use crate::connect;
use crate::console;
use crate::printer::{self, DIM, STRONG, styled};
use crate::services::{self, Kind};
use crate::settings::{Settings, reachable, redact_address};

/// Where everything is.
pub(super) fn addresses(settings: &Settings, stack: &Stack, kinds: &[Kind]) {
    let row = |what: &str, address: &str, note: &str| {
        printer::data(format_args!("  {what:<11} {address:<42} {}", styled(DIM, note)));
    };
    printer::data(styled(STRONG, "tidewheel is up"));
    let database = settings.mongodb.database.as_deref().unwrap_or_default();
    row("MongoDB", &stack.mongodb_uri(), &format!("database {database}"));
    row("Redis", &stack.redis_url(), "both streams");
    let collection = format!("collection {}", settings.qdrant.collection);
    if let Some(http) = stack.qdrant_http_url() {
        row("Qdrant", &http, &format!("REST; {collection}"));
        row("", settings.qdrant.url.reveal(), "gRPC");
    } else {
        row("Qdrant", &redact_address(settings.qdrant.url.reveal()), &format!("yours; {collection}"));
    }
    let model = if settings.embedding.elsewhere { "yours" } else { &settings.embedder.model };
    row("Embedder", &redact_address(connect::embedder_url(settings)), model);
    if let Some(address) = services::operations_address(settings, kinds) {
        row("Operations", &format!("http://{}", reachable(&address)), "/ready, /health, /metrics");
    }
    if let Some(address) = console::address(&settings.console) {
        row("Console", &format!("http://{}", reachable(&address)), "for your browser");
    }
}

/// What to type next.
pub(super) fn commands(settings: &Settings, stack: &Stack, kinds: &[Kind]) {
    let this = std::env::args().next().unwrap_or_else(|| "tidewheel".into());
    let flags = flags(settings, stack);
    let database = settings.mongodb.database.as_deref().unwrap_or_default();
    let collection = &settings.qdrant.collection;
    printer::data(format_args!("\n{}", styled(STRONG, "Type next, in another terminal:")));
    let mut lines = vec![
        format!("{this} search \"nobody has paid us yet\"{flags}"),
        format!("{this} status --watch{flags}"),
        format!(
            "mongosh {:?} --eval 'db.getSiblingDB({database:?}).tickets.insertOne({{subject: \"…\", content: \"…\"}})'",
            stack.mongodb_uri()
        ),
        format!("redis-cli -p {} XLEN raw_document_changes", stack.redis.port()),
        format!("redis-cli -p {} XINFO GROUPS embedded_documents", stack.redis.port()),
    ];
    if let Some(http) = stack.qdrant_http_url() {
        lines.push(format!("curl -s {http}/collections/{collection}"));
    }
    if !settings.embedding.elsewhere {
        let url = connect::embedder_url(settings);
        lines.push(format!("curl -s {url}/encode -H 'content-type: application/json' -d '{{\"text\": \"hello\"}}'"));
    }
    if let Some(address) = services::operations_address(settings, kinds) {
        lines.push(format!("curl -s http://{}/ready", reachable(&address)));
    }
    for line in lines {
        printer::data(format_args!("  {line}"));
    }
}

/// What `search` and `status` have to be told where the addresses are not the usual ones.
fn flags(settings: &Settings, stack: &Stack) -> String {
    let qdrant = settings.qdrant.url.reveal();
    let embedder = connect::embedder_url(settings);
    let redis = stack.redis_url();
    let usual = |address: &str, port: &str| address.trim_end_matches('/').ends_with(port);
    let mut flags = String::new();
    for (flag, address, port) in
        [("--qdrant-url", qdrant, ":6334"), ("--embedding-url", embedder, ":8080"), ("--redis-url", &redis, ":6379")]
    {
        if !usual(address, port) {
            flags += &format!(" {flag} {}", redact_address(address));
        }
    }
    flags
}
