//! Resolved settings of the producer.

use std::time::Duration;

use crate::parking::OnDeadLetter;
use crate::processor::LeftOut;

/// Settings of the producer.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// Unique name of this producer: the holder of the lease.
    pub owner: String,
    /// Whether an initial snapshot reads existing documents on first start.
    pub snapshot: bool,
    /// Number of unacknowledged entries in stage 1 at which the producer pauses; MongoDB's oplog buffers meanwhile.
    pub high_water: u64,
    /// How long an unresponsive producer keeps the lease: another one takes over after this time.
    pub lease: Duration,
    /// How long the tombstone of an applied deletion is kept, to fence off writes delayed by the network.
    pub tombstone_grace: Duration,
    /// Interval of the slow audit of the whole index against the source; zero disables it.
    pub audit_interval: Duration,
    /// Documents that are intentionally not indexed.
    pub left_out: LeftOut,
    /// Effect of a change that cannot be appended on the indexed version of its document.
    pub on_dead_letter: OnDeadLetter,
}
