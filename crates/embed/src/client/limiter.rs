//! Client-side rate limiting for the per-minute limits of a remote service.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Fraction of the per-minute limit that may be used in a burst. Services also enforce windows of seconds.
const BURST: f64 = 1.0 / 12.0;

/// A token bucket that may be overdrawn: the next request waits until the debt is paid, so that a request larger than the
/// bucket passes too.
struct Bucket {
    per_second: f64,
    capacity: f64,
    level: f64,
    seen: Instant,
}

impl Bucket {
    fn new(per_minute: u32, now: Instant) -> Self {
        let capacity = (f64::from(per_minute) * BURST).max(1.0);
        Self { per_second: f64::from(per_minute).max(1.0) / 60.0, capacity, level: capacity, seen: now }
    }

    /// Takes this amount and returns the wait before using it.
    fn take(&mut self, amount: f64, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.seen).as_secs_f64();
        self.level = (self.level + passed * self.per_second).min(self.capacity);
        self.seen = now;
        let wait = if self.level >= amount.min(self.capacity) {
            0.0
        } else {
            (amount.min(self.capacity) - self.level) / self.per_second
        };
        self.level -= amount;
        Duration::from_secs_f64(wait)
    }
}

/// Optional limits in requests and in tokens per minute.
pub(super) struct Limiter {
    requests: Option<Mutex<Bucket>>,
    tokens: Option<Mutex<Bucket>>,
}

impl Limiter {
    pub(super) fn new(requests_per_minute: Option<u32>, tokens_per_minute: Option<u32>) -> Self {
        let now = Instant::now();
        let bucket = |per_minute: Option<u32>| per_minute.map(|limit| Mutex::new(Bucket::new(limit, now)));
        Self { requests: bucket(requests_per_minute), tokens: bucket(tokens_per_minute) }
    }

    /// Whether a token limit is set.
    pub(super) fn counts_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Waits until a request with this many tokens may be sent.
    pub(super) async fn admit(&self, tokens: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a request has far fewer than 2^52 tokens")]
        let amounts = [(&self.requests, 1.0), (&self.tokens, tokens as f64)];
        let now = Instant::now();
        let waits = amounts.map(|(bucket, amount)| {
            bucket.as_ref().map_or(Duration::ZERO, |bucket| {
                bucket.lock().unwrap_or_else(PoisonError::into_inner).take(amount, now)
            })
        });
        let wait = waits[0].max(waits[1]);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_in_any_minute_stays_within_limit_plus_burst() {
        let start = Instant::now();
        let mut bucket = Bucket::new(600, start);
        let mut now = start;
        let mut sent = Vec::new();
        for _ in 0..2_000 {
            now += bucket.take(1.0, now);
            sent.push(now);
        }
        for (first, from) in sent.iter().enumerate() {
            let within = sent[first..].iter().take_while(|at| **at < *from + Duration::from_secs(60)).count();
            assert!(within <= 600 + 50 + 1, "{within} requests in the minute after request {first}");
        }
        // And no slower than allowed: 2,000 requests at 10 requests/s, less the burst.
        assert!(now - start < Duration::from_secs(200));
    }

    #[test]
    fn request_larger_than_bucket_passes_and_delays_the_next() {
        let start = Instant::now();
        let mut bucket = Bucket::new(60, start);
        assert_eq!(bucket.take(30.0, start), Duration::ZERO);
        let wait = bucket.take(1.0, start);
        assert!((25..=27).contains(&wait.as_secs()), "{wait:?}");
    }
}
