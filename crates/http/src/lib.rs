//! The HTTP client for all outgoing requests: embedders, trace collectors, webhooks and model hubs.
//!
//! Guarantees: requests to loopback never go through the proxy of `HTTP_PROXY`, `HTTPS_PROXY` or `ALL_PROXY`, and
//! `NO_PROXY` is honoured; redirects are never followed, so that no request reaches an unconfigured server and no `POST`
//! becomes a `GET`; errors name the redirect target.

use std::net::IpAddr;

use reqwest::header::{HeaderMap, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Identity, StatusCode, Url};
use tidewheel_core::address::{self, HTTP};
use tidewheel_core::error::{PortError, with_causes};
use tidewheel_core::tls::Pem;

/// Returns a client builder for requests to this address.
pub fn builder(address: &str) -> ClientBuilder {
    // A provider may already be installed; either works.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder =
        Client::builder().user_agent(concat!("tidewheel/", env!("CARGO_PKG_VERSION"))).redirect(Policy::none());
    if is_loopback(address) { builder.no_proxy() } else { builder }
}

/// Applies TLS settings: trusts only the private CA, if one is set, and presents the client certificate, if one is set.
///
/// # Errors
/// Fatal if a certificate or the key is invalid.
pub fn secure(mut builder: ClientBuilder, pem: &Pem) -> Result<ClientBuilder, PortError> {
    let invalid = |cause: reqwest::Error| PortError::fatal(format!("failed to set up TLS: {}", with_causes(&cause)));
    if let Some(ca) = &pem.ca {
        builder = builder.tls_certs_only(Certificate::from_pem_bundle(ca).map_err(invalid)?);
    }
    if let Some((cert, key)) = &pem.identity {
        let both = [cert.as_slice(), b"\n", key.as_slice()].concat();
        builder = builder.identity(Identity::from_pem(&both).map_err(invalid)?);
    }
    Ok(builder)
}

/// Whether the address is loopback, which no proxy can reach.
fn is_loopback(address: &str) -> bool {
    let Some(url) = Url::parse(address).ok() else { return false };
    let Some(host) = url.host_str() else { return false };
    let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) => ip.is_loopback() || ip.is_unspecified(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// A redirect target that is not a URL.
const UNNAMED: &str = "an unnamed address";

/// Returns the redirect target with secrets redacted; `None` if the response is not a redirect.
pub fn redirect(asked: &Url, status: StatusCode, headers: &HeaderMap) -> Option<String> {
    let target = target(asked, status, headers)?;
    Some(target.map_or_else(|| UNNAMED.to_owned(), |target| address::shown(target.as_str(), &[HTTP])))
}

/// Returns only the origin of the redirect target, for URLs whose path may be secret.
pub fn redirect_host(asked: &Url, status: StatusCode, headers: &HeaderMap) -> Option<String> {
    let target = target(asked, status, headers)?;
    Some(target.map_or_else(|| UNNAMED.to_owned(), |target| address::origin(target.as_str(), &[HTTP])))
}

fn target(asked: &Url, status: StatusCode, headers: &HeaderMap) -> Option<Option<Url>> {
    if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
        return None;
    }
    let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
    Some(location.and_then(|location| asked.join(location).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_are_detected() {
        for address in [
            "http://127.0.0.1:8080",
            "http://127.8.9.1",
            "https://localhost/x",
            "http://LOCALHOST",
            "http://embedder.localhost:1",
            "http://[::1]:8080",
            "http://[::ffff:127.0.0.1]",
            "http://0.0.0.0:8080",
        ] {
            assert!(is_loopback(address), "{address}");
        }
        for address in ["http://10.0.0.1", "http://localhost.example.com", "http://notlocalhost", "localhost", ""] {
            assert!(!is_loopback(address), "{address}");
        }
    }

    #[test]
    fn redirect_target_is_reported_without_secrets() {
        let asked = Url::parse("http://far/v1/embed?key=a").unwrap();
        let to = |status: StatusCode, location: Option<&str>| {
            let headers = location.map(|location| (LOCATION, location.parse().unwrap())).into_iter().collect();
            (redirect(&asked, status, &headers), redirect_host(&asked, status, &headers))
        };
        let shown = |text: &str, host: &str| (Some(text.to_owned()), Some(host.to_owned()));
        assert_eq!(
            to(StatusCode::MOVED_PERMANENTLY, Some("https://far/v1/embed?key=s3cret")),
            shown("https://far/v1/embed?***", "https://far")
        );
        assert_eq!(to(StatusCode::PERMANENT_REDIRECT, Some("/login")), shown("http://far/login", "http://far"));
        let unnamed = "an unnamed address";
        assert_eq!(to(StatusCode::FOUND, None), shown(unnamed, unnamed));
        assert_eq!(to(StatusCode::OK, Some("/x")), (None, None));
        assert_eq!(to(StatusCode::NOT_MODIFIED, None), (None, None));
    }
}
