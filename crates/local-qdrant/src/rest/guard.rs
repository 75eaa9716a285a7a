//! Protects the REST API against requests from web pages.
//!
//! Every page in the user's browser can send requests to loopback:
//! - a foreign `Host` (DNS rebinding) is rejected, so that no such page reads a response;
//! - a cross-origin write is rejected: this server has no pages of its own;
//! - a body must have the type JSON, which a page cannot send without a preflight request.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Rejects requests from web pages. `State`: whether the listener is on loopback.
pub(super) async fn reject_web_pages(State(private): State<bool>, request: Request, next: Next) -> Response {
    match check(&request, private) {
        Ok(()) => next.run(request).await,
        Err((status, reason)) => {
            (status, axum::Json(json!({"status": {"error": reason}, "time": 0.0}))).into_response()
        }
    }
}

fn check(request: &Request, private: bool) -> Result<(), (StatusCode, &'static str)> {
    let headers = request.headers();
    let authority = text(headers, header::HOST)
        .or_else(|| request.uri().authority().map(axum::http::uri::Authority::as_str))
        .unwrap_or_default();
    if private && !is_local(authority) {
        return Err((StatusCode::MISDIRECTED_REQUEST, "Host must be an IP address or localhost"));
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(());
    }
    let foreign = text(headers, header::ORIGIN).is_some_and(|origin| !is_same(origin, authority))
        || text(headers, HeaderName::from_static("sec-fetch-site"))
            .is_some_and(|site| site != "same-origin" && site != "none");
    if foreign {
        return Err((StatusCode::FORBIDDEN, "requests from web pages are forbidden"));
    }
    if has_body(headers) && !is_json(text(headers, header::CONTENT_TYPE).unwrap_or_default()) {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json"));
    }
    Ok(())
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether the host is an IP address or `localhost`, which a foreign page cannot have as its own host.
fn is_local(authority: &str) -> bool {
    let Some(uri) = authority.parse::<Uri>().ok() else { return false };
    let host = uri.host().unwrap_or_default();
    let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    name.parse::<std::net::IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
}

fn is_same(origin: &str, authority: &str) -> bool {
    origin.strip_prefix("http://").is_some_and(|origin| origin.eq_ignore_ascii_case(authority))
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || text(headers, header::CONTENT_LENGTH).is_some_and(|length| length.trim() != "0")
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const HERE: (&str, &str) = ("host", "127.0.0.1:6333");
    const JSON: (&str, &str) = ("content-type", "application/json");

    fn status(method: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().method(method).uri("/collections/docs/points");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(Body::empty()).unwrap(), true).err().map(|(status, _)| status.as_u16())
    }

    #[test]
    fn host_other_than_ip_address_or_localhost_is_rejected() {
        for host in ["127.0.0.1:6333", "localhost:6333", "LOCALHOST", "[::1]:6333", "192.168.1.2"] {
            assert_eq!(status("GET", &[("host", host)]), None, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:6333", "127.0.0.1.evil.example", "", "a b"] {
            assert_eq!(status("GET", &[("host", host)]), Some(421), "{host}");
        }
        assert_eq!(status("GET", &[]), Some(421));
    }

    #[test]
    fn cross_origin_write_is_rejected() {
        let with = |more: (&'static str, &'static str)| status("PUT", &[HERE, JSON, ("content-length", "2"), more]);
        for origin in ["http://evil.example", "https://127.0.0.1:6333", "http://127.0.0.1:8000", "null"] {
            assert_eq!(with(("origin", origin)), Some(403), "{origin}");
        }
        for site in ["cross-site", "same-site"] {
            assert_eq!(with(("sec-fetch-site", site)), Some(403), "{site}");
        }
        assert_eq!(with(("origin", "http://127.0.0.1:6333")), None);
        assert_eq!(with(("user-agent", "curl")), None);
    }

    #[test]
    fn body_without_json_content_type_is_rejected() {
        let with = |content: &'static str| status("POST", &[HERE, ("content-length", "2"), ("content-type", content)]);
        for content in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"] {
            assert_eq!(with(content), Some(415), "{content}");
        }
        assert_eq!(with("application/json; charset=utf-8"), None);
        assert_eq!(status("POST", &[HERE, ("transfer-encoding", "chunked")]), Some(415));
        assert_eq!(status("DELETE", &[HERE]), None, "no body");
        assert_eq!(status("POST", &[HERE, ("content-length", "0")]), None);
    }
}
