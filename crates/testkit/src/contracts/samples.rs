//! Sample records.

use tidewheel_core::change::{Change, Operation, Route};
use tidewheel_core::embedded::{Embedded, Vectors};
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Checkpoint, ResumeToken, SnapshotState};
use tidewheel_core::version::{ClusterTime, Version};

/// The `number`-th insert into `shop.tickets`, of a document with the `_id` `number`.
pub fn change(number: u32) -> Change {
    Change {
        operation: Operation::Insert,
        namespace: Namespace::new("shop", "tickets"),
        key: format!(r#"{{"$numberInt":"{number}"}}"#),
        id: number.to_string(),
        version: Version { epoch: 0, time: time(number), ordinal: 1, replay: 0 },
        committed_at: 1_700_000_000_000 + u64::from(number),
        document: Some(format!(r#"{{"_id":{number},"subject":"Grüße {number}"}}"#)),
        route: Route::Plain,
    }
}

/// These inserts, in order.
pub fn changes(numbers: impl IntoIterator<Item = u32>) -> Vec<Change> {
    numbers.into_iter().map(change).collect()
}

/// The `number`-th insert with vectors of two chunks.
pub fn embedded(number: u32) -> Embedded {
    Embedded {
        change: change(number),
        model: "hash:3".into(),
        revision: "1".into(),
        chunks: vec![format!("subject {number}"), "\r\n\0 and so on".into()],
        vectors: Vectors::new(3, vec![number as f32, -0.5, f32::MIN_POSITIVE, 1.0, 2.0, 3.0])
            .expect("two vectors of 3"),
        unchanged: number.is_multiple_of(2),
        target: None,
        prefix: String::new(),
    }
}

/// The deletion of the document with the `_id` `number`.
pub fn deletion(number: u32) -> Embedded {
    Embedded::without_vectors(Change { operation: Operation::Delete, document: None, ..change(number) })
}

/// The checkpoint after the `number`-th insert.
pub fn checkpoint(number: u32) -> Checkpoint {
    Checkpoint {
        token: ResumeToken(format!(r#"{{"_data":"82{number:08}"}}"#)),
        last: (time(number), 1),
        through: time(number),
        epoch: 0,
        selection: "shop.*".into(),
        snapshot: SnapshotState::Done { time: time(0), rows: 0 },
        catalog: 0,
        scope: Vec::new(),
    }
}

fn time(number: u32) -> ClusterTime {
    ClusterTime { seconds: 1_700_000_000, increment: number }
}
