//! Who may see and do what.
//!
//! A browser runs the pages of every site that its user visits, and all of them can reach loopback. So:
//! - the `Host` has to be an address, `localhost` or a name from the settings: a name of somebody else that points here (DNS
//!   rebinding) is refused, and such a page cannot read anything;
//! - what is not a plain read has to come from a page of this console (`Origin`, `Sec-Fetch-Site`) and be JSON;
//! - an action needs the token in a header, which no browser sends by itself; so does everything where other machines can connect;
//! - the pages may load nothing from elsewhere, run nothing that is not a file of ours, and be in no frame.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tidewheel_core::secret::Secret;

use super::api::Shared;
use super::refusal::Refusal;
use crate::settings::Console;

/// The policy for every answer.
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

/// What the settings allow.
pub(super) struct Guard {
    token: Option<Secret>,
    hosts: Vec<String>,
    /// Whether only this machine can connect.
    private: bool,
}

impl Guard {
    pub(super) fn new(console: &Console, private: bool) -> Self {
        let hosts = console.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Self { token: console.token.clone().filter(|token| !token.reveal().is_empty()), hosts, private }
    }

    /// Whether there is a token, so that somebody may act.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether the token was shown. The time it takes does not depend on where a wrong one differs.
    pub(super) fn authorized(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return false };
        let Some(shown) = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes) else { return false };
        let Some((scheme, shown)) = shown.split_at_checked("Bearer ".len()) else { return false };
        let token = token.reveal().as_bytes();
        let differences = shown.iter().zip(token).fold(0, |all, (a, b)| all | (a ^ b));
        scheme.eq_ignore_ascii_case(b"Bearer ") && shown.len() == token.len() && differences == 0
    }

    /// Whether this is a name of ours. An address always is: nobody else can make a browser show it for a page of theirs.
    fn knows(&self, host: &str) -> bool {
        let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        name.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
    }

    fn judge(&self, request: &Request) -> Result<(), Refusal> {
        let headers = request.headers();
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let authority = text(header::HOST).or_else(|| request.uri().authority().map(|authority| authority.as_str()));
        let host = authority.and_then(host_of).unwrap_or_default();
        if !self.knows(&host) {
            return Err(Refusal::new(
                StatusCode::MISDIRECTED_REQUEST,
                format!("{host:?} is not a name of this console"),
            )
            .with_hint("open it by its address, or add the name to console.hosts"));
        }
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return Ok(());
        }
        let foreign = text(header::ORIGIN).is_some_and(|origin| !is_same(origin, authority.unwrap_or_default()))
            || text(HeaderName::from_static("sec-fetch-site"))
                .is_some_and(|site| site != "same-origin" && site != "none");
        if foreign {
            Err(Refusal::new(StatusCode::FORBIDDEN, "only a page of this console may ask that"))
        } else {
            Ok(())
        }
    }
}

/// The host of an authority, without its port.
fn host_of(authority: &str) -> Option<String> {
    authority.parse::<Uri>().ok()?.host().map(str::to_owned)
}

/// Whether an origin is that of the pages of this authority. TLS may end before us.
fn is_same(origin: &str, authority: &str) -> bool {
    let origin = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    origin.is_some_and(|origin| origin.eq_ignore_ascii_case(authority))
}

/// Refuses what another site asks, and gives every answer the policy.
pub(super) async fn own_pages_only(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let mut response = match shared.guard.judge(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    // Documents do not belong into a cache; files of ours say for themselves.
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Lets through who shows the token.
pub(super) async fn actions_need_the_token(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    if !shared.guard.has_token() {
        return Refusal::new(StatusCode::FORBIDDEN, "this console is read-only")
            .with_hint("set console.token and start it again to act here")
            .into_response();
    }
    with_token(&shared, request, next).await
}

/// Lets everybody read who can connect, if only this machine can.
pub(super) async fn reads_may_need_the_token(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    if shared.guard.private { next.run(request).await } else { with_token(&shared, request, next).await }
}

async fn with_token(shared: &Shared, request: Request, next: Next) -> Response {
    if shared.guard.authorized(request.headers()) {
        return next.run(request).await;
    }
    Refusal::new(StatusCode::UNAUTHORIZED, "this needs the console's token")
        .with_hint("it is the setting console.token")
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::settings::Listen;

    fn guard(token: Option<&str>) -> Guard {
        let token = token.map(Secret::new);
        Guard::new(&Console { listen: Listen::Default, token, hosts: vec!["wheel.example.com".into()] }, true)
    }

    fn judge(method: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().method(method).uri("/api/search");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        guard(None)
            .judge(&request.body(Body::empty()).unwrap())
            .err()
            .map(|refusal| refusal.into_response().status().as_u16())
    }

    #[test]
    fn only_names_of_ours_are_answered() {
        for host in ["127.0.0.1:9091", "localhost:9091", "LOCALHOST", "[::1]:9091", "10.1.2.3", "wheel.example.com:443"]
        {
            assert_eq!(judge("GET", &[("host", host)]), None, "{host}");
        }
        for host in ["evil.example.com", "localhost.evil.example.com:9091", "127.0.0.1.evil.example.com", ""] {
            assert_eq!(judge("GET", &[("host", host)]), Some(421), "{host}");
        }
        assert_eq!(judge("GET", &[]), Some(421));
    }

    #[test]
    fn pages_of_other_sites_cannot_act() {
        let host = ("host", "127.0.0.1:9091");
        assert_eq!(judge("POST", &[host]), None, "no browser");
        assert_eq!(
            judge("POST", &[host, ("origin", "http://127.0.0.1:9091"), ("sec-fetch-site", "same-origin")]),
            None
        );
        for origin in
            ["http://evil.example.com", "http://127.0.0.1:8000", "null", "http://127.0.0.1:9091.evil.example.com"]
        {
            assert_eq!(judge("POST", &[host, ("origin", origin)]), Some(403), "{origin}");
        }
        assert_eq!(judge("POST", &[host, ("sec-fetch-site", "cross-site")]), Some(403));
    }

    #[test]
    fn only_the_whole_token_lets_in() {
        let with =
            |value: &'static str| HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]);
        let secret = guard(Some("secret"));
        assert!(secret.authorized(&with("Bearer secret")) && secret.authorized(&with("bearer secret")));
        for wrong in ["Bearer secre", "Bearer secrets", "Bearer Secret", "Basic secret", "secret", "Bearer ", ""] {
            assert!(!secret.authorized(&with(wrong)), "{wrong:?}");
        }
        assert!(!secret.authorized(&HeaderMap::new()));
        assert!(!guard(None).authorized(&with("Bearer ")) && !guard(Some("")).authorized(&with("Bearer ")));
    }
}
