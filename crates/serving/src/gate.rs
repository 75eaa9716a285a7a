//! Bearer-token authentication.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use tidewheel_core::secret::Secret;

use crate::peer::Peer;
use crate::throttle::Throttle;

/// Minimum token length for a server that listens beyond loopback.
pub const SHORTEST_TOKEN: usize = 16;

/// The result of checking a request's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The token is valid, or the server requires none.
    Granted,
    /// The request has no token.
    Missing,
    /// The token is wrong.
    Wrong,
    /// Too many wrong tokens from this address; retry after this time.
    TooMany(Duration),
}

/// Checks bearer tokens and throttles addresses that send wrong ones.
pub struct Gate {
    server: &'static str,
    token: Option<Secret>,
    throttle: Mutex<Throttle>,
}

impl Gate {
    /// Creates a gate for the named server. Without a token, every request is granted.
    #[must_use]
    pub fn new(server: &'static str, token: Option<Secret>) -> Self {
        let token = token.filter(|token| !token.reveal().is_empty());
        Self { server, token, throttle: Mutex::default() }
    }

    /// Whether a token is required.
    #[must_use]
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Checks a request's token. Wrong tokens are logged with the client address and counted.
    pub fn check(&self, request: &Request) -> Access {
        let address = request.extensions().get::<Peer>().map(|peer| peer.ip());
        self.check_from(request.headers(), request.uri().path(), address)
    }

    /// Like [`Gate::check`], for a client address from another source, for example a proxy header. Without an address
    /// nothing is counted.
    pub fn check_from(&self, headers: &HeaderMap, path: &str, address: Option<IpAddr>) -> Access {
        let shown = headers.get(header::AUTHORIZATION).map(|value| bearer(value.as_bytes()));
        self.check_credential(shown, path, address)
    }

    /// Like [`Gate::check_from`], for a credential from another header. All headers count together.
    pub fn check_credential(&self, shown: Option<&[u8]>, path: &str, address: Option<IpAddr>) -> Access {
        let Some(token) = &self.token else { return Access::Granted };
        let Some(shown) = shown else { return Access::Missing };
        let now = Instant::now();
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = address.and_then(|address| throttle.wait(address, now));
        let trusted = address.is_some_and(|address| throttle.trusts(address, now));
        if let Some(wait) = wait.filter(|_| !trusted) {
            return Access::TooMany(wait);
        }
        if token.matches(shown) {
            if let Some(address) = address {
                throttle.succeeded(address, now);
            }
            return Access::Granted;
        }
        if let Some(wait) = wait {
            return Access::TooMany(wait);
        }
        if let Some(address) = address {
            throttle.failed(address, now);
            tracing::warn!(target: "audit", server = self.server, %address, path, "wrong token");
        }
        Access::Wrong
    }
}

/// Returns the token of a `Bearer` header; empty for any other header.
fn bearer(header: &[u8]) -> &[u8] {
    match header.split_at_checked("Bearer ".len()) {
        Some((scheme, shown)) if scheme.eq_ignore_ascii_case(b"Bearer ") => shown,
        _ => b"",
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::HeaderValue;

    use super::*;

    fn request(authorization: Option<&'static str>, address: &str) -> Request {
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(Peer::new(address.parse().unwrap()));
        if let Some(value) = authorization {
            request.headers_mut().insert(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn gate_accepts_exact_token_only() {
        let gate = Gate::new("test", Some(Secret::new("secret")));
        for right in ["Bearer secret", "bearer secret"] {
            assert_eq!(gate.check(&request(Some(right), "127.0.0.1:1")), Access::Granted);
        }
        for wrong in ["Bearer secre", "Bearer secrets", "Bearer Secret", "Basic secret", "secret", "Bearer ", ""] {
            assert_eq!(gate.check(&request(Some(wrong), "127.0.0.1:1")), Access::Wrong, "{wrong:?}");
        }
        assert_eq!(gate.check(&request(None, "127.0.0.1:1")), Access::Missing);
    }

    #[test]
    fn gate_without_token_grants_access() {
        for token in [None, Some(Secret::new(""))] {
            let gate = Gate::new("test", token);
            assert!(!gate.has_token());
            assert_eq!(gate.check(&request(Some("Bearer "), "127.0.0.1:1")), Access::Granted);
        }
    }

    #[test]
    fn gate_throttles_address_after_ten_wrong_tokens_even_with_valid_token() {
        let gate = Gate::new("test", Some(Secret::new("secret")));
        let wrong = || gate.check(&request(Some("Bearer no"), "10.0.0.1:5"));
        for _ in 0..10 {
            assert_eq!(wrong(), Access::Wrong);
        }
        assert!(matches!(wrong(), Access::TooMany(wait) if wait > Duration::ZERO));
        assert!(matches!(gate.check(&request(Some("Bearer secret"), "10.0.0.1:6")), Access::TooMany(_)));
        assert_eq!(gate.check(&request(Some("Bearer secret"), "10.0.0.2:5")), Access::Granted);
    }

    #[test]
    fn gate_throttles_credential_of_any_header() {
        let gate = Gate::new("test", Some(Secret::new("secret")));
        let address = Some("10.0.0.1".parse().unwrap());
        let check = |shown: Option<&[u8]>| gate.check_credential(shown, "/", address);
        assert_eq!(check(None), Access::Missing);
        for wrong in [&b"secre"[..], b"secrets", b"Bearer secret", b"", b"\xff"] {
            assert_eq!(check(Some(wrong)), Access::Wrong, "{wrong:?}");
        }
        for _ in 5..10 {
            assert_eq!(gate.check(&request(Some("Bearer no"), "10.0.0.1:5")), Access::Wrong);
        }
        assert!(matches!(check(Some(b"secret")), Access::TooMany(_)), "all headers count together");
        assert_eq!(gate.check_credential(Some(b"secret"), "/", None), Access::Granted);
    }

    #[test]
    fn gate_does_not_throttle_trusted_address_after_wrong_tokens() {
        let gate = Gate::new("test", Some(Secret::new("secret")));
        let right = || gate.check(&request(Some("Bearer secret"), "10.0.0.1:5"));
        assert_eq!(right(), Access::Granted);
        let wrong: Vec<_> = (0..20).map(|_| gate.check(&request(Some("Bearer no"), "10.0.0.1:6"))).collect();
        assert_eq!(wrong.iter().filter(|access| **access == Access::Wrong).count(), 10);
        assert!(
            wrong[10..].iter().all(|access| matches!(access, Access::TooMany(_))),
            "further wrong tokens are throttled"
        );
        assert_eq!(right(), Access::Granted);
    }
}
