//! The JSON API of the pages. Every function is one that a command has as well.

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
use tidewheel_core::ports::{Embedder, PortResult};
use tidewheel_stores::qdrant::QdrantIndex;
use tidewheel_stores::redis::RedisStore;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::body::{Json as Body, Parameters};
use super::guard::{Caller, Guard};
use super::refusal::Refusal;
use super::replays::{self, ReplayView};
use super::watch::{Viewer, Watch};
use crate::audit_log::Actor;
use crate::cli::StageName;
use crate::commands::dead_letters::letters::{self, Filter, LetterView, Listing, Outcome};
use crate::commands::dead_letters::reread;
use crate::commands::search::{self, Found};
use crate::commands::trace::{self, facts::Trace};
use crate::connect;
use crate::exit::Failure;
use crate::settings::{Settings, parse_duration};

/// How often a browser hears that the console is alive while there is nothing else to say. It gives up after four times.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);

/// Browsers that may watch at the same time.
const MOST_VIEWERS: usize = 100;

/// Searches, traces and lists that may be under way at the same time: each may read a good part of a stream.
const MOST_QUESTIONS: usize = 8;

/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Documents that a search may find, and letters in a list.
const MOST_FOUND: usize = 100;
const MOST_LETTERS: usize = 1_000;

/// Newest entries of each stage that a trace looks at, as the command does.
const SCAN: u64 = 100_000;

/// What every request needs. Clients connect when they are first used.
pub(super) struct Shared {
    pub(super) guard: Guard,
    settings: Settings,
    redis: RedisStore,
    index: QdrantIndex,
    embedder: Arc<dyn Embedder>,
    watch: Watch,
    questions: Semaphore,
}

impl Shared {
    pub(super) fn new(settings: Settings, guard: Guard, watch: Watch) -> Result<Self, Failure> {
        Ok(Self {
            redis: connect::redis(&settings)?,
            index: connect::index(&settings)?,
            embedder: connect::embedder(&settings, None)?,
            questions: Semaphore::new(MOST_QUESTIONS),
            guard,
            settings,
            watch,
        })
    }

    fn question(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.questions.try_acquire().map_err(|_| {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many questions at once")
                .with_hint("ask again in a moment")
        })
    }
}

type Answer<T> = Result<Json<T>, Refusal>;
type Own = State<Arc<Shared>>;

/// Waits for an answer, but not for ever.
async fn patiently<T, E: Into<Refusal>>(answer: impl Future<Output = Result<T, E>>) -> Answer<T> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map(Json).map_err(Into::into),
        Err(_) => {
            let message = format!("no answer within {} s", PATIENCE.as_secs());
            Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, message))
        }
    }
}

/// `GET /api/session`: what may be done here, and from which numbers on a stage is behind.
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

/// `POST /api/session`: the token was right, or this is not reached.
pub(super) async fn log_in() -> Json<Value> {
    Json(json!({"authorized": true}))
}

/// `GET /api/overview`: the last look.
pub(super) async fn overview(State(shared): Own) -> Result<impl IntoResponse, Refusal> {
    let mut viewer = viewer(&shared)?;
    let text =
        viewer.next(true).await.ok_or_else(|| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "it is stopping"))?;
    Ok(([(axum::http::header::CONTENT_TYPE, "application/json")], text.to_string()))
}

/// `GET /api/history`: the last hour.
pub(super) async fn history(State(shared): Own) -> Json<Value> {
    Json(shared.watch.history())
}

/// `GET /api/events`: every look, as it is made.
pub(super) async fn events(State(shared): Own) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let begun = (viewer(&shared)?, true);
    let looks = futures::stream::unfold(begun, |(mut viewer, first)| async move {
        let look = viewer.next(first).await?;
        Some((Ok(Event::default().event("look").data(&*look)), (viewer, false)))
    });
    Ok(Sse::new(looks).keep_alive(KeepAlive::new().interval(SIGN_OF_LIFE)))
}

fn viewer(shared: &Shared) -> Result<Viewer, Refusal> {
    shared.watch.join(MOST_VIEWERS).ok_or_else(|| {
        let message = format!("{MOST_VIEWERS} browsers watch already");
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message).with_hint("close one of them")
    })
}

/// Which letters, as the page writes it. What is empty does not count.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Which {
    stage: String,
    reason: String,
    id: String,
    older_than: String,
    newer_than: String,
    limit: Option<usize>,
}

impl Which {
    fn filter(&self) -> Result<Filter, Refusal> {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        let age = |text: &String| {
            some(text)
                .map(|text| parse_duration(&text).ok_or_else(|| Refusal::bad(format!("{text:?} is no age"))))
                .transpose()
        };
        Ok(Filter {
            stage: some(&self.stage).map(|name| stage(&name)).transpose()?,
            ids: some(&self.id).into_iter().collect(),
            reason: some(&self.reason),
            older_than: age(&self.older_than)?,
            newer_than: age(&self.newer_than)?,
        })
    }
}

