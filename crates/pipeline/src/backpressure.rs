//! Backpressure: a writer of a stage waits while the stage is above its high-water mark.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tracing::info;

/// Number of unacknowledged entries in a stage above which a replay or a repair waits: live changes stay quick.
pub(crate) const BESIDE_LIVE_CHANGES: u64 = 2_000;

/// How often a waiting writer polls.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Maximum number of entries between two reads of the backlog. With pages and batches of up to 1,000 entries the
/// high-water mark is exceeded by at most two of them.
const LOOK_EVERY: u64 = 1_000;

/// Decides when the writer of a stage reads its backlog and waits.
pub(crate) struct Room {
    stage: &'static str,
    /// The services that make room.
    readers: &'static str,
    high_water: u64,
    /// Entries written since the backlog was last read.
    since_look: AtomicU64,
    waits: AtomicBool,
}

impl Room {
    pub(crate) fn new(stage: &'static str, readers: &'static str, high_water: u64) -> Self {
        Self { stage, readers, high_water, since_look: AtomicU64::new(0), waits: AtomicBool::new(false) }
    }

    /// Counts entries that are about to be written; returns whether to read the backlog first.
    pub(crate) fn is_due(&self, entries: u64) -> bool {
        let every = LOOK_EVERY.min(self.high_water / 4);
        self.since_look.fetch_add(entries, Ordering::Relaxed) + entries >= every
    }

    /// Whether the writer waits for [`PAUSE`] and reads the backlog again. Logs when the wait begins and ends.
    pub(crate) fn is_full(&self, backlog: u64) -> bool {
        let (stage, full) = (self.stage, backlog >= self.high_water);
        match (self.waits.swap(full, Ordering::Relaxed), full) {
            (false, true) => {
                info!(backlog, high_water = self.high_water, "{stage} is full; waiting for {}", self.readers);
            }
            (true, false) => info!("{stage} has room again"),
            _ => {}
        }
        if !full {
            self.since_look.store(0, Ordering::Relaxed);
        }
        full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backlog_is_read_every_thousand_entries_or_quarter_of_the_mark() {
        for (high_water, every) in [(100_000, 1_000), (100, 25)] {
            let room = Room::new("stage 1", "the processors", high_water);
            assert!(!room.is_due(every - 1));
            assert!(room.is_due(1) && room.is_due(1), "until the backlog was read");
            assert!(room.is_full(high_water) && room.is_due(0), "still full");
            assert!(!room.is_full(high_water - 1));
            assert!(!room.is_due(every - 1));
        }
    }
}
