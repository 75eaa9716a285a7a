//! Ports: the interfaces of the stages to the source, the queues, the index and the embedder.
//!
//! Each trait is implemented by an adapter for the real server and by a fake in memory, and both pass the same contract
//! tests. Every call of a server may fail with a [`PortError`], whose class decides whether to wait, to park the input or
//! to stop. Methods do not retry: the stages own the retry policy.

mod catalog;
mod coverage;
mod dead_letters;
mod embedder;
mod index;
mod inspect;
mod journal;
mod ownership;
mod queue;
mod record;
mod source;
mod stream_log;

use crate::error::PortError;

pub use catalog::CatalogStore;
pub use coverage::{Coverage, Covered};
pub use dead_letters::{DeadLetters, Letter, Retried};
pub use embedder::{Embedder, EmbedderInfo, EmbedderLoad, Embedders, Purpose};
pub use index::{
    Aliases, Collected, Collection, CollectionAdmin, CollectionRegistry, Collections, DocumentPoints, Fence,
    FenceTarget, Hit, Index, IndexReader, IndexWriter, IndexedPoint, KnownVector, KnownVectors, Listed, Named, Point,
    Searcher, Stored, TargetState, TargetStates, Tombstones, Written,
};
pub use inspect::{
    CollectionState, EntryFinder, EntryState, FoundEntries, FoundEntry, HistoryWindow, IdReading, IndexInspector,
    IndexState, ParkedReason, PublishedReport, QueueServer, QueueServerInspector, ReportReader, SourceHistory,
    SourceInspector, StageInspector,
};
pub use journal::{
    Appended, AuditPosition, Checkpoint, Damage, Journal, ParkedChange, Position, Positions, Repair, SnapshotState,
    Swept,
};
pub use ownership::{Ownable, Registry};
pub use queue::{
    Acknowledge, Backlog, Claimed, ConsumerStatus, DeadLetter, Delivery, EntryId, Gap, Handover, Maintenance, Park,
    Queue, READ_BYTES, Retention, StageQueue, StageStatus,
};
pub use record::RecordError;
pub use source::{
    Feed, FeedBatch, FeedError, Judged, Readable, ResumeToken, Scan, Source, SourceEvent, SourceFilter, SourceRow,
    StartAt, Touched, Verdicts,
};
pub use stream_log::{Extent, Follower, StreamLog};

/// The result of a port's method.
pub type PortResult<T> = Result<T, PortError>;
