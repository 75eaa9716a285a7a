//! What is kept between overviews: rates, the last position, stalls, and the states of collections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tidewheel_core::catalog::{Catalog, IndexName, TargetId};
use tidewheel_core::ports::{Checkpoint, CollectionState, StageStatus};

use super::super::indexes::{CollectionStates, fingerprints};
use super::super::rates::{Rate, Stall, eta};
use super::super::{Probe, StageOverview};

/// A consumer idle for longer is not counted as alive.
const ALIVE_MS: u64 = 60_000;

/// Collections whose state is read per overview. The others keep the state of an earlier one.
pub(super) const COLLECTIONS: usize = 5;

/// State kept between overviews.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) stages: [StageMemory; 2],
    position: Option<Position>,
    pub(super) rows: Rate,
    pub(super) tokens: Rate,
    /// The progress of each target, and since when it has not changed.
    progress: BTreeMap<TargetId, (String, Instant)>,
    pub(super) collections: Cache,
    /// The catalog of the fingerprints.
    catalog: Arc<Catalog>,
    fingerprints: Arc<BTreeMap<IndexName, String>>,
}

#[derive(Default)]
pub(super) struct StageMemory {
    appended: Rate,
    confirmed: Rate,
    stall: Stall,
}

/// Position in the source, and what is known to be lost.
#[derive(Clone)]
pub(super) struct Position {
    pub(super) read: Option<Checkpoint>,
    pub(super) applied: Option<u32>,
    pub(super) damage: Option<String>,
    pub(super) lost: Vec<(TargetId, String)>,
}

impl Memory {
    /// The current position, or the last known one. While Redis is unreachable the position does not move but the source's
    /// history does, which makes the remaining headroom most important.
    pub(super) fn position(&mut self, position: Probe<Position>) -> Probe<Position> {
        match (position, &self.position) {
            (Probe::Known(position), _) => {
                self.position = Some(position.clone());
                Probe::Known(position)
            }
            (Probe::Unknown(_), Some(last)) => Probe::Known(last.clone()),
            (unknown, None) => unknown,
        }
    }

    /// Forgets the last position.
    pub(super) fn forget_position(&mut self) {
        self.position = None;
    }

    /// The fingerprints of this catalog, computed once.
    pub(super) fn fingerprints(&mut self, catalog: &Arc<Catalog>) -> Arc<BTreeMap<IndexName, String>> {
        if !Arc::ptr_eq(&self.catalog, catalog) {
            self.catalog = catalog.clone();
            self.fingerprints = Arc::new(fingerprints(catalog));
        }
        self.fingerprints.clone()
    }

    /// For how many seconds the progress of a target has not changed.
    pub(super) fn stalled(&mut self, now: Instant, target: TargetId, progress: String) -> f64 {
        match self.progress.get(&target) {
            Some((known, since)) if *known == progress => now.duration_since(*since).as_secs_f64(),
            _ => {
                self.progress.insert(target, (progress, now));
                0.0
            }
        }
    }

    /// Forgets the progress of targets that the catalog no longer has.
    pub(super) fn retain(&mut self, catalog: &Catalog) {
        self.progress.retain(|target, _| catalog.generation(target).is_some());
    }
}

impl StageMemory {
    /// `idle` is the reported number of seconds without progress in any of its services.
    pub(super) fn look(&mut self, now: Instant, status: StageStatus, idle: Option<f64>) -> StageOverview {
        let backlog = status.lag.unwrap_or(status.length) + status.pending;
        let confirmed = status.appended.saturating_sub(backlog);
        let in_per_second = self.appended.look(now, status.appended as f64);
        let out_per_second = self.confirmed.look(now, confirmed as f64);
        let stalled = self.stall.look(now, confirmed, backlog).as_secs_f64();
        // Idling without a backlog is not a stall.
        let waiting = status.oldest_age_ms.map_or(0.0, |millis| millis as f64 / 1e3);
        let stalled_seconds = if backlog == 0 { 0.0 } else { stalled.max(idle.unwrap_or(0.0).min(waiting)) };
        StageOverview {
            backlog,
            in_per_second,
            out_per_second,
            eta_seconds: eta(backlog, in_per_second, out_per_second),
            stalled_seconds,
            alive: status.consumers.iter().filter(|consumer| consumer.idle_ms < ALIVE_MS).count() as u64,
            status,
        }
    }
}

/// The states of collections, each as old as it takes to read all.
#[derive(Default)]
pub(super) struct Cache {
    states: CollectionStates,
    /// When each was read: the number of the read.
    read: BTreeMap<String, u64>,
    reads: u64,
}

impl Cache {
    /// The collections to read next, out of these: those that were never read, then the oldest states.
    pub(super) fn next(&mut self, collections: &[&str]) -> Vec<String> {
        self.states.retain(|name, _| collections.contains(&name.as_str()));
        self.read.retain(|name, _| collections.contains(&name.as_str()));
        let mut names: Vec<&str> = collections.to_vec();
        names.sort_by_key(|name| self.read.get(*name).copied().unwrap_or(0));
        names.into_iter().take(COLLECTIONS).map(str::to_owned).collect()
    }

    /// Keeps a state.
    pub(super) fn put(&mut self, name: String, state: Option<CollectionState>) {
        self.reads += 1;
        self.read.insert(name.clone(), self.reads);
        self.states.insert(name, state);
    }

    /// The states that are known.
    pub(super) fn states(&self) -> &CollectionStates {
        &self.states
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn collections_are_read_in_turn() {
        let names: Vec<String> = (0..12).map(|number| format!("index-{number}.g1")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut cache = Cache::default();
        let mut read = |collections: &[&str]| {
            let next = cache.next(collections);
            next.iter().for_each(|name| cache.put(name.clone(), None));
            next
        };
        let three: Vec<String> = (0..3).flat_map(|_| read(&all)).collect();
        assert_eq!(three.len(), 3 * COLLECTIONS);
        assert_eq!(three[..12].iter().collect::<BTreeSet<_>>().len(), 12, "each once, before any is read again");
        assert_eq!(three[12..], names[..3]);
        assert_eq!(read(&all[..2]), names[..2], "a collection that is gone is forgotten");
        assert_eq!(cache.states().len(), 2);
    }
}
