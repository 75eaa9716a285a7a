//! The HTTP client of every request that tidewheel sends: to embedders, collectors of traces, webhooks and model hubs.
//!
//! Guarantees: the proxy of `HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY` never gets what is meant for this machine, and
//! `NO_PROXY` counts; no redirect is followed, so that nothing goes where nobody sent it and no `POST` becomes a `GET`;
//! an error names where a redirect leads.

use std::net::IpAddr;

use reqwest::header::{HeaderMap, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, StatusCode, Url};
use tidewheel_core::address;

/// Begins a client for requests to this address.
pub fn builder(address: &str) -> ClientBuilder {
    // Another part of the process may have installed a provider before: either does.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder =
        Client::builder().user_agent(concat!("tidewheel/", env!("CARGO_PKG_VERSION"))).redirect(Policy::none());
    if is_loopback(address) { builder.no_proxy() } else { builder }
}

/// Whether the address is one of this machine, which no proxy can reach.
fn is_loopback(address: &str) -> bool {
    let Some(url) = Url::parse(address).ok() else { return false };
    let Some(host) = url.host_str() else { return false };
    let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) => ip.is_loopback() || ip.is_unspecified(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Where an answer redirects to, as it may be shown; `None` if the answer is no redirect.
pub fn redirect(asked: &Url, status: StatusCode, headers: &HeaderMap) -> Option<String> {
    let target = target(asked, status, headers)?;
    Some(target.map_or_else(|| "an unnamed address".to_owned(), |target| address::shown(target.as_str())))
}

/// The same with the target's host alone, where its path may be a secret too.
pub fn redirect_host(asked: &Url, status: StatusCode, headers: &HeaderMap) -> Option<String> {
    let target = target(asked, status, headers)?;
    Some(target.map_or_else(|| "an unnamed address".to_owned(), |target| address::origin(target.as_str())))
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
    fn addresses_of_this_machine_are_recognised() {
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
    fn redirect_names_its_target_without_secrets() {
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
