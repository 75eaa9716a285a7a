//! A change of a document, as stage 1 carries it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::catalog::TargetId;
use crate::identity::{DocumentId, Namespace};
use crate::version::Version;

/// The operation on the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Insert of a document.
    Insert,
    /// Update of some fields.
    Update,
    /// Replacement of the whole document.
    Replace,
    /// Document read by a snapshot; it may be years old.
    Read,
    /// Deletion of the document.
    Delete,
    /// Removal of the whole collection: dropped, renamed, or its database dropped. Carries no document.
    Drop,
}

impl Operation {
    /// All operations, for tests and tables.
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

    /// Whether the change leaves a searchable document behind.
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
            .ok_or_else(|| format!("unknown operation {text:?}"))
    }
}

/// Where a change goes, as its producer decided it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// The one target of an installation without an applied catalog.
    #[default]
    Plain,
    /// These targets. Shared: a batch of changes usually has few different routes.
    Stamped(Arc<Stamp>),
}

impl Route {
    /// The revision of the catalog that decided it; 0 for [`Self::Plain`].
    pub fn catalog(&self) -> u64 {
        self.stamp().map_or(0, |stamp| stamp.catalog)
    }

    /// Its targets, unless it is [`Self::Plain`].
    pub fn stamp(&self) -> Option<&Stamp> {
        match self {
            Self::Plain => None,
            Self::Stamped(stamp) => Some(stamp),
        }
    }
}

impl From<Stamp> for Route {
    fn from(stamp: Stamp) -> Self {
        Self::Stamped(Arc::new(stamp))
    }
}

/// The targets of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The revision of the catalog that decided them.
    pub catalog: u64,
    /// The targets that the document belongs to. Of a delete or a drop: the targets that it is removed from.
    pub targets: Vec<TargetId>,
    /// The targets that the document does not belong to, and may have belonged to: it is removed from them.
    pub leaves: Vec<TargetId>,
}

/// One change of one document, or of a whole collection.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The operation.
    pub operation: Operation,
    /// The namespace.
    pub namespace: Namespace,
    /// The document's [key](crate::key): its exact identity. Empty for a change of a whole collection.
    pub key: String,
    /// The document's `_id` in relaxed extended JSON, for people who read the streams. Empty for a change of a whole
    /// collection.
    pub id: String,
    /// The position of this change among all changes of the document.
    pub version: Version,
    /// Commit time of the change in milliseconds since the Unix epoch, by the source's clock. For measuring latency
    /// only; never for ordering.
    pub committed_at: u64,
    /// The document in relaxed extended JSON; `None` unless the operation has one.
    pub document: Option<String>,
    /// The targets of the change.
    pub route: Route,
}

impl Change {
    /// The identity of the document that changed.
    pub fn document_id(&self) -> DocumentId {
        DocumentId::new(&self.namespace, &self.key)
    }
}
