//! The web console: sync state and remedies in the browser.
//!
//! Guarantees: it binds loopback by default, and on other addresses shows nothing without its token; without a token it is
//! read-only; a page of another site can neither read nor act ([`guard`]); every file is embedded in the binary, and no other host is
//! contacted; it takes one overview per second for any number of open browsers, and one every five seconds with none.
//!
//! ```text
//!  Looker ──overview──▶ watch ──▶ history (an hour, fixed memory)
//!                         └─────▶ /api/events ──▶ browsers
//!                         └─────▶ /api/indexes
//!  /api/dead-letters, /api/search, /api/inspect, /api/replays, rollbacks: the same functions as the commands
//! ```

mod api;
mod api_error;
mod assets;
mod body;
mod guard;
mod history;
mod indexes;
mod replays;
mod watch;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::middleware;
use tidewheel_serving::{Routes, Server};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::api::Shared;
use self::guard::Guard;
use self::watch::Watch;
use crate::exit::Failure;
use crate::serving::{self, Need, Surface};
use crate::settings::{Console, Listen, Settings, reachable};

/// Default address.
pub(crate) const USUAL: &str = "127.0.0.1:9091";

/// Maximum request body: enough for a search with a long text, or a list of several thousand dead letters.
const MAX_BODY: usize = 256 * 1024;

/// Returns the listen address; `None` if disabled.
pub(crate) fn address(console: &Console) -> Option<String> {
    match &console.listen {
        Listen::Off => None,
        Listen::At(address) => Some(address.clone()),
        Listen::Default => Some(USUAL.to_owned()),
    }
}

/// The console's server.
const SURFACE: Surface = Surface { name: "the console", table: "console", token: Need::Required };

/// Binds the address; `None` if disabled. A taken default address disables the console instead of failing the services.
pub(crate) async fn bind(console: &Console) -> Result<Option<Server>, Failure> {
    let Some(address) = address(console) else { return Ok(None) };
    let listener = match TcpListener::bind(&address).await {
        Ok(listener) => listener,
        Err(error) if console.listen == Listen::Default => {
            warn!("console disabled: failed to listen on {address}: {error}; set `console.listen` to another address");
            return Ok(None);
        }
        Err(error) => return Err(serving::taken(&SURFACE, &address, &error)),
    };
    let behind_proxy = console.user_header.is_some() && !console.trusted_proxies.is_empty();
    let surface = Surface { token: if behind_proxy { Need::Optional } else { Need::Required }, ..SURFACE };
    serving::secured(&surface, &address, listener, &console.serving).map(Some)
}

/// Returns the console's URL on this machine.
pub(crate) fn url(server: &Server) -> Option<String> {
    let address = server.local_addr().ok()?;
    Some(format!("{}://{}/", server.scheme(), reachable(&address.to_string())))
}

/// Serves until `shutdown`.
pub(crate) async fn serve(server: Server, settings: Settings, shutdown: CancellationToken) -> Result<(), Failure> {
    let address = server.local_addr().unwrap_or_else(|_| SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0));
    let actions = settings.console.serving.token.is_some() || settings.console.user_header.is_some();
    info!(%address, actions, "console: {}://{address}", server.scheme());
    let guard = Arc::new(Guard::new(&settings.console, server.is_loopback()));
    let watch = Watch::start(&settings, shutdown.clone());
    let shared = Arc::new(Shared::new(settings, guard.clone(), watch)?);
    let router = routes(&guard).into_router().with_state(shared);
    // An open event stream must not block the shutdown.
    tokio::select! {
        () = server.serve(router, std::future::pending()) => {}
        () = shutdown.cancelled() => {}
    }
    Ok(())
}

fn routes(guard: &Arc<Guard>) -> Routes<Arc<Shared>> {
    let actions = Routes::default()
        .post("/api/session", api::log_in)
        .post("/api/dead-letters/retry", api::retry)
        .post("/api/dead-letters/drop", api::discard)
        .post("/api/indexes/{name}/rollback", indexes::roll_back)
        .map(|router| router.route_layer(middleware::from_fn_with_state(guard.clone(), guard::actions_require_token)));
    let reads = Routes::default()
        .get("/api/session", api::session)
        .get("/api/overview", api::overview)
        .get("/api/history", api::history)
        .get("/api/events", api::events)
        .get("/api/indexes", indexes::list)
        .get("/api/indexes/{name}", indexes::index)
        .get("/api/dead-letters", api::letters)
        .get("/api/dead-letters/{stage}/{id}", api::letter)
        .post("/api/search", api::search)
        .get("/api/inspect", api::inspect)
        .get("/api/replays", api::replays)
        .map(|router| {
            router.route_layer(middleware::from_fn_with_state(guard.clone(), guard::reads_may_require_token))
        });
    actions.merge(reads).map(|router| {
        router
            .fallback(assets::serve)
            .method_not_allowed_fallback(api_error::wrong_method)
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(middleware::from_fn_with_state(guard.clone(), guard::own_pages_only))
    })
}

#[cfg(test)]
mod tests {
    use tidewheel_testkit::openapi;

    use super::*;
    use crate::settings::Serving;

    #[test]
    fn openapi_document_lists_exactly_the_served_routes() {
        let (listen, serving) = (Listen::Default, Serving::default());
        let console = Console { listen, serving, user_header: None, trusted_proxies: Vec::new() };
        let routes = routes(&Arc::new(Guard::new(&console, true)));
        assert_eq!(*routes.names(), openapi::operations("console.yaml"));
    }
}
