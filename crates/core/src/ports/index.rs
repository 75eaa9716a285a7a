//! The index: its collections and aliases, and the tombstones of its documents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::PortResult;
use super::inspect::IndexInspector;
use super::journal::AuditPosition;
use super::ownership::Ownable;
use crate::catalog::{CollectionSpec, PayloadIndex, TargetId, TargetRecord, VectorLayout};
use crate::filter::Filter;
use crate::identity::{DocumentId, Namespace};
use crate::version::Version;

/// A point to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Its id: [`DocumentId::point`] of its chunk.
    pub id: Uuid,
    /// Its vector. Zeros, or an empty vector, mean no vector: filters match the point, semantic search does not.
    pub vector: Vec<f32>,
    /// The user's document as plain JSON, and `_tidewheel`.
    pub payload: serde_json::Map<String, serde_json::Value>,
}

/// All points of one document at one version: chunk 0, 1, … in order, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentPoints {
    /// The document.
    pub document: DocumentId,
    /// Its version.
    pub version: Version,
    /// The user's document as plain JSON, which the first point carries in its payload, and the others unless there is
    /// an excerpt. Shared by all points, because a long document has many.
    pub fields: serde_json::Map<String, serde_json::Value>,
    /// The reduced fields for points after the first: see [`excerpt`](crate::excerpt).
    pub excerpt: Option<serde_json::Map<String, serde_json::Value>>,
    /// Its points in the order of their chunks.
    pub points: Vec<Point>,
}

impl DocumentPoints {
    /// The fields of the user's document that one of its points carries.
    pub fn fields_of(&self, point: &Point) -> &serde_json::Map<String, serde_json::Value> {
        let first = self.points.first().is_some_and(|first| first.id == point.id);
        self.excerpt.as_ref().filter(|_| !first).unwrap_or(&self.fields)
    }
}

/// A vector stored in the index.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownVector {
    /// Its point.
    pub id: Uuid,
    /// The fingerprint of its input: see [`Fingerprints`](crate::fingerprint::Fingerprints).
    pub fingerprint: String,
    /// The vector, with the dimension reported by the index.
    pub vector: Vec<f32>,
}

/// Vectors that the index already has.
#[async_trait]
pub trait KnownVectors: Send + Sync {
    /// The existing points among these that have a fingerprint, in any order. Empty if the collection does not exist.
    async fn known(&self, points: &[Uuid]) -> PortResult<Vec<KnownVector>>;
}

/// Marks everything of this document (or collection) that is older than the version for deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The target of the fence.
    pub target: FenceTarget,
    /// Points with a smaller version are deleted.
    pub version: Version,
}

/// The target of a [`Fence`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FenceTarget {
    /// One document.
    Document(DocumentId),
    /// All documents of a collection.
    Namespace(Namespace),
}

/// The state of one document in the index after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The version of its chunk 0, which every version has; `None` if that point does not exist. Always `None` if only
    /// one chunk was written: then it is irrelevant, because a late write only inserts missing points.
    pub version: Option<Version>,
    /// Whether the chunk right after the last of the version just written exists. Leftover chunks of an older version
    /// are contiguous, so this one shows whether there are any.
    pub surplus: bool,
}

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// The write is durable.
    Durably,
    /// The collection does not exist; nothing, or only a part, was written.
    NoCollection,
}

/// Reads the collection.
#[async_trait]
pub trait IndexReader: Send + Sync {
    /// The collection's name, or its alias.
    fn name(&self) -> &str;

    /// Whether the collection exists.
    async fn exists(&self) -> PortResult<bool>;

    /// Number of points, approximate if large; `None` if the collection does not exist.
    async fn count(&self) -> PortResult<Option<u64>>;

    /// The existing points among these, in any order, with these payload fields (all if empty) and without vectors.
    async fn points(&self, ids: &[Uuid], fields: &[&str]) -> PortResult<Vec<IndexedPoint>>;

