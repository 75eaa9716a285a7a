//! Points over REST.

use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{Path, Query as UrlQuery, State};
use qdrant_edge::{CountRequest, FacetRequest, JsonPath, PointId, ScrollRequest, WithPayloadInterface, WithVector};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::catalog::Catalog;
use super::super::error::ApiError;
use super::super::query::QuerySpec;
use super::super::write::Write;
use super::body::{
    Batch, CreateFieldIndex, DeletePayload, Query, Retrieve, Search, Searches, SetPayload, Target, UpdateVectors,
    Upsert, parse,
};
use super::reply::{facet_out, ok, outcome_out, record_out, scored_out};
use super::{Answer, Shared};

/// `?wait=true`: respond when the write is applied and durable.
#[derive(Deserialize)]
pub(super) struct Wait {
    #[serde(default)]
    wait: bool,
}

type Waiting = UrlQuery<Wait>;

async fn write(catalog: &Catalog, name: &str, wait: &Wait, write: Result<Write, ApiError>) -> Answer {
    let started = Instant::now();
    let outcome = catalog.get(name)?.write(write?, wait.wait).await?;
    Ok(ok(started, outcome_out(outcome)))
}

pub(super) async fn upsert(
    State(catalog): Shared,
    Path(name): Path<String>,
    UrlQuery(wait): Waiting,
    body: Bytes,
) -> Answer {
    write(&catalog, &name, &wait, parse::<Upsert>(&body).and_then(Upsert::into_write)).await
}

pub(super) async fn update_vectors(
    State(catalog): Shared,
    Path(name): Path<String>,
    UrlQuery(wait): Waiting,
    body: Bytes,
) -> Answer {
    write(&catalog, &name, &wait, parse::<UpdateVectors>(&body).map(UpdateVectors::into_write)).await
}

pub(super) async fn delete(
    State(catalog): Shared,
    Path(name): Path<String>,
    UrlQuery(wait): Waiting,
    body: Bytes,
) -> Answer {
    let target = parse::<Target>(&body).and_then(Target::into_selector);
    write(&catalog, &name, &wait, target.map(Write::Delete)).await
}

pub(super) async fn set_payload(
    State(catalog): Shared,
    Path(name): Path<String>,
    UrlQuery(wait): Waiting,
    body: Bytes,
) -> Answer {
    write(&catalog, &name, &wait, parse::<SetPayload>(&body).and_then(SetPayload::into_set)).await
}

pub(super) async fn overwrite_payload(
    State(catalog): Shared,
    Path(name): Path<String>,
    UrlQuery(wait): Waiting,
    body: Bytes,
) -> Answer {
    write(&catalog, &name, &wait, parse::<SetPayload>(&body).and_then(SetPayload::into_overwrite)).await
}

pub(super) async fn delete_payload(
    State(catalog): Shared,
    Path(name): Path<String>,
    UrlQuery(wait): Waiting,
    body: Bytes,
) -> Answer {
    write(&catalog, &name, &wait, parse::<DeletePayload>(&body).and_then(DeletePayload::into_write)).await
}

pub(super) async fn clear_payload(
    State(catalog): Shared,
    Path(name): Path<String>,
    UrlQuery(wait): Waiting,
    body: Bytes,
) -> Answer {
    let target = parse::<Target>(&body).and_then(Target::into_selector);
    write(&catalog, &name, &wait, target.map(Write::ClearPayload)).await
}

pub(super) async fn create_index(
    State(catalog): Shared,
    Path(name): Path<String>,
    UrlQuery(wait): Waiting,
    body: Bytes,
) -> Answer {
    write(&catalog, &name, &wait, parse::<CreateFieldIndex>(&body).map(CreateFieldIndex::into_write)).await
}

pub(super) async fn delete_index(
    State(catalog): Shared,
    Path((name, field)): Path<(String, String)>,
    UrlQuery(wait): Waiting,
) -> Answer {
    let path: Result<JsonPath, _> = field.parse();
    let path = path.map_err(|()| ApiError::BadInput(format!("Invalid json path: '{field}'")));
    write(&catalog, &name, &wait, path.map(Write::DeleteIndex)).await
}

