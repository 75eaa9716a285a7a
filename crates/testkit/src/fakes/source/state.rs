//! The data and the history of a fake source.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bson::{Bson, Document};
use serde_json::Value;
use tidewheel_core::change::Operation;
use tidewheel_core::identity::Namespace;
use tidewheel_core::key;
use tidewheel_core::ports::{Coverage, FeedBatch, FeedError, ResumeToken, SourceEvent, SourceRow, StartAt, Touched};
use tidewheel_core::version::ClusterTime;
use tokio::time::Instant;

use super::judging::Judge;
use super::order::Id;
use crate::source_write::SourceWrite;

/// Maximum events in a batch, as in the real adapter.
const MAX_EVENTS: usize = 500;

/// All data of a source; a copy of it is a backup.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) clock: ClusterTime,
    /// Time of the last tick.
    pub(super) ticked: Option<Instant>,
    pub(super) log: Vec<Entry>,
    /// Entries before this one have been removed.
    pub(super) history: usize,
    pub(super) collections: BTreeMap<Namespace, BTreeMap<Id, Document>>,
    /// Number of opened feeds.
    pub(super) opened: u64,
    /// The largest number of documents fetched in one call.
    pub(super) largest: usize,
}

/// One entry of the history.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) time: ClusterTime,
    wall: u64,
    namespace: Namespace,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Change {
        operation: Operation,
        id: Bson,
        document: Option<Document>,
    },
    /// A change of the field at this path.
    Update {
        id: Bson,
        path: String,
    },
    /// A change of a sharded collection.
    Sharded {
        operation: Operation,
        document: Document,
        shard: &'static str,
    },
    Drop,
    Rename {
        to: Namespace,
    },
}

impl State {
    /// Number of entries before this start.
    pub(super) fn position(&self, start: &StartAt) -> Result<usize, FeedError> {
        match start {
            StartAt::Token(ResumeToken(token)) => token
                .parse::<usize>()
                .ok()
                .filter(|position| (self.history..=self.log.len()).contains(position))
                .ok_or_else(|| FeedError::HistoryLost(format!("position {token:?} is not in the history"))),
            StartAt::Time(time) => {
                let position = self.log.partition_point(|entry| entry.time < *time);
                let known = position >= self.history;
                known
                    .then_some(position)
                    .ok_or_else(|| FeedError::HistoryLost(format!("{time:?} is before the history")))
            }
        }
    }

    pub(super) fn tick(&mut self) {
        self.clock.increment += 1;
        self.ticked = Some(Instant::now());
    }

