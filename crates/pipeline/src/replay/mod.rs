//! Replays: sends the entries that a stage still holds, or the source itself, through the pipeline again.
//!
//! ```text
//!  live:  entries or rows ──newest of each document, marked as replayed──▶ appended to their stage ──▶ the services
//!
//!  into:  entries or rows ──▶ processor ──▶ upserter ──▶ the new collection      (both in this process)
//!         stage 2, by a separate group from the start ──▶ upserter ──▶ the new collection
//!         caught up ──▶ switch the alias ──▶ changes made meanwhile ──▶ remove the group
//! ```
//!
//! **Safe while all services run**: a replayed record carries its old version followed by the number of the replay. It
//! replaces the points that the same change wrote to the index, and nothing newer; deletions are replayed as deletions.
//! **Deleted documents stay deleted**: of MongoDB's history only states of documents that still exist are replayed.
//! **Interruptible**: only appended or written records remain, and the same replay may be run again.
//! **Backpressure**: a replay waits while its stage has a large backlog, so that live changes are not delayed.
//! **Into a new collection**: changes committed meanwhile reach both collections; the alias is switched atomically once
//! the new one has everything, and the group stays until it has processed all entries written to the old one.

mod collected;
mod into;
mod live;
mod pages;

use std::sync::Arc;

use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{Covered, EntryId, PortResult, SourceFilter, StreamLog};
use tidewheel_core::version::{ClusterTime, Version};

pub use into::{Into, IntoPorts};
pub use live::{changes, embedded};
pub use pages::Pages;

/// The progress of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// Entries or rows read.
    pub read: u64,
    /// Estimated total; `None` if unknown.
    pub of: Option<u64>,
    /// Changes appended or written: the newest of each document on a page.
    pub replayed: u64,
    /// Entries that could not be read or fail permanently.
    pub skipped: u64,
}

/// Receives the progress of a replay.
pub type Report = Arc<dyn Fn(Progress) + Send + Sync>;

/// The number of a replay: its start time in seconds since the Unix epoch, so that a later one wins over an earlier
/// one.
pub fn number(now: std::time::SystemTime) -> u32 {
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX).max(1)
}

/// The current rows of the source, or those that match a filter, as changes of this epoch. They win over everything
/// older, without a replay mark.
pub async fn rows(source: Covered, epoch: u32, filter: Option<SourceFilter>) -> PortResult<Pages> {
    let time = source.now().await?;
    let collections = source.collections().await?;
    let mut of = 0;
    for namespace in &collections {
        of += source.estimate(namespace).await?;
    }
    let of = filter.is_none().then_some(of);
    Ok(Pages::rows(source, Version::of_snapshot(epoch, time), collections, filter, of))
}

/// The changes committed since `since`, from the source's history, marked as replayed.
pub async fn history(source: Covered, epoch: u32, since: ClusterTime, replay: u32) -> PortResult<Pages> {
    let until = source.now().await?;
    Pages::history(source, epoch, since, until, replay).await
}

/// The entries of stage 1 after `after`, marked as replayed.
pub async fn raw(stream_log: Arc<dyn StreamLog<Change>>, after: EntryId, replay: u32) -> PortResult<Pages> {
    Ok(Pages::entries(pages::Entries::begin(stream_log, after, replay).await?))
}

/// A record whose change can be marked.
pub(crate) trait Marked {
    fn mark(&mut self, replay: u32);
}

impl Marked for Change {
    fn mark(&mut self, replay: u32) {
        self.version.replay = self.version.replay.max(replay);
    }
}

impl Marked for Embedded {
    fn mark(&mut self, replay: u32) {
        self.change.mark(replay);
    }
}
