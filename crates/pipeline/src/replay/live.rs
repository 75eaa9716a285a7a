//! Replay into the live collection: appends the records to their stage again.

use std::sync::Arc;

use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::health::Health;
use tidewheel_core::ports::{Backlog, EntryId, StreamLog};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::entries::Entries;
use super::{Destinations, Pages, Progress, Report};
use crate::backpressure::{BESIDE_LIVE_CHANGES, PAUSE, Room};
use crate::retry::{RetryError, RetryPolicy};
use crate::service::ServiceError;

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
    let room = Room::new("stage 1", "the processors", BESIDE_LIVE_CHANGES);
    // Each attempt of a read borrows the pages mutably.
    let pages = &Mutex::new(pages);
    let next = || async move { pages.lock().await.next().await };
    let all = async {
        while let Some(page) = retry.call("read the changes to replay", next).await? {
            wait_for_room(&room, page.len(), stream_log, &retry).await?;
            retry.call("append replayed records", || stream_log.append(&page)).await?;
            report(pages.lock().await.progress());
        }
        Ok(())
    };
    let ended = all.await;
    let progress = pages.lock().await.progress();
    outcome(ended).map(|()| progress)
}

/// Appends the entries of stage 2 after `after` to stage 2 again, marked as replayed.
pub async fn embedded(
    stream_log: Arc<dyn StreamLog<Embedded>>,
    destinations: Destinations,
    after: EntryId,
    replay: u32,
    report: &Report,
    stop: CancellationToken,
) -> Result<Progress, ServiceError> {
    let retry = RetryPolicy { health: Health::default(), shutdown: stop };
    let room = Room::new("stage 2", "the upserters", BESIDE_LIVE_CHANGES);
    let mut progress = Progress::default();
    let all = async {
        let begin = || Entries::begin(stream_log.clone(), destinations.clone(), after.clone(), replay);
        let entries = retry.call("read the position of stage 2", begin).await?;
        progress.of = entries.of();
        let entries = &Mutex::new(entries);
        let next = || async move { entries.lock().await.next(PAGE).await };
        while let Some((read, records, skipped)) = retry.call("read the entries to replay", next).await? {
            wait_for_room(&room, records.len(), &*stream_log, &retry).await?;
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

/// Waits for room in the stage; ends early if the replay stops.
async fn wait_for_room(
    room: &Room,
    records: usize,
    stage: &dyn Backlog,
    retry: &RetryPolicy,
) -> Result<(), RetryError> {
    let backlog = || retry.wait_for("read the backlog of the stage", || stage.backlog());
    room.wait(records as u64, backlog, || retry.pause(PAUSE)).await?;
    if retry.shutdown.is_cancelled() { Err(RetryError::Shutdown) } else { Ok(()) }
}

pub(super) fn outcome(ended: Result<(), RetryError>) -> Result<(), ServiceError> {
    match ended {
        Ok(()) | Err(RetryError::Shutdown) => Ok(()),
        Err(RetryError::Failed(error)) => Err(ServiceError::new("replay", error)),
    }
}
