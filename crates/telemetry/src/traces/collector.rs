//! The OTLP collector: address, headers and responses.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use percent_encoding::percent_decode_str;
use prost::Message as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use tidewheel_core::address;
use tidewheel_core::error::{PortError, with_causes};
use tidewheel_core::ports::PortResult;
use tidewheel_core::secret::Secret;

use super::TracesOptions;

/// Maximum bytes read of a response.
const ANSWER: usize = 64 << 10;

/// A client for OTLP over HTTP.
pub(super) struct Collector {
    client: Client,
    url: Url,
}

/// Why a request failed.
pub(super) struct ExportError {
    pub(super) cause: String,
    /// Whether a retry may succeed.
    pub(super) again: bool,
    /// Number of rejected spans; `None` for all.
    pub(super) spans: Option<u64>,
}

impl Collector {
    /// # Errors
    /// If the endpoint, the headers or the TLS files are invalid.
    pub(super) fn new(options: &TracesOptions) -> PortResult<Self> {
        let url = address(options.endpoint.reveal(), options.endpoint_is_whole).ok_or_else(|| {
            PortError::fatal("invalid traces.endpoint: expected an http or https URL")
                .with_hint("set the collector's base URL, such as http://127.0.0.1:4318")
        })?;
        let text = options.headers.as_ref().map(Secret::reveal).unwrap_or_default();
        let headers = headers(text, options.headers_are_encoded).ok_or_else(|| {
            PortError::fatal("invalid traces.headers: expected name=value pairs")
                .with_hint("separate the pairs by commas")
        })?;
        let pem = options.tls.read("traces.")?;
        let client = tidewheel_http::secure(tidewheel_http::builder(url.as_str()), &pem)?
            .timeout(options.timeout)
            .default_headers(headers)
            .build()
            .map_err(|error| PortError::fatal(format!("failed to set up traces: {}", error.without_url())))?;
        Ok(Self { client, url })
    }

    /// Returns the URL without credentials.
    pub(super) fn shown(&self) -> String {
        address::shown(self.url.as_str(), &[address::HTTP])
    }

    /// Sends one request.
    pub(super) async fn post(&self, body: Bytes) -> Result<(), ExportError> {
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/x-protobuf").body(body);
        let failed =
            |error: reqwest::Error| ExportError { cause: with_causes(&error.without_url()), again: true, spans: None };
        let mut answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        if let Some(target) = tidewheel_http::redirect(&self.url, status, answer.headers()) {
            let cause = format!(
                "the collector redirects to {target} ({}): set traces.endpoint to that address",
                status.as_u16()
            );
            return Err(ExportError { cause, again: false, spans: None });
        }
        if !status.is_success() {
            // Retryable according to the protocol.
            let again = matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            );
            return Err(ExportError {
                cause: format!("the collector returned {}", status.as_u16()),
                again,
                spans: None,
            });
        }
        let mut text = Vec::new();
        while text.len() < ANSWER {
            // The spans were accepted: a truncated response does not matter.
            let Ok(Some(chunk)) = answer.chunk().await else { break };
            text.extend_from_slice(&chunk);
        }
        let partial = ExportTraceServiceResponse::decode(&text[..]).ok().and_then(|answer| answer.partial_success);
        match partial {
            Some(partial) if partial.rejected_spans > 0 => {
                let cause =
                    format!("the collector rejected {} spans: {}", partial.rejected_spans, partial.error_message);
                Err(ExportError { cause, again: false, spans: u64::try_from(partial.rejected_spans).ok() })
            }
            _ => Ok(()),
        }
    }
}

/// Returns the traces URL for a base URL or a whole one.
fn address(endpoint: &str, is_whole: bool) -> Option<Url> {
    let mut url = Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    if !is_whole && !url.path().ends_with("/v1/traces") {
        url.path_segments_mut().ok()?.pop_if_empty().extend(["v1", "traces"]);
    }
    Some(url)
}

/// Parses `name=value,name=value`; `None` if invalid.
fn headers(text: &str, encoded: bool) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for header in text.split(',').map(str::trim).filter(|header| !header.is_empty()) {
        let (name, value) = header.split_once('=')?;
        let name: HeaderName = name.trim().parse().ok()?;
        let mut value: HeaderValue = match encoded {
            true => percent_decode_str(value.trim()).decode_utf8().ok()?.parse().ok()?,
            false => value.trim().parse().ok()?,
        };
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_added_if_missing() {
        for (given, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://far/otlp/", "https://far/otlp/v1/traces"),
            ("http://far/v1/traces", "http://far/v1/traces"),
            ("http://far/?key=1", "http://far/v1/traces?key=1"),
        ] {
            assert_eq!(address(given, false).unwrap().as_str(), url);
        }
        assert!(address("grpc://far:4317", false).is_none() && address("far:4318", false).is_none());
        assert_eq!(address("http://far/spans", true).unwrap().as_str(), "http://far/spans");
    }

    #[test]
    fn headers_are_parsed_and_marked_sensitive() {
        let read = headers("authorization=Basic YTpi==, api-key = k ,", false).unwrap();
        assert_eq!(read["authorization"], "Basic YTpi==");
        assert_eq!(read["api-key"], "k");
        assert!(read.values().all(HeaderValue::is_sensitive));
        assert!(headers("", false).unwrap().is_empty());
        assert_eq!(headers("authorization=Basic%20YTpi", true).unwrap()["authorization"], "Basic YTpi");
        assert_eq!(headers("authorization=Basic%20YTpi", false).unwrap()["authorization"], "Basic%20YTpi");
        for wrong in ["token", "a b=c", "a=\u{7}"] {
            assert!(headers(wrong, false).is_none(), "{wrong:?} was accepted");
        }
    }
}
