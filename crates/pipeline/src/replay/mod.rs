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
//! **Targets**: with an applied catalog, rows and history go to the targets to which their documents belong now, entries to
//! those of their own targets that are still kept up; a replay of one index leaves the others alone.
//! **Into a new collection**: changes committed meanwhile reach both collections; the alias is switched atomically once
//! the new one has everything, and the group stays until it has processed all entries written to the old one.

mod collected;
mod destinations;
mod entries;
mod history;
mod into;
mod live;
mod pages;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tidewheel_core::change::Change;
use tidewheel_core::ports::{Covered, EntryId, PortResult, Source, SourceFilter, StreamLog};
use tidewheel_core::version::{ClusterTime, Version};

pub use destinations::Destinations;
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
pub async fn rows(
    source: Arc<dyn Source>,
    destinations: Destinations,
    epoch: u32,
    filter: Option<SourceFilter>,
) -> PortResult<Pages> {
    let coverage = destinations.now().await?.coverage().clone();
    let source = Covered { source, coverage };
    let time = source.now().await?;
    let collections = source.collections().await?;
    let mut of = 0;
    for namespace in &collections {
        of += source.estimate(namespace).await?;
    }
    let of = filter.is_none().then_some(of);
    let version = Version::of_snapshot(epoch, time);
    Ok(Pages::rows(rows::Rows::new(source.source, destinations, version, collections, filter), of))
}

/// The changes committed since `since`, from the source's history, marked as replayed.
pub async fn history(
    source: Arc<dyn Source>,
    destinations: Destinations,
    epoch: u32,
    since: ClusterTime,
    replay: u32,
) -> PortResult<Pages> {
    Ok(Pages::history(history::History::begin(source, destinations, epoch, since, replay).await?))
}

/// The entries of stage 1 after `after`, marked as replayed.
pub async fn raw(
    stream_log: Arc<dyn StreamLog<Change>>,
    destinations: Destinations,
    after: EntryId,
    replay: u32,
) -> PortResult<Pages> {
    Ok(Pages::entries(entries::Entries::begin(stream_log, destinations, after, replay).await?))
}
