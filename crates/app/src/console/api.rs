//! The pages' JSON API. Every function is also available as a command.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::{Extension, Json};
use futures::Stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tidewheel_core::catalog::IndexName;
use tidewheel_core::error::no_answer_within;
use tidewheel_core::filter::Filter as PointFilter;
use tidewheel_core::stage::Stage;
use tidewheel_ops::catalog::CatalogReader;
use tidewheel_ops::dead_letters::{self as letters, Filter, LetterView, Listing, OfIndex, Outcome};
use tidewheel_ops::inspect::report::Inspection;
use tidewheel_ops::search::{self, Found, SearchPorts};
use tidewheel_stores::redis::RedisStore;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::api_error::ApiError;
use super::body::{Json as Body, Parameters};
use super::guard::{Caller, Guard};
use super::replays::{self, ReplayView};
use super::watch::{Look, Viewer, Watch};
use crate::audit_log::Actor;
use crate::compose::{self, LettersAction};
use crate::connect;
use crate::exit::Failure;
use crate::settings::{Settings, parse_duration};

/// Heartbeat interval of an idle event stream. The browser reconnects after missing four.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// Maximum number of concurrent viewers.
const MAX_VIEWERS: usize = 100;

/// Maximum number of concurrent searches, inspections and lists: each may read a large part of a stream.
const MAX_QUERIES: usize = 8;

/// Timeout of a query.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum search results, and dead letters in a list.
const MAX_FOUND: usize = 100;
const MAX_LETTERS: usize = 1_000;

/// Newest entries of each stage that an inspection scans, like the command.
const SCAN: u64 = 100_000;

/// State shared by all requests. Clients connect on first use.
pub(super) struct Shared {
    guard: Arc<Guard>,
    pub(super) settings: Settings,
    pub(super) redis: RedisStore,
    pub(super) catalog: CatalogReader,
    search: SearchPorts,
    watch: Watch,
    queries: Semaphore,
}

impl Shared {
    pub(super) fn new(settings: Settings, guard: Arc<Guard>, watch: Watch) -> Result<Self, Failure> {
        let redis = connect::redis(&settings)?;
        Ok(Self {
            catalog: compose::catalog(&settings, &redis),
            redis,
            search: compose::search(&settings)?,
            queries: Semaphore::new(MAX_QUERIES),
            guard,
            settings,
            watch,
        })
    }

    fn permit(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        self.queries.try_acquire().map_err(|_| {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many concurrent queries")
                .with_hint("try again in a moment")
        })
    }
}

pub(super) type Answer<T> = Result<Json<T>, ApiError>;
pub(super) type Own = State<Arc<Shared>>;

/// Waits for an answer up to [`TIMEOUT`].
pub(super) async fn with_timeout<T, E: Into<ApiError>>(answer: impl Future<Output = Result<T, E>>) -> Answer<T> {
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(answer) => answer.map(Json).map_err(Into::into),
        Err(_) => Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, no_answer_within(TIMEOUT))),
    }
}

/// `GET /api/session`: the caller's permissions, and the backlog limits.
pub(super) async fn session(State(shared): Own, Extension(caller): Extension<Caller>) -> Json<Value> {
    let thresholds = &shared.settings.monitor.thresholds;
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "actions": shared.guard.has_actions(&caller),
        "authorized": caller.authorized(),
        "user": caller.user,
        "limits": {"stage_1": thresholds.stage_1, "stage_2": thresholds.stage_2},
    }))
}

/// `POST /api/session`: reached only with the right token.
pub(super) async fn log_in() -> Json<Value> {
    Json(json!({"authorized": true}))
}

/// `GET /api/overview`: the latest overview.
pub(super) async fn overview(State(shared): Own) -> Result<impl IntoResponse, ApiError> {
    let look = latest(&shared).await?;
    Ok(([(axum::http::header::CONTENT_TYPE, "application/json")], look.text.clone()))
}

