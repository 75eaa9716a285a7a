//! Plans the end of a snapshot: the removal of what no longer belongs to its targets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidewheel_core::catalog::TargetId;
use tidewheel_core::change::{Change, Operation, Route, Stamp};
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::key;
use tidewheel_core::payload::Stamped;
use tidewheel_core::ports::{Checkpoint, Fence, FenceTarget, IndexedPoint, SnapshotState, Swept};
use tidewheel_core::version::{ClusterTime, Version};
use uuid::Uuid;

use super::super::step::Step;
use super::saving;
use crate::targets::Target;

/// The step when a snapshot has read everything: the orphan sweep follows.
pub fn read_all(checkpoint: &Checkpoint) -> Step {
    let mut next = checkpoint.clone();
    if let SnapshotState::Running { time, rows, .. } = checkpoint.snapshot {
        next.snapshot = SnapshotState::Sweeping { time, rows, after: None };
    }
    saving(next)
}

/// The targets that a sweep still has to read, of these in the order of their names, and the point after which the first
/// of them continues.
pub fn still_swept(targets: Vec<Arc<Target>>, after: Option<&Swept>) -> Vec<(Arc<Target>, Option<Uuid>)> {
    let resume = |target: Arc<Target>| match after {
        Some(Swept { target: Some(last), .. }) if target.id < *last => None,
        Some(Swept { target: Some(last), .. }) if target.id > *last => Some((target, None)),
        Some(Swept { point, .. }) => Some((target, Some(*point))),
        None => Some((target, None)),
    };
    targets.into_iter().filter_map(resume).collect()
}

/// The documents of a page of the index that are older than this version, by namespace: the source has to be queried
/// whether they still belong to the target. Points of other owners, and those that tidewheel did not write, are ignored.
pub fn suspects(
    page: &[IndexedPoint],
    owns: impl Fn(&Namespace) -> bool,
    now: Version,
) -> BTreeMap<Namespace, BTreeSet<String>> {
    let mut suspects: BTreeMap<Namespace, BTreeSet<String>> = BTreeMap::new();
    for stamp in page.iter().filter_map(|point| Stamped::read(&point.payload)) {
        if owns(&stamp.namespace) && stamp.version < now {
            suspects.entry(stamp.namespace).or_default().insert(stamp.key);
        }
    }
    suspects
}

/// Splits documents that do not belong to the target by the form of their keys. Keys of an earlier form do not mean
/// deleted documents: their points have to be removed directly, because a deletion in the pipeline would delete the
/// document with the current key.
pub fn former(absent: Vec<(Namespace, String)>, version: Version) -> (Vec<(Namespace, String)>, Vec<Fence>) {
    let (deleted, former): (Vec<_>, Vec<_>) = absent.into_iter().partition(|(_, key)| key::is_canonical(key));
    let fence = |(namespace, key): (Namespace, String)| {
        let target = FenceTarget::Document(DocumentId::new(&namespace, &key));
        Fence { target, version }
    };
    (deleted, former.into_iter().map(fence).collect())
}

/// Documents of a page of the index that do not belong to its target.
#[derive(Clone, Debug, PartialEq)]
pub struct PageSwept {
    /// The target; `None` before a catalog is applied.
    pub target: Option<TargetId>,
    /// The last point of the page.
    pub last: Uuid,
    /// The time at which they did not exist, or did not match the filter.
    pub time: ClusterTime,
    /// The documents; possibly none.
    pub absent: Vec<(Namespace, String)>,
}

/// The step that removes documents from the target that they do not belong to, found at `now` (milliseconds since the
/// Unix epoch). A document that belongs to it again since then has a newer version.
pub fn gone(checkpoint: &Checkpoint, page: PageSwept, now: u64) -> Step {
    let PageSwept { target, last, time, absent } = page;
    let route = target.as_ref().map_or(Route::Plain, |target| {
        Stamp { catalog: checkpoint.catalog, targets: vec![target.clone()], leaves: Vec::new() }.into()
    });
    let mut next = checkpoint.clone();
    if let SnapshotState::Sweeping { after, .. } = &mut next.snapshot {
        *after = Some(Swept { target, point: last });
    }
    let changes = absent.into_iter().map(|(namespace, key)| Change {
        operation: Operation::Delete,
        namespace,
        // For people; falls back to the exact form, because the relaxed one is unknown.
        id: key.clone(),
        key,
        version: Version::of_snapshot(checkpoint.epoch, time),
        committed_at: now,
        document: None,
        route: route.clone(),
    });
    Step { changes: changes.collect(), parked: Vec::new(), next }
}

/// The step at the end of a snapshot. It keeps the scope: its targets are filled once this checkpoint is applied.
pub fn swept(checkpoint: &Checkpoint) -> Step {
    let mut next = checkpoint.clone();
    if let SnapshotState::Sweeping { time, rows, .. } = checkpoint.snapshot {
        next.snapshot = SnapshotState::Done { time, rows };
    }
    saving(next)
}

#[cfg(test)]
mod tests {
    use tidewheel_core::catalog::{Due, Selector, State};
    use tidewheel_core::payload::digest;
    use tidewheel_core::ports::{Coverage, ResumeToken};

    use super::*;
    use crate::targets::samples::{Servers, catalog, first};

