//! Dead letters as operators see them.

use serde::Serialize;
use serde_json::Value;
use tidewheel_core::catalog::{IndexName, TargetId};
use tidewheel_core::key;
use tidewheel_core::payload::plain;
use tidewheel_core::ports::Letter;
use tidewheel_core::stage::Stage;

use super::targets::{Addressed, addressed};
use crate::times;

/// Converts an `_id` from relaxed extended JSON to plain form: an ObjectId as its digits, a string without quotes.
pub(super) fn plain_id(id: &str) -> String {
    match serde_json::from_str(id).map(plain) {
        Ok(Value::String(text)) => text,
        Ok(value) => value.to_string(),
        Err(_) => id.to_owned(),
    }
}

/// A dead letter.
#[derive(Clone, Debug, Serialize)]
pub struct LetterView {
    /// Its stage.
    pub stage: Stage,
    /// Its id in the dead-letter queue.
    pub id: String,
    /// Id of the entry in its stage.
    pub entry: String,
    /// The reason for parking it.
    pub reason: String,
    /// Failed attempts while the server worked for others.
    pub attempts: u32,
    /// RFC 3339 in UTC.
    pub parked_at: String,
    /// Age in milliseconds.
    pub age_ms: u64,
    /// The document is not stored, or no longer usable: a retry reads it from MongoDB.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reread: bool,
    /// The indexes that it concerns; empty if it names none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub index: Vec<IndexName>,
    /// The targets that it concerns.
    #[serde(skip)]
    pub(super) addressed: Addressed,
    /// The change, if it is readable.
    #[serde(flatten)]
    pub record: RecordView,
}

/// The change in a dead letter.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum RecordView {
    /// A readable change.
    Change {
        /// The operation.
        operation: String,
        /// `database.collection`.
        namespace: String,
        /// In plain form; empty for a whole collection.
        document_id: String,
        /// Canonical extended JSON of `_id`.
        key: String,
        /// Its version.
        version: String,
        /// RFC 3339 in UTC.
        committed_at: String,
        /// Its vectors, in a whole dead letter of stage 2.
        #[serde(skip_serializing_if = "Option::is_none")]
        embedding: Option<Box<EmbeddingView>>,
        /// Only if the whole dead letter was requested.
        #[serde(skip_serializing_if = "Option::is_none")]
        document: Option<Value>,
    },
    /// An entry that cannot be decoded.
    Unreadable {
        /// The decoding error.
        unreadable: String,
    },
}

/// The vectors of a dead letter of stage 2.
#[derive(Clone, Debug, Serialize)]
pub struct EmbeddingView {
    /// The model's name.
    pub model: String,
    /// Dimension of a vector.
    pub dimension: usize,
    /// The embedded texts.
    pub chunks: Vec<String>,
}

impl LetterView {
    pub(super) fn new(stage: Stage, letter: Letter, now: u64, whole: bool) -> Self {
        let addressed = letter.record.as_ref().map(addressed).unwrap_or_default();
        let mut index: Vec<IndexName> =
            addressed.targets.iter().map(|target: &TargetId| target.index.clone()).collect();
        index.sort_unstable();
        index.dedup();
        let record = match letter.record {
            Err(error) => RecordView::Unreadable { unreadable: error.to_string() },
            Ok(record) => {
                let change = record.change;
                let embedding = (whole && !record.chunks.is_empty()).then(|| {
                    let (dimension, chunks) = (record.vectors.dimension(), record.chunks);
                    Box::new(EmbeddingView { model: record.model, dimension, chunks })
                });
                let text = change.document.filter(|_| whole);
                RecordView::Change {
                    operation: change.operation.to_string(),
                    namespace: change.namespace.to_string(),
                    document_id: plain_id(&change.id),
                    key: change.key,
                    version: change.version.to_string(),
                    committed_at: times::show(change.committed_at),
                    embedding,
                    document: text.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))),
                }
            }
        };
        Self {
            stage,
            id: letter.id.0,
            entry: letter.entry.0,
            reason: letter.reason,
            attempts: letter.attempts,
            parked_at: times::show(letter.parked_at),
            age_ms: now.saturating_sub(letter.parked_at),
            reread: letter.reread,
            index,
            addressed,
            record,
        }
    }

    /// Whether it can be retried.
    pub fn is_readable(&self) -> bool {
        match &self.record {
            RecordView::Change { key, .. } => !(self.reread && key::is_clipped(key)),
            RecordView::Unreadable { .. } => false,
        }
    }

    /// Whether it can be put back unchanged.
    pub(super) fn is_whole(&self) -> bool {
        self.is_readable() && !self.reread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_id_drops_extended_json_syntax() {
        for (extended, shown) in [
            (r#"{"$oid":"65f000000000000000000001"}"#, "65f000000000000000000001"),
            (r#""abc""#, "abc"),
            ("7", "7"),
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("", ""),
        ] {
            assert_eq!(plain_id(extended), shown);
        }
    }
}
