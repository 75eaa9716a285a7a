//! Decides which changes can be appended. The others are parked, so that they block nothing.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::iter::successors;
use std::sync::Arc;

use tidewheel_core::catalog::{Routed, Routes, TargetId};
use tidewheel_core::change::{Change, Stamp};
use tidewheel_core::key;
use tidewheel_core::ports::{ParkedChange, Readable, SourceEvent};

use super::step::Step;
use crate::parking::{OnDeadLetter, deletion_at};

/// Size limits of stage 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size of a key in bytes.
    pub key: usize,
    /// Maximum size of a document in bytes, as extended JSON.
    pub document: usize,
}

impl Limits {
    /// The limits if Redis accepts this many bytes per field.
    pub fn of(most_bytes: Option<usize>) -> Self {
        let most = most_bytes.unwrap_or(usize::MAX);
        Self { key: key::MAX_BYTES.min(most), document: most }
    }
}

/// Where changes go, and the rules for those that may not be appendable.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Size limits of stage 1.
    pub limits: Limits,
    /// The targets of changes; `None` for readers of the source that append nothing to stage 1.
    pub routes: Option<&'a Routes>,
}

impl Rules<'_> {
    /// No limits, no targets, and no effect of parked changes.
    pub const NONE: Self = Self { limits: Limits { key: key::MAX_BYTES, document: usize::MAX }, routes: None };

    /// The targets of an event; `None` if it concerns none.
    pub fn route(self, event: &SourceEvent) -> Option<Routed> {
        let Some(routes) = self.routes else {
            return Some(Routed { stamp: Arc::default(), keeps_document: true });
        };
        // The source only delivers events of covered collections, and one that stands for events of unknown ones.
        let is_unknown = matches!(event.document, Some(Err(_)));
        routes.event(event).or_else(|| is_unknown.then(|| routes.everywhere()))
    }

    /// Parks a change with this route in the step, and adds the deletion that replaces it, if any: from the targets that
    /// its document leaves, and from those whose indexed version a parked change removes. The deletion has the version
    /// of the change, which wins when it is retried. A document with a clipped key was never in an index.
    pub fn park(self, mut refused: ParkedChange, stamp: &Stamp, step: &mut Step) {
        let removes = |target: &&TargetId| {
            self.routes.is_some_and(|routes| routes.on_dead_letter(target) == OnDeadLetter::Remove)
        };
        let removed = stamp.targets.iter().filter(removes).chain(&stamp.leaves);
        let change = &mut refused.change;
        if !key::is_clipped(&change.key) {
            step.changes.extend(removal(change, stamp.catalog, removed.cloned().collect()));
        }
        if !stamp.leaves.is_empty() {
            change.route = Stamp { leaves: Vec::new(), ..stamp.clone() }.into();
        }
        step.parked.push(refused);
    }
}

/// The deletion of a change's document, at its version, from these targets; `None` without targets.
fn removal(change: &Change, catalog: u64, mut targets: Vec<TargetId>) -> Option<Change> {
    if targets.is_empty() {
        return None;
    }
    targets.sort_unstable();
    let stamp = Arc::new(Stamp { catalog, targets, leaves: Vec::new() });
    let route = Routed { stamp, keeps_document: true }.into_route();
    Some(Change { route, ..deletion_at(change.version, change) })
}

/// Returns the change with its document, or the parked change with the reason.
pub fn admit(change: Change, document: Option<Readable>, limits: Limits) -> Result<Change, Box<ParkedChange>> {
    let refused = |change: Change, reason: String| Err(Box::new(ParkedChange { change, reason }));
    let bytes = change.key.len();
    if bytes > limits.key && !key::is_clipped(&change.key) {
        let key = key::clipped(&change.key);
        let change = Change { id: key.clone(), key, ..change };
        return refused(change, format!("the `_id` is too large: {bytes} bytes, at most {}", limits.key));
    }
    match document {
        None => Ok(change),
        Some(Err(reason)) => refused(change, reason),
        Some(Ok(document)) if document.len() > limits.document => {
            let (bytes, most) = (document.len(), limits.document);
            refused(
                change,
                format!(
                    "the document is too large for Redis: {bytes} bytes as JSON, at most {most} (proto-max-bulk-len)"
                ),
            )
        }
        Some(Ok(document)) => Ok(Change { document: Some(document), ..change }),
    }
}

