//! Errors of stored records.

use thiserror::Error;

/// An entry without a valid record.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// A field is missing.
    #[error("missing field {0:?} in stream entry")]
    Missing(&'static str),
    /// A field has an invalid value.
    #[error("invalid field {field:?} in stream entry: {cause}")]
    Invalid {
        /// The field's name.
        field: &'static str,
        /// The cause.
        cause: String,
    },
    /// A newer release has written the entry. It must stay in its stream.
    #[error("unsupported format {found}: this release reads formats up to {supported}")]
    Newer {
        /// The entry's format.
        found: u32,
        /// The newest format that this release reads.
        supported: u32,
    },
}
