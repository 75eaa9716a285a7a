//! A Qdrant collection, in memory.

mod admin;
mod inspector;
mod reading;
mod writing;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use tidewheel_core::catalog::{CollectionSpec, PayloadIndex, TargetRecord, VectorLayout};
use tidewheel_core::error::PortError;
use tidewheel_core::identity::DocumentId;
use tidewheel_core::installation::Installation;
use tidewheel_core::ports::{DocumentPoints, Fence, Point, PortResult};
use uuid::Uuid;

use super::faults::Faults;
use super::process::Process;

/// A sent write, regardless of its outcome.
#[derive(Clone, Debug, PartialEq)]
pub enum SentWrite {
    /// [`IndexWriter::upsert`](tidewheel_core::ports::IndexWriter::upsert).
    Upsert(Vec<DocumentPoints>),
    /// [`IndexWriter::refresh`](tidewheel_core::ports::IndexWriter::refresh).
    Refresh(Vec<DocumentPoints>),
    /// [`IndexWriter::delete`](tidewheel_core::ports::IndexWriter::delete).
    Delete(Vec<Fence>),
}

/// Aliases of a server's collections.
pub(super) type Aliases = Arc<Mutex<BTreeMap<String, String>>>;

/// A collection of a server, whether it exists or not. Clones share it.
#[derive(Clone)]
pub struct FakeIndex {
    name: Arc<str>,
    aliases: Aliases,
    state: Arc<Mutex<State>>,
    faults: Faults,
}

impl Default for FakeIndex {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Default)]
struct State {
    collection: Option<Collection>,
    refused: HashMap<DocumentId, PortError>,
    undeletable: HashMap<DocumentId, PortError>,
    sent: Vec<SentWrite>,
    calls: BTreeMap<&'static str, u64>,
    largest: usize,
}

struct Collection {
    layout: VectorLayout,
    dimension: usize,
    points: BTreeMap<Uuid, Point>,
    mark: Option<Installation>,
    /// `None` if it was created otherwise than by a specification.
    spec: Option<CollectionSpec>,
    record: Option<TargetRecord>,
    /// Without those that tidewheel itself requires.
    indexes: BTreeMap<String, PayloadIndex>,
    /// Those that tidewheel has created.
    listed: BTreeMap<String, PayloadIndex>,
    is_busy: bool,
}

impl FakeIndex {
    /// The collection `documents` of a server of its own, which does not exist yet.
    pub fn new() -> Self {
        Self::on("documents", Aliases::default())
    }

    /// The collection of this name of a server with these aliases.
    pub(super) fn on(name: &str, aliases: Aliases) -> Self {
        Self { name: name.into(), aliases, state: Arc::default(), faults: Faults::default() }
    }

    /// The faults of its calls, named like the port's methods.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The same server, with the calls of this process.
    #[must_use]
    pub fn used_by(&self, process: &Process) -> Self {
        Self { faults: self.faults.used_by(process), ..self.clone() }
    }

    /// All points, ordered by id.
    pub fn points(&self) -> Vec<Point> {
        self.state().collection.iter().flat_map(|collection| collection.points.values().cloned()).collect()
    }

    /// Every sent write, in order, including those prevented by a fault.
    pub fn sent(&self) -> Vec<SentWrite> {
        self.state().sent.clone()
    }

    /// How often a method of the port was called.
    pub fn calls(&self, call: &str) -> u64 {
        self.state().calls.get(call).copied().unwrap_or(0)
    }

    /// Applies a write now, again or for the first time: a delayed or duplicate request.
    pub fn arrives_late(&self, write: &SentWrite) -> PortResult<()> {
        let mut state = self.state();
        match write {
            SentWrite::Upsert(documents) => state.upsert(&documents.iter().collect::<Vec<_>>()).map(drop),
            SentWrite::Refresh(documents) => {
                state.refresh(&documents.iter().collect::<Vec<_>>());
                Ok(())
            }
            SentWrite::Delete(fences) => {
                state.delete(fences);
                Ok(())
            }
        }
    }

    /// Makes writes with this document fail as poison.
    pub fn refuse(&self, document: DocumentId) {
        self.fail_for(document, PortError::poison(format!("injected: {document} cannot be written")));
    }

    /// Makes writes with this document fail with this error.
    pub fn fail_for(&self, document: DocumentId, error: PortError) {
        self.state().refused.insert(document, error);
    }

    /// Makes deletions of this document fail with this error.
    pub fn fail_to_delete(&self, document: DocumentId, error: PortError) {
        self.state().undeletable.insert(document, error);
    }

