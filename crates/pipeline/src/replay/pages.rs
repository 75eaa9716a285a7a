//! Replayed changes, page by page.

use tidewheel_core::change::Change;
use tidewheel_core::ports::PortResult;

use super::Progress;
use super::entries::Entries;
use super::history::History;
use super::rows::Rows;

/// Entries per page.
const PAGE: usize = 500;

/// Changes to replay. A failed call may be retried.
pub struct Pages {
    from: From,
    progress: Progress,
}

enum From {
    Entries(Entries<Change>),
    Rows(Rows),
    History(Box<History>),
}

/// The number of entries or rows read, the records, and the number of unreadable ones; `None` at the end.
pub(super) type Read<T> = Option<(u64, Vec<T>, u64)>;

impl Pages {
    pub(super) fn entries(entries: Entries<Change>) -> Self {
        let of = entries.of();
        Self::new(From::Entries(entries), of)
    }

    pub(super) fn rows(rows: Rows, of: Option<u64>) -> Self {
        Self::new(From::Rows(rows), of)
    }

    pub(super) fn history(history: History) -> Self {
        Self::new(From::History(Box::new(history)), None)
    }

    fn new(from: From, of: Option<u64>) -> Self {
        Self { from, progress: Progress { of, ..Progress::default() } }
    }

    /// The progress so far.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The next page; `None` at the end. A page may be empty.
    pub async fn next(&mut self) -> PortResult<Option<Vec<Change>>> {
        let page = match &mut self.from {
            From::Entries(entries) => entries.next(PAGE).await?,
            From::Rows(rows) => rows.next().await?,
            From::History(history) => history.next().await?,
        };
        let Some((read, changes, skipped)) = page else { return Ok(None) };
        self.progress.read += read;
        self.progress.skipped += skipped;
        self.progress.replayed += changes.len() as u64;
        Ok(Some(changes))
    }
}
