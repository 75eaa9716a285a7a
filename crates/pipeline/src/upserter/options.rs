//! Resolved settings of the upserter.

pub use tidewheel_core::catalog::PayloadDeclaration as PayloadOptions;

use crate::consumer::ConsumerOptions;

/// Settings of the upserter.
#[derive(Clone, Debug)]
pub struct UpserterOptions {
    /// How entries are consumed from stage 2.
    pub consumer: ConsumerOptions,
}
