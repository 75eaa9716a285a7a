//! Decides what is appended for what the source says, without appending it.

use std::collections::{BTreeMap, BTreeSet};

use tidewheel_core::change::{Change, Operation};
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::payload::{Stamped, digest};
use tidewheel_core::ports::{
    Checkpoint, Damage, FeedBatch, IndexedPoint, ResumeToken, SnapshotState, SourceRow, StartAt,
};
use tidewheel_core::version::{ClusterTime, MAX_ORDINAL, Version};
use uuid::Uuid;

/// An append: the entries and the checkpoint that covers them.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The entries of stage 1.
    pub changes: Vec<Change>,
    /// The checkpoint after them.
    pub next: Checkpoint,
}

/// How to take up the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing was ever appended: begin now, with a snapshot if one is wanted.
    Fresh,
    /// Go on where the checkpoint ends.
    Resume(StartAt),
    /// The selection of collections has changed, so that the token may no longer be found: go on at the time of the
    /// last event, and read everything again, for there may be collections that were not followed before.
    Reselect(StartAt),
}

/// Where to begin, given what was saved.
pub fn start(saved: Option<&Checkpoint>, selection: &str) -> Start {
    match saved {
        None => Start::Fresh,
        Some(saved) if saved.selection == selection => Start::Resume(StartAt::Token(saved.token.clone())),
        Some(saved) => Start::Reselect(StartAt::Time(saved.last.0)),
    }
}

/// The checkpoint for a feed that was opened at `time`, before anything of it was appended. The feed gives every event of that time
/// again, so that the ordinals start again too.
///
/// `known` are the epoch and the time of the newest change that is known. A time before that means that the source's history is
/// another one (a restored backup, a new cluster): the epoch rises, so that its changes win over everything older.
pub fn begun(
    known: Option<(u32, ClusterTime)>,
    selection: String,
    token: ResumeToken,
    time: ClusterTime,
    snapshot: bool,
) -> Checkpoint {
    let epoch = known.map_or(0, |(epoch, last)| epoch + u32::from(time < last));
    let snapshot = if snapshot {
        SnapshotState::Running { time, after: None, rows: 0 }
    } else {
        SnapshotState::Done { time, rows: 0 }
    };
    Checkpoint { token, last: (time, 0), through: time.before(), epoch, selection, snapshot }
}

/// The step for a batch of the feed.
///
/// The ordinal of an event is its position among the events of its cluster time, counted across batches and restarts
/// by the checkpoint: the events of a transaction share their time, and two of them may concern one document.
pub fn follow(checkpoint: &Checkpoint, batch: FeedBatch) -> Result<Step, PortError> {
    let mut next = Checkpoint { token: batch.token, ..checkpoint.clone() };
    let mut changes = Vec::with_capacity(batch.events.len());
    for event in batch.events {
        let (time, count) = next.last;
        if event.time < time {
            next.epoch += 1;
            next.through = ClusterTime::default();
        }
        let ordinal = if event.time == time { count + 1 } else { 1 };
        if ordinal > MAX_ORDINAL {
            return Err(PortError::fatal(format!(
                "more than {MAX_ORDINAL} changes share the cluster time {}.{}",
                time.seconds, time.increment
            )));
        }
        next.last = (event.time, ordinal);
        if event.operation.has_document() && event.document.is_none() {
            // An update whose document was gone when it was looked up. Its deletion follows.
            continue;
        }
        changes.push(Change {
            operation: event.operation,
            namespace: event.namespace,
            key: event.key,
            id: event.id,
            version: Version { epoch: next.epoch, time: event.time, ordinal, replay: 0 },
            committed_at: event.committed_at,
            document: event.document,
        });
    }
    next.through = next.through.max(batch.through);
    Ok(Step { changes, next })
}

