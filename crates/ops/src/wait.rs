//! Waits until everything up to a time is in the index.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{
    Checkpoint, Journal, PortResult, Registry, SnapshotState, SourceInspector, StageInspector, StageStatus,
};
use tidewheel_core::stage::Stage;
use tidewheel_core::version::ClusterTime;
use tidewheel_pipeline::NO_PRODUCER;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::times;

/// Polling interval of the applied checkpoint, shared by all waiting callers.
const LOOK: Duration = Duration::from_millis(25);

/// Delay before a server that did not answer is queried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Result of a wait.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Waited {
    /// Whether everything committed up to `until` is searchable, except parked or refused changes.
    pub searchable: bool,
    /// The requested cluster time, as `seconds.increment`.
    pub until: String,
    /// The cluster time up to which everything is known to be searchable; `None` while a snapshot runs.
    pub searchable_through: Option<String>,
    /// Duration of the wait in milliseconds.
    pub waited_ms: u64,
    /// Why the wait timed out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The time to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Everything that the source has committed by now.
    Now,
    /// A cluster time.
    Cluster(ClusterTime),
    /// A wall-clock time: everything up to the end of its second.
    Wall(ClusterTime),
}

/// The ports of a wait.
#[derive(Clone)]
pub struct WaitPorts {
    /// The installation.
    pub registry: Arc<dyn Registry>,
    /// The checkpoints.
    pub journal: Arc<dyn Journal>,
    /// The stages, to explain a timeout.
    pub stages: Arc<dyn StageInspector>,
    /// The source, for its cluster time.
    pub source: Arc<dyn SourceInspector>,
}

/// Waits for any number of callers at once.
pub struct Waiter {
    ports: WaitPorts,
    /// The last applied checkpoint and when it was read, shared by all waiting callers.
    seen: Mutex<Option<(Instant, Option<Checkpoint>)>>,
}

impl Waiter {
    /// Creates a waiter.
    pub fn new(ports: WaitPorts) -> Self {
        Self { ports, seen: Mutex::default() }
    }

