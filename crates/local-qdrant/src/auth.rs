//! The API key: one shared secret, in `api-key` or as a bearer token, with the same throttle on both ports.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tidewheel_serving::{Access, Gate, Peer, SHORTEST_TOKEN, Secret};
use tonic::Status;

use super::QdrantError;

/// Qdrant's error messages.
const MISSING: &str = "Must provide an API key or an Authorization bearer token";
const WRONG: &str = "Invalid API key or JWT";

/// The message for an address that sent too many wrong keys.
const TOO_MANY: &str = "too many wrong API keys from this address";

/// Checks the key that every request must carry.
#[derive(Clone)]
pub(crate) struct ApiKey(Arc<Gate>);

/// Why a request is rejected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    Missing,
    Wrong,
    TooMany(Duration),
}

impl ApiKey {
    /// Wraps a key. An empty key counts as none, and without a key every request is accepted.
    pub(crate) fn new(key: Option<String>) -> Self {
        Self(Arc::new(Gate::new("local Qdrant", key.map(Secret::new))))
    }

    /// Checks a request of either port. Wrong keys are logged and counted.
    pub(crate) fn check(&self, request: &Request) -> Result<(), Denied> {
        let header = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
        let bearer = || header(AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix(b"Bearer "));
        let address = request.extensions().get::<Peer>().map(|peer| peer.ip());
        match self.0.check_credential(header("api-key").or_else(bearer), request.uri().path(), address) {
            Access::Granted => Ok(()),
            Access::Missing => Err(Denied::Missing),
            Access::Wrong => Err(Denied::Wrong),
            Access::TooMany(wait) => Err(Denied::TooMany(wait)),
        }
    }
}

impl Denied {
    /// The response of the REST API.
    pub(crate) fn into_rest(self) -> Response {
        match self {
            Self::Missing => (StatusCode::UNAUTHORIZED, MISSING).into_response(),
            Self::Wrong => (StatusCode::UNAUTHORIZED, WRONG).into_response(),
            Self::TooMany(wait) => {
                (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds(wait).to_string())], TOO_MANY).into_response()
            }
        }
    }

    /// The response of the gRPC API.
    pub(crate) fn into_grpc(self) -> Response {
        let mut response = match self {
            Self::Missing => Status::unauthenticated(MISSING),
            Self::Wrong => Status::unauthenticated(WRONG),
            Self::TooMany(_) => Status::resource_exhausted(TOO_MANY),
        }
        .into_http::<tonic::body::Body>()
        .map(Body::new);
        if let Self::TooMany(wait) = self {
            response.headers_mut().insert(RETRY_AFTER, seconds(wait).into());
        }
        response
    }
}

/// Rounds up, so that a client does not retry too early.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + 1
}

/// Rejects a server that other machines can reach without a key that is hard to guess.
///
/// # Errors
/// An address beyond loopback, and a key of fewer than 16 characters or none.
pub fn require_key(addresses: &[SocketAddr], key: Option<&str>) -> Result<(), QdrantError> {
    let reachable = addresses.iter().find(|address| !address.ip().to_canonical().is_loopback());
    match reachable {
        Some(address) if key.map_or(0, str::len) < SHORTEST_TOKEN => Err(QdrantError::Key { address: *address }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().uri("/collections");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(Peer::new("10.0.0.1:5".parse().unwrap()));
        request
    }

    #[test]
    fn check_accepts_key_in_either_header_and_rejects_others() {
        let key = ApiKey::new(Some("secret".to_owned()));
        let check = |headers: &[(&str, &str)]| key.check(&request(headers));
        assert_eq!(check(&[("api-key", "secret")]), Ok(()));
        assert_eq!(check(&[("authorization", "Bearer secret")]), Ok(()));
        assert_eq!(check(&[]), Err(Denied::Missing));
        assert_eq!(check(&[("authorization", "Basic secret")]), Err(Denied::Missing));
        assert_eq!(check(&[("api-key", "secre")]), Err(Denied::Wrong));
        assert_eq!(check(&[("api-key", "secreT"), ("authorization", "Bearer secret")]), Err(Denied::Wrong));
        for without in [None, Some(String::new())] {
            assert_eq!(ApiKey::new(without).check(&request(&[("api-key", "any")])), Ok(()));
        }
    }

    #[test]
    fn wrong_keys_are_throttled_over_both_ports_together() {
        let key = ApiKey::new(Some("secret".to_owned()));
        let clone = key.clone();
        for _ in 0..5 {
            assert_eq!(key.check(&request(&[("api-key", "no")])), Err(Denied::Wrong));
            assert_eq!(clone.check(&request(&[("authorization", "Bearer no")])), Err(Denied::Wrong));
        }
        assert!(matches!(key.check(&request(&[("api-key", "secret")])), Err(Denied::TooMany(_))));
        let denied = || Denied::TooMany(Duration::from_millis(2500));
        assert_eq!(denied().into_rest().status(), 429);
        for response in [denied().into_rest(), denied().into_grpc()] {
            assert_eq!(response.headers()["retry-after"], "3");
        }
        assert_eq!(denied().into_grpc().headers()["grpc-status"], "8");
    }

    #[test]
    fn address_beyond_loopback_requires_long_key() {
        let addresses = |text: &str| ["127.0.0.1:6333".parse().unwrap(), text.parse().unwrap()];
        for loopback in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(require_key(&addresses(loopback), None).is_ok(), "{loopback}");
        }
        for reachable in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[::ffff:192.0.2.1]:1"] {
            for key in [None, Some(""), Some("hunter2"), Some("fifteen letters")] {
                let error = require_key(&addresses(reachable), key).unwrap_err().to_string();
                assert!(error.contains(reachable) && error.contains("QDRANT__SERVICE__API_KEY"), "{error}");
                assert!(!error.contains("hunter2"), "{error}");
            }
            assert!(require_key(&addresses(reachable), Some("sixteen letters.")).is_ok(), "{reachable}");
        }
    }
}
