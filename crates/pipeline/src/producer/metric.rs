//! Metrics of the producer.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tidewheel_core::catalog::{IndexName, State};
use tidewheel_core::change::{Change, Operation};
use tidewheel_core::metric;
use tidewheel_core::ports::{Checkpoint, SnapshotState};
use tidewheel_core::time::now_seconds;

use super::plan;
use crate::targets::{Applied, Target};

/// Handles, created once per session.
pub(super) struct ServiceMetrics {
    changes: [Counter; Operation::ALL.len()],
    append_entries: Histogram,
    pub(super) paused: Gauge,
    lag: Gauge,
    saved: Gauge,
    snapshots: BTreeMap<IndexName, SnapshotMetrics>,
}

/// The handles of one index.
struct SnapshotMetrics {
    targets: Vec<Arc<Target>>,
    running: Gauge,
    rows: Gauge,
    /// Rows of a new generation; `None` if none is being filled.
    generation: Option<Gauge>,
}

impl ServiceMetrics {
    pub(super) fn new(applied: &Applied) -> Self {
        Self {
            changes: Operation::ALL
                .map(|operation| counter!(metric::PRODUCER_CHANGES, "operation" => operation.as_str())),
            append_entries: histogram!(metric::PRODUCER_APPEND_ENTRIES),
            paused: gauge!(metric::PRODUCER_PAUSED),
            lag: gauge!(metric::PRODUCER_LAG),
            saved: gauge!(metric::PRODUCER_SAVED),
            snapshots: snapshots(applied),
        }
    }

    /// Continues with the indexes of another catalog.
    pub(super) fn adopt(&mut self, applied: &Applied) {
        let before = std::mem::replace(&mut self.snapshots, snapshots(applied));
        for (index, before) in before {
            match self.snapshots.get(&index) {
                Some(now) if now.generation.is_some() => {}
                Some(_) => before.ends_generation(),
                None => {
                    before.running.set(0.0);
                    before.ends_generation();
                }
            }
        }
    }

    /// Records the append of these changes with this checkpoint.
    pub(super) fn appended(&self, changes: &[Change], checkpoint: &Checkpoint) {
        let now = now_seconds();
        self.saved.set(now);
        self.snapshots.values().for_each(|snapshot| snapshot.appended(checkpoint));
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

impl SnapshotMetrics {
    fn appended(&self, checkpoint: &Checkpoint) {
        let (is_running, rows) = match &checkpoint.snapshot {
            SnapshotState::Running { rows, .. } | SnapshotState::Sweeping { rows, .. } => (true, *rows as f64),
            SnapshotState::Done { rows, .. } => (false, *rows as f64),
        };
        let mut in_scope = self.targets.iter().filter(|target| plan::is_in_scope(checkpoint, target)).peekable();
        if in_scope.peek().is_none() {
            self.running.set(0.0);
            return;
        }
        self.running.set(if is_running { 1.0 } else { 0.0 });
        self.rows.set(rows);
        if let Some(generation) = &self.generation
            && in_scope.any(|target| is_new(target))
        {
            generation.set(rows);
        }
    }

    fn ends_generation(&self) {
        if let Some(generation) = &self.generation {
            generation.set(f64::NAN);
        }
    }
}

fn snapshots(applied: &Applied) -> BTreeMap<IndexName, SnapshotMetrics> {
    let mut snapshots: BTreeMap<IndexName, SnapshotMetrics> = BTreeMap::new();
    for target in applied.routed() {
        let (index, name) = (&target.id.index, target.id.index.to_string());
        let snapshot = snapshots.entry(index.clone()).or_insert_with(|| SnapshotMetrics {
            targets: Vec::new(),
            running: gauge!(metric::SNAPSHOT_RUNNING, "index" => name.clone()),
            rows: gauge!(metric::SNAPSHOT_ROWS, "index" => name.clone()),
            generation: None,
        });
        if is_new(target) {
            snapshot.generation = Some(gauge!(metric::GENERATION_ROWS, "index" => name));
        }
        snapshot.targets.push(target.clone());
    }
    snapshots
}

/// Whether the target is a new generation that has never been filled.
fn is_new(target: &Target) -> bool {
    target.generation.state == State::Filling
}

/// Records the estimated number of documents of a snapshot that fills this target.
pub(super) fn expects(target: &Target, rows: u64) {
    let name = target.id.index.to_string();
    if is_new(target) {
        gauge!(metric::GENERATION_EXPECTED, "index" => name.clone()).set(rows as f64);
    }
    gauge!(metric::SNAPSHOT_EXPECTED, "index" => name).set(rows as f64);
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
