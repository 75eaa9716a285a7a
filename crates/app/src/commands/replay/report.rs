//! Publishes the progress and the result of a replay in Redis, for the console.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidewheel_core::report::{REPLAY_FORMAT, ReplayProgress, ReplayReport, ReplayState};
use tidewheel_ops::replay::ReplayPlan;
use tidewheel_pipeline::replay::{Progress, Report};
use tidewheel_stores::redis::RedisStore;
use tokio_util::sync::CancellationToken;

use crate::times;

/// Publishing interval: smooth enough for a progress bar, with negligible load on Redis.
const EVERY: Duration = Duration::from_secs(2);

/// Result of a replay.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ended<'a> {
    Done,
    Interrupted,
    Failed(&'a str),
}

/// Publishes one replay until it ends.
pub(super) struct Publisher {
    record: Record,
    progress: Arc<Mutex<Progress>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Record {
    redis: RedisStore,
    name: String,
    from: String,
    into: String,
    began: Instant,
    began_ms: u64,
}

impl Publisher {
    /// Starts publishing. `name` is unique.
    pub(super) fn start(redis: RedisStore, name: String, plan: &ReplayPlan) -> Self {
        let [(_, from), _, (_, into)] = plan.lines();
        let (from, into) = (from.to_owned(), into.to_owned());
        let record = Record { redis, name, from, into, began: Instant::now(), began_ms: times::now_ms() };
        let (progress, stop) = (Arc::new(Mutex::new(Progress::default())), CancellationToken::new());
        let (published, shown, stopped) = (record.clone(), progress.clone(), stop.clone());
        let task = tokio::spawn(async move {
            loop {
                let now = *shown.lock().unwrap_or_else(PoisonError::into_inner);
                published.publish(now, ReplayState::Running, None).await;
                if tokio::time::timeout(EVERY, stopped.cancelled()).await.is_ok() {
                    return;
                }
            }
        });
        Self { record, progress, stop, task }
    }

    /// Returns a report that records the progress and forwards it to `then`.
    pub(super) fn report(&self, then: Report) -> Report {
        let progress = self.progress.clone();
        Arc::new(move |now: Progress| {
            *progress.lock().unwrap_or_else(PoisonError::into_inner) = now;
            then(now);
        })
    }

    /// Publishes the result.
    pub(super) async fn end(self, ended: Ended<'_>) {
        self.stop.cancel();
        // The task must not overwrite the result with `running`.
        let _ = self.task.await;
        let (state, problem) = match ended {
            Ended::Done => (ReplayState::Done, None),
            Ended::Interrupted => (ReplayState::Interrupted, None),
            Ended::Failed(why) => (ReplayState::Failed, Some(why.to_owned())),
        };
        let last = *self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        self.record.publish(last, state, problem).await;
    }
}

impl Record {
    async fn publish(&self, progress: Progress, state: ReplayState, problem: Option<String>) {
        let seconds = self.began.elapsed().as_secs_f64();
        let Progress { read, of, replayed, skipped } = progress;
        let report = ReplayReport {
            format: REPLAY_FORMAT,
            from: self.from.clone(),
            into: self.into.clone(),
            process: self.name.clone(),
            state,
            progress: ReplayProgress { read, of, replayed, skipped },
            began_ms: self.began_ms,
            seconds,
            per_second: read as f64 / seconds.max(0.001),
            problem,
        };
        // The replay does not depend on its published progress.
        let Ok(text) = serde_json::to_string(&report) else { return };
        if let Err(error) = self.redis.publish_replay(&self.name, &text).await {
            tracing::debug!("{error}");
        }
    }
}
