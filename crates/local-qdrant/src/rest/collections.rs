//! Collections and aliases over REST.

use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::super::config::{ConfigChanges, NewCollection};
use super::body::{ChangeAliases, parse};
use super::reply::{aliases_out, info_out, ok};
use super::{Answer, Shared};

pub(super) async fn list(State(catalog): Shared) -> Answer {
    let started = Instant::now();
    let collections: Vec<Value> = catalog.names().into_iter().map(|name| json!({"name": name})).collect();
    Ok(ok(started, json!({"collections": collections})))
}

pub(super) async fn info(State(catalog): Shared, Path(name): Path<String>) -> Answer {
    let started = Instant::now();
    let info = catalog.get(&name)?.info().await?;
    Ok(ok(started, info_out(&info)))
}

pub(super) async fn create(State(catalog): Shared, Path(name): Path<String>, body: Bytes) -> Answer {
    let started = Instant::now();
    let request: NewCollection = parse(&body)?;
    catalog.create(&name, request.into_config()?).await?;
    Ok(ok(started, json!(true)))
}

pub(super) async fn update(State(catalog): Shared, Path(name): Path<String>, body: Bytes) -> Answer {
    let started = Instant::now();
    let changes: ConfigChanges = parse(&body)?;
    catalog.update(&name, changes).await?;
    Ok(ok(started, json!(true)))
}

pub(super) async fn delete(State(catalog): Shared, Path(name): Path<String>) -> Answer {
    let started = Instant::now();
    let deleted = catalog.delete(&name).await?;
    Ok(ok(started, json!(deleted)))
}

pub(super) async fn exists(State(catalog): Shared, Path(name): Path<String>) -> Answer {
    let started = Instant::now();
    Ok(ok(started, json!({"exists": catalog.get(&name).is_ok()})))
}

pub(super) async fn change_aliases(State(catalog): Shared, body: Bytes) -> Answer {
    let started = Instant::now();
    let request: ChangeAliases = parse(&body)?;
    catalog.change_aliases(&request.into_changes()).await?;
    Ok(ok(started, json!(true)))
}

pub(super) async fn aliases(State(catalog): Shared) -> Answer {
    Ok(ok(Instant::now(), aliases_out(catalog.aliases(None))))
}

pub(super) async fn collection_aliases(State(catalog): Shared, Path(name): Path<String>) -> Answer {
    let started = Instant::now();
    catalog.get(&name)?;
    Ok(ok(started, aliases_out(catalog.aliases(Some(&name)))))
}