    /// Up to `limit` points after `after`, exclusive, ordered by id, with these payload fields (all if empty) and
    /// without vectors.
    async fn page(&self, after: Option<Uuid>, limit: usize, fields: &[&str]) -> PortResult<Vec<IndexedPoint>>;
}

/// Writes the collection.
#[async_trait]
pub trait IndexWriter: Send + Sync {
    /// Creates the collection and its payload indexes if they are missing; returns whether this call created the
    /// collection. Fails with a fatal error if it exists with another dimension or distance.
    async fn prepare(&self, dimension: usize) -> PortResult<bool>;

    /// Writes the points of each document, except points that exist at the same or a newer version; in as few calls as
    /// size limits allow. Returns once everything is durable. No document may occur twice. Never creates the
    /// collection: a write cannot repair a missing collection.
    async fn upsert(&self, documents: &[&DocumentPoints]) -> PortResult<Written>;

    /// Writes only the payload of points that exist, are older and have a vector with the same fingerprint. Returns,
    /// once everything is durable, for each document whether all its points now exist at its version or a newer one; if
    /// not, the document has to be upserted. Never creates a point. No document may occur twice.
    async fn refresh(&self, documents: &[&DocumentPoints]) -> PortResult<Vec<bool>>;

    /// The state of each document after a write, given with its expected number of chunks.
    async fn stored(&self, documents: &[(DocumentId, u32)]) -> PortResult<Vec<Stored>>;

    /// Deletes every point behind the fences, in as few calls as size limits allow; those of whole collections page by
    /// page. Returns once everything is durable.
    async fn delete(&self, fences: &[Fence]) -> PortResult<()>;

    /// Deletes those of these points that are older than the version, regardless of the document in their payload.
    /// Returns once that is durable.
    async fn remove(&self, points: &[Uuid], version: Version) -> PortResult<()>;
}

/// The collection, for services that compare and write.
pub trait Index: IndexReader + IndexWriter {}

impl<I: IndexReader + IndexWriter> Index for I {}

/// Searches the collection.
#[async_trait]
pub trait Searcher: IndexReader {
    /// The points nearest to the vector that match the filter, best first, with these payload fields (all if empty).
    async fn search(
        &self,
        vector: Vec<f32>,
        limit: usize,
        filter: Option<&Filter>,
        fields: &[&str],
    ) -> PortResult<Vec<Hit>>;
}

/// A point found by a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The point's id.
    pub id: Uuid,
    /// Cosine similarity, from −1 to 1.
    pub score: f32,
    /// The requested fields of its payload.
    pub payload: serde_json::Map<String, serde_json::Value>,
}

/// A point as stored in the index.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexedPoint {
    /// Its id.
    pub id: Uuid,
    /// Its payload.
    pub payload: serde_json::Map<String, serde_json::Value>,
}

/// Tombstones of deletions from one target, stored outside the user's collection.
#[async_trait]
pub trait Tombstones: Send + Sync {
    /// Records that everything of these targets up to their versions is deleted. Never lowers a version.
    async fn raise(&self, fences: &[Fence]) -> PortResult<()>;

    /// The recorded versions of these targets.
    async fn of(&self, targets: &[FenceTarget]) -> PortResult<Vec<Option<Version>>>;

    /// Removes a page of document tombstones recorded at least `grace` ago, oldest first. All of them were recorded
    /// before `settled`, a time by the clock of [`Positions::at`](super::Positions): everything that was in the streams
    /// at that time has been acknowledged. Removes nothing while dead letters retried after that time may be in flight.
    ///
    /// The newest removed version is kept: see [`DeadLetters::retry`](super::DeadLetters::retry).
    async fn collect(&self, grace: Duration, settled: u64) -> PortResult<Collected>;
}

/// The result of one call of [`Tombstones::collect`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Number of tombstones removed.
    pub forgotten: u64,
    /// Whether the next page may hold more.
    pub more: bool,
}

/// Records the collection of one target, and detects when it is missing or replaced.
#[async_trait]
pub trait CollectionRegistry: Send + Sync {
    /// Reports whether the collection of this name exists. If points written earlier must be missing, records the target
    /// as [lost](super::CatalogStore::lost), or [`Damage::Collection`](super::Damage) without an applied catalog.
    async fn collection(&self, name: &str, exists: bool) -> PortResult<()>;
}

