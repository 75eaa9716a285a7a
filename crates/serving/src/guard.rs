//! Host, Origin and Content-Type checks against attacks through a browser.
//!
//! Pages of any site run in the user's browser and can reach this machine and its network:
//! - through a host name that resolves to this server (DNS rebinding): `Host` must name this server;
//! - through a form or script (CSRF): a write must come from a page of this server (`Origin`, `Sec-Fetch-Site`) and
//!   must be JSON, which no form can send.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

/// Headers that browsers send and pages cannot suppress. Scrapers, probes and API clients send none of them.
static OF_BROWSERS: [HeaderName; 5] = [
    header::ACCEPT_LANGUAGE,
    header::ORIGIN,
    header::REFERER,
    HeaderName::from_static("sec-fetch-site"),
    HeaderName::from_static("sec-ch-ua"),
];

/// Suffixes of internal names, which cannot be registered publicly.
const INTERNAL: [&str; 6] = [".local", ".internal", ".svc", ".lan", ".home.arpa", ".test"];

/// The accepted host names of a server.
#[derive(Clone, Debug)]
pub struct Guard {
    /// The setting that lists the host names, for hints; `None` for a server without one.
    setting: Option<&'static str>,
    hosts: Vec<String>,
    /// Whether internal network names are accepted without being listed.
    network: bool,
}

/// A rejected request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// 403, 415 or 421.
    pub status: StatusCode,
    /// The error message.
    pub message: String,
    /// The remedy, in the imperative.
    pub hint: String,
}

impl Guard {
    /// Creates a guard that accepts IP addresses, `localhost`, and `hosts`: names, `*.example.com`, or `*` for all.
    /// `setting` is the setting that lists `hosts`.
    #[must_use]
    pub fn new(setting: &'static str, hosts: &[String]) -> Self {
        let hosts = hosts.iter().map(|host| host.trim_end_matches('.').to_ascii_lowercase()).collect();
        Self { setting: Some(setting), hosts, network: false }
    }

    /// Creates a guard for a development server without a setting for host names and without a proxy in front of it:
    /// on loopback it accepts IP addresses and `localhost`, elsewhere any host; origins are `http` only.
    #[must_use]
    pub fn for_development(loopback: bool) -> Self {
        let hosts = if loopback { Vec::new() } else { vec!["*".to_owned()] };
        Self { setting: None, hosts, network: false }
    }

    /// Also accepts network names: single labels (`embedder`), internal names (`embedder.shop.svc.cluster.local`),
    /// and any name from clients that are not browsers.
    #[must_use]
    pub fn with_network_names(mut self, network: bool) -> Self {
        self.network = network;
        self
    }

    /// Applies the guard to every route.
    pub fn protect<S: Clone + Send + Sync + 'static>(self, router: Router<S>) -> Router<S> {
        router.layer(from_fn_with_state(Arc::new(self), guard))
    }

    /// Checks a request.
    ///
    /// # Errors
    /// The rejection to send instead of the router's response.
    pub fn judge(&self, request: &Request) -> Result<(), Rejection> {
        let headers = request.headers();
        let authority = text(headers, &header::HOST).or_else(|| request.uri().authority().map(Authority::as_str));
        let host = authority.and_then(host_of).unwrap_or_default();
        if !self.knows(&host, OF_BROWSERS.iter().any(|name| headers.contains_key(name))) {
            return Err(Rejection {
                status: StatusCode::MISDIRECTED_REQUEST,
                message: format!("unknown host {host:?}"),
                hint: match self.setting {
                    Some(setting) => format!("use the server's address, or add the name to {setting}"),
                    None => "use the server's address".to_owned(),
                },
            });
        }
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return Ok(());
        }
        let foreign = text(headers, &header::ORIGIN).is_some_and(|origin| !self.is_own(origin, authority))
            || text(headers, &HeaderName::from_static("sec-fetch-site"))
                .is_some_and(|site| site != "same-origin" && site != "none");
        if foreign {
            return Err(Rejection {
                status: StatusCode::FORBIDDEN,
                message: "request from a page of another origin".to_owned(),
                hint: match self.setting {
                    Some(setting) => format!("behind a proxy, add its name to {setting}"),
                    None => "send the request from a program".to_owned(),
                },
            });
        }
        if has_body(headers) && !is_json(headers) {
            return Err(Rejection {
                status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
                message: "unsupported content type".to_owned(),
                hint: "send the header Content-Type: application/json".to_owned(),
            });
        }
        Ok(())
    }

    /// Whether the host is accepted. IP addresses always are: DNS rebinding requires a name.
    fn knows(&self, host: &str, browser: bool) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        if name.is_empty() {
            return false;
        }
        name.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || self.hosts.iter().any(|known| matches(known, name))
            || (self.network && (!browser || is_internal(name)))
    }

    /// Whether an origin belongs to this server. A proxy may terminate TLS and rewrite `Host`, so that the scheme is
    /// ignored and configured hosts match too, except on a development server.
    fn is_own(&self, origin: &str, authority: Option<&str>) -> bool {
        let Some((scheme, origin)) = origin.split_once("://") else { return false };
        if self.setting.is_none() && scheme != "http" {
            return false;
        }
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(origin))
            || host_of(origin).is_some_and(|host| {
                let host = host.to_ascii_lowercase();
                self.hosts.iter().any(|known| known != "*" && matches(known, &host))
            })
    }
}

