//! Sample records.

use tidewheel_core::catalog::TargetId;
use tidewheel_core::change::{Change, Operation, Route, Stamp};
use tidewheel_core::embedded::{Embedded, Target, Vectors};
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

/// The revision of the catalog that the records of targets name.
pub const REVISION: u64 = 17;

/// The targets of these names, such as `tickets.g2`.
///
/// # Panics
/// If a name is none of a target.
pub fn targets(names: &[&str]) -> Vec<TargetId> {
    names.iter().map(|name| name.parse().expect("a valid target")).collect()
}

/// The `number`-th insert, of a document that belongs to `to`, and may have belonged to `leaves`.
pub fn routed(number: u32, to: &[&str], leaves: &[&str]) -> Change {
    let stamp = Stamp { catalog: REVISION, targets: targets(to), leaves: targets(leaves) };
    Change { route: stamp.into(), ..change(number) }
}

/// The `number`-th insert with vectors, for this target.
pub fn embedded_for(number: u32, target: &str) -> Embedded {
    let made = "0123456789abcdef".parse().expect("a valid fingerprint");
    let id = targets(&[target]).remove(0);
    Embedded {
        change: routed(number, &[target], &[]),
        target: Some(Target { catalog: REVISION, id, made }),
        prefix: format!("Prefix {number}"),
        ..embedded(number)
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
