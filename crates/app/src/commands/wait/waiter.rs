//! Waits until everything up to a time is in the index; prints nothing.

use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{Checkpoint, Journal as _, PortResult, SnapshotState, Source as _};
use tidewheel_core::stage::Stage;
use tidewheel_core::version::ClusterTime;
use tidewheel_stores::mongo::{MongoOptions, MongoSource};
use tidewheel_stores::redis::RedisStore;
use tokio::sync::{Mutex, OnceCell};

use super::since::Since;
use crate::connect;
use crate::exit::Failure;
use crate::settings::Settings;
use crate::times;

/// Polling interval of the applied checkpoint, shared by all waiting callers.
const LOOK: Duration = Duration::from_millis(25);

/// Delay before a server that did not answer is queried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Result of a wait.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Waited {
    /// Whether everything committed up to `until` is searchable, except parked or refused changes.
    pub(crate) searchable: bool,
    /// The requested cluster time, as `seconds.increment`.
    pub(crate) until: String,
    /// The cluster time up to which everything is known to be searchable; `None` while a snapshot runs.
    pub(crate) searchable_through: Option<String>,
    pub(crate) waited_ms: u64,
    /// Why the wait timed out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

/// Waits for any number of callers at once.
pub(crate) struct Waiter {
    redis: RedisStore,
    mongo: Result<MongoOptions, Failure>,
    source: OnceCell<MongoSource>,
    /// The last applied checkpoint and when it was read, shared by all waiting callers.
    seen: Mutex<Option<(Instant, Option<Checkpoint>)>>,
}

impl Waiter {
    /// Creates a waiter that connects on first use.
    pub(crate) fn new(settings: &Settings) -> Result<Self, Failure> {
        let mongo = connect::mongo_options(settings, "the cluster time lookup");
        Ok(Self { redis: connect::redis(settings)?, mongo, source: OnceCell::new(), seen: Mutex::default() })
    }

    /// Waits until everything committed up to `since` is searchable, or until the timeout.
    pub(crate) async fn wait(&self, since: &str, timeout: Duration) -> Result<Waited, Failure> {
        let begun = Instant::now();
        let until = match Since::parse(since, SystemTime::now())? {
            Since::Cluster(time) => time,
            Since::Now => self.now().await?,
            // The cluster time of an idle MongoDB can lag behind, and nothing was committed in between.
            Since::Wall(time) => time.min(self.now().await?),
        };
        let ended = |searchable, through: Option<ClusterTime>, why| Waited {
            searchable,
            until: show(until),
            searchable_through: through.map(show),
            waited_ms: times::milliseconds(begun.elapsed()),
            why,
        };
        let mut through = None;
        loop {
            let pause = match self.look().await {
                Ok(applied) => {
                    through = applied.as_ref().and_then(searchable_through);
                    if through.is_some_and(|through| through >= until) {
                        return Ok(ended(true, through, None));
                    }
                    LOOK
                }
                Err(error) if error.class == ErrorClass::Transient && begun.elapsed() < timeout => AGAIN,
                Err(error) => return Err(error.into()),
            };
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                let why = self.why(until).await?;
                return Ok(ended(false, through, Some(why)));
            }
            tokio::time::sleep(pause.min(left)).await;
        }
    }

    /// The current cluster time of the source.
    async fn now(&self) -> Result<ClusterTime, Failure> {
        let connect = || async {
            let options = match &self.mongo {
                Ok(options) => options.clone(),
                Err(failure) => {
                    let failure = Failure { message: failure.message.clone(), hint: failure.hint.clone() };
                    return Err(failure);
                }
            };
            Ok(connect::source(options).await?)
        };
        Ok(self.source.get_or_try_init(connect).await?.now().await?)
    }

    /// The applied checkpoint, cached for [`LOOK`]: what it covers stays in the index.
    async fn look(&self) -> PortResult<Option<Checkpoint>> {
        let mut seen = self.seen.lock().await;
        if let Some((when, applied)) = &*seen
            && when.elapsed() < LOOK
        {
            return Ok(applied.clone());
        }
        let applied = self.redis.applied().await?;
        *seen = Some((Instant::now(), applied.clone()));
        Ok(applied)
    }

    /// Explains a timeout.
    async fn why(&self, until: ClusterTime) -> PortResult<String> {
        let Some(checkpoint) = self.redis.load().await? else {
            return Ok("no producer has run on this Redis yet".into());
        };
        if self.redis.leader().await?.is_none() {
            return Ok("no producer is running".into());
        }
        if let Some(damage) = self.redis.positions().await?.damage {
            return Ok(format!("repair in progress: {damage}"));
        }
        match &checkpoint.snapshot {
            SnapshotState::Running { rows, .. } => {
                return Ok(format!("snapshot in progress: {rows} documents read"));
            }
            SnapshotState::Sweeping { .. } => return Ok("snapshot in progress: sweeping orphaned points".into()),
            SnapshotState::Done { .. } => {}
        }
        let (one, two) = tokio::try_join!(self.redis.status(Stage::Raw), self.redis.status(Stage::Embedded))?;
        let waiting = |stage: &tidewheel_core::ports::StageStatus| stage.lag.unwrap_or(stage.length) + stage.pending;
        Ok(match (waiting(&one), waiting(&two)) {
            (0, 0) if checkpoint.through < until => {
                format!("the producer has read the change stream up to {}", show(checkpoint.through))
            }
            (one, two) => format!("backlog of {one} entries in stage 1 and {two} in stage 2"),
        })
    }
}

/// The time up to which everything is searchable, given the applied checkpoint. While a snapshot runs, changes from before its
/// start may be missing, whatever was applied since.
fn searchable_through(applied: &Checkpoint) -> Option<ClusterTime> {
    matches!(applied.snapshot, SnapshotState::Done { .. }).then_some(applied.through)
}

fn show(time: ClusterTime) -> String {
    format!("{}.{}", time.seconds, time.increment)
}
