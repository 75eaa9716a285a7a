//! Backpressure: a writer of a stage waits while the stage is above its high-water mark.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tracing::info;

/// High-water mark of a replay or a repair, in unacknowledged entries of the stage. Low: live changes stay quick.
pub(crate) const BESIDE_LIVE_CHANGES: u64 = 2_000;

/// How long a waiting writer pauses between two reads of the backlog.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Maximum number of entries between two reads of the backlog. With pages and batches of up to 1,000 entries the
/// high-water mark is exceeded by at most two of them.
const LOOK_EVERY: u64 = 1_000;

/// The room in a stage: makes its writer wait while the backlog is at the high-water mark.
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
        // The first write reads the backlog: the stage may be full already.
        Self { stage, readers, high_water, since_look: AtomicU64::new(high_water), waits: AtomicBool::new(false) }
    }

    /// Waits until the stage has room for these entries, about to be written. `backlog` reads its backlog, which few
    /// writes need. `pause` waits for [`PAUSE`] between two reads, or ends the wait with an error.
    pub(crate) async fn wait<B, P, E>(
        &self,
        entries: u64,
        backlog: impl Fn() -> B,
        mut pause: impl FnMut() -> P,
    ) -> Result<(), E>
    where
        B: Future<Output = Result<u64, E>>,
        P: Future<Output = Result<(), E>>,
    {
        if !self.is_due(entries) {
            return Ok(());
        }
        while self.is_full(backlog().await?) {
            pause().await?;
        }
        Ok(())
    }

    /// Counts entries that are about to be written; returns whether to read the backlog first.
    fn is_due(&self, entries: u64) -> bool {
        let every = LOOK_EVERY.min(self.high_water / 4);
        self.since_look.fetch_add(entries, Ordering::Relaxed) + entries >= every
    }

    /// Whether the writer waits and reads the backlog again. Logs when the wait begins and ends.
    fn is_full(&self, backlog: u64) -> bool {
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
            assert!(room.is_due(1), "the first write");
            assert!(!room.is_full(0) && !room.is_due(every - 1));
            assert!(room.is_due(1) && room.is_due(1), "until the backlog was read");
            assert!(room.is_full(high_water) && room.is_due(0), "still full");
            assert!(!room.is_full(high_water - 1));
            assert!(!room.is_due(every - 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn writer_waits_at_the_high_water_mark_until_the_backlog_shrinks() {
        let (room, begun) = (Room::new("stage 1", "the processors", 100), tokio::time::Instant::now());
        let backlogs = AtomicU64::new(102);
        let backlog = || async { Ok::<_, ()>(backlogs.fetch_sub(1, Ordering::Relaxed)) };
        let pause = || async {
            tokio::time::sleep(PAUSE).await;
            Ok(())
        };
        assert_eq!(room.wait(1, || async { Ok(0) }, pause).await, Ok(()), "the first write reads the backlog");
        assert_eq!(room.wait(24, backlog, pause).await, Ok(()), "a small write does not read the backlog");
        assert_eq!(backlogs.load(Ordering::Relaxed), 102);
        assert_eq!(room.wait(1, backlog, pause).await, Ok(()));
        assert_eq!((backlogs.load(Ordering::Relaxed), begun.elapsed()), (98, 3 * PAUSE), "102, 101 and 100 are full");
        assert_eq!(room.wait(25, || async { Ok(100) }, || async { Err("stopping") }).await, Err("stopping"));
    }
}
