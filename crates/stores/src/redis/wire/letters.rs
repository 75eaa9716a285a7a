//! Entries as operators see them: dead letters, and entries that were looked up.

use std::borrow::Cow;

use tidewheel_core::change::{Change, Operation};
use tidewheel_core::embedded::Embedded;
use tidewheel_core::key;
use tidewheel_core::ports::{EntryId, EntryState, FoundEntry, Letter, ParkedChange, ParkedReason, RecordError};
use tidewheel_core::stage::Stage;

use super::reader::Reader;
use super::{Fields, RawFields, Record};
use crate::redis::keys::RAW;

/// Decodes a change that the producer parked: it has no document, even if its operation has one.
pub(super) fn decode_parked(fields: RawFields) -> Result<Change, RecordError> {
    Reader(fields).change()
}

/// Fields appended to a parked entry, in order.
pub const ABOUT: [&str; 5] = ["stream", "entry", "reason", "attempts", "parked_at"];

/// Encodes the dead letter of a change that cannot be appended, as parsed by [`letter`].
pub fn encode_parked(parked: &ParkedChange, parked_at: u64) -> Fields<'_> {
    let mut fields = parked.change.encode();
    let about = [RAW.to_owned(), EntryId::zero().0, parked.reason.clone(), "1".to_owned(), parked_at.to_string()];
    fields.extend(ABOUT.into_iter().zip(about).map(|(name, value)| (name, Cow::Owned(value.into_bytes()))));
    fields
}

/// Parses a parked entry of `stage`. Missing fields stay empty, so that an operator can still inspect the entry.
pub fn letter(stage: Stage, id: EntryId, fields: RawFields) -> Letter {
    let text = |name: &str| {
        let value = fields.iter().rev().find(|(field, _)| field == name.as_bytes());
        value.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    };
    let (stream, entry, reason) = (text("stream"), EntryId(text("entry")), text("reason"));
    let (attempts, parked_at) = (text("attempts").parse().unwrap_or(0), text("parked_at").parse().unwrap_or(0));
    let former = !key::is_canonical(&text("key"));
    let record = match stage {
        Stage::Raw => decode_parked(fields).map(Embedded::without_vectors),
        Stage::Embedded => Embedded::decode(fields),
    };
    let reread = record
        .as_ref()
        .is_ok_and(|record| record.change.operation.has_document() && (former || record.change.document.is_none()));
    Letter { id, stream, entry, reason, attempts, parked_at, record, reread }
}

/// Fields of every change; the other fields of an entry describe its embedding.
const OF_CHANGE: [&str; 11] = [
    "format",
    "operation",
    "namespace",
    "id",
    "key",
    "version",
    "committed_at",
    "document",
    "catalog",
    "targets",
    "leaves",
];

/// Parses an entry for an operator, whether it can be decoded or not.
pub fn found(id: EntryId, state: EntryState, fields: RawFields) -> FoundEntry {
    let text = |name: &str| {
        let value = fields.iter().find(|(field, _)| field == name.as_bytes());
        value.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    let parked = text("reason").map(|reason| ParkedReason {
        reason,
        parked_at: text("parked_at").and_then(|at| at.parse().ok()).unwrap_or(0),
    });
    let chunks = text("chunks").map(|chunks| {
        let chunks: Result<Vec<serde::de::IgnoredAny>, _> = serde_json::from_str(&chunks);
        chunks.map_or(0, |chunks| chunks.len())
    });
    let others = fields.iter().filter_map(|(name, value)| {
        let name = String::from_utf8_lossy(name);
        let of_embedding =
            !OF_CHANGE.contains(&&*name) && !ABOUT.contains(&&*name) && !["chunks", "vectors"].contains(&&*name);
        of_embedding.then(|| (name.into_owned(), String::from_utf8_lossy(value).into_owned()))
    });
    FoundEntry {
        namespace: text("namespace").unwrap_or_default(),
        key: text("key").unwrap_or_default(),
        is_drop: text("operation").as_deref() == Some(Operation::Drop.as_str()),
        chunks,
        embedding: others.collect(),
        change: if parked.is_some() { decode_parked(fields) } else { Change::decode(fields) },
        id,
        state,
        parked,
    }
}
