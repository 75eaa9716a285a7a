//! The web console: a page in the browser that answers whether the index is right, and what to do if not.
//!
//! Guarantees: it binds loopback unless told otherwise, and beyond it shows nothing without its token; without a token nothing can
//! be changed; a page of another site can neither read nor act ([`guard`]); every file comes out of the binary and nothing is asked
//! of any other host; a browser that watches costs one look a second, however many there are, and none costs one every five.
//!
//! ```text
//!  Looker ──a look──▶ watch ──▶ history (an hour, fixed memory)
//!                       └─────▶ /api/events ──▶ browsers
//!  /api/dead-letters, /api/search, /api/trace, /api/replays: the same functions as the commands
//! ```

mod api;
mod assets;
mod body;
mod guard;
mod history;
mod refusal;
mod replays;
mod watch;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::response::Redirect;
use axum::routing::{get, post};
use axum::{Router, middleware};
use tidewheel_serving::Server;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::api::Shared;
use self::guard::Guard;
use self::watch::Watch;
use crate::exit::Failure;
use crate::serving::{self, Need, Surface};
use crate::settings::{Console, Listen, Settings, reachable};

/// Where it listens if nobody says otherwise.
pub(crate) const USUAL: &str = "127.0.0.1:9091";

/// The largest request: a search for a long text, or a list of some thousand letters.
const MOST_BODY: usize = 256 * 1024;

/// Where it listens; `None` if it is off.
pub(crate) fn address(console: &Console) -> Option<String> {
    match &console.listen {
        Listen::Off => None,
        Listen::At(address) => Some(address.clone()),
        Listen::Default => Some(USUAL.to_owned()),
    }
}

/// Its server.
const SURFACE: Surface = Surface { name: "the console", table: "console", token: Need::Required };

/// Takes the address; `None` if it is off. Services do not stay away because the usual address of the console is taken.
pub(crate) async fn bind(console: &Console) -> Result<Option<Server>, Failure> {
    let Some(address) = address(console) else { return Ok(None) };
    let listener = match TcpListener::bind(&address).await {
        Ok(listener) => listener,
        Err(error) if console.listen == Listen::Default => {
            warn!("no console: {address} cannot be listened on ({error}); console.listen chooses another address");
            return Ok(None);
        }
        Err(error) => return Err(serving::taken(&SURFACE, &address, &error)),
    };
    let behind_proxy = console.user_header.is_some() && !console.trusted_proxies.is_empty();
    let surface = Surface { token: if behind_proxy { Need::Optional } else { Need::Required }, ..SURFACE };
    serving::secured(&surface, &address, listener, &console.serving).map(Some)
}

/// Leads who opens the operations server in a browser to the console.
pub(crate) fn signpost(console: Option<&Server>) -> Router {
    let Some((server, address)) = console.and_then(|server| Some((server, server.local_addr().ok()?))) else {
        return Router::new();
    };
    let address = format!("{}://{}/", server.scheme(), reachable(&address.to_string()));
    Router::new().route("/", get(async move || Redirect::temporary(&address)))
}

/// Serves until `shutdown`.
pub(crate) async fn serve(server: Server, settings: Settings, shutdown: CancellationToken) -> Result<(), Failure> {
    let address = server.local_addr().unwrap_or_else(|_| SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0));
    let actions = settings.console.serving.token.is_some() || settings.console.user_header.is_some();
    info!(%address, actions, "console: {}://{address}", server.scheme());
    let guard = Guard::new(&settings.console, server.is_loopback());
    let watch = Watch::start(&settings, shutdown.clone());
    let router = router(Shared::new(settings, guard, watch)?);
    // A browser that watches must not hold up the shutdown.
    tokio::select! {
        () = server.serve(router, std::future::pending()) => {}
        () = shutdown.cancelled() => {}
    }
    Ok(())
}

fn router(shared: Shared) -> Router {
    let shared = Arc::new(shared);
    let actions = Router::new()
        .route("/api/session", post(api::log_in))
        .route("/api/dead-letters/retry", post(api::retry))
        .route("/api/dead-letters/drop", post(api::discard))
        .route_layer(middleware::from_fn_with_state(shared.clone(), guard::actions_need_the_token));
    let reads = Router::new()
        .route("/api/session", get(api::session))
        .route("/api/overview", get(api::overview))
        .route("/api/history", get(api::history))
        .route("/api/events", get(api::events))
        .route("/api/dead-letters", get(api::letters))
        .route("/api/dead-letters/{stage}/{id}", get(api::letter))
        .route("/api/search", post(api::search))
        .route("/api/trace", get(api::trace))
        .route("/api/replays", get(api::replays))
        .route_layer(middleware::from_fn_with_state(shared.clone(), guard::reads_may_need_the_token));
    actions
        .merge(reads)
        .fallback(assets::serve)
        .method_not_allowed_fallback(refusal::wrong_method)
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .layer(middleware::from_fn_with_state(shared.clone(), guard::own_pages_only))
        .with_state(shared)
}
