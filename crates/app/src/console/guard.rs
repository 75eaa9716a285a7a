//! Access control.
//!
//! - Cross-site requests and unknown host names are rejected ([`tidewheel_serving::Guard`]).
//! - Actions require the token in a header, which no browser sends automatically; if other machines can connect, so do reads.
//! - Behind an authenticating proxy, the user name in `console.user_header` replaces the token. The header is trusted only on
//!   connections from `console.trusted_proxies`.
//! - Pages load and run only the console's own files, and cannot be framed.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tidewheel_serving::{Access, Gate, Network, Peer};

use super::api_error::ApiError;
use crate::settings::Console;

/// Security headers of every response.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Header with the client's address.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The policy from the settings.
pub(super) struct Guard {
    hosts: tidewheel_serving::Guard,
    gate: Gate,
    proxies: Proxies,
    /// Whether it listens on loopback only.
    private: bool,
}

/// Trusted proxies.
struct Proxies {
    user_header: Option<HeaderName>,
    networks: Vec<Network>,
}

/// The sender of a request, stored in its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// The user authenticated by a trusted proxy.
    pub(super) user: Option<String>,
    /// The client's address, if known.
    pub(super) address: Option<IpAddr>,
    /// Whether a trusted proxy forwarded the request.
    proxied: bool,
    access: Access,
}

impl Caller {
    /// Whether the caller is authenticated.
    pub(super) fn authorized(&self) -> bool {
        self.user.is_some() || self.access == Access::Granted
    }
}

impl Guard {
    pub(super) fn new(console: &Console, private: bool) -> Self {
        let user_header = console.user_header.as_ref().and_then(|name| name.parse().ok());
        Self {
            hosts: tidewheel_serving::Guard::new("console.hosts", &console.serving.hosts),
            gate: Gate::new("console", console.serving.token.clone()),
            proxies: Proxies { user_header, networks: console.trusted_proxies.clone() },
            private,
        }
    }

    /// Whether actions are enabled for this caller, given authentication.
    pub(super) fn has_actions(&self, caller: &Caller) -> bool {
        self.gate.has_token() || caller.user.is_some()
    }

    fn caller(&self, request: &Request) -> Caller {
        let peer = request.extensions().get::<Peer>().map(|peer| peer.ip());
        let headers = request.headers();
        let proxied = self.proxies.user_header.is_some() && peer.is_some_and(|peer| self.proxies.trusts(peer));
        let user = if proxied { self.proxies.user(headers) } else { None };
        let address = if proxied { self.proxies.client(headers).or(peer) } else { peer };
        let access = if self.gate.has_token() && user.is_none() {
            self.gate.check_from(headers, request.uri().path(), address)
        } else {
            Access::Missing
        };
        Caller { user, address, proxied, access }
    }

    /// Whether reads need no token: on loopback, unless a proxy forwarded the request.
    fn reads_are_open(&self, caller: &Caller) -> bool {
        self.private && !caller.proxied
    }
}

impl Proxies {
    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }

    fn user(&self, headers: &HeaderMap) -> Option<String> {
        let user = headers.get(self.user_header.as_ref()?)?.to_str().ok()?.trim();
        (!user.is_empty()).then(|| user.to_owned())
    }

    /// The last address that is not a trusted proxy's; a client can forge everything before it.
    fn client(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let lists = headers.get_all(FORWARDED_FOR).iter().filter_map(|list| list.to_str().ok());
        let addresses: Vec<_> = lists.flat_map(|list| list.split(',')).map(str::trim).collect();
        addresses.into_iter().rev().map_while(|text| text.parse().ok()).find(|address| !self.trusts(*address))
    }
}

