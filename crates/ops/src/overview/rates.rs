//! Rates over a sliding window of samples.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::text::FAR_SECONDS;

/// Window of a rate: long enough to hide one-second jitter, short enough to show a change.
const WINDOW: Duration = Duration::from_secs(10);

/// Rate of a monotonic counter.
#[derive(Debug, Default)]
pub struct Rate(VecDeque<(Instant, f64)>);

impl Rate {
    /// Adds a sample and returns the growth per second within the window; `None` for the first sample. A decrease is a counter reset.
    pub fn look(&mut self, now: Instant, number: f64) -> Option<f64> {
        if self.0.back().is_some_and(|(_, last)| *last > number) {
            self.0.clear();
        }
        self.0.push_back((now, number));
        while self.0.len() > 2 && self.0.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.0.pop_front();
        }
        let (at, first) = *self.0.front()?;
        let seconds = now.duration_since(at).as_secs_f64();
        (seconds > 0.0).then(|| (number - first) / seconds)
    }
}

/// Detects a backlog of which nothing is acknowledged.
#[derive(Debug, Default)]
pub struct Stall(Option<(Instant, u64)>);

impl Stall {
    /// Adds a sample and returns how long the backlog has been without an acknowledgement.
    pub fn look(&mut self, now: Instant, confirmed: u64, backlog: u64) -> Duration {
        match self.0 {
            _ if backlog == 0 => {
                self.0 = None;
                Duration::ZERO
            }
            Some((since, at)) if at == confirmed => now.duration_since(since),
            _ => {
                self.0 = Some((now, confirmed));
                Duration::ZERO
            }
        }
    }
}

/// From a window shorter than an hour, nothing beyond a day is extrapolated.
const SHORT_SECONDS: u64 = 3_600;
const LONG_SECONDS: u64 = 86_400;

/// Seconds left, extrapolated from an observation window; `None` if the window is too short.
pub fn extrapolated(left: u64, window: u64) -> Option<u64> {
    (window >= SHORT_SECONDS || left <= LONG_SECONDS).then(|| left.min(FAR_SECONDS))
}

/// Seconds until `left` reaches zero at these rates.
pub fn eta(left: u64, in_per_second: Option<f64>, out_per_second: Option<f64>) -> Option<f64> {
    if left == 0 {
        return Some(0.0);
    }
    let net = out_per_second? - in_per_second?;
    (net > 1e-3).then(|| (left as f64 / net).min(FAR_SECONDS as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_covers_the_window_only() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rate.look(at(0), 100.0), None);
        assert_eq!(rate.look(at(1), 150.0), Some(50.0));
        for second in 2..=30 {
            rate.look(at(second), 150.0);
        }
        assert_eq!(rate.look(at(31), 150.0), Some(0.0), "samples before the window do not count");
        assert_eq!(rate.look(at(32), 3.0), None, "counter reset");
        assert_eq!(rate.look(at(34), 7.0), Some(2.0));
    }

    #[test]
    fn stall_requires_a_backlog() {
        let (mut stall, start) = (Stall::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(stall.look(at(0), 5, 3), Duration::ZERO);
        assert_eq!(stall.look(at(9), 5, 4), Duration::from_secs(9));
        assert_eq!(stall.look(at(10), 6, 4), Duration::ZERO, "one was acknowledged");
        assert_eq!(stall.look(at(20), 6, 0), Duration::ZERO, "no backlog");
        assert_eq!(stall.look(at(50), 6, 1), Duration::ZERO, "it starts with the current backlog");
    }

    #[test]
    fn eta_requires_more_output_than_input() {
        assert_eq!(eta(100, Some(5.0), Some(15.0)), Some(10.0));
        assert_eq!(eta(100, Some(5.0), Some(5.0)), None);
        assert_eq!(eta(100, None, Some(5.0)), None);
        assert_eq!(eta(0, None, None), Some(0.0));
        assert_eq!(eta(u64::MAX, Some(0.0), Some(0.1)), Some(FAR_SECONDS as f64));
    }

    #[test]
    fn extrapolation_is_capped_and_requires_a_window() {
        assert_eq!(extrapolated(671_155_200, 60), None, "a fresh server");
        assert_eq!(extrapolated(7_000, 60), Some(7_000), "a fresh server under load");
        assert_eq!(extrapolated(200_000, 7_200), Some(200_000));
        assert_eq!(extrapolated(671_155_200, 90_000), Some(FAR_SECONDS));
        assert_eq!(extrapolated(0, 0), Some(0));
    }
}