/// The checkpoint, with everything to be read again at `time`. Where collections were renamed into the selection, that has to
/// be after its last event: their rows must win over the drop of the collections that they replace.
pub fn read_again(checkpoint: Checkpoint, time: ClusterTime) -> Checkpoint {
    Checkpoint { snapshot: SnapshotState::Running { time, after: None, rows: 0 }, ..checkpoint }
}

/// Gives the events of a feed their versions, without a checkpoint to save.
pub struct Position(Checkpoint);

impl Position {
    /// A feed that was opened at `time`: its events get the versions that they got the first time.
    pub fn begin(epoch: u32, time: ClusterTime) -> Self {
        let snapshot = SnapshotState::Done { time, rows: 0 };
        Self(Checkpoint {
            token: ResumeToken(String::new()),
            last: (time, 0),
            through: ClusterTime::default(),
            epoch,
            selection: String::new(),
            snapshot,
        })
    }

    /// The changes of the next batch.
    pub fn follow(&mut self, batch: FeedBatch) -> Result<Vec<Change>, PortError> {
        let Step { changes, next } = follow(&self.0, batch)?;
        self.0 = next;
        Ok(changes)
    }
}

/// A page of a snapshot that was read and compared with the index.
#[derive(Clone, Debug, PartialEq)]
pub struct PageRead {
    /// Its collection.
    pub namespace: Namespace,
    /// The canonical key of its last row.
    pub last: String,
    /// How many rows it had.
    pub count: u64,
    /// Those of its rows that have to be appended.
    pub differing: Vec<SourceRow>,
}

/// The step for a page of a snapshot, read at `now` (milliseconds since the Unix epoch).
///
/// Its rows carry the time at which the snapshot began: whatever has happened since wins over them, even where the row
/// already shows it.
pub fn read(checkpoint: &Checkpoint, page: PageRead, now: u64) -> Step {
    let SnapshotState::Running { time, rows, .. } = checkpoint.snapshot else {
        unreachable!("rows are only read while a snapshot runs");
    };
    let PageRead { namespace, last, count, differing } = page;
    let mut next = checkpoint.clone();
    let changes = differing.into_iter().map(|row| Change {
        operation: Operation::Read,
        namespace: namespace.clone(),
        key: row.key,
        id: row.id,
        version: Version::of_snapshot(checkpoint.epoch, time),
        committed_at: now,
        document: Some(row.document),
    });
    let changes = changes.collect();
    next.snapshot = SnapshotState::Running { time, after: Some((namespace, last)), rows: rows + count };
    Step { changes, next }
}

/// Whether a row that a snapshot has read has to be appended, given what the index says of it: not if the index has the
/// same document, or a newer change.
pub fn differs(stored: Option<&Stamped>, row: &SourceRow, snapshot: Version) -> bool {
    stored.is_none_or(|stored| stored.version < snapshot && stored.digest != digest(&row.document))
}

/// The step when a snapshot has read everything: what the index has beyond it is to be found.
pub fn read_all(checkpoint: &Checkpoint) -> Step {
    let mut next = checkpoint.clone();
    if let SnapshotState::Running { time, rows, .. } = checkpoint.snapshot {
        next.snapshot = SnapshotState::Sweeping { time, rows, after: None };
    }
    Step { changes: Vec::new(), next }
}

/// The documents of a page of the index that are older than this version, by namespace: the source is to be asked whether they
/// still exist. Points of other databases, and those that tidewheel did not write, are nobody's business.
pub fn suspects(page: &[IndexedPoint], database: &str, now: Version) -> BTreeMap<Namespace, BTreeSet<String>> {
    let mut suspects: BTreeMap<Namespace, BTreeSet<String>> = BTreeMap::new();
    for stamp in page.iter().filter_map(|point| Stamped::read(&point.payload)) {
        if stamp.namespace.database() == database && stamp.version < now {
            suspects.entry(stamp.namespace).or_default().insert(stamp.key);
        }
    }
    suspects
}

/// Documents of a page of the index that the source does not have.
#[derive(Clone, Debug, PartialEq)]
pub struct PageSwept {
    /// The last point of the page.
    pub last: Uuid,
    /// When they did not exist.
    pub time: ClusterTime,
    /// The documents; possibly none.
    pub absent: Vec<(Namespace, String)>,
}

