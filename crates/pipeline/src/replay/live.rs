//! Into the live collection: what is replayed is appended to its stage again.

use std::time::Duration;

use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{Archive, EntryId};
use tokio_util::sync::CancellationToken;

use super::{Marked, Pages, Progress, Report};
use crate::health::Health;
use crate::newest::newest;
use crate::retry::{GivenUp, Patience};
use crate::service::ServiceError;

/// With this many unconfirmed entries in its stage a replay waits.
const ROOM: u64 = 2_000;

/// How often a waiting replay looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Entries of stage 2 read at a time: with vectors they are large.
const PAGE: usize = 200;

/// Appends the changes to stage 1. Ends early, without an error, when it is asked to stop.
pub async fn changes(
    pages: &mut Pages,
    archive: &dyn Archive<Change>,
    report: &Report,
    stop: CancellationToken,
) -> Result<Progress, ServiceError> {
    let patience = Patience { health: Health::default(), shutdown: stop };
    let all = async {
        loop {
            // Not through `Patience`, which would have to borrow the pages for each attempt.
            let page = match pages.next().await {
                Ok(page) => page,
                Err(error) if error.class == tidewheel_core::error::ErrorClass::Transient => {
                    patience.pause(error.retry_after.unwrap_or(Duration::from_secs(1))).await?;
                    continue;
                }
                Err(error) => return Err(GivenUp::Failed(error)),
            };
            let Some(page) = page else { return Ok(()) };
            wait_for_room(archive, &patience).await?;
            patience.call("append what is replayed", || archive.append(&page)).await?;
            report(pages.progress());
        }
    };
    let ended = all.await;
    outcome(ended).map(|()| pages.progress())
}

/// Appends the entries of stage 2 behind `after` to stage 2 again, marked as replayed.
pub async fn embedded(
    archive: &dyn Archive<Embedded>,
    mut after: EntryId,
    replay: u32,
    report: &Report,
    stop: CancellationToken,
) -> Result<Progress, ServiceError> {
    let patience = Patience { health: Health::default(), shutdown: stop };
    let mut progress = Progress::default();
    let all = async {
        let extent = patience.call("look at stage 2", || archive.extent()).await?;
        progress.of = (after == EntryId::zero()).then_some(extent.entries);
        loop {
            let mut page = patience.call("read stage 2 again", || archive.page(&after, PAGE)).await?;
            page.retain(|delivery| delivery.id <= extent.last);
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id.clone();
            progress.read += page.len() as u64;
            let mut letters = Vec::new();
            let mut records: Vec<Embedded> = newest(page, &mut letters).into_iter().map(|(record, _)| record).collect();
            records.iter_mut().for_each(|record| record.mark(replay));
            wait_for_room(archive, &patience).await?;
            patience.call("append what is replayed", || archive.append(&records)).await?;
            progress.replayed += records.len() as u64;
            progress.skipped += letters.len() as u64;
            report(progress);
        }
    };
    let ended = all.await;
    outcome(ended).map(|()| progress)
}

async fn wait_for_room<T>(archive: &dyn Archive<T>, patience: &Patience) -> Result<(), GivenUp> {
    while patience.call("look at the stage", || archive.backlog()).await? > ROOM {
        patience.pause(PAUSE).await?;
    }
    if patience.shutdown.is_cancelled() { Err(GivenUp::Shutdown) } else { Ok(()) }
}

pub(super) fn outcome(ended: Result<(), GivenUp>) -> Result<(), ServiceError> {
    match ended {
        Ok(()) | Err(GivenUp::Shutdown) => Ok(()),
        Err(GivenUp::Failed(error)) => Err(ServiceError::new("replay", error)),
    }
}