/// Rejects cross-site requests, and adds the security headers to every response.
pub(super) async fn own_pages_only(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let mut response = match guard.hosts.judge(&request) {
        Ok(()) => {
            let caller = guard.caller(&request);
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(rejection) => rejection.into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    // Documents must not be cached; static files set their own policy.
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Admits callers with the token, or authenticated by a trusted proxy.
pub(super) async fn actions_require_token(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    if request.extensions().get::<Caller>().is_none_or(|caller| !guard.has_actions(caller)) {
        return ApiError::new(StatusCode::FORBIDDEN, "this console is read-only")
            .with_hint("set `console.token` and restart to enable actions")
            .into_response();
    }
    authorized(request, next).await
}

/// Admits all readers on loopback, and otherwise requires the token.
pub(super) async fn reads_may_require_token(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let open = request.extensions().get::<Caller>().is_some_and(|caller| guard.reads_are_open(caller));
    if open { next.run(request).await } else { authorized(request, next).await }
}

async fn authorized(request: Request, next: Next) -> Response {
    match request.extensions().get::<Caller>() {
        Some(caller) if caller.authorized() => next.run(request).await,
        Some(Caller { access: Access::TooMany(wait), .. }) => {
            let mut response = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens from this address")
                .with_hint(format!("try again in {} s", wait.as_secs() + 1))
                .into_response();
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
            response
        }
        _ => ApiError::new(StatusCode::UNAUTHORIZED, "missing or wrong token")
            .with_hint("use the value of `console.token`")
            .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tidewheel_core::secret::Secret;

    use super::*;
    use crate::settings::{Listen, Serving};

    fn guard_with(token: Option<&str>, user_header: Option<&str>, private: bool) -> Guard {
        let serving = Serving { token: token.map(Secret::new), ..Serving::default() };
        let user_header = user_header.map(str::to_owned);
        let trusted_proxies = vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        Guard::new(&Console { listen: Listen::Default, serving, user_header, trusted_proxies }, private)
    }

    fn caller(guard: &Guard, peer: &str, headers: &[(&str, &str)]) -> Caller {
        let mut request = Request::builder().uri("/api/search");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(Peer::new(format!("{peer}:4711").parse().unwrap()));
        guard.caller(&request)
    }

    #[test]
    fn user_header_is_trusted_from_trusted_proxies_only() {
        let guard = guard_with(None, Some("X-Forwarded-User"), true);
        let user = [("x-forwarded-user", "ada@example.com")];
        for proxy in ["10.1.2.3", "127.0.0.1"] {
            let caller = caller(&guard, proxy, &user);
            assert_eq!(caller.user.as_deref(), Some("ada@example.com"), "{proxy}");
            assert!(caller.authorized() && guard.has_actions(&caller));
        }
        let stranger = caller(&guard, "192.0.2.1", &user);
        assert!(!stranger.authorized() && !guard.has_actions(&stranger) && stranger.user.is_none());
        for unset in [("x-forwarded-user", " "), ("x-other", "ada")] {
            let caller = caller(&guard, "10.1.2.3", &[unset]);
            assert!(!caller.authorized() && !guard.reads_are_open(&caller), "the proxy authenticated no user");
        }
        let off = guard_with(None, None, true);
        assert!(!caller(&off, "10.1.2.3", &user).authorized(), "the header is ignored without the setting");
    }

    #[test]
    fn client_address_is_the_last_one_that_is_not_a_proxy() {
        let guard = guard_with(None, Some("X-User"), true);
        for (list, address) in [
            ("192.0.2.1", "192.0.2.1"),
            ("1.1.1.1, 192.0.2.1, 10.9.9.9", "192.0.2.1"),
            ("192.0.2.1, nonsense", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            let caller = caller(&guard, "10.0.0.1", &[("x-forwarded-for", list)]);
            assert_eq!(caller.address, Some(address.parse().unwrap()), "{list}");
        }
        let direct = caller(&guard, "192.0.2.7", &[("x-forwarded-for", "1.1.1.1")]);
        assert_eq!(direct.address, Some("192.0.2.7".parse().unwrap()), "a client cannot choose its own address");
    }

    #[test]
    fn token_authorizes_and_reads_are_open_on_loopback_only() {
        let guard = guard_with(Some("secret"), None, true);
        assert!(caller(&guard, "127.0.0.1", &[("authorization", "Bearer secret")]).authorized());
        let without = caller(&guard, "127.0.0.1", &[]);
        assert!(!without.authorized() && guard.has_actions(&without) && guard.reads_are_open(&without));
        let public = guard_with(None, None, false);
        let caller = caller(&public, "127.0.0.1", &[("authorization", "Bearer ")]);
        assert!(!caller.authorized() && !public.reads_are_open(&caller));
    }
}
