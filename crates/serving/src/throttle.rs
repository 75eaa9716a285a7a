//! Throttling of failed attempts per address: a leaky bucket of failures.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Consecutive failed attempts before an address is throttled.
pub(crate) const BURST: f64 = 10.0;

/// Time until a throttled address gets one more attempt.
pub(crate) const REFILL: Duration = Duration::from_secs(6);

/// How long an address stays trusted after a valid token: failures of another program on the same machine do not lock
/// it out.
const TRUSTED: Duration = Duration::from_secs(600);

/// Maximum number of tracked addresses. The least recently seen one is evicted.
const MOST: usize = 4096;

/// Failed attempts by address.
#[derive(Default)]
pub(crate) struct Throttle {
    clients: HashMap<IpAddr, Client>,
}

struct Client {
    failures: f64,
    seen: Instant,
    valid: Option<Instant>,
}

impl Throttle {
    /// Returns the time until an address may retry; `None` if it may try now.
    pub(crate) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let excess = self.clients.get(&network(address))?.failures_at(now) + 1.0 - BURST;
        (excess > 0.0).then(|| REFILL.mul_f64(excess))
    }

    /// Whether an address has sent a valid token recently.
    pub(crate) fn trusts(&self, address: IpAddr, now: Instant) -> bool {
        let valid = self.clients.get(&network(address)).and_then(|client| client.valid);
        valid.is_some_and(|valid| now < valid + TRUSTED)
    }

    /// Records a failed attempt.
    pub(crate) fn failed(&mut self, address: IpAddr, now: Instant) {
        let client = self.client(address, now);
        client.failures = (client.failures_at(now) + 1.0).min(BURST);
        client.seen = now;
    }

    /// Records a valid token.
    pub(crate) fn succeeded(&mut self, address: IpAddr, now: Instant) {
        let client = self.client(address, now);
        client.failures = client.failures_at(now);
        (client.seen, client.valid) = (now, Some(now));
    }

    fn client(&mut self, address: IpAddr, now: Instant) -> &mut Client {
        let key = network(address);
        if self.clients.len() >= MOST && !self.clients.contains_key(&key) {
            let oldest = self.clients.iter().min_by_key(|(_, client)| client.seen).map(|(key, _)| *key);
            self.clients.remove(&oldest.expect("the table is full"));
        }
        self.clients.entry(key).or_insert(Client { failures: 0.0, seen: now, valid: None })
    }
}

impl Client {
    fn failures_at(&self, now: Instant) -> f64 {
        let drained = now.saturating_duration_since(self.seen).as_secs_f64() / REFILL.as_secs_f64();
        (self.failures - drained).max(0.0)
    }
}

/// Groups IPv6 addresses by /64, the usual allocation of one customer.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn fail(throttle: &mut Throttle, address: &str, times: usize, now: Instant) {
        for _ in 0..times {
            throttle.failed(ip(address), now);
        }
    }

    #[test]
    fn address_is_throttled_after_ten_failures_and_others_are_not() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        fail(&mut throttle, "10.0.0.1", 9, now);
        assert_eq!(throttle.wait(ip("10.0.0.1"), now), None);
        fail(&mut throttle, "10.0.0.1", 1, now);
        assert_eq!(throttle.wait(ip("10.0.0.1"), now), Some(REFILL));
        assert_eq!(throttle.wait(ip("10.0.0.2"), now), None);
        assert_eq!(throttle.wait(ip("10.0.0.1"), now + REFILL), None);
        fail(&mut throttle, "10.0.0.1", 100, now);
        assert_eq!(throttle.wait(ip("10.0.0.1"), now), Some(REFILL), "attempts while throttled do not add up");
    }

    #[test]
    fn throttle_groups_ipv6_by_64_prefix_and_unmaps_ipv4() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        fail(&mut throttle, "2001:db8::1", 5, now);
        fail(&mut throttle, "2001:db8::2", 5, now);
        assert!(throttle.wait(ip("2001:db8::3"), now).is_some());
        assert!(throttle.wait(ip("2001:db8:0:1::3"), now).is_none());
        fail(&mut throttle, "::ffff:10.0.0.1", 10, now);
        assert!(throttle.wait(ip("10.0.0.1"), now).is_some());
        assert!(throttle.wait(ip("::ffff:10.0.0.2"), now).is_none());
    }

    #[test]
    fn address_with_valid_token_is_trusted_temporarily() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        assert!(!throttle.trusts(ip("127.0.0.1"), now));
        throttle.succeeded(ip("127.0.0.1"), now);
        fail(&mut throttle, "127.0.0.1", 100, now);
        assert!(throttle.trusts(ip("127.0.0.1"), now) && throttle.wait(ip("127.0.0.1"), now).is_some());
        assert!(!throttle.trusts(ip("127.0.0.1"), now + TRUSTED));
    }

    #[test]
    fn throttle_table_is_bounded_and_evicts_oldest() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for number in 0..2 * MOST as u32 {
            throttle.failed(IpAddr::V4(number.into()), now + Duration::from_millis(number.into()));
        }
        assert_eq!(throttle.clients.len(), MOST);
        assert!(throttle.clients.contains_key(&IpAddr::V4((2 * MOST as u32 - 1).into())));
        assert!(!throttle.clients.contains_key(&IpAddr::V4(0.into())));
    }
}