/// Longer keys are clipped when their change is parked because Redis rejects it: the key itself may be the reason.
const LONG_KEY: usize = 64 * 1024;

/// Changes of one step that are parked alone, one after another, before several are parked together.
const ALONE: usize = 16;

/// The steps to try instead of one that cannot be divided further and still fails, the one that parks least first: each
/// of the largest changes alone, then more and more of them together, at last all with clipped keys. Drops are never
/// parked: they hold nothing that could be rejected. A parked change still removes its document from the targets that it
/// leaves, unless its key is clipped.
pub fn parkings<'a>(step: &'a Step, reason: &'a str) -> impl Iterator<Item = Step> + 'a {
    let mut order: Vec<usize> = (0..step.changes.len()).filter(|at| !step.changes[*at].key.is_empty()).collect();
    let size = |change: &Change| change.key.len() + change.document.as_ref().map_or(0, String::len);
    order.sort_by_key(|at| Reverse(size(&step.changes[*at])));
    let count = order.len();
    let none = (!step.parked.is_empty()).then_some((0..0, LONG_KEY));
    let alone = (0..count.min(ALONE)).map(|at| (at..at + 1, LONG_KEY));
    let together = successors(Some(2), |most| Some(2 * most)).take_while(move |most| *most < count).chain([count]);
    let together = together.filter(|most| *most > 1).map(|most| (0..most, LONG_KEY));
    let all = (count > 0 || !step.parked.is_empty()).then_some((0..count, 0));
    none.into_iter().chain(alone).chain(together).chain(all).map(move |(range, longest)| {
        let out: HashSet<usize> = order[range].iter().copied().collect();
        let (mut changes, mut parked) = (Vec::new(), step.parked.clone());
        for (at, change) in step.changes.iter().enumerate() {
            if out.contains(&at) {
                let (left, change) = without_leaves(Change { document: None, ..change.clone() });
                changes.extend(left.filter(|left| left.key.len() <= longest));
                parked.push(ParkedChange { change, reason: reason.to_owned() });
            } else {
                changes.push(change.clone());
            }
        }
        for ParkedChange { change, .. } in &mut parked {
            if change.key.len() > longest && !key::is_clipped(&change.key) {
                change.key = key::clipped(&change.key);
                change.id.clone_from(&change.key);
            }
        }
        Step { changes, parked, next: step.next.clone() }
    })
}

/// Splits a change into the deletion from the targets that its document leaves, and the rest.
fn without_leaves(change: Change) -> (Option<Change>, Change) {
    let Some(stamp) = change.route.stamp().filter(|stamp| !stamp.leaves.is_empty()) else { return (None, change) };
    let left = removal(&change, stamp.catalog, stamp.leaves.clone());
    let route = Stamp { leaves: Vec::new(), ..stamp.clone() }.into();
    (left, Change { route, ..change })
}

#[cfg(test)]
mod tests {
    use tidewheel_core::catalog::{Catalog, routes};
    use tidewheel_core::change::{Operation, Route};
    use tidewheel_core::identity::Namespace;
    use tidewheel_core::ports::{Checkpoint, ResumeToken, SnapshotState};
    use tidewheel_core::version::{ClusterTime, Version};

    use super::*;
    use crate::targets::samples::{declaration, first};

    fn admitted(key: &str, document: Option<Readable>) -> Result<Change, Box<ParkedChange>> {
        let change = Change {
            operation: if document.is_some() { Operation::Insert } else { Operation::Delete },
            namespace: Namespace::new("shop", "tickets"),
            key: key.to_owned(),
            id: key.to_owned(),
            version: Version::default(),
            committed_at: 0,
            document: None,
            route: Route::Plain,
        };
        admit(change, document, Limits { key: 1_000, document: 2_000 })
    }

    #[test]
    fn change_within_the_limits_keeps_its_document() {
        let change = admitted("1", Some(Ok("{}".into()))).unwrap();
        assert_eq!(change.document.as_deref(), Some("{}"));
        assert_eq!(admitted("1", None).unwrap().document, None);
        assert!(admitted(&"k".repeat(1_000), Some(Ok("d".repeat(2_000)))).is_ok());
    }