    /// Waits until everything committed up to `since` is searchable, or until the timeout.
    ///
    /// # Errors
    /// If this release cannot use the keys, a server fails permanently, the cluster time is unknown, or the streams are
    /// unreachable until the timeout.
    pub async fn wait(&self, since: Since, timeout: Duration) -> PortResult<Waited> {
        let begun = Instant::now();
        let until = match since {
            Since::Cluster(time) => time,
            Since::Now => self.ports.source.cluster_time().await?,
            // The cluster time of an idle source can lag behind, and nothing was committed in between.
            Since::Wall(time) => time.min(self.ports.source.cluster_time().await?),
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
                Err(error) => return Err(error),
            };
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                let why = self.why(until).await?;
                return Ok(ended(false, through, Some(why)));
            }
            tokio::time::sleep(pause.min(left)).await;
        }
    }

    /// The applied checkpoint, cached for [`LOOK`]: what it covers stays in the index.
    async fn look(&self) -> PortResult<Option<Checkpoint>> {
        let mut seen = self.seen.lock().await;
        if let Some((when, applied)) = &*seen
            && when.elapsed() < LOOK
        {
            return Ok(applied.clone());
        }
        // Fails if this release cannot use the keys: it could misread the checkpoint.
        self.ports.registry.installation().await?;
        let applied = self.ports.journal.applied().await?;
        *seen = Some((Instant::now(), applied.clone()));
        Ok(applied)
    }

    /// Explains a timeout.
    async fn why(&self, until: ClusterTime) -> PortResult<String> {
        let Some(checkpoint) = self.ports.journal.load().await? else {
            return Ok(NO_PRODUCER.into());
        };
        if self.ports.stages.leader().await?.is_none() {
            return Ok("no producer is running".into());
        }
        if let Some(damage) = self.ports.journal.positions().await?.damage {
            return Ok(format!("repair in progress: {damage}"));
        }
        match &checkpoint.snapshot {
            SnapshotState::Running { rows, .. } => {
                return Ok(format!("snapshot in progress: {rows} documents read"));
            }
            SnapshotState::Sweeping { .. } => return Ok("snapshot in progress: sweeping orphaned points".into()),
            SnapshotState::Done { .. } => {}
        }
        let stages = &self.ports.stages;
        let (one, two) = tokio::try_join!(stages.status(Stage::Raw), stages.status(Stage::Embedded))?;
        let waiting = |stage: &StageStatus| stage.lag.unwrap_or(stage.length) + stage.pending;
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

#[cfg(test)]
mod tests {
    use tidewheel_core::error::Cause;
    use tidewheel_testkit::contracts::samples::{change, checkpoint};
    use tidewheel_testkit::fakes::faults::Fault;
    use tidewheel_testkit::fakes::ownership::FakeRegistry;
    use tidewheel_testkit::fakes::source::FakeSource;
    use tidewheel_testkit::fakes::streams::FakeStreams;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn waiter(streams: &FakeStreams, source: &FakeSource) -> Waiter {
        registered_waiter(&FakeRegistry::default(), streams, source)
    }

    fn registered_waiter(registry: &FakeRegistry, streams: &FakeStreams, source: &FakeSource) -> Waiter {
        Waiter::new(WaitPorts {
            registry: Arc::new(registry.clone()),
            journal: Arc::new(streams.journal()),
            stages: Arc::new(streams.inspector()),
            source: Arc::new(source.clone()),
        })
    }

    /// Streams with two changes in stage 1, of which the first is in the index.
    async fn streams() -> FakeStreams {
        let streams = FakeStreams::new();
        let journal = streams.journal();
        journal.append(None, &[change(1), change(2)], &checkpoint(2)).await.unwrap();
        journal.confirm(&checkpoint(2), &checkpoint(1)).await.unwrap();
        assert!(journal.lease("anna", Duration::from_secs(3_600)).await.unwrap());
        streams
    }

    fn cluster(number: u32) -> Since {
        Since::Cluster(checkpoint(number).through)
    }

    #[tokio::test(start_paused = true)]
    async fn wait_ends_once_the_applied_checkpoint_reaches_the_time() {
        let streams = streams().await;
        let waiter = Arc::new(waiter(&streams, &FakeSource::new("shop")));
        let waited = waiter.wait(cluster(1), TIMEOUT).await.unwrap();
        assert!(waited.searchable && waited.waited_ms == 0, "{waited:?}");
        let waiting = tokio::spawn({
            let waiter = waiter.clone();
            async move { waiter.wait(cluster(2), TIMEOUT).await }
        });
        tokio::time::sleep(Duration::from_secs(3)).await;
        streams.journal().confirm(&checkpoint(2), &checkpoint(2)).await.unwrap();
        let waited = waiting.await.unwrap().unwrap();
        assert!(waited.searchable && (3_000..3_100).contains(&waited.waited_ms), "{waited:?}");
        assert_eq!(waited.searchable_through.as_deref(), Some("1700000000.2"));
    }

    #[tokio::test(start_paused = true)]
    async fn wait_is_rejected_if_a_newer_release_has_written_the_keys() {
        let (registry, streams) = (FakeRegistry::default(), streams().await);
        let waiter = Arc::new(registered_waiter(&registry, &streams, &FakeSource::new("shop")));
        assert!(waiter.wait(cluster(1), TIMEOUT).await.unwrap().searchable);
        let waiting = tokio::spawn({
            let waiter = waiter.clone();
            async move { waiter.wait(cluster(2), TIMEOUT).await }
        });
        tokio::time::sleep(Duration::from_secs(3)).await;
        registry.set_newer_layout();
        let errors = [waiting.await.unwrap().unwrap_err(), waiter.wait(cluster(1), TIMEOUT).await.unwrap_err()];
        for error in errors {
            assert_eq!((error.class, error.cause), (ErrorClass::Fatal, Cause::Newer), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn timeout_names_the_cause() {
        let (streams, source) = (streams().await, FakeSource::new("shop"));
        let waited = waiter(&streams, &source).wait(cluster(2), TIMEOUT).await.unwrap();
        assert_eq!(waited.why.as_deref(), Some("backlog of 2 entries in stage 1 and 0 in stage 2"));
        streams.journal().release("anna").await.unwrap();
        let waited = waiter(&streams, &source).wait(cluster(2), TIMEOUT).await.unwrap();
        assert_eq!(waited.why.as_deref(), Some("no producer is running"));
        let waited = waiter(&FakeStreams::new(), &source).wait(Since::Now, TIMEOUT).await.unwrap();
        assert_eq!(waited.why.as_deref(), Some(NO_PRODUCER));
        assert!(!waited.searchable);
    }

    #[tokio::test(start_paused = true)]
    async fn short_outage_of_the_streams_is_waited_out() {
        let streams = streams().await;
        streams.faults().once("applied", Fault::unreachable());
        let waited = waiter(&streams, &FakeSource::new("shop")).wait(cluster(1), TIMEOUT).await.unwrap();
        assert!(waited.searchable && (500..600).contains(&waited.waited_ms), "{waited:?}");
        streams.faults().always("applied", Fault::unreachable());
        assert!(waiter(&streams, &FakeSource::new("shop")).wait(cluster(1), TIMEOUT).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn unreachable_source_fails_only_if_its_time_is_needed() {
        let (streams, source) = (streams().await, FakeSource::new("shop"));
        source.faults().always("now", Fault::unreachable());
        let waiter = waiter(&streams, &source);
        assert!(waiter.wait(Since::Now, TIMEOUT).await.is_err());
        assert!(waiter.wait(cluster(1), TIMEOUT).await.unwrap().searchable);
    }
}
