//! Records the servers' numbers of an overview as metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use metrics::{counter, gauge};
use tidewheel_core::catalog::IndexName;
use tidewheel_core::metric;
use tidewheel_core::stage::Stage;
use tidewheel_ops::overview::{CODES, IndexOverview, Overview, StageOverview};

const STREAMS: [&str; 2] = [Stage::Raw.name(), Stage::Embedded.name()];

/// Records overviews. Series of an index that an overview no longer has are withdrawn.
#[derive(Default)]
pub(crate) struct Gauges(Mutex<BTreeSet<Series>>);

/// A series of an index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Series {
    Info { index: String, generation: u32, state: &'static str, collection: String },
    Points { index: String },
    Problem { index: String, code: &'static str },
}

impl Gauges {
    /// Records an overview. Unknown values become NaN instead of keeping the last value.
    pub(crate) fn record(&self, overview: &Overview) {
        record(overview);
        let series = series(overview);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in known.iter().filter(|known| !series.contains_key(*known)) {
            gone.set(gone.withdrawn());
        }
        for (series, value) in &series {
            series.set(*value);
        }
        *known = series.into_keys().collect();
    }
}

impl Series {
    fn set(&self, value: f64) {
        match self {
            Self::Info { index, generation, state, collection } => {
                let (index, generation, collection) = (index.clone(), generation.to_string(), collection.clone());
                gauge!(
                    metric::INDEX_INFO,
                    "index" => index, "generation" => generation, "state" => *state, "collection" => collection
                )
                .set(value);
            }
            Self::Points { index } => gauge!(metric::INDEX_POINTS, "index" => index.clone()).set(value),
            Self::Problem { index, code } => {
                gauge!(metric::PROBLEM, "code" => *code, "index" => index.clone()).set(value);
            }
        }
    }

    /// The value of a series that no longer exists.
    fn withdrawn(&self) -> f64 {
        match self {
            Self::Info { .. } | Self::Problem { .. } => 0.0,
            Self::Points { .. } => f64::NAN,
        }
    }
}

/// The series of all indexes.
fn series(overview: &Overview) -> BTreeMap<Series, f64> {
    let mut series = BTreeMap::new();
    for IndexOverview { name, generations, points, .. } in &overview.indexes {
        let index = || name.as_str().to_owned();
        for generation in generations {
            let (state, collection) = (generation.state.name(), generation.collection.clone());
            series.insert(Series::Info { index: index(), generation: generation.number, state, collection }, 1.0);
        }
        series.insert(Series::Points { index: index() }, points.map_or(f64::NAN, |points| points as f64));
    }
    let of_index = |(code, index): (&'static str, &IndexName)| Series::Problem { index: index.to_string(), code };
    let problems = overview.problems.iter().filter_map(|problem| Some((problem.code, problem.index.as_ref()?)));
    series.extend(problems.map(|problem| (of_index(problem), 1.0)));
    series
}

fn record(overview: &Overview) {
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
        let is_there = overview.problems.iter().any(|problem| problem.code == *code && problem.index.is_none());
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

#[cfg(test)]
mod tests {
    use tidewheel_ops::overview::samples::{declared, healthy, thresholds};

    use super::*;

    #[test]
    fn each_index_has_series_of_its_own() {
        let mut overview = declared();
        overview.indexes[0].latency.as_mut().unwrap().p95_seconds = 99.0;
        let series = series(&overview.judged(&thresholds()));
        let of = |wanted: Series| series.get(&wanted).copied();
        let index = || "tickets".to_owned();
        let info = |generation, state| Series::Info {
            index: index(),
            generation,
            state,
            collection: format!("tickets.g{generation}"),
        };
        assert_eq!(of(info(2, "kept")), Some(1.0));
        assert_eq!((of(info(3, "serving")), of(info(4, "filling"))), (Some(1.0), Some(1.0)));
        assert_eq!(of(Series::Points { index: index() }), Some(1_204_311.0));
        assert_eq!(of(Series::Points { index: "users".into() }), Some(0.0));
        let problems = series.keys().filter(|series| matches!(series, Series::Problem { .. }));
        let expected = Series::Problem { index: "articles".into(), code: "latency" };
        assert_eq!(problems.collect::<Vec<_>>(), [&expected]);
        let short_form = super::series(&healthy());
        assert_eq!(short_form.get(&Series::Points { index: "documents".into() }), Some(&91_337.0));
    }
}
