//! Writes to a source, as contracts and fakes describe them.

use serde_json::Value;

/// A write to the source. Documents and values are extended JSON.
#[derive(Clone, Debug)]
pub enum SourceWrite {
    /// Inserts a document.
    Insert {
        /// The collection.
        collection: String,
        /// The document with its `_id`.
        document: Value,
    },
    /// Replaces the document with the same `_id`.
    Replace {
        /// The collection.
        collection: String,
        /// The document with its `_id`.
        document: Value,
    },
    /// Sets one field.
    Set {
        /// The collection.
        collection: String,
        /// The document's `_id`.
        id: Value,
        /// The field, or a path through nested documents.
        field: String,
        /// Its new value.
        value: Value,
    },
    /// Removes one field.
    Unset {
        /// The collection.
        collection: String,
        /// The document's `_id`.
        id: Value,
        /// The field, or a path through nested documents.
        field: String,
    },
    /// Deletes a document.
    Delete {
        /// The collection.
        collection: String,
        /// The document's `_id`.
        id: Value,
    },
    /// Drops a collection. Not allowed in a transaction, like all variants below.
    Drop {
        /// The collection.
        collection: String,
    },
    /// Renames a collection; replaces an existing one of that name.
    Rename {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// Drops all collections of the database.
    DropDatabase,
}
