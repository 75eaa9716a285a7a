//! Resolved settings of the producer.

use std::time::Duration;

use tidewheel_core::catalog::Declaration;

/// Settings of the producer.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// Unique name of this producer: the holder of the lease.
    pub owner: String,
    /// Whether snapshots of everything run: on first start, and to repair damage. Those that a catalog requires run
    /// regardless.
    pub snapshot: bool,
    /// Number of unacknowledged entries in stage 1 at which the producer pauses; MongoDB's oplog buffers meanwhile.
    pub high_water: u64,
    /// How long an unresponsive producer keeps the lease: another one takes over after this time.
    pub lease: Duration,
    /// How long the tombstone of an applied deletion is kept, to fence off writes delayed by the network.
    pub tombstone_grace: Duration,
    /// Interval of the slow audit of the whole index against the source; zero disables it.
    pub audit_interval: Duration,
    /// The indexes of the settings. The first start of a new installation applies them; later changes are applied by an
    /// operator.
    pub declared: Vec<Declaration>,
    /// Whether the settings declare them. If not, the only one is what the short form is short for, and is not applied.
    pub is_declared: bool,
}