    #[test]
    fn unreadable_or_too_large_change_is_parked_with_reason_and_without_document() {
        for (key, document, reason) in [
            ("1".to_owned(), Err("malformed".to_owned()), "malformed"),
            ("1".to_owned(), Ok("d".repeat(2_001)), "2001 bytes as JSON, at most 2000"),
            ("k".repeat(1_001), Ok("{}".to_owned()), "1001 bytes, at most 1000"),
        ] {
            let parked = admitted(&key, Some(document)).unwrap_err();
            assert!(parked.reason.contains(reason), "{}", parked.reason);
            assert_eq!(parked.change.document, None);
            assert_eq!(parked.change.key == key, key.len() <= 1_000);
        }
    }

    fn step(changes: &[(&str, usize)]) -> Step {
        let change = |(key, size): &(&str, usize)| {
            let document = Some("d".repeat(*size));
            Change { key: (*key).to_owned(), id: (*key).to_owned(), document, ..admitted("1", None).unwrap() }
        };
        let checkpoint = Checkpoint {
            token: ResumeToken(String::new()),
            last: (ClusterTime::default(), 0),
            through: ClusterTime::default(),
            epoch: 0,
            selection: String::new(),
            snapshot: SnapshotState::Done { time: ClusterTime::default(), rows: 0 },
            catalog: 0,
            scope: Vec::new(),
        };
        Step { changes: changes.iter().map(change).collect(), parked: Vec::new(), next: checkpoint }
    }

    fn parked_keys(step: &Step) -> Vec<Vec<String>> {
        let keys = |step: Step| step.parked.into_iter().map(|parked| parked.change.key).collect();
        parkings(step, "rejected").map(keys).collect()
    }

    #[test]
    fn least_is_parked_first_and_the_largest_before_others() {
        let step = step(&[("a", 1), ("b", 3), ("c", 2)]);
        let sets: Vec<String> = parked_keys(&step).iter().take(5).map(|keys| keys.concat()).collect();
        assert_eq!(sets, ["b", "c", "a", "bc", "abc"]);
        for parking in parkings(&step, "rejected") {
            assert_eq!(parking.changes.len() + parking.parked.len(), 3, "none is lost");
            assert!(parking.parked.iter().all(|parked| parked.change.document.is_none()));
        }
    }

    #[test]
    fn keys_are_clipped_last_and_drops_are_never_parked() {
        let alone = parked_keys(&step(&[("\"short\"", 1)]));
        assert_eq!(alone.len(), 2);
        assert_eq!(alone[0], ["\"short\""]);
        assert!(key::is_clipped(&alone[1][0]));
        let long = "k".repeat(LONG_KEY + 1);
        assert!(parked_keys(&step(&[(&long, 1)])).iter().all(|keys| key::is_clipped(&keys[0])));
        assert_eq!(parked_keys(&step(&[("", 0)])), Vec::<Vec<String>>::new());
    }

    #[test]
    fn parked_change_removes_older_version_only_by_policy_and_with_a_whole_key() {
        let unreadable = admitted("1", Some(Err("malformed".into()))).unwrap_err();
        let large = admitted("1", Some(Ok("d".repeat(2_001)))).unwrap_err();
        let nameless = admitted(&"k".repeat(1_001), Some(Ok("{}".into()))).unwrap_err();
        let [keep, remove] = [OnDeadLetter::Keep, OnDeadLetter::Remove].map(|policy| {
            let mut declaration = declaration("documents");
            declaration.rules.on_dead_letter = policy;
            routes(&Catalog::short_form(Arc::new(declaration)))
        });
        let stamp = Stamp { targets: vec![first("documents")], ..Stamp::default() };
        let removals = |routes: Option<&Routes>, parked: &ParkedChange| {
            let mut step = step(&[]);
            Rules { routes, ..Rules::NONE }.park(parked.clone(), &stamp, &mut step);
            assert_eq!(step.parked.as_slice(), std::slice::from_ref(parked));
            step.changes
        };
        for parked in [&unreadable, &large] {
            assert!(removals(None, parked).is_empty() && removals(Some(&keep), parked).is_empty());
            let removal = removals(Some(&remove), parked).remove(0);
            assert_eq!((removal.operation, removal.document, removal.route), (Operation::Delete, None, Route::Plain));
            assert_eq!((removal.key, removal.version), (parked.change.key.clone(), parked.change.version));
        }
        assert!(removals(Some(&remove), &nameless).is_empty());
    }

    #[test]
    fn redis_limit_applies_to_keys_too() {
        assert_eq!(Limits::of(None), Limits { key: key::MAX_BYTES, document: usize::MAX });
        assert_eq!(Limits::of(Some(5)), Limits { key: 5, document: 5 });
    }
}
