//! Replays that run, and how those of the last hour ended, from what each leaves in Redis.

use serde::Serialize;
use serde_json::{Map, Value};
use tidewheel_core::ports::PortResult;
use tidewheel_stores::redis::RedisStore;

/// A replay, as it tells of itself.
#[derive(Serialize)]
pub(super) struct ReplayView {
    id: String,
    silent_seconds: f64,
    /// What it said: see `commands::replay::tell`.
    #[serde(flatten)]
    said: Map<String, Value>,
}

/// The newest first.
pub(super) async fn list(redis: &RedisStore) -> PortResult<Vec<ReplayView>> {
    let said = redis.said_of_replays().await?;
    let mut replays: Vec<ReplayView> = said
        .into_iter()
        // Another version may say it in a way that is not understood here.
        .filter_map(|said| {
            let text = serde_json::from_str(&said.text).ok()?;
            Some(ReplayView { id: said.process, silent_seconds: said.age_ms as f64 / 1e3, said: text })
        })
        .collect();
    let began = |replay: &ReplayView| replay.said.get("began_ms").and_then(Value::as_u64).unwrap_or_default();
    replays.sort_by_key(|replay| std::cmp::Reverse(began(replay)));
    Ok(replays)
}
