//! Names of the Redis streams, their groups and every helper key: the one place where they are written down.
//!
//! A helper key carries its stream's name in braces, so that Redis puts both into one hash slot.

/// Stage 1: what changed in MongoDB.
pub const RAW: &str = "raw_document_changes";
/// The group of the processors on stage 1.
pub const RAW_GROUP: &str = "embedding_processors";
/// Stage 2: changes with their vectors.
pub const EMBEDDED: &str = "embedded_documents";
/// The group of the upserters on stage 2.
pub const EMBEDDED_GROUP: &str = "qdrant_upserters";

/// Hash: how far the source has been read (resume token, cluster time, snapshot). Written only together with the
/// entries that it covers.
pub const CHECKPOINT: &str = "{raw_document_changes}:checkpoint";
/// Hash: the newest checkpoint that is in the index with everything that it covers.
pub const APPLIED: &str = "{raw_document_changes}:applied";
/// Hash: how many entries each stream was given, and how many were trimmed by us, so that it is noticed when somebody else
/// deletes a stream or entries of it.
pub const COUNTS: &str = "{raw_document_changes}:counts";
/// String: what was found to be lost, until the producer has repaired it.
pub const DAMAGE: &str = "{raw_document_changes}:damage";
/// Hash: the installation that this Redis belongs to: its id, and the database that it reads.
pub const INSTALLATION: &str = "{raw_document_changes}:installation";
/// String: where the slow audit is to be resumed.
pub const AUDIT: &str = "{raw_document_changes}:audit";
/// String with a time to live: which producer is at work.
pub const LEASE: &str = "{raw_document_changes}:lease";
/// Hash: process → when it said so, and what it says of itself (JSON). For operators; forgotten after a minute.
pub const SERVICES: &str = "{raw_document_changes}:services";
/// Hash: replay → when it said so, and how far it is (JSON). For operators; forgotten after an hour.
pub const REPLAYS: &str = "{raw_document_changes}:replays";
/// Stream: who changed what, from where. For operators; bounded.
pub const AUDIT_LOG: &str = "{raw_document_changes}:audit_log";
/// Stream: changes that no attempt could embed, with the reason.
pub const RAW_DEAD_LETTERS: &str = "{raw_document_changes}:dead_letters";
/// Stream: embedded changes that no attempt could write, with the reason.
pub const EMBEDDED_DEAD_LETTERS: &str = "{embedded_documents}:dead_letters";
/// String with a time to live: when dead letters were put back into a stage last, in milliseconds since the Unix epoch. No deletion
/// is forgotten before they have left it.
pub const RETRIED: &str = "{embedded_documents}:retried";
/// Hash: document or namespace → version of its deletion.
pub const TOMBSTONES: &str = "{embedded_documents}:tombstones";
/// Stream: the deletions of documents in the order in which they were remembered, by which they are forgotten.
pub const TOMBSTONE_LOG: &str = "{embedded_documents}:tombstone_log";
/// Hash: how many deletions of namespaces there are, and the newest version of a document's deletion that was forgotten.
pub const TOMBSTONE_STATE: &str = "{embedded_documents}:tombstone_state";
/// String: the Qdrant collection that was written to last.
pub const COLLECTION: &str = "{embedded_documents}:collection";

/// A stream with the group that works on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The stream's key.
    pub stream: &'static str,
    /// The consumer group's name.
    pub group: &'static str,
    /// The stream of its dead letters.
    pub dead_letters: &'static str,
}

/// Stage 1, from the producer to the processors.
pub const STAGE_1: Stage = Stage { stream: RAW, group: RAW_GROUP, dead_letters: RAW_DEAD_LETTERS };
/// Stage 2 for a replay into another collection, beside the upserters. Its dead letters stay with the upserters': they are theirs
/// as well.
pub const STAGE_2_REPLAY: Stage =
    Stage { stream: EMBEDDED, group: "qdrant_upserters:replay", dead_letters: EMBEDDED_DEAD_LETTERS };
/// Stage 2, from the processors to the upserters.
pub const STAGE_2: Stage = Stage { stream: EMBEDDED, group: EMBEDDED_GROUP, dead_letters: EMBEDDED_DEAD_LETTERS };
