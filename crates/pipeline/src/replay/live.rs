//! Replay into the live collection: appends the records to their stage again.

use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::health::Health;
use tidewheel_core::ports::{EntryId, PortResult, StreamLog};
use tokio_util::sync::CancellationToken;

use super::pages::Entries;
use super::{Pages, Progress, Report};
use crate::backpressure::{BESIDE_LIVE_CHANGES, PAUSE};
use crate::retry::{RetryError, RetryPolicy};
use crate::service::ServiceError;

/// The delay before a failed read is retried.
const AGAIN: Duration = Duration::from_secs(1);

/// Entries of stage 2 per page: with vectors they are large.
const PAGE: usize = 200;

/// Appends the changes to stage 1. Ends early, without an error, on `stop`.
pub async fn changes(
    pages: &mut Pages,
    stream_log: &dyn StreamLog<Change>,
    report: &Report,
    stop: CancellationToken,
) -> Result<Progress, ServiceError> {
    let retry = RetryPolicy { health: Health::default(), shutdown: stop };
    let all = async {
        while let Some(page) = persist(&retry, async || pages.next().await).await? {
            wait_for_room(stream_log, &retry).await?;
            retry.call("append replayed records", || stream_log.append(&page)).await?;
            report(pages.progress());
        }
        Ok(())
    };
    let ended = all.await;
    outcome(ended).map(|()| pages.progress())
}

/// Appends the entries of stage 2 after `after` to stage 2 again, marked as replayed.
pub async fn embedded(
    stream_log: Arc<dyn StreamLog<Embedded>>,
    after: EntryId,
    replay: u32,
    report: &Report,
    stop: CancellationToken,
) -> Result<Progress, ServiceError> {
    let retry = RetryPolicy { health: Health::default(), shutdown: stop };
    let mut progress = Progress::default();
    let all = async {
        let begin = || Entries::begin(stream_log.clone(), after.clone(), replay);
        let mut entries = retry.call("read the position of stage 2", begin).await?;
        progress.of = entries.of();
        while let Some((read, records, skipped)) = persist(&retry, async || entries.next(PAGE).await).await? {
            wait_for_room(&*stream_log, &retry).await?;
            retry.call("append replayed records", || stream_log.append(&records)).await?;
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

/// Reads until it succeeds. Cannot use [`RetryPolicy::call`], which cannot lend the same pages to each attempt.
async fn persist<T>(retry: &RetryPolicy, mut read: impl AsyncFnMut() -> PortResult<T>) -> Result<T, RetryError> {
    loop {
        match read().await {
            Ok(page) => return Ok(page),
            Err(error) if error.class == ErrorClass::Transient => {
                retry.pause(error.retry_after.unwrap_or(AGAIN)).await?;
            }
            Err(error) => return Err(RetryError::Failed(error)),
        }
    }
}

async fn wait_for_room<T>(stream_log: &dyn StreamLog<T>, retry: &RetryPolicy) -> Result<(), RetryError> {
    while retry.call("read the backlog of the stage", || stream_log.backlog()).await? > BESIDE_LIVE_CHANGES {
        retry.pause(PAUSE).await?;
    }
    if retry.shutdown.is_cancelled() { Err(RetryError::Shutdown) } else { Ok(()) }
}

pub(super) fn outcome(ended: Result<(), RetryError>) -> Result<(), ServiceError> {
    match ended {
        Ok(()) | Err(RetryError::Shutdown) => Ok(()),
        Err(RetryError::Failed(error)) => Err(ServiceError::new("replay", error)),
    }
}