    fn time(seconds: u32) -> ClusterTime {
        ClusterTime { seconds, increment: 1 }
    }

    fn stamped(namespace: &str, key: &str, seconds: u32, document: &str) -> IndexedPoint {
        let version = Version::of_snapshot(0, time(seconds));
        let stamp = serde_json::json!({
            "namespace": namespace, "key": key, "chunk": 0, "chunks": 1, "digest": digest(document),
            "version": {"high": version.high(), "low": version.low()},
        });
        let payload = [("_tidewheel".to_owned(), stamp)].into_iter().collect();
        IndexedPoint { id: Uuid::nil(), payload }
    }

    #[test]
    fn points_with_keys_of_an_earlier_release_are_removed_directly() {
        let tickets = Namespace::new("shop", "tickets");
        let keys = [r#"{"$numberInt":"1"}"#, r#"{"$numberLong":"1"}"#, r#"{"a":{"$numberDouble":"2.0"}}"#, "\"a\""];
        let absent = keys.map(|key| (tickets.clone(), key.to_owned())).to_vec();
        let version = Version::of_snapshot(0, time(20));
        let (deleted, fences) = former(absent, version);
        assert_eq!(deleted, [keys[0], keys[3]].map(|key| (tickets.clone(), key.to_owned())));
        let documents = [keys[1], keys[2]].map(|key| FenceTarget::Document(DocumentId::new(&tickets, key)));
        assert_eq!(fences.iter().map(|fence| fence.target.clone()).collect::<Vec<_>>(), documents);
        assert!(fences.iter().all(|fence| fence.version == version));
    }

    #[test]
    fn only_older_points_of_the_same_database_are_suspects() {
        let foreign = IndexedPoint { id: Uuid::nil(), payload: serde_json::Map::new() };
        let page = [
            stamped("shop.tickets", "1", 9, "{}"),
            stamped("shop.tickets", "1", 9, "{}"),
            stamped("shop.notes", "2", 9, "{}"),
            stamped("shop.tickets", "3", 10, "{}"),
            stamped("other.tickets", "4", 9, "{}"),
            foreign,
        ];
        let coverage = Coverage::of(Selector::of_database("shop", &["tickets"]));
        let owns = |namespace: &Namespace| coverage.reaches_database_of(namespace);
        let suspects = suspects(&page, owns, Version::of_snapshot(0, time(10)));
        let names: Vec<_> = suspects.iter().map(|(namespace, keys)| (namespace.as_str(), keys.len())).collect();
        assert_eq!(names, [("shop.notes", 1), ("shop.tickets", 1)]);
    }

    #[tokio::test]
    async fn sweep_resumes_in_the_target_where_it_stopped() {
        let servers = Servers::new();
        let names = ["articles", "notes", "tickets"];
        servers.apply(&catalog(7, &names.map(|name| (name, State::Serving, true)))).await;
        let targets: Vec<Arc<Target>> = servers.targets().reload().await.unwrap().routed().cloned().collect();
        let resumed = |after: Option<Swept>| {
            let left = still_swept(targets.clone(), after.as_ref()).into_iter();
            left.map(|(target, after)| (target.id.index.to_string(), after)).collect::<Vec<_>>()
        };
        let point = Uuid::from_u128(5);
        let swept = |target: Option<TargetId>| Some(Swept { target, point });
        let at = |name: &str, after| (name.to_owned(), after);
        assert_eq!(resumed(None), names.map(|name| at(name, None)));
        assert_eq!(resumed(swept(Some(first("notes")))), [at("notes", Some(point)), at("tickets", None)]);
        assert_eq!(resumed(swept(Some(first("orders")))), [at("tickets", None)], "that target is gone");
        assert_eq!(resumed(swept(Some(first("users")))), []);
    }

    #[test]
    fn orphans_are_removed_from_one_target() {
        let snapshot = SnapshotState::Sweeping { time: time(10), rows: 3, after: None };
        let checkpoint =
            Checkpoint { snapshot, catalog: 7, ..super::super::begun(None, String::new(), token(), time(10), true) };
        let absent = vec![(Namespace::new("shop", "tickets"), "1".to_owned())];
        let page = PageSwept { target: Some(first("notes")), last: Uuid::from_u128(5), time: time(12), absent };
        let step = gone(&checkpoint, page, 99);
        let route = step.changes[0].route.stamp().expect("a stamp");
        assert_eq!((route.catalog, route.targets.as_slice()), (7, &[first("notes")][..]));
        let after = Some(Swept { target: Some(first("notes")), point: Uuid::from_u128(5) });
        assert_eq!(step.next.snapshot, SnapshotState::Sweeping { time: time(10), rows: 3, after });
    }

    #[test]
    fn finished_snapshot_keeps_its_scope() {
        let scope = vec![Due { target: first("notes"), due: 7 }];
        let snapshot = SnapshotState::Sweeping { time: time(10), rows: 3, after: None };
        let begun = super::super::begun(None, String::new(), token(), time(10), true);
        let next = swept(&Checkpoint { snapshot, catalog: 7, scope: scope.clone(), ..begun }).next;
        assert_eq!((next.snapshot, next.scope), (SnapshotState::Done { time: time(10), rows: 3 }, scope));
    }

    fn token() -> ResumeToken {
        ResumeToken("start".to_owned())
    }
}
