//! Resolved settings of the producer.

use std::time::Duration;

use crate::processor::LeftOut;

/// How the source is followed.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// Who this producer is, unique among all: holder of the lease.
    pub owner: String,
    /// Whether the documents that are already there are read on first start.
    pub snapshot: bool,
    /// With this many unconfirmed entries in stage 1 the producer pauses; MongoDB's oplog buffers meanwhile.
    pub high_water: u64,
    /// For how long a producer that says nothing keeps the lease: another one takes over after this time.
    pub lease: Duration,
    /// For how long a deletion that is in the index is remembered, to fend off a write that a network has held up.
    pub tombstone_grace: Duration,
    /// How often the whole index is compared with the source, slowly; zero for never.
    pub audit_interval: Duration,
    /// Documents that the index leaves out on purpose.
    pub left_out: LeftOut,
}
