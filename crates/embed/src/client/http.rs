//! The HTTP client of both embedders, and the only mapping from status codes to error classes.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde_json::Value;
use tidewheel_core::address;
use tidewheel_core::error::{Cause, ErrorClass, PortError, Server, with_causes};

use super::length;
use tidewheel_core::tls::Pem;

/// Connect timeout: a reachable server accepts within milliseconds, even over a WAN.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Minimum retry delay for an account without credit. Recovers without a restart once credit is added.
const QUOTA_PAUSE: Duration = Duration::from_secs(60);

/// Maximum response size: 256 vectors of 4,096 numbers take about 12 MiB as JSON.
const MOST: usize = 64 << 20;

/// Maximum characters of a non-JSON response quoted in an error message.
const EXCERPT: usize = 200;

/// Creates a pooled client for this address.
pub(super) fn client(address: &str, timeout: Duration, pem: &Pem) -> Result<Client, PortError> {
    tidewheel_http::secure(tidewheel_http::builder(address), pem)
        .map_err(|error| error.with_hint("check embedding.ca_file, embedding.cert_file and embedding.key_file"))?
        .timeout(timeout)
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .tcp_nodelay(true)
        .build()
        .map_err(|cause| PortError::fatal(format!("failed to set up the HTTP client: {}", with_causes(&cause))))
}

/// Parses `embedding.url`.
pub(super) fn parse(url: &str) -> Result<Url, PortError> {
    let hint = "set embedding.url to a URL like http://127.0.0.1:8080";
    let parsed = Url::parse(url).map_err(|cause| invalid(url, &cause.to_string()).with_hint(hint))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
        return Err(invalid(url, "the scheme must be http or https").with_hint(hint));
    }
    Ok(parsed)
}

fn invalid(url: &str, cause: &str) -> PortError {
    PortError::fatal(format!("invalid embedding.url {:?}: {cause}", address::shown(url, &[address::HTTP])))
}

/// A response of any status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// Returns a successful response, or the classified error.
    pub(super) fn good(self, url: &Url) -> Result<Self, PortError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let (message, code) = explanation(&self.body);
        let too_long = length::is_too_long(self.status, code.as_deref(), &message);
        let refused = refused(url, self.status, &self.headers, &self.body, SystemTime::now());
        let cause = if too_long { Cause::TooLong } else { cause(self.status) };
        Err(PortError { class: if too_long { ErrorClass::Poison } else { refused.class }, ..refused }
            .because(Server::EMBEDDER, cause))
    }
}

/// Sends a request and reads the complete response.
pub(super) async fn send(request: RequestBuilder, url: &Url) -> Result<Answer, PortError> {
    let failed = |cause: reqwest::Error| {
        let (timed_out, cause) = (cause.is_timeout(), cause.without_url());
        let message = format!("no response from the embedder at {}: {}", shown(url), with_causes(&cause));
        let of = if timed_out { Cause::Timeout } else { Cause::Unreachable };
        PortError::transient(message)
            .with_hint("check embedding.url and that the embedder is running")
            .because(Server::EMBEDDER, of)
            .with_source(cause)
    };
    let mut response = request.send().await.map_err(failed)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = BytesMut::new();
    while let Some(part) = response.chunk().await.map_err(failed)? {
        if body.len() + part.len() > MOST {
            return Err(invalid_response(url, format_args!("larger than {} MiB", MOST >> 20)));
        }
        body.extend_from_slice(&part);
    }
    Ok(Answer { status, headers, body: body.freeze() })
}

/// Returns the error for a malformed response: possibly from another service or a proxy at this address.
pub(super) fn invalid_response(url: &Url, cause: impl std::fmt::Display) -> PortError {
    PortError::transient(format!("invalid response from the embedder at {}: {cause}", shown(url)))
        .with_hint("check with curl which service runs at embedding.url")
        .because(Server::EMBEDDER, Cause::Other)
}

/// Returns the address with secrets redacted.
pub(super) fn shown(url: &Url) -> String {
    address::shown(url.as_str(), &[address::HTTP])
}

/// Returns the cause for error metrics.
fn cause(status: StatusCode) -> Cause {
    match status.as_u16() {
        401 | 403 => Cause::Denied,
        408 | 504 => Cause::Timeout,
        429 | 503 => Cause::Busy,
        // A firewall may redirect a request because of one text.
        300..=499 => Cause::Refused,
        _ => Cause::Other,
    }
}

/// Classifies an error response.
fn refused(url: &Url, status: StatusCode, headers: &HeaderMap, body: &[u8], now: SystemTime) -> PortError {
    if let Some(target) = tidewheel_http::redirect(url, status, headers) {
        let message = format!("the embedder at {} redirects to {target} ({})", shown(url), status.as_u16());
        return PortError::fatal(message).with_hint("set embedding.url to the redirect target");
    }
    let (cause, code) = explanation(body);
    let message = format!("the embedder at {} returned {}: {cause}", shown(url), status.as_u16());
    match status.as_u16() {
        // The account is out of credit. Transient, so that the service recovers once credit is added.
        429 if code.as_deref() == Some("insufficient_quota") => PortError::transient(message)
            .with_hint("add credit to the account of embedding.api_key")
            .with_retry_after(Some(retry_after(headers, now).unwrap_or(QUOTA_PAUSE).max(QUOTA_PAUSE))),
        429 | 503 => PortError::transient(message).with_retry_after(retry_after(headers, now)),
        400 | 413 | 422 => PortError::poison(message),
        401 | 403 => {
            PortError::fatal(message).with_hint("check embedding.token, or embedding.api_key for a remote service")
        }
        404 => PortError::fatal(message).with_hint("check embedding.url and embedding.model"),
        // text-embeddings-inference: inference failed, for example out of memory.
        424 => PortError::transient(message).with_hint("check the embedder's log"),
        408 | 409 | 425 | 500.. => PortError::transient(message).with_retry_after(retry_after(headers, now)),
        _ => PortError::fatal(message).with_hint("check with curl which service runs at embedding.url"),
    }
}

