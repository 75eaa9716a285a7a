//! Sockets of the HTTP servers: address, token and certificate.

use tidewheel_core::secret::Secret;
use tidewheel_serving::{SHORTEST_TOKEN, Server, Tls};
use tokio::net::TcpListener;
use tracing::warn;

use crate::exit::Failure;
use crate::settings::Serving;

/// An HTTP server.
pub(crate) struct Surface {
    /// Name in messages.
    pub(crate) name: &'static str,
    /// Table of its settings.
    pub(crate) table: &'static str,
    /// Whether it needs a token when it is reachable from other machines.
    pub(crate) token: Need,
}

/// Whether a server needs a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The server does not start without one.
    Required,
    /// The server logs a warning without one.
    Advised,
    /// Another mechanism protects the server.
    Optional,
}

/// Binds the address and reads the certificate.
pub(crate) async fn bind(surface: &Surface, address: &str, serving: &Serving) -> Result<Server, Failure> {
    let listener = TcpListener::bind(address).await.map_err(|error| taken(surface, address, &error))?;
    secured(surface, address, listener, serving)
}

/// The failure for an address that cannot be bound.
pub(crate) fn taken(surface: &Surface, address: &str, error: &std::io::Error) -> Failure {
    let Surface { name, table, .. } = surface;
    Failure::new(format!("failed to bind {address} for {name}: {error}"))
        .with_hint(format!("stop the process that uses the address, or set {table}.listen to another one"))
}

/// Secures a bound listener with token and certificate.
pub(crate) fn secured(
    surface: &Surface,
    address: &str,
    listener: TcpListener,
    serving: &Serving,
) -> Result<Server, Failure> {
    let table = surface.table;
    let tls = Tls::load(table, &serving.tls).map_err(|error| {
        Failure::new(error.to_string())
            .with_hint(format!("set {table}.cert_file and {table}.key_file to PEM files that belong together"))
    })?;
    let server = Server::new(listener).with_tls(tls);
    if !server.is_loopback() {
        match (problem(surface, address, serving), surface.token) {
            (None, _) => {}
            (Some(failure), Need::Required) => return Err(failure),
            // A weak token is a mistake, whatever else protects the server.
            (Some(failure), _) if serving.token.is_some() => return Err(failure),
            (Some(failure), Need::Advised) => warn!("{failure}; {}", failure.hint.as_deref().unwrap_or_default()),
            (Some(_), Need::Optional) => {}
        }
    }
    Ok(server)
}

/// Returns the problem with the token of a server that is reachable from other machines. Never contains the token.
fn problem(surface: &Surface, address: &str, serving: &Serving) -> Option<Failure> {
    let table = surface.table;
    let length = serving.token.as_ref().map(Secret::reveal).map_or(0, str::len);
    let failure = match length {
        0 => Failure::new(format!("{table}.listen = {address:?} is reachable from other machines without a token")),
        length if length < SHORTEST_TOKEN => Failure::new(format!(
            "invalid {table}.token: expected at least {SHORTEST_TOKEN} characters, because {table}.listen = \
             {address:?} is reachable from other machines"
        )),
        _ => return None,
    };
    let hint = format!(
        "set {table}.token_file to a file with a long random string (openssl rand -hex 32), or listen on 127.0.0.1"
    );
    Some(failure.with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SURFACE: Surface = Surface { name: "the console", table: "console", token: Need::Required };

    fn with(token: &str) -> Serving {
        Serving { token: Some(Secret::new(token)), ..Serving::default() }
    }

    #[test]
    fn invalid_token_error_names_the_setting_and_redacts_the_token() {
        for token in ["", "hunter2", "fifteen letters"] {
            let failure = problem(&SURFACE, "0.0.0.0:9091", &with(token)).unwrap();
            let text = format!("{failure} {}", failure.hint.as_deref().unwrap());
            assert!(text.contains("console.token") && text.contains("0.0.0.0:9091"), "{text}");
            assert!(token.is_empty() || !text.contains(token), "{text}");
        }
        assert_eq!(problem(&SURFACE, "0.0.0.0:9091", &with("sixteen letters.")), None);
    }

    #[tokio::test]
    async fn non_loopback_server_refuses_a_short_token_and_a_missing_required_one() {
        let open = Surface { name: "the embedder", table: "embedder", token: Need::Advised };
        for (surface, token, accepted) in [
            (&SURFACE, None, false),
            (&SURFACE, Some("short"), false),
            (&SURFACE, Some("long enough for all"), true),
            (&open, None, true),
            (&open, Some("short"), false),
        ] {
            let serving = Serving { token: token.map(Secret::new), ..Serving::default() };
            assert_eq!(bind(surface, "0.0.0.0:0", &serving).await.is_ok(), accepted, "{token:?}");
            assert!(bind(surface, "127.0.0.1:0", &serving).await.is_ok(), "{token:?}");
        }
    }
}