    /// Ends the failures of documents.
    pub fn cure(&self) {
        let mut state = self.state();
        state.refused.clear();
        state.undeletable.clear();
    }

    /// Writes a point externally, as another client may.
    ///
    /// # Panics
    /// If the collection does not exist.
    pub fn put(&self, point: Point) {
        self.state().collection.as_mut().expect("a collection").points.insert(point.id, point);
    }

    /// Removes a point externally; returns whether it existed.
    pub fn remove(&self, id: Uuid) -> bool {
        self.state().collection.as_mut().is_some_and(|collection| collection.points.remove(&id).is_some())
    }

    /// Returns the largest number of points read in one call since the last call of this method.
    pub fn largest_read(&self) -> usize {
        std::mem::take(&mut self.state().largest)
    }

    /// Deletes the collection and its aliases, as an operator may.
    pub fn drop_collection(&self) {
        self.state().collection = None;
        self.aliases.lock().expect("no holder panics").retain(|_, collection| **collection != *self.name);
    }

    /// Whether the collection exists.
    pub fn is_there(&self) -> bool {
        self.state().collection.is_some()
    }

    /// The specification by which the collection was created and altered; `None` if another client created it.
    pub fn spec(&self) -> Option<CollectionSpec> {
        self.state().collection.as_ref().and_then(|collection| collection.spec.clone())
    }

    /// The payload indexes, without those that tidewheel itself requires.
    pub fn payload_indexes(&self) -> BTreeMap<String, PayloadIndex> {
        self.state().collection.as_ref().map(|collection| collection.indexes.clone()).unwrap_or_default()
    }

    /// Creates a payload index externally, as another client may.
    ///
    /// # Panics
    /// If the collection does not exist.
    pub fn put_payload_index(&self, field: &str, index: PayloadIndex) {
        self.state().collection.as_mut().expect("a collection").indexes.insert(field.to_owned(), index);
    }

    /// Starts or ends an optimisation of the collection.
    ///
    /// # Panics
    /// If the collection does not exist.
    pub fn set_busy(&self, is_busy: bool) {
        self.state().collection.as_mut().expect("a collection").is_busy = is_busy;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn called(&self, call: &'static str) -> MutexGuard<'_, State> {
        let mut state = self.state();
        *state.calls.entry(call).or_default() += 1;
        state
    }
}

impl State {
    fn reads(&mut self, points: usize) {
        self.largest = self.largest.max(points);
    }
}

impl Collection {
    fn new(dimension: usize) -> Self {
        Self {
            layout: VectorLayout::default(),
            dimension,
            points: BTreeMap::new(),
            mark: None,
            spec: None,
            record: None,
            indexes: BTreeMap::new(),
            listed: BTreeMap::new(),
            is_busy: false,
        }
    }

    fn check(&self, dimension: usize) -> PortResult<()> {
        if self.dimension == dimension {
            return Ok(());
        }
        let expected = self.dimension;
        Err(PortError::fatal(format!("the collection's dimension is {expected}, the vector's is {dimension}"))
            .with_hint("use another collection"))
    }
}

/// The error of a call that needs the collection.
fn missing() -> PortError {
    PortError::transient("the collection does not exist")
}

/// A zero vector means no vector.
fn has_vector(point: &Point) -> bool {
    point.vector.iter().any(|number| *number != 0.0)
}

#[cfg(test)]
mod tests {
    use tidewheel_core::identity::Namespace;
    use tidewheel_core::ports::{FenceTarget, IndexWriter};
    use tidewheel_core::version::{ClusterTime, Version};

    use super::super::faults::Fault;
    use super::*;
    use crate::contracts::index::document;

    fn version(seconds: u32) -> Version {
        Version { epoch: 0, time: ClusterTime { seconds, increment: 1 }, ordinal: 1, replay: 0 }
    }

    #[tokio::test]
    async fn write_with_lost_response_is_applied_and_sent_write_can_arrive_late() {
        let (index, namespace) = (FakeIndex::new(), Namespace::new("shop", "tickets"));
        let first = document(&namespace, "1", version(1), &["a"]);
        index.prepare(4).await.unwrap();
        index.faults().once("upsert", Fault::answer_lost());
        assert!(index.upsert(&[&first]).await.is_err());
        assert_eq!(index.points().len(), 1);

        let fence = Fence { target: FenceTarget::Document(first.document), version: version(2) };
        index.delete(&[fence]).await.unwrap();
        assert!(index.points().is_empty());

        index.arrives_late(&index.sent()[0]).unwrap();
        assert_eq!(index.points(), first.points);
        assert_eq!((index.calls("upsert"), index.faults().hits("upsert")), (1, 1));
    }
}
