//! Data directory of the local stack, and the API key of its Qdrant.

use std::net::IpAddr;
use std::path::PathBuf;

use tidewheel_core::secret::Secret;
use tidewheel_local::stack::ApiKey;

use crate::exit::Failure;
use crate::settings::Settings;

/// The setting, or the user's default data directory.
pub(crate) fn directory(set: Option<&str>) -> Result<PathBuf, Failure> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = set
        .map(PathBuf::from)
        .or_else(|| Some(variable("XDG_DATA_HOME")?.join("tidewheel")))
        .or_else(|| Some(variable("HOME")?.join(".local/share/tidewheel")))
        .unwrap_or_else(|| ".tidewheel".into());
    std::path::absolute(&directory)
        .map_err(|error| Failure::new(format!("invalid data directory {}: {error}", directory.display())))
}

/// The API key for `qdrant.url`: the setting, or, for the Qdrant of `up` at its default address, the key in its data directory.
pub(crate) fn qdrant_key(settings: &Settings) -> Option<Secret> {
    settings.qdrant.api_key.clone().or_else(|| {
        if !is_the_local_one(settings.qdrant.url.reveal(), settings.local.qdrant_grpc_port) {
            return None;
        }
        let data = directory(settings.local.data.as_deref()).ok()?;
        ApiKey::read(&data).map(|key| Secret::new(key.reveal()))
    })
}

/// Whether `url` is the address of `up`'s Qdrant. The key is sent nowhere else.
fn is_the_local_one(url: &str, port: u16) -> bool {
    let Some(rest) = url.strip_prefix("http://").or_else(|| (!url.contains("://")).then_some(url)) else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((host, given)) = authority.rsplit_once(':') else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    loopback && given.parse() == Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_qdrant_key_is_sent_only_to_its_own_address() {
        for url in ["http://127.0.0.1:6334", "http://localhost:6334/", "127.0.0.1:6334", "http://[::1]:6334"] {
            assert!(is_the_local_one(url, 6334), "{url}");
        }
        for url in [
            "http://127.0.0.1:6335",
            "https://127.0.0.1:6334",
            "http://qdrant:6334",
            "http://localhost.evil.example:6334",
            "http://127.0.0.1:6334@evil.example:6334",
            "http://evil.example/?127.0.0.1:6334",
            "localhost",
            "",
        ] {
            assert!(!is_the_local_one(url, 6334), "{url}");
        }
    }
}
