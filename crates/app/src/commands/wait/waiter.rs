//! Waits until everything up to a time is in the index; prints nothing.

use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{Checkpoint, Journal as _, PortResult, SnapshotState, Source as _};
use tidewheel_core::streams::{STAGE_1, STAGE_2};
use tidewheel_core::version::ClusterTime;
use tidewheel_stores::mongo::{MongoOptions, MongoSource};
use tidewheel_stores::redis::RedisStore;
use tokio::sync::{Mutex, OnceCell};

use super::since::Since;
use crate::connect;
use crate::exit::Failure;
use crate::settings::Settings;
use crate::times;

/// How often the record of what is in the index is looked at, however many wait.
const LOOK: Duration = Duration::from_millis(25);

/// How long to leave a server that did not answer alone.
const AGAIN: Duration = Duration::from_millis(500);

/// How a wait ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Waited {
    /// Whether everything that was committed up to `until` is searchable, what was parked or refused apart.
    pub(crate) searchable: bool,
    /// The cluster time that was waited for, as `seconds.increment`.
    pub(crate) until: String,
    /// The cluster time up to which everything is known to be searchable; none while a snapshot runs.
    pub(crate) searchable_through: Option<String>,
    pub(crate) waited_ms: u64,
    /// What it waited for in the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

/// Waits for any number of callers at once.
pub(crate) struct Waiter {
    redis: RedisStore,
    mongo: Result<MongoOptions, Failure>,
    source: OnceCell<MongoSource>,
    /// What was seen last, and when: all who wait share it.
    seen: Mutex<Option<(Instant, Option<Checkpoint>)>>,
}

impl Waiter {
    /// With these settings; connects when it is first needed.
    pub(crate) fn new(settings: &Settings) -> Result<Self, Failure> {
        let mongo = connect::mongo_options(settings, "a wait for MongoDB's present time");
        Ok(Self { redis: connect::redis(settings)?, mongo, source: OnceCell::new(), seen: Mutex::default() })
    }

    /// Waits until everything that was committed up to `since` is searchable, or until the time is over.
    pub(crate) async fn wait(&self, since: &str, timeout: Duration) -> Result<Waited, Failure> {
        let begun = Instant::now();
        let until = match Since::parse(since, SystemTime::now())? {
            Since::Cluster(time) => time,
            Since::Now => self.now().await?,
            // An idle MongoDB's own time may stand still behind that time, and nothing was committed in between.
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

    /// The time of the source.
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

    /// The newest checkpoint that is in the index, as of a moment ago at most: what was in it then still is.
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

    /// What is in the way.
    async fn why(&self, until: ClusterTime) -> PortResult<String> {
        let Some(checkpoint) = self.redis.load().await? else {
            return Ok("no producer has worked on this Redis yet".into());
        };
        if self.redis.leader().await?.is_none() {
            return Ok("no producer is at work".into());
        }
        if let Some(damage) = self.redis.positions().await?.damage {
            return Ok(format!("being repaired: {damage}"));
        }
        match &checkpoint.snapshot {
            SnapshotState::Running { rows, .. } => {
                return Ok(format!("what was there before is still being read, {rows} documents so far"));
            }
            SnapshotState::Sweeping { .. } => return Ok("the index is still being compared with MongoDB".into()),
            SnapshotState::Done { .. } => {}
        }
        let (one, two) = tokio::try_join!(self.redis.status(STAGE_1), self.redis.status(STAGE_2))?;
        let waiting = |stage: &tidewheel_core::ports::StageStatus| stage.lag.unwrap_or(stage.length) + stage.pending;
        Ok(match (waiting(&one), waiting(&two)) {
            (0, 0) if checkpoint.through < until => {
                format!("the producer has come to {} in MongoDB's history", show(checkpoint.through))
            }
            (one, two) => format!("{one} entries wait for the processors, {two} for the upserters"),
        })
    }
}

/// Up to which time everything is searchable, if this checkpoint is in the index. While a snapshot runs, changes from before its
/// beginning may be missing, whatever has come since.
fn searchable_through(applied: &Checkpoint) -> Option<ClusterTime> {
    matches!(applied.snapshot, SnapshotState::Done { .. }).then_some(applied.through)
}

fn show(time: ClusterTime) -> String {
    format!("{}.{}", time.seconds, time.increment)
}
