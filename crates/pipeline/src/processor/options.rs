//! Resolved settings of the processor.

pub use tidewheel_core::catalog::{Blank, TextDeclaration as TextOptions};

use crate::consumer::ConsumerOptions;

/// Settings of the processor. How documents become texts is part of the declaration of each target.
#[derive(Clone, Debug)]
pub struct ProcessorOptions {
    /// How entries are consumed from stage 1.
    pub consumer: ConsumerOptions,
    /// Number of unacknowledged entries in stage 2 above which nothing is handed over; stage 1 buffers meanwhile.
    pub high_water: u64,
}

/// The settings that messages about a document name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SettingNames {
    /// The template of the text.
    pub(super) template: &'static str,
    /// The fields of the text.
    pub(super) fields: &'static str,
    /// The maximum number of chunks.
    pub(super) most_chunks: &'static str,
}

impl SettingNames {
    /// Those of the short form.
    pub(super) const SHORT_FORM: Self =
        Self { template: "documents.template", fields: "documents.fields", most_chunks: "documents.max_chunks" };

    /// Those of a declared index.
    pub(super) const DECLARED: Self =
        Self { template: "text.template", fields: "text.fields", most_chunks: "chunk.max" };
}
