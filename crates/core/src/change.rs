//! A change of a document, as stage 1 carries it.

use std::fmt;
use std::str::FromStr;

use crate::identity::{DocumentId, Namespace};
use crate::version::Version;

/// What happened to the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// It was inserted.
    Insert,
    /// Some of its fields changed.
    Update,
    /// It was replaced as a whole.
    Replace,
    /// A snapshot read it: it may have been there for years.
    Read,
    /// It was deleted.
    Delete,
    /// Its whole collection went away: dropped, renamed, or its database dropped. Such a change has no document.
    Drop,
}

impl Operation {
    /// Every operation, for tests and tables.
    pub const ALL: [Self; 6] = [Self::Insert, Self::Update, Self::Replace, Self::Read, Self::Delete, Self::Drop];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Read => "read",
            Self::Delete => "delete",
            Self::Drop => "drop",
        }
    }

    /// Whether the change leaves a document behind that has to be searchable.
    pub fn has_document(self) -> bool {
        !matches!(self, Self::Delete | Self::Drop)
    }

    /// Whether the change concerns a whole collection instead of one document.
    pub fn is_of_collection(self) -> bool {
        matches!(self, Self::Drop)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Operation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|operation| operation.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not an operation"))
    }
}

/// One change of one document, or of a whole collection.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What happened.
    pub operation: Operation,
    /// Where.
    pub namespace: Namespace,
    /// The document's [key](crate::key): its exact identity. Empty for a change of a whole collection.
    pub key: String,
    /// The document's `_id` in relaxed extended JSON: for people who read the streams. Empty for a
    /// change of a whole collection.
    pub id: String,
    /// Orders this change among all changes of the document.
    pub version: Version,
    /// When the source committed the change, in milliseconds since the Unix epoch, by the source's clock. Only for
    /// measuring latency; never for ordering.
    pub committed_at: u64,
    /// The document in relaxed extended JSON; `None` unless the operation has one.
    pub document: Option<String>,
}

impl Change {
    /// The identity of the document that changed.
    pub fn document_id(&self) -> DocumentId {
        DocumentId::new(&self.namespace, &self.key)
    }
}
