//! Retry delays.

use std::time::Duration;

use rand::RngExt;

/// Exponential backoff with equal jitter and unlimited attempts: a transient failure is waited out.
///
/// The delay before attempt n is uniform in `[ceiling/2, ceiling]` with `ceiling = min(first·2ⁿ, longest)`. Half of it
/// is fixed so that a retry is never immediate; the other half is random so that many workers do not retry at once
/// (Brooker, "Exponential Backoff And Jitter", 2015: "equal jitter").
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    /// Starts at `first` and never exceeds `longest`, unless the server requests a longer delay.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, attempts: 0 }
    }

    /// For servers: from 100 ms to 5 s, so that work resumes within seconds after an outage of any length.
    pub fn for_servers() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }

    /// The delay before the next attempt; at least the one that the server requested.
    pub fn next_delay(&mut self, retry_after: Option<Duration>) -> Duration {
        let ceiling = self.ceiling();
        self.attempts = self.attempts.saturating_add(1);
        let delay = ceiling.mul_f64(rand::rng().random_range(0.5..=1.0));
        retry_after.map_or(delay, |asked| asked.max(delay))
    }

    /// Number of calls of [`Backoff::next_delay`] since the last reset.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Restarts at the first delay, after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    fn ceiling(&self) -> Duration {
        self.first.saturating_mul(1u32.checked_shl(self.attempts).unwrap_or(u32::MAX)).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_longest_and_restart_after_a_success() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(first, longest);
        for attempt in 0..200 {
            let delay = backoff.next_delay(None);
            let ceiling = first.saturating_mul(1u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(longest);
            assert!(delay >= ceiling / 2 && delay <= ceiling, "attempt {attempt} waits {delay:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay(None) <= first);
    }

    #[test]
    fn longer_retry_after_is_honoured() {
        let mut backoff = Backoff::for_servers();
        assert_eq!(backoff.next_delay(Some(Duration::from_secs(60))), Duration::from_secs(60));
        assert!(backoff.next_delay(Some(Duration::ZERO)) > Duration::ZERO);
    }
}
