//! The indexes: their state from the latest overview, their declarations from the catalog, and the return to a kept
//! generation.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::Value;
use tidewheel_core::catalog::{Catalog, IndexName};
use tidewheel_ops::indexes::{Planned, Submission, plan_rollback, submit};
use tidewheel_ops::overview::{IndexOverview, Problem};

use super::api::{Answer, Own, Shared, latest, with_timeout};
use super::api_error::ApiError;
use super::guard::Caller;
use crate::audit_log::Actor;
use crate::compose::Indexes;
use crate::services::guard;

/// Attempts to submit a rollback while the catalog changes.
const ATTEMPTS: u32 = 3;

/// All indexes.
#[derive(Serialize)]
pub(super) struct IndexList {
    indexes: Vec<IndexOverview>,
}

/// `GET /api/indexes`.
pub(super) async fn list(State(shared): Own) -> Answer<IndexList> {
    Ok(Json(IndexList { indexes: latest(&shared).await?.overview.indexes.clone() }))
}

/// One index.
#[derive(Serialize)]
pub(super) struct IndexView {
    index: IndexOverview,
    /// Its problems, and those of the whole installation.
    problems: Vec<Problem>,
    /// The declaration of each generation.
    declarations: BTreeMap<u32, Value>,
    can_roll_back: bool,
}

/// `GET /api/indexes/{name}`.
pub(super) async fn index(State(shared): Own, Path(name): Path<String>) -> Answer<IndexView> {
    with_timeout(async {
        let name = IndexName::of_collection(&name);
        let overview = latest(&shared).await?.overview.clone().restricted(&name);
        let missing = || ApiError::new(StatusCode::NOT_FOUND, format!("there is no index {name}"));
        let index = overview.indexes.into_iter().next().ok_or_else(missing)?;
        let catalog = shared.catalog.read().await?;
        let declarations = declarations(&catalog, &name);
        let can_roll_back = index.can_roll_back();
        Ok::<_, ApiError>(IndexView { index, problems: overview.problems, declarations, can_roll_back })
    })
    .await
}

fn declarations(catalog: &Catalog, name: &IndexName) -> BTreeMap<u32, Value> {
    let generations = catalog.indexes.get(name).into_iter().flat_map(|index| &index.generations);
    let declared = generations.map(|(number, generation)| {
        (*number, serde_json::to_value(&*generation.declaration).expect("a declaration is JSON"))
    });
    declared.collect()
}

/// A submitted rollback.
#[derive(Serialize)]
pub(super) struct RolledBack {
    /// The generation to which the alias moves.
    generation: Option<u32>,
    /// False if it was submitted before.
    submitted: bool,
}

/// `POST /api/indexes/{name}/rollback`: submits the return to the kept generation. The active producer moves the alias.
pub(super) async fn roll_back(
    State(shared): Own,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer<RolledBack> {
    with_timeout(submit_rollback(&shared, &caller, &IndexName::of_collection(&name))).await
}

async fn submit_rollback(shared: &Shared, caller: &Caller, name: &IndexName) -> Result<RolledBack, ApiError> {
    // As the command: keep actions of another installation out of this Redis.
    guard(&shared.settings, &shared.redis, None, None).check_redis().await?;
    let indexes = Indexes::new(&shared.settings)?;
    let mut is_recorded = false;
    for _ in 0..ATTEMPTS {
        let planned = plan_rollback(indexes.ports(), name).await?;
        if let Some(refused) = planned.plan.refused.first() {
            return Err(ApiError::new(StatusCode::CONFLICT, &refused.reason).with_hint(&refused.hint));
        }
        if !planned.plan.todo {
            return Ok(RolledBack { generation: generation(&planned), submitted: false });
        }
        if !is_recorded {
            let actor = Actor::console(caller.user.as_deref(), caller.address);
            actor.records(&shared.redis, "rollback", name.to_string()).await?;
            is_recorded = true;
        }
        if submit(indexes.ports(), &planned, false).await? == Submission::Saved {
            return Ok(RolledBack { generation: generation(&planned), submitted: true });
        }
    }
    let message = "failed to submit the rollback: the catalog changes too often";
    Err(ApiError::new(StatusCode::CONFLICT, message).with_hint("try again"))
}

/// The generation that the plan switches to, or that an earlier one does.
fn generation(planned: &Planned) -> Option<u32> {
    let planned_now = planned.plan.indexes.iter().find_map(|index| index.generation);
    planned_now.or_else(|| planned.plan.running.iter().find_map(|progress| progress.generation))
}
