//! Plans the appends for the rows of a snapshot.

use tidewheel_core::catalog::{Made, Routed, Rows};
use tidewheel_core::change::{Change, Operation};
use tidewheel_core::identity::Namespace;
use tidewheel_core::payload::{Stamped, digest};
use tidewheel_core::ports::{Checkpoint, SnapshotState, SourceRow};
use tidewheel_core::version::Version;

use super::super::admission::{Rules, admit};
use super::super::step::Step;

/// A page of a snapshot, as read from the source.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// Its collection.
    pub namespace: Namespace,
    /// Its rows.
    pub rows: Vec<SourceRow>,
}

/// A page of a snapshot, compared with the index.
#[derive(Clone, Debug, PartialEq)]
pub struct PageRead {
    /// Its collection.
    pub namespace: Namespace,
    /// The key of its last row whose key is short enough to be saved.
    pub last: Option<String>,
    /// Number of its rows.
    pub count: u64,
    /// The rows that have to be appended, each with its targets.
    pub differing: Vec<(SourceRow, Routed)>,
}

/// The step for a page of a snapshot, read at `now` (milliseconds since the Unix epoch).
///
/// Its rows carry the time at which the snapshot began: every later change wins over them, even if the row already
/// reflects it.
pub fn read(checkpoint: &Checkpoint, page: PageRead, now: u64, rules: Rules<'_>) -> Step {
    let SnapshotState::Running { time, ref after, rows } = checkpoint.snapshot else {
        unreachable!("rows are only read while a snapshot runs");
    };
    let after = after.clone();
    let PageRead { namespace, last, count, differing } = page;
    let next = checkpoint.clone();
    let mut step = Step { changes: Vec::with_capacity(differing.len()), parked: Vec::new(), next };
    for (row, routed) in differing {
        let stamp = routed.stamp.clone();
        let change = Change {
            operation: Operation::Read,
            namespace: namespace.clone(),
            key: row.key,
            id: row.id,
            version: Version::of_snapshot(checkpoint.epoch, time),
            committed_at: now,
            document: None,
            route: routed.into_route(),
        };
        match admit(change, Some(row.document), rules.limits) {
            Ok(change) => step.changes.push(change),
            Err(refused) => rules.park(*refused, &stamp, &mut step),
        }
    }
    let after = last.map(|last| (namespace, last)).or(after);
    step.next.snapshot = SnapshotState::Running { time, after, rows: rows + count };
    step
}

/// Splits a page into parts with at most `most` rows to append.
pub fn parts(mut page: PageRead, most: usize) -> Vec<PageRead> {
    let mut parts = Vec::new();
    while page.differing.len() > most {
        let rest = page.differing.split_off(most);
        let differing = std::mem::replace(&mut page.differing, rest);
        let count = differing.len() as u64;
        page.count = page.count.saturating_sub(count);
        let last = last_short(differing.iter().map(|(row, _)| row));
        parts.push(PageRead { namespace: page.namespace.clone(), last, count, differing });
    }
    parts.push(page);
    parts
}

/// The last key of a page that is short enough to be saved with every append.
pub fn last_short<'a>(rows: impl DoubleEndedIterator<Item = &'a SourceRow>) -> Option<String> {
    const MOST: usize = 64 * 1024;
    rows.rev().map(|row| &row.key).find(|key| key.len() <= MOST).cloned()
}

/// Whether a row read by a snapshot has to be appended, given its point in the index: not if the index has the same
/// document, made as `rows` requires, or a newer change. `made` is what points of the target are made by; `None` before
/// a catalog is applied.
pub fn differs(stored: Option<&Stamped>, row: &SourceRow, snapshot: Version, made: Option<&Made>, rows: Rows) -> bool {
    let Some(stored) = stored else { return true };
    let same = || row.document.as_ref().is_ok_and(|document| stored.digest == digest(document));
    let is_made = || match (made, &stored.made) {
        (None, _) => true,
        (Some(_), None) => rows == Rows::Missing,
        (Some(wanted), Some(made)) => match rows {
            Rows::Missing => true,
            Rows::Payload => made.payload == wanted.payload,
            Rows::Text => made == wanted,
            Rows::All => false,
        },
    };
    stored.version < snapshot && !(same() && is_made())
}

