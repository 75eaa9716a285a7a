//! Records the servers' numbers of an overview as metrics.

use metrics::{counter, gauge};
use tidewheel_core::metric;
use tidewheel_core::stage::Stage;
use tidewheel_ops::overview::{CODES, Overview, StageOverview};

const STREAMS: [&str; 2] = [Stage::Raw.name(), Stage::Embedded.name()];

/// Records an overview. Unknown values become NaN instead of keeping the last value.
pub(crate) fn record(overview: &Overview) {
    for (stage, stream) in overview.stages.iter().zip(STREAMS) {
        record_stage(stream, stage.known());
    }
    let redis = overview.redis.known();
    gauge!(metric::REDIS_MEMORY).set(redis.map_or(f64::NAN, |redis| redis.memory_bytes as f64));
    let limit = redis.map_or(f64::NAN, |redis| redis.memory_limit_bytes.unwrap_or(0) as f64);
    gauge!(metric::REDIS_MEMORY_LIMIT).set(limit);
    let source = overview.source.known();
    let oplog = |name: &'static str, seconds: Option<u64>| {
        gauge!(name).set(seconds.map_or(f64::NAN, |seconds| seconds as f64));
    };
    oplog(metric::OPLOG_WINDOW, source.and_then(|source| source.oplog_window_seconds));
    oplog(metric::OPLOG_TIME_TO_LOSS, source.and_then(|source| source.oplog_time_to_loss_seconds));
    for code in CODES {
        let is_there = overview.problems.iter().any(|problem| problem.code == *code);
        gauge!(metric::PROBLEM, "code" => *code).set(if is_there { 1.0 } else { 0.0 });
    }
}

fn record_stage(stream: &'static str, stage: Option<&StageOverview>) {
    let set = |name: &'static str, value: Option<f64>| gauge!(name, "stream" => stream).set(value.unwrap_or(f64::NAN));
    set(metric::STREAM_ENTRIES, stage.map(|stage| stage.status.length as f64));
    // Redis does not always know the lag; unknown must not appear as zero.
    set(metric::STREAM_LAG, stage.and_then(|stage| stage.status.lag).map(|lag| lag as f64));
    set(metric::STREAM_PENDING, stage.map(|stage| stage.status.pending as f64));
    set(metric::STREAM_BACKLOG, stage.map(|stage| stage.backlog as f64));
    let oldest = stage.map(|stage| stage.status.oldest_age_ms.map_or(0.0, |millis| millis as f64 / 1000.0));
    set(metric::STREAM_OLDEST, oldest);
    set(metric::STREAM_CONSUMERS, stage.map(|stage| stage.alive as f64));
    set(metric::DEAD_LETTERS, stage.map(|stage| stage.status.dead_letters as f64));
    if let Some(stage) = stage {
        counter!(metric::STREAM_APPENDED, "stream" => stream).absolute(stage.status.appended);
    }
}
