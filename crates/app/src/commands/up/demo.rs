//! The demo: inserts documents into MongoDB and finds them by meaning.

use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, doc};
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::payload::STAMP;
use tidewheel_core::ports::IndexReader as _;

use super::tickets::{QUESTION, tickets};
use crate::commands::search;
use crate::exit::Failure;
use crate::printer::{self, DIM, STRONG, styled};
use crate::settings::Settings;
use crate::{compose, connect};

/// Collection of the tickets, unless the settings select one.
const COLLECTION: &str = "tickets";

/// Polling interval of the index, short enough for the printed latency to be accurate.
const POLL: Duration = Duration::from_millis(5);

/// Maximum time for the documents to arrive. A model of a gigabyte loads in less.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Number of documents to print.
const SHOWN: usize = 3;

/// Inserts, waits, searches, and prints each step.
pub(super) async fn run(settings: &Settings) -> Result<(), Failure> {
    let namespace = namespace(settings);
    let tickets = tickets();
    printer::data(format_args!("\n{}", styled(STRONG, "The demo")));

    let begun = Instant::now();
    let new = insert(settings, &namespace, &tickets).await?;
    let old = tickets.len() as u64 - new;
    let already = if old > 0 { format!(" ({old} already present)") } else { String::new() };
    step(1, &format!("inserted {new} documents into {namespace} in MongoDB{already}"), begun.elapsed());

    let begun = Instant::now();
    searchable(settings, &namespace, &tickets).await?;
    let arrived = if new > 0 { "embedded them and wrote them to Qdrant" } else { "found them in Qdrant" };
    step(2, arrived, begun.elapsed());

    let ports = compose::search(settings)?;
    let begun = Instant::now();
    let found = tidewheel_ops::search::find(&ports, None, QUESTION, SHOWN, None).await?;
    step(3, &format!("searched for {}", styled(STRONG, format_args!("“{QUESTION}”"))), begun.elapsed());
    if found.is_empty() {
        return Err(Failure::new("the documents are in the index, but the search did not find them")
            .with_hint("run `tidewheel status` and `tidewheel check`"));
    }
    search::show(&found, &settings.documents.fields);
    // Another model may rank another document first.
    if found[0].document.get("_id").and_then(serde_json::Value::as_str) == tickets[0].get_str("_id").ok() {
        printer::data(styled(DIM, "The first result shares no word with the query: it was found by meaning."));
    }
    Ok(())
}

fn step(number: u32, what: &str, took: Duration) {
    printer::data(format_args!("  {number}. {what} {}", styled(DIM, format_args!("({} ms)", took.as_millis()))));
}

fn namespace(settings: &Settings) -> Namespace {
    let chosen = settings.mongodb.collection.iter().find(|name| !name.contains('*'));
    let database = settings.mongodb.database.as_deref().unwrap_or_default();
    Namespace::new(database, chosen.map_or(COLLECTION, String::as_str))
}

/// Upserts the tickets and returns the number of new ones. A second run changes nothing.
async fn insert(settings: &Settings, namespace: &Namespace, tickets: &[Document]) -> Result<u64, Failure> {
    let failed = |error: mongodb::error::Error| Failure::new(format!("failed to write to {namespace}: {error}"));
    let client = Client::with_uri_str(settings.mongodb.uri.reveal()).await.map_err(failed)?;
    let collection = client.database(namespace.database()).collection::<Document>(namespace.collection());
    let mut new = 0;
    for ticket in tickets {
        let id = doc! { "_id": ticket.get_str("_id").unwrap_or_default() };
        let written = collection.replace_one(id, ticket).upsert(true).await.map_err(failed)?;
        new += u64::from(written.upserted_id.is_some());
    }
    Ok(new)
}

/// Waits until the index has every ticket.
async fn searchable(settings: &Settings, namespace: &Namespace, tickets: &[Document]) -> Result<(), Failure> {
    let index = connect::index(settings)?;
    let id = |ticket: &Document| {
        // The canonical extended JSON of a string is its JSON.
        let key = serde_json::Value::from(ticket.get_str("_id").unwrap_or_default()).to_string();
        DocumentId::new(namespace, &key).point(0)
    };
    let wanted: Vec<_> = tickets.iter().map(id).collect();
    let begun = Instant::now();
    let mut last = String::from("still in flight");
    while begun.elapsed() < TIMEOUT {
        match index.points(&wanted, STAMP).await {
            Ok(points) if points.len() == wanted.len() => return Ok(()),
            Ok(_) => {}
            Err(error) => last = error.message,
        }
        tokio::time::sleep(POLL).await;
    }
    Err(Failure::new(format!("timed out after {} s: not all documents are in Qdrant: {last}", TIMEOUT.as_secs()))
        .with_hint("run again with --log-level info to see the logs of the services"))
}
