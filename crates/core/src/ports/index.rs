//! The collection in Qdrant, and what is remembered beside it.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::PortResult;
use crate::identity::{DocumentId, Namespace};
use crate::version::Version;

/// A point to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Its id: [`DocumentId::point`] of its chunk.
    pub id: Uuid,
    /// Its vector. Zeros, or no numbers, stand for none: filters find the point, no search by meaning does.
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
    /// The user's document as plain JSON, which the first point carries in its payload, and the others unless there is an
    /// excerpt. Once for all of them, because a long document has many.
    pub fields: serde_json::Map<String, serde_json::Value>,
    /// What the points after the first carry in its place: see [`excerpt`](crate::excerpt).
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

    /// The whole payload of one of its points.
    pub fn payload_of(&self, point: &Point) -> serde_json::Map<String, serde_json::Value> {
        let mut payload = self.fields_of(point).clone();
        payload.extend(point.payload.clone());
        payload
    }
}

/// A vector that lies in the index.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownVector {
    /// Its point.
    pub id: Uuid,
    /// What it was made from: see [`Fingerprints`](crate::fingerprint::Fingerprints).
    pub fingerprint: String,
    /// The vector, as long as the index says that it is.
    pub vector: Vec<f32>,
}

/// What the index holds already of what is about to be embedded.
#[async_trait]
pub trait KnownVectors: Send + Sync {
    /// Those of these points that exist and say what they were made from, in any order. None if there is no collection.
    async fn known(&self, points: &[Uuid]) -> PortResult<Vec<KnownVector>>;
}

/// Everything of this document (or collection) that is older than the version has to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// What the fence guards.
    pub target: FenceTarget,
    /// Points with a smaller version are behind the fence.
    pub version: Version,
}

/// What a [`Fence`] guards.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FenceTarget {
    /// One document.
    Document(DocumentId),
    /// All documents of a collection.
    Namespace(Namespace),
}

/// What the index says of one document after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The version of its chunk 0, which every version has; `None` if there is no such point. Always `None` where only one
    /// chunk was written: then it does not matter, because a write that came too late has changed nothing but what is missing.
    pub version: Option<Version>,
    /// Whether the chunk right after the last of the version just written exists. Chunks of an older version are left
    /// over in a row, so this one tells whether there are any.
    pub surplus: bool,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// It is durable.
    Durably,
    /// There is no collection; nothing, or only a part, was written.
    NoCollection,
}

/// The collection in Qdrant.
#[async_trait]
pub trait Index: Send + Sync {
    /// The collection's name, or its alias.
    fn name(&self) -> &str;

    /// Whether the collection is there.
    async fn exists(&self) -> PortResult<bool>;

    /// Creates the collection and its payload indexes if they are missing; says whether this call has created the collection.
    /// Fails as fatal if there is one of another dimension or distance.
    async fn prepare(&self, dimension: usize) -> PortResult<bool>;

    /// Writes the points of each document, except points that exist at the same or a newer version; in as few calls
    /// as size limits allow. Answers when everything is durable. No document may occur twice.
    /// Never creates the collection: a collection that went missing is more than a write can make good.
    async fn upsert(&self, documents: &[&DocumentPoints]) -> PortResult<Written>;

    /// Writes the payload alone of those points that exist, are older and have a vector with the same fingerprint. Answers, when
    /// everything is durable, for each document whether all its points exist now at its version or a newer one; where not, the
    /// document has to be upserted. Never creates a point. No document may occur twice.
    async fn refresh(&self, documents: &[&DocumentPoints]) -> PortResult<Vec<bool>>;

    /// For each document and the number of chunks that it should have: what is there now.
    async fn stored(&self, documents: &[(DocumentId, u32)]) -> PortResult<Vec<Stored>>;

    /// Deletes every point behind the fences, in as few calls as size limits allow; those of whole collections page by page. Answers
    /// when everything is durable.
    async fn delete(&self, fences: &[Fence]) -> PortResult<()>;

    /// Deletes those of these points that are older than the version, whatever document they say that they are of. Answers when
    /// that is durable.
    async fn remove(&self, points: &[Uuid], version: Version) -> PortResult<()>;

    /// The points nearest to the vector, best first, with these fields of their payload (all, if none is named). `filter` is a
    /// filter in Qdrant's own JSON form.
    async fn search(
        &self,
        vector: Vec<f32>,
        limit: usize,
        filter: Option<&serde_json::Value>,
        fields: &[&str],
    ) -> PortResult<Vec<Hit>>;

    /// How many points there are, about where they are many; `None` if there is no collection.
    async fn count(&self) -> PortResult<Option<u64>>;

    /// Those of these points that exist, in any order, with these fields of their payload (all, if none is named) and
    /// without vectors.
    async fn points(&self, ids: &[Uuid], fields: &[&str]) -> PortResult<Vec<IndexedPoint>>;

    /// Up to `limit` points in the order of their ids from `after` on, exclusively, with these fields of their payload (all,
    /// if none is named) and without vectors.
    async fn page(&self, after: Option<Uuid>, limit: usize, fields: &[&str]) -> PortResult<Vec<IndexedPoint>>;
}

/// A point found by a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The point's id.
    pub id: Uuid,
    /// Cosine similarity, from −1 to 1.
    pub score: f32,
    /// What was asked for of its payload.
    pub payload: serde_json::Map<String, serde_json::Value>,
}

/// A point as it lies in the index.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexedPoint {
    /// Its id.
    pub id: Uuid,
    /// Its payload.
    pub payload: serde_json::Map<String, serde_json::Value>,
}

/// The memory of deletions, outside the user's collection.
#[async_trait]
pub trait Tombstones: Send + Sync {
    /// Remembers that everything of these targets up to their versions is gone. Never lowers a version.
    async fn raise(&self, fences: &[Fence]) -> PortResult<()>;

    /// The versions remembered for these targets.
    async fn of(&self, targets: &[FenceTarget]) -> PortResult<Vec<Option<Version>>>;

    /// Forgets a page of the documents' deletions that were remembered at least `grace` ago, oldest first. All of them were
    /// remembered before `settled`, a time by the clock of [`Positions::at`](super::Positions): everything that was in the streams
    /// at that time has been acknowledged. Forgets nothing while dead letters that were put back after that time may be on their
    /// way.
    ///
    /// The newest version that is forgotten is kept: see [`DeadLetters::retry`](super::DeadLetters::retry).
    async fn collect(&self, grace: Duration, settled: u64) -> PortResult<Collected>;
}

/// What one call of [`Tombstones::collect`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many deletions were forgotten.
    pub forgotten: u64,
    /// Whether the next page may hold more.
    pub more: bool,
}

/// Remembers which collection is written to, and notices when it is gone or another one.
#[async_trait]
pub trait Alarm: Send + Sync {
    /// Says that the collection of this name was found to be there or not to be there. If that shows that points are
    /// missing which were written before, it is put on record as [`Damage::Collection`](super::Damage).
    async fn collection(&self, name: &str, exists: bool) -> PortResult<()>;
}

/// What a name stands for in Qdrant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// Nothing.
    Nothing,
    /// A collection.
    Collection,
    /// An alias of this collection.
    Alias(String),
}

/// The names of collections in Qdrant.
#[async_trait]
pub trait Aliases: Send + Sync {
    /// What this name stands for.
    async fn resolve(&self, name: &str) -> PortResult<Named>;

    /// Lets the alias stand for this collection from now on, in one step. Fails as fatal if a collection has its name.
    async fn switch(&self, alias: &str, collection: &str) -> PortResult<()>;
}
