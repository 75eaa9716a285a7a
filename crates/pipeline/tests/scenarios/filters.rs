//! Indexes with a filter.

use serde_json::json;
use tidewheel_core::change::{Change, Operation};
use tidewheel_stores::redis::keys::RAW;
use tidewheel_testkit::source_write::SourceWrite;

use crate::declared::{Installation, SMALL, declaration, open, ticket};

const TICKETS: &str = "tickets";

/// An index of the open tickets, all services, and an empty source.
async fn queue() -> Installation {
    let mut installation = Installation::new(&[open(declaration("queue", &["shop.tickets"], SMALL))]);
    installation.start_all();
    installation.settle("at the start").await;
    installation
}

/// Sets a field of a ticket.
fn set(installation: &Installation, id: i32, field: &str, value: &str) {
    let (collection, field) = (TICKETS.to_owned(), field.to_owned());
    installation.source.write(SourceWrite::Set { collection, id: json!(id), field, value: json!(value) });
}

/// The operations of all entries so far.
fn appended(installation: &Installation) -> Vec<Operation> {
    installation.streams.records::<Change>(RAW).into_iter().map(|(_, change)| change.operation).collect()
}

fn count(installation: &Installation) -> usize {
    installation.collection("queue.g1").points().len()
}

#[tokio::test(start_paused = true)]
async fn documents_enter_and_leave_the_filter() {
    let installation = queue().await;
    installation.source.insert(TICKETS, ticket(1, "tide", "open"));
    installation.settle("inserted").await;
    assert_eq!(count(&installation), 1);
    set(&installation, 1, "status", "closed");
    installation.settle("left by an update").await;
    assert_eq!(count(&installation), 0);
    set(&installation, 1, "status", "open");
    installation.settle("entered by an update").await;
    assert_eq!(count(&installation), 1);
    installation.source.replace(TICKETS, ticket(1, "ebb", "closed"));
    installation.settle("left by a replacement").await;
    assert_eq!(count(&installation), 0);
    installation.source.replace(TICKETS, ticket(1, "flow", "open"));
    installation.settle("entered by a replacement").await;
    let unset = SourceWrite::Unset { collection: TICKETS.to_owned(), id: json!(1), field: "status".to_owned() };
    installation.source.write(unset);
    installation.settle("left without the field").await;
    assert_eq!(count(&installation), 0);
    // Several changes in one batch: the last one decides.
    for status in ["open", "closed", "open"] {
        set(&installation, 1, "status", status);
    }
    installation.settle("entered at last").await;
    assert_eq!(count(&installation), 1);
}

#[tokio::test(start_paused = true)]
async fn excluded_documents_cost_no_entry_unless_they_leave() {
    let installation = queue().await;
    installation.source.insert(TICKETS, ticket(1, "tide", "closed"));
    set(&installation, 1, "title", "another title");
    installation.settle("excluded").await;
    assert!(appended(&installation).is_empty());
    set(&installation, 1, "status", "open");
    installation.settle("entered").await;
    set(&installation, 1, "status", "closed");
    installation.settle("left").await;
    set(&installation, 1, "title", "the first title");
    installation.settle("excluded again").await;
    assert_eq!(appended(&installation), [Operation::Update, Operation::Delete]);
    let entries = installation.streams.records::<Change>(RAW);
    assert!(entries.iter().all(|(_, change)| change.document.is_some() == change.operation.has_document()));
    // Whether it belonged to the index is unknown.
    installation.source.delete(TICKETS, json!(1));
    installation.settle("deleted").await;
    assert_eq!(appended(&installation).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn filter_that_is_added_is_swept_and_one_that_is_removed_is_filled() {
    let everything = declaration("queue", &["shop.tickets"], SMALL);
    let mut installation = Installation::new(std::slice::from_ref(&everything));
    for (id, status) in (0..8).zip(["open", "closed"].into_iter().cycle()) {
        installation.source.insert(TICKETS, ticket(id, &format!("tide {id}"), status));
    }
    installation.start_all();
    installation.settle("at the start").await;
    assert_eq!((count(&installation), installation.embedded()), (8, (8, 0)));
    installation.apply(&[open(everything.clone())]).await;
    set(&installation, 0, "status", "closed");
    set(&installation, 1, "status", "open");
    installation.settle("with a filter").await;
    assert_eq!((count(&installation), installation.embedded()), (4, (8, 0)));
    installation.apply(&[everything]).await;
    installation.settle("without a filter").await;
    assert_eq!((count(&installation), installation.embedded()), (8, (12, 0)));
    assert_eq!(installation.alias("queue").as_deref(), Some("queue.g1"), "changed in place");
}