pub(super) async fn batch(
    State(catalog): Shared,
    Path(name): Path<String>,
    UrlQuery(wait): Waiting,
    body: Bytes,
) -> Answer {
    let started = Instant::now();
    let writes = parse::<Batch>(&body)?.into_writes()?;
    let outcomes = catalog.get(&name)?.write_all(writes, wait.wait).await?;
    Ok(ok(started, outcomes.into_iter().map(outcome_out).collect()))
}

pub(super) async fn retrieve(State(catalog): Shared, Path(name): Path<String>, body: Bytes) -> Answer {
    let started = Instant::now();
    let request: Retrieve = parse(&body)?;
    let collection = catalog.get(&name)?;
    let records =
        collection.read(move |shard| shard.retrieve(&request.ids, request.with_payload, request.with_vector)).await?;
    Ok(ok(started, records.into_iter().map(record_out).collect()))
}

pub(super) async fn get(State(catalog): Shared, Path((name, id)): Path<(String, String)>) -> Answer {
    let started = Instant::now();
    let id: PointId = id.parse().map_err(|()| ApiError::BadInput(format!("Can not recognize \"{id}\" as point id")))?;
    let all = (Some(WithPayloadInterface::Bool(true)), Some(WithVector::Bool(true)));
    let records = catalog.get(&name)?.read(move |shard| shard.retrieve(&[id], all.0, all.1)).await?;
    let record = records.into_iter().next();
    let record = record.ok_or_else(|| ApiError::NotFound(format!("Point with id {id} does not exists!")))?;
    Ok(ok(started, record_out(record)))
}

pub(super) async fn scroll(State(catalog): Shared, Path(name): Path<String>, body: Bytes) -> Answer {
    let started = Instant::now();
    let request: ScrollRequest = parse(&body)?;
    if request.limit == Some(0) {
        return Err(ApiError::BadInput("limit must be at least 1".to_owned()));
    }
    let (records, next) = catalog.get(&name)?.read(move |shard| shard.scroll(request)).await?;
    let points: Vec<Value> = records.into_iter().map(record_out).collect();
    Ok(ok(started, json!({"points": points, "next_page_offset": next})))
}

pub(super) async fn count(State(catalog): Shared, Path(name): Path<String>, body: Bytes) -> Answer {
    let started = Instant::now();
    let request: CountRequest = parse(&body)?;
    let count = catalog.get(&name)?.read(move |shard| shard.count(request)).await?;
    Ok(ok(started, json!({"count": count})))
}

pub(super) async fn facet(State(catalog): Shared, Path(name): Path<String>, body: Bytes) -> Answer {
    let started = Instant::now();
    let request: FacetRequest = parse(&body)?;
    let response = catalog.get(&name)?.read(move |shard| shard.facet(request)).await?;
    Ok(ok(started, facet_out(response)))
}

async fn run_query(catalog: &Catalog, name: &str, spec: QuerySpec) -> Result<Value, ApiError> {
    let collection = catalog.get(name)?;
    spec.check(&collection.shared.config().vectors)?;
    let points = collection.read(move |shard| spec.run(shard)).await?;
    Ok(points.into_iter().map(scored_out).collect())
}

pub(super) async fn search(State(catalog): Shared, Path(name): Path<String>, body: Bytes) -> Answer {
    let started = Instant::now();
    let spec = parse::<Search>(&body)?.into_spec();
    Ok(ok(started, run_query(&catalog, &name, spec).await?))
}

pub(super) async fn search_batch(State(catalog): Shared, Path(name): Path<String>, body: Bytes) -> Answer {
    let started = Instant::now();
    let mut results = Vec::new();
    for search in parse::<Searches<Search>>(&body)?.searches {
        results.push(run_query(&catalog, &name, search.into_spec()).await?);
    }
    Ok(ok(started, Value::Array(results)))
}

pub(super) async fn query(State(catalog): Shared, Path(name): Path<String>, body: Bytes) -> Answer {
    let started = Instant::now();
    let spec = parse::<Query>(&body)?.into_spec()?;
    let points = run_query(&catalog, &name, spec).await?;
    Ok(ok(started, json!({"points": points})))
}

pub(super) async fn query_batch(State(catalog): Shared, Path(name): Path<String>, body: Bytes) -> Answer {
    let started = Instant::now();
    let mut results = Vec::new();
    for query in parse::<Searches<Query>>(&body)?.searches {
        let points = run_query(&catalog, &name, query.into_spec()?).await?;
        results.push(json!({"points": points}));
    }
    Ok(ok(started, Value::Array(results)))
}
