//! Thresholds of problems.

use std::time::Duration;

/// Values beyond which a number is a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Maximum backlog of stage 1.
    pub stage_1: u64,
    /// Maximum backlog of stage 2.
    pub stage_2: u64,
    /// Maximum time without an acknowledgement despite a backlog.
    pub no_progress: Duration,
    /// Maximum p95 of commit-to-searchable latency.
    pub latency: Duration,
    /// Minimum time for which the oplog still covers the checkpoint.
    pub oplog_time_left: Duration,
    /// Maximum Redis memory usage, in percent of its limit.
    pub redis_memory_percent: u64,
    /// Maximum number of dead letters.
    pub dead_letters: u64,
}