/// The step that removes documents which do not exist any more, found at `now` (milliseconds since the Unix epoch).
/// Whoever has inserted one of them again since then has a newer version.
pub fn gone(checkpoint: &Checkpoint, page: PageSwept, now: u64) -> Step {
    let PageSwept { last, time, absent } = page;
    let mut next = checkpoint.clone();
    if let SnapshotState::Sweeping { after, .. } = &mut next.snapshot {
        *after = Some(last);
    }
    let changes = absent.into_iter().map(|(namespace, key)| Change {
        operation: Operation::Delete,
        namespace,
        // For people; the exact form is as good where the relaxed one is not known.
        id: key.clone(),
        key,
        version: Version::of_snapshot(checkpoint.epoch, time),
        committed_at: now,
        document: None,
    });
    Step { changes: changes.collect(), next }
}

/// The step at the end of a snapshot.
pub fn swept(checkpoint: &Checkpoint) -> Step {
    let mut next = checkpoint.clone();
    if let SnapshotState::Sweeping { time, rows, .. } = checkpoint.snapshot {
        next.snapshot = SnapshotState::Done { time, rows };
    }
    Step { changes: Vec::new(), next }
}

/// Where to take up the work after damage.
#[derive(Clone, Debug, PartialEq)]
pub enum Recovery {
    /// Append again what came after the applied checkpoint.
    Rewind(Checkpoint),
    /// Follow from here on, and compare everything with the index in a snapshot whose time is yet to be set.
    Compare(Checkpoint),
}

/// How damage is repaired, given the checkpoint and the one that is known to be applied.
///
/// The applied checkpoint is of no use if the selection or the epoch has changed since: the feed would not find its place, or
/// give versions out again that are older than what is in the index.
pub fn recover(current: &Checkpoint, applied: Option<Checkpoint>, damage: &Damage) -> Recovery {
    let applied = applied.filter(|applied| (applied.epoch, &applied.selection) == (current.epoch, &current.selection));
    match (damage, applied) {
        (Damage::Entries(_), Some(applied)) => Recovery::Rewind(applied),
        (Damage::Collection(_), Some(applied)) => Recovery::Compare(applied),
        (_, None) => Recovery::Compare(current.clone()),
    }
}

