//! The last hour in fixed memory: a ring of five-second slots, each the mean of its samples.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};
use tidewheel_ops::overview::Overview;

/// Slot length in milliseconds.
const STEP_MS: u64 = 5_000;

/// Number of slots: one hour.
const SLOTS: usize = 720;

/// Names of the recorded series, as the browser knows them.
pub(super) const SERIES: [&str; 8] =
    ["in_1", "out_1", "backlog_1", "out_2", "backlog_2", "latency_p50", "latency_p95", "tokens"];

/// Sampling interval without viewers; every slot still gets a sample.
pub(super) const IDLE_INTERVAL: Duration = Duration::from_millis(STEP_MS);

/// One sample, in the order of [`SERIES`].
type Numbers = [Option<f64>; SERIES.len()];

#[derive(Clone, Copy)]
struct Slot {
    number: u64,
    sums: [f64; SERIES.len()],
    counts: [u32; SERIES.len()],
}

/// The ring buffer.
#[derive(Default)]
pub(super) struct History(VecDeque<Slot>);

impl History {
    /// Adds a sample.
    pub(super) fn add(&mut self, overview: &Overview) {
        self.take(overview.at_ms, numbers(overview));
    }

    fn take(&mut self, at_ms: u64, numbers: Numbers) {
        let number = at_ms / STEP_MS;
        // A clock that went backwards must not break the order.
        if self.0.back().is_none_or(|last| last.number < number) {
            if self.0.len() == SLOTS {
                self.0.pop_front();
            }
            self.0.push_back(Slot { number, sums: [0.0; SERIES.len()], counts: [0; SERIES.len()] });
        }
        let slot = self.0.back_mut().expect("one was just added");
        for (at, number) in numbers.into_iter().enumerate() {
            if let Some(number) = number.filter(|number| number.is_finite()) {
                slot.sums[at] += number;
                slot.counts[at] += 1;
            }
        }
    }

    /// Returns the newest slot: time in milliseconds since the Unix epoch, then the values.
    pub(super) fn newest(&self) -> Value {
        self.0.back().map_or(Value::Null, Slot::json)
    }

    /// Returns all slots, oldest first.
    pub(super) fn all(&self) -> Value {
        let points: Vec<Value> = self.0.iter().map(Slot::json).collect();
        json!({"step_ms": STEP_MS, "names": SERIES, "points": points})
    }
}

impl Slot {
    fn json(&self) -> Value {
        // Three decimals exceed a pixel's resolution, and keep an hour below 60 KB.
        let mean = |at: usize| {
            let count = self.counts[at];
            if count == 0 { Value::Null } else { json!((self.sums[at] / f64::from(count) * 1e3).round() / 1e3) }
        };
        let mut point = vec![json!(self.number * STEP_MS)];
        point.extend((0..SERIES.len()).map(mean));
        Value::Array(point)
    }
}

fn numbers(overview: &Overview) -> Numbers {
    let [one, two] = [overview.stages[0].known(), overview.stages[1].known()];
    let latency = overview.latency.as_ref();
    [
        one.and_then(|stage| stage.in_per_second),
        one.and_then(|stage| stage.out_per_second),
        one.map(|stage| stage.backlog as f64),
        two.and_then(|stage| stage.out_per_second),
        two.map(|stage| stage.backlog as f64),
        latency.map(|latency| latency.p50_seconds),
        latency.map(|latency| latency.p95_seconds),
        overview.embedder.known().and_then(|embedder| embedder.tokens_per_second),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(number: f64) -> Numbers {
        let mut numbers = [None; SERIES.len()];
        numbers[0] = Some(number);
        numbers
    }

    #[test]
    fn slot_is_the_mean_of_its_samples() {
        let mut history = History::default();
        assert_eq!(history.newest(), Value::Null);
        history.take(10_000, look(1.0));
        history.take(14_999, look(2.0));
        assert_eq!(history.newest()[0], 10_000);
        assert_eq!(history.newest()[1], 1.5);
        assert_eq!(history.newest()[2], Value::Null, "no sample");
        history.take(15_000, look(f64::NAN));
        assert_eq!(history.newest()[1], Value::Null);
        history.take(1_000, look(9.0));
        assert_eq!(history.newest()[0], 15_000, "the clock went backwards");
    }

    #[test]
    fn history_keeps_exactly_one_hour() {
        let mut history = History::default();
        for slot in 0..2_000 {
            history.take(slot * STEP_MS, look(slot as f64));
        }
        let all = history.all();
        let points = all["points"].as_array().unwrap();
        assert_eq!(points.len() as u64 * STEP_MS, 3_600_000);
        assert_eq!((&points[0][1], &points.last().unwrap()[1]), (&json!(1280.0), &json!(1999.0)));
        assert_eq!(all["names"].as_array().unwrap().len() + 1, points[0].as_array().unwrap().len());
    }
}
