//! Leaves in Redis how far a replay is, for the console: a line every few seconds, and how it ended.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tidewheel_pipeline::replay::{Progress, Report};
use tidewheel_stores::redis::RedisStore;
use tokio_util::sync::CancellationToken;

use super::plan::Plan;
use crate::times;

/// How often it is told: often enough to watch a bar grow, and next to nothing for Redis.
const EVERY: Duration = Duration::from_secs(2);

/// How a replay ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ended<'a> {
    Done,
    Interrupted,
    Failed(&'a str),
}

/// Tells of one replay, until it ends.
pub(super) struct Teller {
    story: Story,
    progress: Arc<Mutex<Progress>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Story {
    redis: RedisStore,
    name: String,
    from: String,
    into: String,
    began: Instant,
    began_ms: u64,
}

impl Teller {
    /// Begins to tell. `name` is one that nobody else has.
    pub(super) fn start(redis: RedisStore, name: String, plan: &Plan) -> Self {
        let [(_, from), _, (_, into)] = plan.lines();
        let (from, into) = (from.to_owned(), into.to_owned());
        let story = Story { redis, name, from, into, began: Instant::now(), began_ms: times::now_ms() };
        let (progress, stop) = (Arc::new(Mutex::new(Progress::default())), CancellationToken::new());
        let (telling, shown, stopped) = (story.clone(), progress.clone(), stop.clone());
        let task = tokio::spawn(async move {
            loop {
                let now = *shown.lock().unwrap_or_else(PoisonError::into_inner);
                telling.tell(now, "running", None).await;
                if tokio::time::timeout(EVERY, stopped.cancelled()).await.is_ok() {
                    return;
                }
            }
        });
        Self { story, progress, stop, task }
    }

    /// Notes how far it is, and passes it on.
    pub(super) fn report(&self, then: Report) -> Report {
        let progress = self.progress.clone();
        Arc::new(move |now: Progress| {
            *progress.lock().unwrap_or_else(PoisonError::into_inner) = now;
            then(now);
        })
    }

    /// Tells how it ended.
    pub(super) async fn end(self, ended: Ended<'_>) {
        self.stop.cancel();
        // It must not say after this that the replay runs.
        let _ = self.task.await;
        let (state, problem) = match ended {
            Ended::Done => ("done", None),
            Ended::Interrupted => ("interrupted", None),
            Ended::Failed(why) => ("failed", Some(why)),
        };
        let last = *self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        self.story.tell(last, state, problem).await;
    }
}

impl Story {
    async fn tell(&self, progress: Progress, state: &str, problem: Option<&str>) {
        let seconds = self.began.elapsed().as_secs_f64();
        let text = json!({
            "from": self.from, "into": self.into, "process": self.name, "state": state, "progress": progress,
            "began_ms": self.began_ms, "seconds": seconds, "per_second": progress.read as f64 / seconds.max(0.001),
            "problem": problem,
        });
        // Nobody has to know how far a replay is for it to work.
        if let Err(error) = self.redis.say_of_replay(&self.name, &text.to_string()).await {
            tracing::debug!("{error}");
        }
    }
}
