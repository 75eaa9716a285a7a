//! Prints the addresses of the stack and the next commands.

use std::path::Path;

use tidewheel_core::identity::Namespace;
use tidewheel_local::stack::{ApiKey, Stack};

use crate::connect;
use crate::local_data;
use crate::printer::{self, DIM, STRONG, styled};
use crate::services::Bound;
use crate::settings::{Settings, address, reachable};

/// Prints the addresses.
pub(super) fn addresses(settings: &Settings, stack: &Stack, bound: Bound, key_file: Option<&Path>) {
    let row = |what: &str, address: &str, note: &str| {
        printer::data(format_args!("  {what:<11} {address:<42} {}", styled(DIM, note)));
    };
    printer::data(styled(STRONG, "tidewheel is up"));
    row("MongoDB", &stack.mongodb_uri(), &source(settings));
    row("Redis", &stack.redis_url(), "both streams");
    let collection = collections(settings);
    if let Some(http) = stack.qdrant_http_url() {
        row("Qdrant", &http, &format!("REST; {collection}"));
        row("", settings.qdrant.url.reveal(), "gRPC");
        if let Some(file) = key_file {
            row("", "API key file", &file.display().to_string());
        }
    } else {
        row("Qdrant", &address::shown(settings.qdrant.url.reveal()), &format!("external; {collection}"));
    }
    let model = if settings.embeds_here() { settings.embedder.model.as_str() } else { "external" };
    row("Embedder", &address::shown(connect::embedder_url(settings)), model);
    if let Some(address) = bound.operations {
        row("Operations", &format!("http://{}", reachable(&address.to_string())), "/ready, /health, /metrics");
    }
    if let Some(address) = bound.console {
        row("Console", &format!("http://{}", reachable(&address.to_string())), "open in a browser");
    }
}

/// Prints the next commands.
pub(super) fn commands(settings: &Settings, stack: &Stack, bound: Bound, key_file: Option<&Path>) {
    let this = std::env::args().next().unwrap_or_else(|| "tidewheel".into());
    let declarations = settings.declarations();
    let first = declarations.first().filter(|_| settings.is_declared());
    let collection = first.map_or(settings.qdrant.collection.as_str(), |index| index.name.as_str());
    let index = first.filter(|_| declarations.len() > 1).map(|index| format!(" --index {}", index.name));
    let index = index.unwrap_or_default();
    let example = first
        .and_then(|index| index.source.exact())
        .unwrap_or_else(|| Namespace::new(settings.mongodb.database.as_deref().unwrap_or_default(), "tickets"));
    let (database, tickets) = (example.database(), example.collection());
    printer::data(format_args!("\n{}", styled(STRONG, "Next steps, in another terminal:")));
    let mut lines = vec![
        format!("{this} search \"nobody has paid us yet\"{index}{}", for_search(settings, key_file)),
        format!("{this} status --watch{}", for_status(settings, stack, key_file)),
        format!(
            "mongosh {:?} --eval 'db.getSiblingDB({database:?}).{tickets}.insertOne({{subject: \"…\", content: \"…\"}})'",
            stack.mongodb_uri()
        ),
        format!("redis-cli -p {} XLEN raw_document_changes", stack.redis.port()),
        format!("redis-cli -p {} XINFO GROUPS embedded_documents", stack.redis.port()),
    ];
    if let Some(http) = stack.qdrant_http_url() {
        let key = key_file.map_or_else(String::new, |file| format!(" -H \"api-key: $(cat {})\"", file.display()));
        lines.push(format!("curl -s{key} {http}/collections/{collection}"));
    }
    if settings.embeds_here() {
        let url = connect::embedder_url(settings);
        lines.push(format!("curl -s {url}/encode -H 'content-type: application/json' -d '{{\"text\": \"hello\"}}'"));
    }
    if let Some(address) = bound.operations {
        lines.push(format!("curl -s http://{}/ready", reachable(&address.to_string())));
    }
    for line in lines {
        printer::exactly(format_args!("  {line}"));
    }
}

/// What is read from MongoDB.
fn source(settings: &Settings) -> String {
    if settings.is_declared() {
        return few(settings.indexes.iter().flat_map(|index| index.source.patterns()).map(ToString::to_string));
    }
    format!("database {}", settings.mongodb.database.as_deref().unwrap_or_default())
}

/// What searches read in Qdrant.
fn collections(settings: &Settings) -> String {
    if settings.is_declared() {
        return format!("aliases {}", few(settings.indexes.iter().map(|index| index.name.to_string())));
    }
    format!("collection {}", settings.qdrant.collection)
}

/// The first names of a list, and how many follow.
fn few(names: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 5;
    let mut names: Vec<String> = names.collect();
    let rest = names.len().saturating_sub(SHOWN);
    if rest > 1 {
        names.truncate(SHOWN);
        names.push(format!("and {rest} more"));
    }
    names.join(", ")
}

/// The flag for an address on another than the default port; empty for the default port.
fn flag(name: &str, address: &str, usual_port: &str) -> String {
    match address.trim_end_matches('/').ends_with(usual_port) {
        true => String::new(),
        false => format!(" {name} {}", address::shown(address)),
    }
}

/// Flags for `search`.
fn for_search(settings: &Settings, key_file: Option<&Path>) -> String {
    flag("--qdrant-url", settings.qdrant.url.reveal(), ":6334")
        + &flag("--embedding-url", connect::embedder_url(settings), ":8080")
        + &for_key(settings, key_file)
}

/// The flag for the API key, unless it is found automatically.
fn for_key(settings: &Settings, key_file: Option<&Path>) -> String {
    let usual = local_data::directory(None).is_ok_and(|data| key_file == Some(&*ApiKey::file(&data)))
        && settings.qdrant.url.reveal().trim_end_matches('/').ends_with(":6334");
    match key_file.filter(|_| !usual) {
        Some(file) => format!(" --set qdrant.api_key_file={}", file.display()),
        None => String::new(),
    }
}

/// Flags for `status`.
fn for_status(settings: &Settings, stack: &Stack, key_file: Option<&Path>) -> String {
    let database = settings.mongodb.database.as_deref().map(|name| format!(" --database {name}"));
    let database = database.unwrap_or_default();
    let mongodb = match stack.mongodb_uri() {
        uri if uri.contains(":27017/") => String::new(),
        // Quoted because of `&`.
        uri => format!(" --mongodb-uri '{uri}'"),
    };
    let redis = flag("--redis-url", &stack.redis_url(), ":6379");
    format!("{database}{mongodb}{redis}{}", for_search(settings, key_file))
}

#[cfg(test)]
mod tests {
    use super::few;

    #[test]
    fn long_lists_are_cut() {
        let of = |count: usize| few((0..count).map(|number| format!("i{number}")));
        assert_eq!((of(0), of(2)), (String::new(), "i0, i1".to_owned()));
        assert_eq!(of(6), "i0, i1, i2, i3, i4, i5");
        assert_eq!(of(50), "i0, i1, i2, i3, i4, and 45 more");
    }
}