    fn log(&mut self, namespace: Namespace, what: What) {
        let wall = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_millis() as u64);
        self.log.push(Entry { time: self.clock, wall, namespace, what });
    }

    /// Applies a write to this database.
    pub(super) fn apply(&mut self, database: &str, write: SourceWrite) {
        let namespace = |collection: &str| Namespace::new(database, collection);
        match write {
            SourceWrite::Insert { collection, document } => {
                let (namespace, document) = (namespace(&collection), bson_document(document));
                let id = id_of(&document);
                let documents = self.collections.entry(namespace.clone()).or_default();
                let old = documents.insert(Id(id.clone()), document.clone());
                assert!(old.is_none(), "duplicate key {id} in {namespace}");
                let what = What::Change { operation: Operation::Insert, id, document: Some(document) };
                self.log(namespace, what);
            }
            SourceWrite::Replace { collection, document } => {
                let (namespace, document) = (namespace(&collection), bson_document(document));
                let id = id_of(&document);
                *self.existing(&namespace, &id) = document.clone();
                let what = What::Change { operation: Operation::Replace, id, document: Some(document) };
                self.log(namespace, what);
            }
            SourceWrite::Set { collection, id, field, value } => {
                self.update(namespace(&collection), bson_value(id), field, Some(bson_value(value)));
            }
            SourceWrite::Unset { collection, id, field } => {
                self.update(namespace(&collection), bson_value(id), field, None);
            }
            SourceWrite::Delete { collection, id } => {
                let (namespace, id) = (namespace(&collection), bson_value(id));
                let documents = self.collections.entry(namespace.clone()).or_default();
                let Some((id, _)) = documents.remove_entry(&Id(id)) else { return };
                self.log(namespace, What::Change { operation: Operation::Delete, id: id.0, document: None });
            }
            SourceWrite::Drop { collection } => {
                let namespace = namespace(&collection);
                if self.collections.remove(&namespace).is_some() {
                    self.log(namespace, What::Drop);
                }
            }
            SourceWrite::Rename { from, to } => {
                let (from, to) = (namespace(&from), namespace(&to));
                let documents = self.collections.remove(&from).unwrap_or_else(|| panic!("no collection {from}"));
                self.collections.insert(to.clone(), documents);
                self.log(from, What::Rename { to });
            }
            SourceWrite::DropDatabase => {
                let of_database: Vec<Namespace> =
                    self.collections.keys().filter(|namespace| namespace.database() == database).cloned().collect();
                for namespace in of_database {
                    self.collections.remove(&namespace);
                    self.log(namespace, What::Drop);
                    self.tick();
                }
            }
        }
    }

    fn update(&mut self, namespace: Namespace, id: Bson, path: String, value: Option<Bson>) {
        set(self.existing(&namespace, &id), &path, value);
        self.log(namespace, What::Update { id, path });
    }

    /// Changes the document's shard key: it is deleted on one shard and inserted on another, in either order.
    pub(super) fn move_to_shard(&mut self, namespace: &Namespace, document: Value, insert_first: bool) {
        let document = bson_document(document);
        let old = std::mem::replace(self.existing(namespace, &id_of(&document)), document.clone());
        let mut whats = vec![
            What::Sharded { operation: Operation::Delete, document: old, shard: "region=us;" },
            What::Sharded { operation: Operation::Insert, document, shard: "region=eu;" },
        ];
        if insert_first {
            whats.reverse();
        }
        whats.into_iter().for_each(|what| self.log(namespace.clone(), what));
    }

    fn existing(&mut self, namespace: &Namespace, id: &Bson) -> &mut Document {
        self.collections
            .get_mut(namespace)
            .and_then(|documents| documents.get_mut(&Id(id.clone())))
            .unwrap_or_else(|| panic!("no document {id} in {namespace}"))
    }

    /// The current document.
    fn lookup(&self, namespace: &Namespace, id: &Bson) -> Option<&Document> {
        self.collections.get(namespace)?.get(&Id(id.clone()))
    }

    /// The next batch of at most `most` events, and the position after it.
    pub(super) fn batch(
        &self,
        coverage: &Coverage,
        judge: &Judge,
        mut position: usize,
        most: usize,
    ) -> (FeedBatch, usize) {
        let (mut events, mut appeared) = (Vec::new(), Vec::new());
        while events.len() < most.min(MAX_EVENTS)
            && let Some(entry) = self.log.get(position)
        {
            position += 1;
            if coverage.covers(&entry.namespace) {
                events.push(self.event(judge, entry));
            }
            if let What::Rename { to } = &entry.what
                && coverage.covers(to)
            {
                events.push(self.event(judge, &Entry { namespace: to.clone(), ..entry.clone() }));
                appeared.push(to.clone());
            }
        }
        let through = match self.log.get(position) {
            Some(next) => next.time.before(),
            None => self.clock,
        };
        (FeedBatch { events, appeared, token: ResumeToken(position.to_string()), through }, position)
    }

    fn event(&self, judge: &Judge, entry: &Entry) -> SourceEvent {
        let (operation, id, shard, document) = match &entry.what {
            What::Update { id, .. } => (Operation::Update, Some(id), "", self.lookup(&entry.namespace, id)),
            What::Change { operation, id, document } => (*operation, Some(id), "", document.as_ref()),
            What::Sharded { operation, document, shard } => {
                (*operation, document.get("_id"), *shard, operation.has_document().then_some(document))
            }
            What::Drop | What::Rename { .. } => (Operation::Drop, None, "", None),
        };
        let touched = match &entry.what {
            What::Change { operation: Operation::Insert, .. } => Touched::Nothing,
            // As in MongoDB, paths are requested only for filters.
            What::Update { path, .. } if judge.has_filters() => Touched::Paths(vec![path.clone()]),
            _ => Touched::All,
        };
        SourceEvent {
            operation,
            namespace: entry.namespace.clone(),
            key: id.map(canonical).unwrap_or_default(),
            id: id.map(relaxed).unwrap_or_default(),
            time: entry.time,
            committed_at: entry.wall,
            shard: shard.to_owned(),
            document: document.map(|document| Ok(relaxed(&Bson::Document(document.clone())))),
            verdicts: document.map(|document| judge.verdicts(document)).unwrap_or_default(),
            touched,
        }
    }
}

/// Sets the field at a path, or removes it. Names before the last are those of documents.
fn set(document: &mut Document, path: &str, value: Option<Bson>) {
    match (path.split_once('.'), value) {
        (None, Some(value)) => {
            document.insert(path, value);
        }
        (None, None) => {
            document.remove(path);
        }
        (Some((name, rest)), value) => {
            if !document.contains_key(name) {
                document.insert(name, Document::new());
            }
            set(document.get_document_mut(name).expect("a document"), rest, value);
        }
    }
}

pub(super) fn row(id: &Id, document: &Document, judge: &Judge) -> SourceRow {
    let (id, verdicts) = (document.get("_id").unwrap_or(&id.0), judge.verdicts(document));
    let document = Ok(relaxed(&Bson::Document(document.clone())));
    SourceRow { key: canonical(id), id: relaxed(id), document, verdicts }
}

fn canonical(value: &Bson) -> String {
    key::canonical(&value.clone().into_canonical_extjson().to_string()).into_owned()
}

fn relaxed(value: &Bson) -> String {
    value.clone().into_relaxed_extjson().to_string()
}

fn bson_value(value: Value) -> Bson {
    Bson::try_from(value).expect("extended JSON")
}

fn bson_document(value: Value) -> Document {
    match bson_value(value) {
        Bson::Document(document) => document,
        other => panic!("{other} is not a document"),
    }
}

fn id_of(document: &Document) -> Bson {
    document.get("_id").expect("every document has an _id").clone()
}
