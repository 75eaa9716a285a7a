//! Metrics of the producer.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tidewheel_core::change::{Change, Operation};
use tidewheel_core::metric;
use tidewheel_core::ports::{Checkpoint, SnapshotState};
use tidewheel_core::time::now_seconds;

/// Handles, created once per session.
pub(super) struct ServiceMetrics {
    changes: [Counter; Operation::ALL.len()],
    append_entries: Histogram,
    pub(super) paused: Gauge,
    lag: Gauge,
    saved: Gauge,
    snapshot_running: Gauge,
    snapshot_rows: Gauge,
}

impl ServiceMetrics {
    pub(super) fn new() -> Self {
        Self {
            changes: Operation::ALL
                .map(|operation| counter!(metric::PRODUCER_CHANGES, "operation" => operation.as_str())),
            append_entries: histogram!(metric::PRODUCER_APPEND_ENTRIES),
            paused: gauge!(metric::PRODUCER_PAUSED),
            lag: gauge!(metric::PRODUCER_LAG),
            saved: gauge!(metric::PRODUCER_SAVED),
            snapshot_running: gauge!(metric::SNAPSHOT_RUNNING),
            snapshot_rows: gauge!(metric::SNAPSHOT_ROWS),
        }
    }

    /// Records the append of these changes with this checkpoint.
    pub(super) fn appended(&self, changes: &[Change], checkpoint: &Checkpoint) {
        let now = now_seconds();
        self.saved.set(now);
        let (running, rows) = match &checkpoint.snapshot {
            SnapshotState::Running { rows, .. } | SnapshotState::Sweeping { rows, .. } => (1.0, rows),
            SnapshotState::Done { rows, .. } => (0.0, rows),
        };
        self.snapshot_running.set(running);
        self.snapshot_rows.set(*rows as f64);
        if changes.is_empty() {
            return;
        }
        self.append_entries.record(changes.len() as f64);
        let mut counts = [0; Operation::ALL.len()];
        for change in changes {
            // In the order of `ALL`, which is the order of declaration.
            counts[change.operation as usize] += 1;
        }
        for (counter, count) in self.changes.iter().zip(counts).filter(|(_, count)| *count > 0) {
            counter.increment(count);
        }
        if let Some(change) = changes.iter().rfind(|change| change.operation != Operation::Read) {
            self.lag.set((now - change.committed_at as f64 / 1e3).max(0.0));
        }
    }
}

/// Records the estimated number of documents of the snapshot.
pub(super) fn expects(rows: u64) {
    gauge!(metric::SNAPSHOT_EXPECTED).set(rows as f64);
}

/// Records whether this producer holds the lease.
pub(super) fn leads(leading: bool) {
    gauge!(metric::PRODUCER_LEADING).set(if leading { 1.0 } else { 0.0 });
}

/// Initialises counters to zero, so that their first increase is visible.
pub(super) fn init_counters() {
    for why in ["conflict", "failed", "repair"] {
        counter!(metric::PRODUCER_RESTARTS, "why" => why).increment(0);
    }
}

/// Counts a restart of the producer loop.
pub(super) fn restarts(why: &'static str) {
    counter!(metric::PRODUCER_RESTARTS, "why" => why).increment(1);
}