/// The collections that a snapshot still has to read, and the row after which the first of them continues.
pub fn remaining(collections: Vec<Namespace>, after: Option<&(Namespace, String)>) -> Vec<(Namespace, Option<String>)> {
    let resume = |namespace: Namespace| match after {
        Some((last, _)) if namespace < *last => None,
        Some((last, key)) if namespace == *last => Some((namespace, Some(key.clone()))),
        _ => Some((namespace, None)),
    };
    collections.into_iter().filter_map(resume).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidewheel_core::payload::MADE;
    use tidewheel_core::version::ClusterTime;

    use super::*;

    fn row(key: &str) -> SourceRow {
        SourceRow::new(key, key, Ok(format!(r#"{{"_id":{key}}}"#)))
    }

    fn version(seconds: u32) -> Version {
        Version::of_snapshot(0, ClusterTime { seconds, increment: 1 })
    }

    fn stored(seconds: u32, document: &str, made: Option<&Made>) -> Stamped {
        let version = version(seconds);
        let mut stamp = json!({
            "namespace": "shop.tickets", "key": "1", "chunk": 0, "chunks": 1, "digest": digest(document),
            "version": {"high": version.high(), "low": version.low()},
        });
        if let Some(made) = made {
            stamp[MADE] = json!(made);
        }
        Stamped::read(&[("_tidewheel".to_owned(), stamp)].into_iter().collect()).expect("a stamp")
    }

    #[test]
    fn row_is_appended_unless_the_index_has_the_same_or_a_newer_version() {
        let differs_from = |seconds, document: &str| {
            differs(Some(&stored(seconds, document, None)), &row("1"), version(10), None, Rows::Missing)
        };
        assert!(differs_from(9, r#"{"_id":1,"old":true}"#));
        assert!(!differs_from(9, r#"{"_id":1}"#), "the same document");
        assert!(!differs_from(10, r#"{"_id":1,"new":true}"#), "a row of the same snapshot, or a newer change");
        assert!(differs(None, &row("1"), version(10), None, Rows::Missing));
    }

    #[test]
    fn row_is_appended_if_its_points_were_made_otherwise_than_required() {
        let made = |text: u8, payload: u8| {
            let fingerprint = |number: u8| format!("{number:016x}").parse().unwrap();
            Made { text: fingerprint(text), payload: fingerprint(payload) }
        };
        let wanted = made(1, 1);
        for (stated, differing) in [
            (Some(made(1, 1)), vec![Rows::All]),
            (Some(made(1, 2)), vec![Rows::Payload, Rows::Text, Rows::All]),
            (Some(made(2, 1)), vec![Rows::Text, Rows::All]),
            (None, vec![Rows::Payload, Rows::Text, Rows::All]),
        ] {
            for rows in [Rows::Missing, Rows::Payload, Rows::Text, Rows::All] {
                let is_differing = |seconds, document: &str| {
                    differs(
                        Some(&stored(seconds, document, stated.as_ref())),
                        &row("1"),
                        version(10),
                        Some(&wanted),
                        rows,
                    )
                };
                assert_eq!(is_differing(9, r#"{"_id":1}"#), differing.contains(&rows), "{stated:?} {rows:?}");
                assert!(is_differing(9, r#"{"_id":1,"old":true}"#));
                assert!(!is_differing(10, r#"{"_id":1}"#), "newer changes are made as required");
            }
        }
    }

    #[test]
    fn long_key_is_not_saved_as_snapshot_position() {
        let long = "k".repeat(100_000);
        assert_eq!(last_short([row("1"), row("2"), row(&long)].iter()), Some("2".into()));
        assert_eq!(last_short([row(&long)].iter()), None);
    }

    #[test]
    fn snapshot_resumes_in_the_collection_where_it_stopped() {
        let [a, b, c] = ["a", "b", "c"].map(|name| Namespace::new("shop", name));
        let all = vec![a.clone(), b.clone(), c.clone()];
        let after = (b.clone(), "7".to_owned());
        assert_eq!(remaining(all.clone(), Some(&after)), [(b, Some("7".into())), (c.clone(), None)]);
        assert_eq!(remaining(all, None).len(), 3);
        assert_eq!(remaining(vec![a], Some(&after)), []);
    }
}