fn stage(name: &str) -> Result<StageName, Refusal> {
    let known = [StageName::Raw, StageName::Embedded].into_iter().find(|stage| stage.name() == name);
    known.ok_or_else(|| Refusal::bad(format!("{name:?} is no stage: there are raw and embedded")))
}

/// `GET /api/dead-letters`.
pub(super) async fn letters(State(shared): Own, Parameters(which): Parameters<Which>) -> Answer<Listing> {
    let _permit = shared.question()?;
    let limit = which.limit.unwrap_or(MOST_LETTERS).min(MOST_LETTERS);
    patiently(letters::list(&shared.redis, &which.filter()?, limit, false)).await
}

/// `GET /api/dead-letters/{stage}/{id}`: one with its document.
pub(super) async fn letter(State(shared): Own, Path((name, id)): Path<(String, String)>) -> Answer<LetterView> {
    let _permit = shared.question()?;
    let filter = Filter { stage: Some(stage(&name)?), ids: vec![id.clone()], ..Filter::default() };
    let Json(listing) = patiently(letters::list(&shared.redis, &filter, MOST_LETTERS, true)).await?;
    let found = listing.letters.into_iter().find(|letter| letter.id == id);
    let gone = || Refusal::new(StatusCode::NOT_FOUND, format!("there is no dead letter {id} of stage {name} any more"));
    found.map(Json).ok_or_else(gone)
}

/// The letters to act on: these, or all that match.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Chosen {
    Letters { letters: Vec<LetterName> },
    Matching { filter: Which },
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
    Body(chosen): Body<Chosen>,
) -> Answer<Outcome> {
    let retry = async |letters: &[LetterView]| reread::retry(&shared.settings, &shared.redis, letters).await;
    patiently(act(&shared, &caller, "dead-letters retry", chosen, retry)).await
}

/// `POST /api/dead-letters/drop`.
pub(super) async fn discard(
    State(shared): Own,
    Extension(caller): Extension<Caller>,
    Body(chosen): Body<Chosen>,
) -> Answer<Outcome> {
    let discard = async |letters: &[LetterView]| letters::discard(&shared.redis, letters).await;
    patiently(act(&shared, &caller, "dead-letters drop", chosen, discard)).await
}

async fn act(
    shared: &Shared,
    caller: &Caller,
    action: &str,
    chosen: Chosen,
    then: impl AsyncFnOnce(&[LetterView]) -> PortResult<Outcome>,
) -> Result<Outcome, Refusal> {
    let (filter, only) = match chosen {
        Chosen::Matching { filter } => (filter.filter()?, None),
        Chosen::Letters { letters } => {
            let filter = Filter { ids: letters.iter().map(|letter| letter.id.clone()).collect(), ..Filter::default() };
            (filter, Some(letters.into_iter().collect::<std::collections::HashSet<_>>()))
        }
    };
    // No letter was named, and that does not mean all of them.
    if only.as_ref().is_some_and(std::collections::HashSet::is_empty) {
        return Err(Refusal::bad("no letter is named"));
    }
    let mut found = letters::list(&shared.redis, &filter, usize::MAX, false).await?.letters;
    let mut gone = 0;
    if let Some(only) = only {
        // An id may also be the _id of another letter's document.
        found.retain(|letter| {
            only.contains(&LetterName { stage: letter.stage.name().to_owned(), id: letter.id.clone() })
        });
        gone = (only.len() - found.len().min(only.len())) as u64;
    }
    let actor = Actor::console(caller.user.as_deref(), caller.address);
    actor.records(&shared.redis, action, letters::named(&found)).await?;
    let mut outcome = then(&found).await?;
    outcome.gone += gone;
    Ok(outcome)
}

/// What to look for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    text: String,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    filter: Option<Value>,
}

/// `POST /api/search`. It changes nothing; it is no GET, so that what people look for is in no log.
pub(super) async fn search(State(shared): Own, Body(wanted): Body<Wanted>) -> Answer<Vec<Found>> {
    let _permit = shared.question()?;
    let limit = wanted.limit.unwrap_or(10).clamp(1, MOST_FOUND);
    patiently(search::find(&*shared.embedder, &shared.index, &wanted.text, limit, wanted.filter.as_ref())).await
}

/// Which document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    id: String,
    #[serde(default)]
    namespace: Option<String>,
}

/// `GET /api/trace`.
pub(super) async fn trace(State(shared): Own, Parameters(document): Parameters<Document>) -> Answer<Trace> {
    let _permit = shared.question()?;
    let namespace = document.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    patiently(trace::ask(&shared.settings, &document.id, namespace, SCAN)).await
}

/// `GET /api/replays`.
pub(super) async fn replays(State(shared): Own) -> Answer<Vec<ReplayView>> {
    patiently(replays::list(&shared.redis)).await
}
