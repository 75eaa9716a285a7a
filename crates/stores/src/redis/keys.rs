//! Names of the streams, their groups and all helper keys.
//!
//! A helper key contains its stream's name in braces, so that Redis maps both to one hash slot.
//!
//! Each target has helper keys of its own, which end with its name: see [`TargetKeys`]. Those of the plain target, the one
//! of the short form, have no such end: they are the constants here.

use tidewheel_core::catalog::TargetId;
use tidewheel_core::stage::Stage;

/// Stage 1: changes from MongoDB.
pub const RAW: &str = "raw_document_changes";
/// The group of the processors on stage 1.
pub const RAW_GROUP: &str = "embedding_processors";
/// Stage 2: changes with their vectors.
pub const EMBEDDED: &str = "embedded_documents";
/// The group of the upserters on stage 2.
pub const EMBEDDED_GROUP: &str = "qdrant_upserters";

/// Hash: read position in the source (resume token, cluster time, snapshot). Written only together with the entries
/// that it covers.
pub const CHECKPOINT: &str = "{raw_document_changes}:checkpoint";
/// Hash: the newest checkpoint that is in the index with everything that it covers.
pub const APPLIED: &str = "{raw_document_changes}:applied";
/// Hash: how many entries were appended to each stream, and how many tidewheel trimmed, to detect deletion of a stream
/// or of its entries by another client.
pub const COUNTS: &str = "{raw_document_changes}:counts";
/// String: detected damage, until the producer has repaired it.
pub const DAMAGE: &str = "{raw_document_changes}:damage";
/// Hash: the installation that owns this Redis: its id and source database.
pub const INSTALLATION: &str = "{raw_document_changes}:installation";
/// Hash: the catalog of indexes: its revision, the id of the last change, and each index as JSON.
pub const INDEXES: &str = "{raw_document_changes}:indexes";
/// Hash: target → what it has lost, and when, until the producer has filled it again.
pub const LOST: &str = "{raw_document_changes}:lost";
/// String: resume position of the slow audit.
pub const AUDIT: &str = "{raw_document_changes}:audit";
/// String with a TTL: the active producer.
pub const LEASE: &str = "{raw_document_changes}:lease";
/// Hash: process → time and content of its last report (JSON). For operators; expires after a minute.
pub const SERVICES: &str = "{raw_document_changes}:services";
/// Hash: replay → time and progress of its last report (JSON). For operators; expires after an hour.
pub const REPLAYS: &str = "{raw_document_changes}:replays";
/// Stream: log of administrative actions: actor, action, origin. For operators; bounded.
pub const AUDIT_LOG: &str = "{raw_document_changes}:audit_log";
/// Stream: dead letters of stage 1, with the reason.
pub const RAW_DEAD_LETTERS: &str = "{raw_document_changes}:dead_letters";
/// Stream: dead letters of stage 2, with the reason.
pub const EMBEDDED_DEAD_LETTERS: &str = "{embedded_documents}:dead_letters";
/// String with a TTL: when dead letters were last retried, in milliseconds since the Unix epoch. No tombstone is
/// collected before they have left the stage.
pub const RETRIED: &str = "{embedded_documents}:retried";
/// Hash: document or namespace → version of its deletion.
pub const TOMBSTONES: &str = "{embedded_documents}:tombstones";
/// Stream: document tombstones in the order in which they were recorded, which is the order of their collection.
pub const TOMBSTONE_LOG: &str = "{embedded_documents}:tombstone_log";
/// Hash: the number of namespace tombstones, and the newest version of a collected document tombstone.
pub const TOMBSTONE_STATE: &str = "{embedded_documents}:tombstone_state";
/// String: the Qdrant collection last written to.
pub const COLLECTION: &str = "{embedded_documents}:collection";
/// Hash: target → its Qdrant collection, known to exist.
pub const COLLECTIONS: &str = "{embedded_documents}:collections";

/// The helper keys of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetKeys {
    /// Hash: document or namespace → version of its deletion.
    pub tombstones: String,
    /// Stream: document tombstones in the order in which they were recorded.
    pub log: String,
    /// Hash: counts of the tombstones, and the newest version of a collected one.
    pub state: String,
    /// String: resume position of the slow audit.
    pub audit: String,
}

impl TargetKeys {
    /// The keys of this target. Those of the plain target have the names that they had before there were targets.
    pub fn of(target: &TargetId, plain: bool) -> Self {
        if plain {
            return Self::plain();
        }
        let key = |name: &str| format!("{name}:{target}");
        Self { tombstones: key(TOMBSTONES), log: key(TOMBSTONE_LOG), state: key(TOMBSTONE_STATE), audit: key(AUDIT) }
    }

    /// The keys of the plain target.
    pub fn plain() -> Self {
        Self {
            tombstones: TOMBSTONES.to_owned(),
            log: TOMBSTONE_LOG.to_owned(),
            state: TOMBSTONE_STATE.to_owned(),
            audit: AUDIT.to_owned(),
        }
    }
}

/// A stream with one of its consumer groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamKeys {
    /// The stream's key.
    pub stream: &'static str,
    /// The consumer group's name.
    pub group: &'static str,
    /// Its dead-letter stream.
    pub dead_letters: &'static str,
}

/// Stage 1, from the producer to the processors.
pub const STAGE_1: StreamKeys = StreamKeys { stream: RAW, group: RAW_GROUP, dead_letters: RAW_DEAD_LETTERS };
/// Stage 2 for a replay into another collection, beside the upserters. Shares the dead letters of the upserters.
pub const STAGE_2_REPLAY: StreamKeys =
    StreamKeys { stream: EMBEDDED, group: "qdrant_upserters:replay", dead_letters: EMBEDDED_DEAD_LETTERS };
/// Stage 2, from the processors to the upserters.
pub const STAGE_2: StreamKeys =
    StreamKeys { stream: EMBEDDED, group: EMBEDDED_GROUP, dead_letters: EMBEDDED_DEAD_LETTERS };

impl From<Stage> for StreamKeys {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Raw => STAGE_1,
            Stage::Embedded => STAGE_2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_is_named_like_the_label_of_its_stage() {
        for stage in Stage::ALL {
            let StreamKeys { stream, dead_letters, .. } = StreamKeys::from(stage);
            assert_eq!(stream, stage.name());
            assert_eq!(dead_letters, format!("{{{stream}}}:dead_letters"));
        }
    }

    #[test]
    fn each_target_has_keys_of_its_own_in_the_slots_of_the_streams() {
        let target: TargetId = "tickets.g2".parse().unwrap();
        let keys = TargetKeys::of(&target, false);
        let expected = TargetKeys {
            tombstones: "{embedded_documents}:tombstones:tickets.g2".into(),
            log: "{embedded_documents}:tombstone_log:tickets.g2".into(),
            state: "{embedded_documents}:tombstone_state:tickets.g2".into(),
            audit: "{raw_document_changes}:audit:tickets.g2".into(),
        };
        assert_eq!(keys, expected);
    }

    #[test]
    fn plain_target_keeps_the_names_of_earlier_releases() {
        let keys = TargetKeys::of(&"documents.g1".parse().unwrap(), true);
        assert_eq!(keys, TargetKeys::plain());
        let expected = [
            "{embedded_documents}:tombstones",
            "{embedded_documents}:tombstone_log",
            "{embedded_documents}:tombstone_state",
            "{raw_document_changes}:audit",
        ];
        assert_eq!([keys.tombstones, keys.log, keys.state, keys.audit], expected);
    }
}