/// The collections that a snapshot has yet to read, and the row after which the first of them goes on.
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
    use proptest::prelude::*;
    use tidewheel_core::ports::SourceEvent;

    use super::*;

    fn time(seconds: u32) -> ClusterTime {
        ClusterTime { seconds, increment: 1 }
    }

    fn checkpoint() -> Checkpoint {
        begun(None, "all".into(), ResumeToken("start".into()), time(10), true)
    }

    fn event(operation: Operation, seconds: u32, document: Option<&str>) -> SourceEvent {
        SourceEvent {
            operation,
            namespace: Namespace::new("shop", "tickets"),
            key: "1".into(),
            id: "1".into(),
            time: time(seconds),
            committed_at: 0,
            document: document.map(str::to_owned),
        }
    }

    fn batch(events: Vec<SourceEvent>) -> FeedBatch {
        let token = ResumeToken(format!("after {}", events.len()));
        let through = events.last().map(|event| event.time).unwrap_or_default();
        FeedBatch { events, appeared: Vec::new(), token, through }
    }

    fn versions(step: &Step) -> Vec<String> {
        step.changes.iter().map(|change| change.version.to_string()).collect()
    }

    #[test]
    fn events_of_one_time_are_numbered_across_batches() {
        let update = |seconds| event(Operation::Update, seconds, Some("{}"));
        let first = follow(&checkpoint(), batch(vec![update(10), update(11), update(11)])).unwrap();
        assert_eq!(versions(&first), ["0.10.1.1", "0.11.1.1", "0.11.1.2"]);
        assert_eq!(first.next.token, ResumeToken("after 3".into()));
        let second = follow(&first.next, batch(vec![update(11), update(12)])).unwrap();
        assert_eq!(versions(&second), ["0.11.1.3", "0.12.1.1"]);
    }

    #[test]
    fn what_appears_is_read_after_the_events_that_brought_it() {
        let step = follow(&checkpoint(), batch(vec![event(Operation::Drop, 12, None)])).unwrap();
        let next = read_again(step.next, time(13));
        assert_eq!(next.snapshot, SnapshotState::Running { time: time(13), after: None, rows: 0 });
    }

    #[test]
    fn an_update_without_its_document_is_left_out_but_counted() {
        let events = vec![
            event(Operation::Update, 11, None),
            event(Operation::Delete, 11, None),
            event(Operation::Drop, 12, None),
        ];
        let step = follow(&checkpoint(), batch(events)).unwrap();
        assert_eq!(versions(&step), ["0.11.1.2", "0.12.1.1"]);
    }

    #[test]
    fn time_that_goes_backwards_raises_the_epoch() {
        let step = follow(&checkpoint(), batch(vec![event(Operation::Insert, 9, Some("{}"))])).unwrap();
        assert_eq!(versions(&step), ["1.9.1.1"]);
        let again = begun(Some((0, time(10))), "all".into(), ResumeToken("x".into()), time(9), true);
        assert_eq!((again.epoch, again.last), (1, (time(9), 0)));
        let later = begun(Some((0, time(10))), "all".into(), ResumeToken("x".into()), time(11), false);
        assert_eq!((later.epoch, later.snapshot), (0, SnapshotState::Done { time: time(11), rows: 0 }));
    }

    #[test]
    fn a_snapshot_reads_at_its_time_and_remembers_where_it_is() {
        let tickets = Namespace::new("shop", "tickets");
        let page =
            PageRead { namespace: tickets.clone(), last: "3".into(), count: 3, differing: vec![row("1"), row("2")] };
        let step = read(&checkpoint(), page, 99);
        assert_eq!(versions(&step), ["0.10.1.0", "0.10.1.0"]);
        let after = Some((tickets, "3".to_owned()));
        assert_eq!(step.next.snapshot, SnapshotState::Running { time: time(10), after, rows: 3 });
        assert_eq!(step.next.token, checkpoint().token);
        let sweeping = read_all(&step.next).next;
        assert_eq!(sweeping.snapshot, SnapshotState::Sweeping { time: time(10), rows: 3, after: None });
        let absent = vec![(Namespace::new("shop", "tickets"), "7".into())];
        let removed = gone(&sweeping, PageSwept { last: Uuid::max(), time: time(12), absent }, 99);
        let after = Some(Uuid::max());
        assert_eq!(versions(&removed), ["0.12.1.0"]);
        assert_eq!(removed.next.snapshot, SnapshotState::Sweeping { time: time(10), rows: 3, after });
        assert_eq!(swept(&sweeping).next.snapshot, SnapshotState::Done { time: time(10), rows: 3 });
    }

    fn row(key: &str) -> SourceRow {
        SourceRow { key: key.into(), id: key.into(), document: format!(r#"{{"_id":{key}}}"#) }
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
    fn a_row_is_appended_unless_the_index_has_the_same_or_something_newer() {
        let differs_from = |seconds, document: &str| {
            let point = stamped("shop.tickets", "1", seconds, document);
            differs(Stamped::read(&point.payload).as_ref(), &row("1"), Version::of_snapshot(0, time(10)))
        };
        assert!(differs_from(9, r#"{"_id":1,"old":true}"#));
        assert!(!differs_from(9, r#"{"_id":1}"#), "the same document");
        assert!(!differs_from(10, r#"{"_id":1,"new":true}"#), "a row of the same snapshot, or a newer change");
        assert!(differs(None, &row("1"), Version::of_snapshot(0, time(10))));
    }

    #[test]
    fn only_older_points_of_this_database_are_suspects() {
        let foreign = IndexedPoint { id: Uuid::nil(), payload: serde_json::Map::new() };
        let page = [
            stamped("shop.tickets", "1", 9, "{}"),
            stamped("shop.tickets", "1", 9, "{}"),
            stamped("shop.notes", "2", 9, "{}"),
            stamped("shop.tickets", "3", 10, "{}"),
            stamped("other.tickets", "4", 9, "{}"),
            foreign,
        ];
        let suspects = suspects(&page, "shop", Version::of_snapshot(0, time(10)));
        let names: Vec<_> = suspects.iter().map(|(namespace, keys)| (namespace.as_str(), keys.len())).collect();
        assert_eq!(names, [("shop.notes", 1), ("shop.tickets", 1)]);
    }

    #[test]
    fn recovery_goes_back_to_what_is_applied_if_that_still_makes_sense() {
        let current = Checkpoint { token: ResumeToken("now".into()), ..checkpoint() };
        let (entries, collection) = (Damage::Entries(String::new()), Damage::Collection(String::new()));
        let applied = checkpoint();
        let recovered = |applied: &Checkpoint, damage| recover(&current, Some(applied.clone()), damage);
        assert_eq!(recovered(&applied, &entries), Recovery::Rewind(applied.clone()));
        assert_eq!(recovered(&applied, &collection), Recovery::Compare(applied.clone()));
        let other = Checkpoint { selection: "other".into(), ..applied.clone() };
        let past = Checkpoint { epoch: 7, ..applied };
        for useless in [other, past] {
            assert_eq!(recovered(&useless, &entries), Recovery::Compare(current.clone()));
        }
        assert_eq!(recover(&current, None, &collection), Recovery::Compare(current.clone()));
    }

    #[test]
    fn a_snapshot_goes_on_in_the_collection_where_it_stopped() {
        let [a, b, c] = ["a", "b", "c"].map(|name| Namespace::new("shop", name));
        let all = vec![a.clone(), b.clone(), c.clone()];
        let after = (b.clone(), "7".to_owned());
        assert_eq!(remaining(all.clone(), Some(&after)), [(b, Some("7".into())), (c.clone(), None)]);
        assert_eq!(remaining(all, None).len(), 3);
        assert_eq!(remaining(vec![a], Some(&after)), []);
    }

    #[test]
    fn the_start_depends_on_what_was_saved() {
        assert_eq!(start(None, "all"), Start::Fresh);
        let saved = checkpoint();
        assert_eq!(start(Some(&saved), "all"), Start::Resume(StartAt::Token(saved.token.clone())));
        assert_eq!(start(Some(&saved), "other"), Start::Reselect(StartAt::Time(time(10))));
    }

    proptest! {
        /// However the feed is cut into batches, every event gets the same version: a crash between any two batches
        /// changes nothing.
        #[test]
        fn versions_do_not_depend_on_how_the_feed_is_cut(
            mut seconds in prop::collection::vec(10u32..14, 1..20),
            cuts in prop::collection::vec(any::<bool>(), 20),
        ) {
            seconds.sort_unstable();
            let events: Vec<_> = seconds.iter().map(|s| event(Operation::Insert, *s, Some("{}"))).collect();
            let whole = versions(&follow(&checkpoint(), batch(events.clone())).unwrap());
            let mut at = checkpoint();
            let mut pieces = Vec::new();
            let mut piece = Vec::new();
            for (event, cut) in events.into_iter().zip(cuts) {
                piece.push(event);
                if cut {
                    let step = follow(&at, batch(std::mem::take(&mut piece))).unwrap();
                    pieces.extend(versions(&step));
                    at = step.next;
                }
            }
            pieces.extend(versions(&follow(&at, batch(piece)).unwrap()));
            let distinct: BTreeSet<_> = pieces.iter().collect();
            prop_assert_eq!(distinct.len(), pieces.len());
            prop_assert_eq!(pieces, whole);
        }
    }
}