fn matches(known: &str, name: &str) -> bool {
    match known.strip_prefix('*') {
        Some("") => true,
        Some(suffix) if suffix.starts_with('.') => name.len() > suffix.len() && name.ends_with(suffix),
        _ => known == name,
    }
}

fn is_internal(name: &str) -> bool {
    !name.contains('.') || INTERNAL.iter().any(|suffix| name.ends_with(suffix))
}

/// The host of an authority, without its port.
fn host_of(authority: &str) -> Option<String> {
    authority.parse::<Uri>().ok()?.host().map(str::to_owned)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes).is_some_and(|length| length != b"0")
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = text(headers, &header::CONTENT_TYPE).and_then(|kind| kind.split(';').next()).unwrap_or_default();
    let kind = kind.trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.judge(&request) {
        Ok(()) => next.run(request).await,
        Err(rejection) => rejection.into_response(),
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let body = serde_json::json!({"error": self.message, "hint": self.hint}).to_string();
        (self.status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const LOCAL: (&str, &str) = ("host", "127.0.0.1:9091");
    const JSON: (&str, &str) = ("content-type", "application/json");
    const BODY: (&str, &str) = ("content-length", "9");

    fn guard() -> Guard {
        Guard::new("console.hosts", &["Wheel.Example.com".to_owned(), "*.wheels.example".to_owned()])
    }

    fn status(guard: &Guard, method: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().method(method).uri("/api/search");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        guard.judge(&request.body(Body::empty()).unwrap()).err().map(|rejection| rejection.status.as_u16())
    }

    #[test]
    fn guard_accepts_addresses_localhost_and_configured_hosts() {
        for host in [
            "127.0.0.1:9091",
            "localhost:9091",
            "LOCALHOST",
            "localhost.",
            "[::1]:9091",
            "10.1.2.3",
            "wheel.example.com:443",
            "WHEEL.example.com.",
            "a.wheels.example",
        ] {
            assert_eq!(status(&guard(), "GET", &[("host", host)]), None, "{host}");
        }
    }

    #[test]
    fn guard_rejects_foreign_host_names() {
        for host in [
            "evil.example.com",
            "localhost.evil.example.com:9091",
            "127.0.0.1.evil.example.com",
            "wheels.example",
            "embedder",
            "",
        ] {
            assert_eq!(status(&guard(), "GET", &[("host", host)]), Some(421), "{host}");
        }
        assert_eq!(status(&guard(), "GET", &[]), Some(421));
    }

    #[test]
    fn guard_with_network_names_accepts_public_hosts_from_non_browsers_only() {
        let guard = Guard::new("embedder.hosts", &[]).with_network_names(true);
        let from_browser = [("accept-language", "en"), ("referer", "http://x/"), ("sec-fetch-site", "same-origin")];
        for host in ["embedder:8080", "embedder.shop.svc", "embedder.shop.svc.cluster.local:8080", "box.lan"] {
            assert_eq!(status(&guard, "GET", &[("host", host)]), None, "{host}");
            assert_eq!(status(&guard, "GET", &[("host", host), from_browser[0]]), None, "{host}");
        }
        for host in ["worker1.example.com:9090", "evil.example.com"] {
            assert_eq!(status(&guard, "GET", &[("host", host)]), None, "a scraper: {host}");
            for header in from_browser {
                assert_eq!(status(&guard, "GET", &[("host", host), header]), Some(421), "{header:?}");
            }
        }
        assert_eq!(status(&guard, "GET", &[]), Some(421));
    }

    #[test]
    fn guard_rejects_cross_origin_writes() {
        for origin in ["http://127.0.0.1:9091", "https://wheel.example.com", "https://wheel.example.com:8443"] {
            assert_eq!(status(&guard(), "POST", &[LOCAL, ("origin", origin)]), None, "{origin}");
        }
        for origin in
            ["http://evil.example.com", "http://127.0.0.1:8000", "null", "http://127.0.0.1:9091.evil.example.com", ""]
        {
            for method in ["POST", "PUT", "DELETE", "PATCH"] {
                assert_eq!(status(&guard(), method, &[LOCAL, JSON, ("origin", origin)]), Some(403), "{origin}");
            }
        }
        for (site, expected) in [("cross-site", Some(403)), ("same-site", Some(403)), ("same-origin", None)] {
            assert_eq!(status(&guard(), "POST", &[LOCAL, ("sec-fetch-site", site)]), expected, "{site}");
        }
        let any = Guard::new("console.hosts", &["*".to_owned()]);
        assert_eq!(status(&any, "POST", &[LOCAL, ("origin", "http://evil.example.com")]), Some(403));
    }

    #[test]
    fn development_guard_accepts_any_host_off_loopback_only() {
        for host in ["127.0.0.1:6333", "localhost:6333", "LOCALHOST", "[::1]:6333", "192.168.1.2"] {
            assert_eq!(status(&Guard::for_development(true), "GET", &[("host", host)]), None, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:6333", "127.0.0.1.evil.example", "", "a b"] {
            assert_eq!(status(&Guard::for_development(true), "GET", &[("host", host)]), Some(421), "{host}");
        }
        assert_eq!(status(&Guard::for_development(false), "GET", &[("host", "qdrant:6333")]), None);
    }

    #[test]
    fn development_guard_rejects_cross_origin_writes() {
        const HERE: (&str, &str) = ("host", "127.0.0.1:6333");
        let guard = Guard::for_development(true);
        let with = |more: (&'static str, &'static str)| status(&guard, "PUT", &[HERE, JSON, BODY, more]);
        for origin in ["http://evil.example", "https://127.0.0.1:6333", "http://127.0.0.1:8000", "null"] {
            assert_eq!(with(("origin", origin)), Some(403), "{origin}");
        }
        for site in ["cross-site", "same-site"] {
            assert_eq!(with(("sec-fetch-site", site)), Some(403), "{site}");
        }
        assert_eq!(with(("origin", "http://127.0.0.1:6333")), None);
        assert_eq!(with(("user-agent", "curl")), None);
        let remote = Guard::for_development(false);
        let foreign = [("host", "qdrant:6333"), JSON, BODY, ("origin", "http://evil.example")];
        assert_eq!(status(&remote, "PUT", &foreign), Some(403));
    }

    #[test]
    fn guard_rejects_content_types_that_forms_can_send() {
        for kind in ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/x+json"] {
            assert_eq!(status(&guard(), "POST", &[LOCAL, BODY, ("content-type", kind)]), None, "{kind}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json", ""] {
            assert_eq!(status(&guard(), "POST", &[LOCAL, BODY, ("content-type", kind)]), Some(415), "{kind}");
        }
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            assert_eq!(status(&guard(), method, &[LOCAL, BODY]), Some(415), "{method}");
        }
        assert_eq!(status(&guard(), "DELETE", &[LOCAL]), None, "no body");
        assert_eq!(status(&guard(), "POST", &[LOCAL, ("transfer-encoding", "chunked")]), Some(415));
        assert_eq!(status(&guard(), "POST", &[LOCAL, ("content-length", "0")]), None, "empty body");
    }
}