/// The latest overview.
pub(super) async fn latest(shared: &Shared) -> Result<Arc<Look>, ApiError> {
    let look = viewer(shared)?.next(true).await;
    look.ok_or_else(|| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the console is shutting down"))
}

/// `GET /api/history`: the last hour.
pub(super) async fn history(State(shared): Own) -> Json<Value> {
    Json(shared.watch.history())
}

/// `GET /api/events`: a stream of overviews.
pub(super) async fn events(State(shared): Own) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let begun = (viewer(&shared)?, true);
    let looks = futures::stream::unfold(begun, |(mut viewer, first)| async move {
        let look = viewer.next(first).await?;
        Some((Ok(Event::default().event("look").data(&look.text)), (viewer, false)))
    });
    Ok(Sse::new(looks).keep_alive(KeepAlive::new().interval(HEARTBEAT)))
}

fn viewer(shared: &Shared) -> Result<Viewer, ApiError> {
    shared.watch.join(MAX_VIEWERS).ok_or_else(|| {
        let message = format!("too many open consoles: {MAX_VIEWERS}");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).with_hint("close one of them")
    })
}

/// Filter for dead letters from the page. Empty fields are ignored.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LetterFilter {
    stage: String,
    index: String,
    reason: String,
    id: String,
    older_than: String,
    newer_than: String,
    limit: Option<usize>,
}

impl LetterFilter {
    async fn filter(&self, shared: &Shared) -> Result<Filter, ApiError> {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        let age = |text: &String| {
            some(text)
                .map(|text| {
                    parse_duration(&text).ok_or_else(|| {
                        ApiError::bad(format!("invalid age {text:?}: expected a duration such as \"1h\""))
                    })
                })
                .transpose()
        };
        let index = match index_name(&self.index) {
            Some(name) => {
                let catalog = shared.catalog.read().await?;
                Some(OfIndex::new(&catalog, &name)?)
            }
            None => None,
        };
        Ok(Filter {
            stage: some(&self.stage).map(|name| stage(&name)).transpose()?,
            index,
            ids: some(&self.id).into_iter().collect(),
            reason: some(&self.reason),
            older_than: age(&self.older_than)?,
            newer_than: age(&self.newer_than)?,
        })
    }
}

/// The name of an index; `None` if it is empty.
fn index_name(name: &str) -> Option<IndexName> {
    (!name.is_empty()).then(|| IndexName::of_collection(name))
}

fn stage(name: &str) -> Result<Stage, ApiError> {
    let known = Stage::ALL.into_iter().find(|stage| stage.short_name() == name);
    known.ok_or_else(|| ApiError::bad(format!("invalid stage {name:?}: expected raw or embedded")))
}

/// `GET /api/dead-letters`.
pub(super) async fn letters(State(shared): Own, Parameters(params): Parameters<LetterFilter>) -> Answer<Listing> {
    let _permit = shared.permit()?;
    let limit = params.limit.unwrap_or(MAX_LETTERS).min(MAX_LETTERS);
    with_timeout(async {
        let filter = params.filter(&shared).await?;
        Ok::<_, ApiError>(letters::list(&shared.redis, &filter, limit, false).await?)
    })
    .await
}

/// `GET /api/dead-letters/{stage}/{id}`: one dead letter with its document.
pub(super) async fn letter(State(shared): Own, Path((name, id)): Path<(String, String)>) -> Answer<LetterView> {
    let _permit = shared.permit()?;
    let filter = Filter { stage: Some(stage(&name)?), ids: vec![id.clone()], ..Filter::default() };
    let Json(listing) = with_timeout(letters::list(&shared.redis, &filter, MAX_LETTERS, true)).await?;
    let found = listing.letters.into_iter().find(|letter| letter.id == id);
    let gone = || ApiError::new(StatusCode::NOT_FOUND, format!("dead letter {id} of stage {name} no longer exists"));
    found.map(Json).ok_or_else(gone)
}

/// The dead letters to act on: listed, or all that match a filter.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Selection {
    Letters { letters: Vec<LetterName> },
    Matching { filter: LetterFilter },
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
pub(super) struct LetterName {
    stage: String,
    id: String,
}