/// Extracts the message of an error response, and its code if present.
fn explanation(body: &[u8]) -> (String, Option<String>) {
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        let text: String = String::from_utf8_lossy(body).trim().chars().take(EXCERPT).collect();
        return (if text.is_empty() { "no error message".to_owned() } else { text }, None);
    };
    let error = json.get("error").unwrap_or(&json);
    let message = [error, &error["message"], &json["message"], &json["detail"]].into_iter().find_map(Value::as_str);
    let code = [&error["code"], &error["type"]].into_iter().find_map(Value::as_str);
    (message.map_or_else(|| json.to_string().chars().take(EXCERPT).collect(), str::to_owned), code.map(str::to_owned))
}

/// Returns the requested retry delay: `Retry-After` in seconds or as a date, or the latest rate-limit reset of
/// OpenAI-compatible services.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(milliseconds) = header("retry-after-ms").and_then(|text| text.parse().ok()) {
        return Some(Duration::from_millis(milliseconds));
    }
    if let Some(text) = header(RETRY_AFTER.as_str()) {
        if let Ok(seconds) = text.parse::<f64>() {
            return Duration::try_from_secs_f64(seconds).ok();
        }
        if let Ok(date) = httpdate::parse_http_date(text) {
            return Some(date.duration_since(now).unwrap_or(Duration::ZERO));
        }
    }
    ["x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"].into_iter().filter_map(|name| span(header(name)?)).max()
}

/// Parses a Go duration: `6m0s`, `1.5s`, `20ms`, `1h2m3s`.
fn span(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|sign: char| !sign.is_ascii_digit() && sign != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|sign: char| sign.is_ascii_digit()).unwrap_or(rest.len());
        seconds += number
            * match &rest[..letters] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                _ => return None,
            };
        rest = &rest[letters..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn refusal(status: u16, pairs: &[(&'static str, &str)], body: &str) -> PortError {
        let url = parse("http://user:password@host/encode?key=secret").unwrap();
        refused(&url, StatusCode::from_u16(status).unwrap(), &headers(pairs), body.as_bytes(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn status_codes_map_to_error_classes() {
        use ErrorClass::{Fatal, Poison, Transient};
        let classes = [
            (400, Poison),
            (401, Fatal),
            (403, Fatal),
            (404, Fatal),
            (405, Fatal),
            (408, Transient),
            (413, Poison),
            (422, Poison),
            (424, Transient),
            (429, Transient),
            (500, Transient),
            (502, Transient),
            (503, Transient),
            (504, Transient),
        ];
        for (status, class) in classes {
            assert_eq!(refusal(status, &[], "").class, class, "{status}");
        }
    }

    #[test]
    fn error_quotes_server_message_and_redacts_url_secrets() {
        let ours = refusal(400, &[], r#"{"error": "unknown field"}"#);
        assert_eq!(ours.message, "the embedder at http://***@host/encode?*** returned 400: unknown field");
        let openai = refusal(400, &[], r#"{"error": {"message": "too long", "code": "x"}}"#);
        assert!(openai.message.ends_with("400: too long"));
        assert!(refusal(502, &[], "<html>bad gateway</html>").message.ends_with("502: <html>bad gateway</html>"));
        assert!(refusal(500, &[], "").message.ends_with("500: no error message"));
    }

    #[test]
    fn retry_delay_follows_response_headers() {
        let wait = |pairs: &[(&'static str, &str)]| refusal(429, pairs, "").retry_after;
        assert_eq!(wait(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(wait(&[("retry-after", "Thu, 01 Jan 1970 00:00:09 GMT")]), Some(Duration::from_secs(9)));
        assert_eq!(wait(&[("retry-after-ms", "250"), ("retry-after", "7")]), Some(Duration::from_millis(250)));
        let resets = [("x-ratelimit-reset-requests", "120ms"), ("x-ratelimit-reset-tokens", "6m0.5s")];
        assert_eq!(wait(&resets), Some(Duration::from_millis(360_500)));
        assert_eq!(wait(&[("retry-after", "soon")]), None);
        assert_eq!(wait(&[]), None);
    }

    #[test]
    fn redirect_error_is_fatal_and_names_target() {
        let error = refusal(308, &[("location", "https://host/encode?key=secret")], "<html>moved</html>");
        assert_eq!(error.class, ErrorClass::Fatal);
        let expected = "the embedder at http://***@host/encode?*** redirects to https://host/encode?*** (308)";
        assert_eq!(error.message, expected);
        assert!(error.hint.is_some_and(|hint| hint.contains("embedding.url")));
    }

    #[test]
    fn exhausted_quota_is_transient_with_long_retry_delay() {
        let error =
            refusal(429, &[("retry-after", "1")], r#"{"error": {"message": "m", "code": "insufficient_quota"}}"#);
        assert_eq!((error.class, error.retry_after), (ErrorClass::Transient, Some(QUOTA_PAUSE)));
    }

    #[test]
    fn non_http_urls_are_rejected() {
        for wrong in ["", "127.0.0.1:8080", "localhost", "redis://host", "http://"] {
            assert_eq!(parse(wrong).unwrap_err().class, ErrorClass::Fatal, "{wrong:?}");
        }
    }
}
