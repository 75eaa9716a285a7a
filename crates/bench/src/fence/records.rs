//! The records of stage 2.

use std::error::Error;

use mongodb::bson::Bson;
use tidewheel_core::change::{Change, Operation, Route};
use tidewheel_core::embedded::{Embedded, Vectors};
use tidewheel_core::identity::Namespace;
use tidewheel_core::version::{ClusterTime, Version};

use crate::load::ticket;
use crate::servers::{COLLECTION, DATABASE};

/// Returns inserts of new documents.
pub fn inserts(count: usize, dimension: usize) -> Result<Vec<Embedded>, Box<dyn Error>> {
    (0..count).map(|number| written(Operation::Insert, number, 1, number, dimension)).collect()
}

/// Returns mixed changes: of ten, five insert a new document, three update and two delete one that [`inserts`] wrote.
/// No document occurs twice, so that the result does not depend on the order of the batches.
pub fn mixed(count: usize, dimension: usize) -> Result<Vec<Embedded>, Box<dyn Error>> {
    let change = |number: usize| match number % 10 {
        0..5 => written(Operation::Insert, count + number, 2, number, dimension),
        5..8 => written(Operation::Update, number, 2, number, dimension),
        _ => Ok(Embedded::without_vectors(change(Operation::Delete, number, 2, number))),
    };
    (0..count).map(change).collect()
}

/// Returns the number of documents after [`inserts`] and [`mixed`].
pub fn left(count: usize) -> usize {
    (0..count).map(|number| number % 10).fold(count, |left, kind| left + usize::from(kind < 5) - usize::from(kind >= 8))
}

fn change(operation: Operation, number: usize, seconds: u32, increment: usize) -> Change {
    let time = ClusterTime { seconds, increment: increment as u32 };
    Change {
        operation,
        namespace: Namespace::new(DATABASE, COLLECTION),
        key: format!(r#"{{"$numberInt":"{number}"}}"#),
        id: number.to_string(),
        version: Version { epoch: 0, time, ordinal: 1, replay: 0 },
        committed_at: 1_700_000_000_000,
        document: None,
        route: Route::Plain,
    }
}

fn written(
    operation: Operation,
    number: usize,
    seconds: u32,
    increment: usize,
    dimension: usize,
) -> Result<Embedded, Box<dyn Error>> {
    let ticket = ticket(i32::try_from(number)?);
    let text = format!("{}\n{}", ticket.get_str("subject")?, ticket.get_str("content")?);
    let document = Some(Bson::Document(ticket).into_relaxed_extjson().to_string());
    // Any spread-out values: there are no searches.
    let values = (0..dimension).map(|at| ((number * 31 + at * 7 + number * at) % 101) as f32 - 50.0).collect();
    Ok(Embedded {
        change: Change { document, ..change(operation, number, seconds, increment) },
        model: "none".into(),
        revision: String::new(),
        chunks: vec![text],
        vectors: Vectors::new(dimension, values).ok_or("the dimension is 0")?,
        unchanged: false,
        target: None,
        prefix: String::new(),
    })
}