/// `POST /api/dead-letters/retry`.
pub(super) async fn retry(
    State(shared): Own,
    Extension(caller): Extension<Caller>,
    Body(selection): Body<Selection>,
) -> Answer<Outcome> {
    with_timeout(act(&shared, &caller, LettersAction::Retry, selection)).await
}

/// `POST /api/dead-letters/drop`.
pub(super) async fn discard(
    State(shared): Own,
    Extension(caller): Extension<Caller>,
    Body(selection): Body<Selection>,
) -> Answer<Outcome> {
    with_timeout(act(&shared, &caller, LettersAction::Drop, selection)).await
}

async fn act(
    shared: &Shared,
    caller: &Caller,
    action: LettersAction,
    selection: Selection,
) -> Result<Outcome, ApiError> {
    let (filter, only) = match selection {
        Selection::Matching { filter } => (filter.filter(shared).await?, None),
        Selection::Letters { letters } => {
            let filter = Filter { ids: letters.iter().map(|letter| letter.id.clone()).collect(), ..Filter::default() };
            (filter, Some(letters.into_iter().collect::<std::collections::HashSet<_>>()))
        }
    };
    // An empty list must not select all.
    if only.as_ref().is_some_and(std::collections::HashSet::is_empty) {
        return Err(ApiError::bad("missing dead letters: the list is empty"));
    }
    // An id may also match the _id of another dead letter's document.
    let keeps = |letter: &LetterView| {
        only.as_ref().is_none_or(|only| {
            only.contains(&LetterName { stage: letter.stage.short_name().to_owned(), id: letter.id.clone() })
        })
    };
    let record = match &only {
        Some(only) => {
            let names: Vec<String> =
                only.iter().take(letters::NAMED).map(|name| format!("{} {}", name.stage, name.id)).collect();
            let more = if only.len() > names.len() { ", …" } else { "" };
            format!("{}: {}{more}", only.len(), names.join(", "))
        }
        None => {
            let listing = letters::list(&shared.redis, &filter, letters::NAMED, false).await?;
            letters::named(&listing.letters, listing.matching)
        }
    };
    let actor = Actor::console(caller.user.as_deref(), caller.address);
    actor.records(&shared.redis, action.command(), record).await?;
    let pages = letters::Pages::new(&shared.redis, &filter);
    let acted = compose::act_on_letters(&shared.settings, &shared.redis, action, pages, &keeps, &|_| {}).await?;
    Ok(acted.outcome_of(only.as_ref().map_or(0, |only| only.len() as u64)))
}

/// A search request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchRequest {
    text: String,
    /// Required if there are several.
    #[serde(default)]
    index: Option<String>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    filter: Option<Value>,
}

/// `POST /api/search`. Read-only; not a GET, so that search texts stay out of access logs.
pub(super) async fn search(State(shared): Own, Body(request): Body<SearchRequest>) -> Answer<Vec<Found>> {
    let _permit = shared.permit()?;
    let limit = request.limit.unwrap_or(10).clamp(1, MAX_FOUND);
    let found = async {
        // Any error of a search is a bad gateway.
        let filter = request.filter.as_ref().map(PointFilter::parse).transpose().map_err(Failure::from)?;
        let index = request.index.as_deref().and_then(index_name);
        let found = search::find(&shared.search, index.as_ref(), &request.text, limit, filter.as_ref());
        found.await.map_err(Failure::from)
    };
    with_timeout(found).await
}

/// Identifies a document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    id: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    index: Option<String>,
}

/// `GET /api/inspect`.
pub(super) async fn inspect(State(shared): Own, Parameters(document): Parameters<Document>) -> Answer<Inspection> {
    let _permit = shared.permit()?;
    let namespace = document.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    let index = document.index.as_deref().and_then(index_name);
    with_timeout(compose::inspect(&shared.settings, &document.id, namespace, SCAN, index)).await
}

/// `GET /api/replays`.
pub(super) async fn replays(State(shared): Own) -> Answer<Vec<ReplayView>> {
    with_timeout(replays::list(&shared.redis)).await
}
