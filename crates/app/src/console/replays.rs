//! Running replays and those that ended within the last hour, from their reports in Redis.

use serde::Serialize;
use serde_json::{Map, Value};
use tidewheel_core::ports::PortResult;
use tidewheel_stores::redis::RedisStore;

/// A replay's report.
#[derive(Serialize)]
pub(super) struct ReplayView {
    id: String,
    silent_seconds: f64,
    /// The report's fields: see `commands::replay::tell`.
    #[serde(flatten)]
    said: Map<String, Value>,
}

/// Returns the replays, newest first.
pub(super) async fn list(redis: &RedisStore) -> PortResult<Vec<ReplayView>> {
    let said = redis.said_of_replays().await?;
    let mut replays: Vec<ReplayView> = said
        .into_iter()
        // Skip reports of other versions that this one cannot parse.
        .filter_map(|said| {
            let text = serde_json::from_str(&said.text).ok()?;
            Some(ReplayView { id: said.process, silent_seconds: said.age_ms as f64 / 1e3, said: text })
        })
        .collect();
    let began = |replay: &ReplayView| replay.said.get("began_ms").and_then(Value::as_u64).unwrap_or_default();
    replays.sort_by_key(|replay| std::cmp::Reverse(began(replay)));
    Ok(replays)
}
