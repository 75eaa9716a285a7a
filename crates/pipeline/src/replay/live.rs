//! Replay into the live collection: appends the records to their stage again.

use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{Archive, EntryId, PortResult};
use tokio_util::sync::CancellationToken;

use super::pages::Entries;
use super::{Pages, Progress, Report};
use crate::health::Health;
use crate::retry::{GivenUp, Patience};
use crate::service::ServiceError;

/// Number of unacknowledged entries in its stage above which a replay waits.
const ROOM: u64 = 2_000;

/// How often a waiting replay polls.
const PAUSE: Duration = Duration::from_millis(100);

/// The delay before a failed read is retried.
const AGAIN: Duration = Duration::from_secs(1);

/// Entries of stage 2 per page: with vectors they are large.
const PAGE: usize = 200;

/// Appends the changes to stage 1. Ends early, without an error, on `stop`.
pub async fn changes(
    pages: &mut Pages,
    archive: &dyn Archive<Change>,
    report: &Report,
    stop: CancellationToken,
) -> Result<Progress, ServiceError> {
    let patience = Patience { health: Health::default(), shutdown: stop };
    let all = async {
        while let Some(page) = persist(&patience, async || pages.next().await).await? {
            wait_for_room(archive, &patience).await?;
            patience.call("append replayed records", || archive.append(&page)).await?;
            report(pages.progress());
        }
        Ok(())
    };
    let ended = all.await;
    outcome(ended).map(|()| pages.progress())
}

/// Appends the entries of stage 2 after `after` to stage 2 again, marked as replayed.
pub async fn embedded(
    archive: Arc<dyn Archive<Embedded>>,
    after: EntryId,
    replay: u32,
    report: &Report,
    stop: CancellationToken,
) -> Result<Progress, ServiceError> {
    let patience = Patience { health: Health::default(), shutdown: stop };
    let mut progress = Progress::default();
    let all = async {
        let begin = || Entries::begin(archive.clone(), after.clone(), replay);
        let mut entries = patience.call("read the position of stage 2", begin).await?;
        progress.of = entries.of();
        while let Some((read, records, skipped)) = persist(&patience, async || entries.next(PAGE).await).await? {
            wait_for_room(&*archive, &patience).await?;
            patience.call("append replayed records", || archive.append(&records)).await?;
            progress.read += read;
            progress.replayed += records.len() as u64;
            progress.skipped += skipped;
            report(progress);
        }
        Ok(())
    };
    let ended = all.await;
    outcome(ended).map(|()| progress)
}

/// Reads until it succeeds. Cannot use [`Patience::call`], which cannot lend the same pages to each attempt.
async fn persist<T>(patience: &Patience, mut read: impl AsyncFnMut() -> PortResult<T>) -> Result<T, GivenUp> {
    loop {
        match read().await {
            Ok(page) => return Ok(page),
            Err(error) if error.class == ErrorClass::Transient => {
                patience.pause(error.retry_after.unwrap_or(AGAIN)).await?;
            }
            Err(error) => return Err(GivenUp::Failed(error)),
        }
    }
}

async fn wait_for_room<T>(archive: &dyn Archive<T>, patience: &Patience) -> Result<(), GivenUp> {
    while patience.call("read the backlog of the stage", || archive.backlog()).await? > ROOM {
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