/// What is stored about one target outside its collection: nothing of it is read or written for another target.
pub trait TargetState: Tombstones + CollectionRegistry + AuditPosition {}

impl<T: Tombstones + CollectionRegistry + AuditPosition> TargetState for T {}

/// The states of all targets.
pub trait TargetStates: Send + Sync {
    /// The state of this target; reads nothing. `plain`: of the target of the short form, whose state keeps the names
    /// that it had before the first catalog was applied.
    fn target(&self, target: &TargetId, plain: bool) -> Arc<dyn TargetState>;
}

/// What a name refers to in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// Nothing.
    Nothing,
    /// A collection.
    Collection,
    /// An alias for this collection.
    Alias(String),
}

/// The aliases of collections in the index.
#[async_trait]
pub trait Aliases: Send + Sync {
    /// Resolves this name.
    async fn resolve(&self, name: &str) -> PortResult<Named>;

    /// Points the alias to this collection, atomically. Fails with a fatal error if a collection has the alias's name.
    async fn switch(&self, alias: &str, collection: &str) -> PortResult<()>;
}

/// One collection, whether it exists or not.
pub trait Collection: Index + KnownVectors + Searcher + Ownable + CollectionAdmin + IndexInspector {}

impl<C: Index + KnownVectors + Searcher + Ownable + CollectionAdmin + IndexInspector> Collection for C {}

/// The names in the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The collections.
    pub collections: BTreeSet<String>,
    /// The aliases, with the collection that each one names.
    pub aliases: BTreeMap<String, String>,
}

/// The collections of the index.
#[async_trait]
pub trait Collections: Send + Sync {
    /// The collection of this name; calls nothing.
    fn open(&self, collection: &str) -> Arc<dyn Collection>;

    /// All collections and aliases.
    async fn list(&self) -> PortResult<Listed>;

    /// Points the alias to this collection, atomically; `None` deletes the alias, if there is one. Fails with a fatal
    /// error if a collection has the alias's name, or if the collection does not exist.
    async fn point(&self, alias: &str, to: Option<&str>) -> PortResult<()>;
}

/// Creates, changes and deletes one collection. Every call can be repeated. Calls that change a collection fail with a
/// transient error if it does not exist; a value that the server does not support is a fatal error that names its field.
#[async_trait]
pub trait CollectionAdmin: Send + Sync {
    /// Creates the collection, and the payload indexes that tidewheel itself requires; returns whether this call created
    /// it. Fails with a fatal error if it exists with another layout or dimension, or if it has the name of a
    /// [target](TargetId) and another client has created it. Who owns it is up to the caller: see [`Ownable::mark`].
    async fn create(&self, spec: &CollectionSpec, layout: &VectorLayout, dimension: usize) -> PortResult<bool>;

    /// Changes what can be changed in place. Without effect on what the specification leaves open, except that
    /// quantization that only the record declares is turned off.
    async fn alter(&self, spec: &CollectionSpec) -> PortResult<()>;

    /// Creates the missing payload indexes, by payload path, replaces those of another type or with other options, and
    /// deletes those that an earlier call has created. Indexes that other clients have created stay, unless one of
    /// another type or with other options is wanted.
    async fn field_indexes(&self, wanted: &BTreeMap<String, PayloadIndex>) -> PortResult<()>;

    /// The record of its target; `None` without a collection or a record.
    async fn record(&self) -> PortResult<Option<TargetRecord>>;

    /// Replaces the record of its target. The owner and other metadata stay.
    async fn set_record(&self, record: &TargetRecord) -> PortResult<()>;

    /// Whether no optimisation of the collection is running or pending; `false` without a collection.
    async fn is_settled(&self) -> PortResult<bool>;

    /// Deletes the collection and its aliases; a no-op without a collection, and for the name of an alias.
    async fn drop_collection(&self) -> PortResult<()>;
}
