//! Rates from the looks of the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Over how long a rate is taken: long enough that a second's jitter does not show, short enough that a change does.
const WINDOW: Duration = Duration::from_secs(10);

/// Looks at a number that only grows.
#[derive(Debug, Default)]
pub(super) struct Rate(VecDeque<(Instant, f64)>);

impl Rate {
    /// Takes a look; growth a second within the window, `None` at the first. A number that fell was counted anew.
    pub(super) fn look(&mut self, now: Instant, number: f64) -> Option<f64> {
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

/// Notices that nothing is confirmed while something waits.
#[derive(Debug, Default)]
pub(super) struct Stall(Option<(Instant, u64)>);

impl Stall {
    /// Takes a look; for how long something has been waiting without anything being confirmed.
    pub(super) fn look(&mut self, now: Instant, confirmed: u64, backlog: u64) -> Duration {
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

/// Extrapolations end here, at 30 days: beyond it they say nothing but "for long".
pub(super) const FAR_SECONDS: u64 = 30 * 86_400;

/// A window that is shorter than an hour says nothing of more than a day.
const SHORT_SECONDS: u64 = 3_600;
const LONG_SECONDS: u64 = 86_400;

/// Seconds that are left, extrapolated from what was observed over a window; `None` if the window is too short for that.
pub(super) fn extrapolated(left: u64, window: u64) -> Option<u64> {
    (window >= SHORT_SECONDS || left <= LONG_SECONDS).then(|| left.min(FAR_SECONDS))
}

/// Seconds until `left` is gone if so many come and go a second.
pub(super) fn eta(left: u64, in_per_second: Option<f64>, out_per_second: Option<f64>) -> Option<f64> {
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
    fn a_rate_is_that_of_the_window() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rate.look(at(0), 100.0), None);
        assert_eq!(rate.look(at(1), 150.0), Some(50.0));
        for second in 2..=30 {
            rate.look(at(second), 150.0);
        }
        assert_eq!(rate.look(at(31), 150.0), Some(0.0), "what was before the window no longer counts");
        assert_eq!(rate.look(at(32), 3.0), None, "counted anew");
        assert_eq!(rate.look(at(34), 7.0), Some(2.0));
    }

    #[test]
    fn a_stall_needs_something_that_waits() {
        let (mut stall, start) = (Stall::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(stall.look(at(0), 5, 3), Duration::ZERO);
        assert_eq!(stall.look(at(9), 5, 4), Duration::from_secs(9));
        assert_eq!(stall.look(at(10), 6, 4), Duration::ZERO, "one was confirmed");
        assert_eq!(stall.look(at(20), 6, 0), Duration::ZERO, "nothing waits");
        assert_eq!(stall.look(at(50), 6, 1), Duration::ZERO, "it begins with what waits now");
    }

    #[test]
    fn an_eta_needs_more_going_than_coming() {
        assert_eq!(eta(100, Some(5.0), Some(15.0)), Some(10.0));
        assert_eq!(eta(100, Some(5.0), Some(5.0)), None);
        assert_eq!(eta(100, None, Some(5.0)), None);
        assert_eq!(eta(0, None, None), Some(0.0));
        assert_eq!(eta(u64::MAX, Some(0.0), Some(0.1)), Some(FAR_SECONDS as f64));
    }

    #[test]
    fn extrapolation_is_capped_and_needs_a_window() {
        assert_eq!(extrapolated(671_155_200, 60), None, "a fresh server");
        assert_eq!(extrapolated(7_000, 60), Some(7_000), "a fresh server under load");
        assert_eq!(extrapolated(200_000, 7_200), Some(200_000));
        assert_eq!(extrapolated(671_155_200, 90_000), Some(FAR_SECONDS));
        assert_eq!(extrapolated(0, 0), Some(0));
    }
}
