//! What this process remembers of each target.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::Histogram;
use tidewheel_core::catalog::TargetId;

use super::NAME;
use super::apply::AllSuccesses;
use crate::breaker::Breaker;
use crate::metric;
use crate::targets::{Applied, Target};

/// One target, across all batches.
pub(super) struct Lane {
    /// The revision from which on it is routed. After a loss of the catalog, an index that is created again may have the
    /// same first target.
    since: u64,
    /// Successful requests so far.
    pub(super) successes: AllSuccesses,
    /// Dimension for which the collection was prepared; 0 before that.
    pub(super) prepared: AtomicUsize,
    /// Skips a target that must not delay the others.
    pub(super) breaker: Breaker,
    /// The time until its changes are searchable.
    pub(super) latency: Histogram,
}

/// All targets to which this process has written.
#[derive(Default)]
pub(super) struct Lanes(Mutex<HashMap<TargetId, Arc<Lane>>>);

impl Lanes {
    /// The lane of this target. Those of targets that the catalog no longer routes are forgotten.
    pub(super) fn of(&self, target: &Target, applied: &Applied) -> Arc<Lane> {
        let since = target.generation.since;
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(&target.id).filter(|lane| lane.since == since) {
            return lane.clone();
        }
        lanes.retain(|id, _| applied.target(Some(id)).is_some());
        metric::parked(NAME, Some(target.id.index.as_str()), 0);
        let lane = Arc::new(Lane {
            since,
            successes: AllSuccesses::default(),
            prepared: AtomicUsize::new(0),
            breaker: Breaker::new(NAME, target.id.to_string()),
            latency: metric::latency(target.id.index.as_str()),
        });
        lanes.insert(target.id.clone(), lane.clone());
        lane
    }
}
