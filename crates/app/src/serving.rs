//! The sockets of our own servers: address, token and certificate.

use tidewheel_core::secret::Secret;
use tidewheel_serving::{SHORTEST_TOKEN, Server, Tls};
use tokio::net::TcpListener;
use tracing::warn;

use crate::exit::Failure;
use crate::settings::Serving;

/// One of our servers.
pub(crate) struct Surface {
    /// What messages call it.
    pub(crate) name: &'static str,
    /// The table of its settings.
    pub(crate) table: &'static str,
    /// Whether it needs a token where other machines can reach it.
    pub(crate) token: Need,
}

/// How much a server needs something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// It does not start without.
    Required,
    /// It warns without.
    Advised,
    /// Something else does the same.
    Optional,
}

/// Binds the address and reads the certificate.
pub(crate) async fn bind(surface: &Surface, address: &str, serving: &Serving) -> Result<Server, Failure> {
    let listener = TcpListener::bind(address).await.map_err(|error| taken(surface, address, &error))?;
    secured(surface, address, listener, serving)
}

/// Why an address cannot be bound.
pub(crate) fn taken(surface: &Surface, address: &str, error: &std::io::Error) -> Failure {
    let Surface { name, table, .. } = surface;
    Failure::new(format!("{name} cannot listen on {address}: {error}"))
        .with_hint(format!("stop the process that uses the address, or set {table}.listen to another one"))
}

/// The same for an address that is bound.
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
            // A token that is there and weak is a mistake, whatever else protects the server.
            (Some(failure), _) if serving.token.is_some() => return Err(failure),
            (Some(failure), Need::Advised) => warn!("{failure}; {}", failure.hint.as_deref().unwrap_or_default()),
            (Some(_), Need::Optional) => {}
        }
    }
    Ok(server)
}

/// What is wrong with the token of a server that other machines can reach. Never the token itself.
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
        "set {table}.token_file to a file with a long random text (openssl rand -hex 32), or listen on 127.0.0.1"
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
    fn a_short_or_missing_token_is_named_by_its_setting_and_not_shown() {
        for token in ["", "hunter2", "fifteen letters"] {
            let failure = problem(&SURFACE, "0.0.0.0:9091", &with(token)).unwrap();
            let text = format!("{failure} {}", failure.hint.as_deref().unwrap());
            assert!(text.contains("console.token") && text.contains("0.0.0.0:9091"), "{text}");
            assert!(token.is_empty() || !text.contains(token), "{text}");
        }
        assert_eq!(problem(&SURFACE, "0.0.0.0:9091", &with("sixteen letters.")), None);
    }

    #[tokio::test]
    async fn a_server_beyond_loopback_needs_a_token_if_it_shows_documents_or_has_a_short_one() {
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
