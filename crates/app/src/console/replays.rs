//! Running replays and those that ended within the last hour, from their reports in Redis.

use std::cmp::Reverse;

use serde::Serialize;
use tidewheel_core::ports::PortResult;
use tidewheel_core::report::ReplayReport;
use tidewheel_stores::redis::RedisStore;

/// A replay.
#[derive(Serialize)]
pub(super) struct ReplayView {
    id: String,
    silent_seconds: f64,
    #[serde(flatten)]
    report: ReplayReport,
}

/// Returns the replays, newest first.
pub(super) async fn list(redis: &RedisStore) -> PortResult<Vec<ReplayView>> {
    let published = redis.published_replays().await?;
    let mut replays: Vec<ReplayView> = published
        .into_iter()
        // Skip invalid reports.
        .filter_map(|published| {
            let report = ReplayReport::parse(&published.text)?;
            Some(ReplayView { id: published.process, silent_seconds: published.age_ms as f64 / 1e3, report })
        })
        .collect();
    replays.sort_by_key(|replay| Reverse(replay.report.began_ms));
    Ok(replays)
}
