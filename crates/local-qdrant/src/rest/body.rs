//! The JSON bodies of Qdrant's REST API that the engine's own types do not cover.

use qdrant_edge::external::ordered_float::OrderedFloat;
use qdrant_edge::{
    CreateIndex, Filter, JsonPath, OrderBy, OrderByInterface, Payload, PayloadFieldSchema, PointId,
    PointInsertOperations, PointVectorsPersisted, SearchParams, UpdateMode, WithPayloadInterface, WithVector,
};
use qdrant_edge::{Fusion, Sample};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::catalog::AliasChange;
use super::super::error::ApiError;
use super::super::query::{Nearest, Prefetch, QuerySpec, Ranking};
use super::super::write::{Selector, Write};

/// Parses a body; the error message is Qdrant's.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| ApiError::BadBody(error.to_string()))
}

fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value).map_err(|error| ApiError::BadBody(error.to_string()))
}

/// `POST /collections/aliases`.
#[derive(Deserialize)]
pub(super) struct ChangeAliases {
    actions: Vec<AliasAction>,
}

#[derive(Deserialize)]
enum AliasAction {
    #[serde(rename = "create_alias")]
    Create { collection_name: String, alias_name: String },
    #[serde(rename = "delete_alias")]
    Delete { alias_name: String },
    #[serde(rename = "rename_alias")]
    Rename { old_alias_name: String, new_alias_name: String },
}

impl ChangeAliases {
    pub(super) fn into_changes(self) -> Vec<AliasChange> {
        let change = |action| match action {
            AliasAction::Create { collection_name, alias_name } => {
                AliasChange::Create { alias: alias_name, collection: collection_name }
            }
            AliasAction::Delete { alias_name } => AliasChange::Delete { alias: alias_name },
            AliasAction::Rename { old_alias_name, new_alias_name } => {
                AliasChange::Rename { from: old_alias_name, to: new_alias_name }
            }
        };
        self.actions.into_iter().map(change).collect()
    }
}

/// `points` or `filter`, among other fields.
#[derive(Deserialize)]
pub(super) struct Target {
    #[serde(default)]
    points: Option<Vec<PointId>>,
    #[serde(default)]
    filter: Option<Filter>,
}

impl Target {
    pub(super) fn into_selector(self) -> Result<Selector, ApiError> {
        match (self.points, self.filter) {
            (Some(points), _) => Ok(Selector::Ids(points)),
            (None, Some(filter)) => Ok(Selector::Filter(filter)),
            (None, None) => Err(ApiError::BadInput("No filter or points provided".to_owned())),
        }
    }
}

/// `PUT /collections/NAME/points`.
#[derive(Deserialize)]
pub(super) struct Upsert {
    #[serde(flatten)]
    points: PointInsertOperations,
    #[serde(default)]
    update_filter: Option<Filter>,
    #[serde(default)]
    update_mode: UpdateMode,
}

impl Upsert {
    pub(super) fn into_write(self) -> Result<Write, ApiError> {
        let ids = self.points.point_ids().len();
        let points = self.points.into_point_vec();
        if points.len() != ids {
            return Err(ApiError::BadInput(
                "ids, vectors and payloads of a batch must have the same length".to_owned(),
            ));
        }
        Ok(Write::Upsert { points, condition: self.update_filter, mode: self.update_mode })
    }
}

/// `PUT /collections/NAME/points/vectors`.
#[derive(Deserialize)]
pub(super) struct UpdateVectors {
    points: Vec<PointVectorsPersisted>,
    #[serde(default)]
    update_filter: Option<Filter>,
}

impl UpdateVectors {
    pub(super) fn into_write(self) -> Write {
        Write::UpdateVectors { points: self.points, condition: self.update_filter }
    }
}

/// `POST` and `PUT /collections/NAME/points/payload`.
#[derive(Deserialize)]
pub(super) struct SetPayload {
    payload: Payload,
    #[serde(default)]
    key: Option<JsonPath>,
    #[serde(flatten)]
    target: Target,
}

impl SetPayload {
    pub(super) fn into_set(self) -> Result<Write, ApiError> {
        Ok(Write::SetPayload { payload: self.payload, key: self.key, target: self.target.into_selector()? })
    }

    pub(super) fn into_overwrite(self) -> Result<Write, ApiError> {
        Ok(Write::OverwritePayload { payload: self.payload, key: self.key, target: self.target.into_selector()? })
    }
}

/// `POST /collections/NAME/points/payload/delete`.
#[derive(Deserialize)]
pub(super) struct DeletePayload {
    keys: Vec<JsonPath>,
    #[serde(flatten)]
    target: Target,
}

impl DeletePayload {
    pub(super) fn into_write(self) -> Result<Write, ApiError> {
        Ok(Write::DeletePayload { keys: self.keys, target: self.target.into_selector()? })
    }
}

/// `PUT /collections/NAME/index`.
#[derive(Deserialize)]
pub(super) struct CreateFieldIndex {
    field_name: JsonPath,
    field_schema: PayloadFieldSchema,
}

impl CreateFieldIndex {
    pub(super) fn into_write(self) -> Write {
        Write::CreateIndex(CreateIndex { field_name: self.field_name, field_schema: Some(self.field_schema) })
    }
}

/// `POST /collections/NAME/points/batch`.
#[derive(Deserialize)]
pub(super) struct Batch {
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Operation {
    Upsert(Upsert),
    Delete(Target),
    SetPayload(SetPayload),
    OverwritePayload(SetPayload),
    DeletePayload(DeletePayload),
    ClearPayload(Target),
    UpdateVectors(UpdateVectors),
}

impl Batch {
    pub(super) fn into_writes(self) -> Result<Vec<Write>, ApiError> {
        let write = |operation| match operation {
            Operation::Upsert(upsert) => upsert.into_write(),
            Operation::Delete(target) => target.into_selector().map(Write::Delete),
            Operation::SetPayload(set) => set.into_set(),
            Operation::OverwritePayload(set) => set.into_overwrite(),
            Operation::DeletePayload(delete) => delete.into_write(),
            Operation::ClearPayload(target) => target.into_selector().map(Write::ClearPayload),
            Operation::UpdateVectors(update) => Ok(update.into_write()),
        };
        self.operations.into_iter().map(write).collect()
    }
}

/// `POST /collections/NAME/points`: points by id.
#[derive(Deserialize)]
pub(super) struct Retrieve {
    pub(super) ids: Vec<PointId>,
    #[serde(default)]
    pub(super) with_payload: Option<WithPayloadInterface>,
    #[serde(default, alias = "with_vectors")]
    pub(super) with_vector: Option<WithVector>,
}

/// `POST /collections/NAME/points/search`.
#[derive(Deserialize)]
pub(super) struct Search {
    vector: SearchVector,
    #[serde(default)]
    filter: Option<Filter>,
    #[serde(default)]
    params: Option<SearchParams>,
    limit: usize,
    #[serde(default)]
    offset: Option<usize>,
    #[serde(default)]
    with_payload: Option<WithPayloadInterface>,
    #[serde(default, alias = "with_vectors")]
    with_vector: Option<WithVector>,
    #[serde(default)]
    score_threshold: Option<f32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SearchVector {
    Unnamed(Vec<f32>),
    Named { name: String, vector: Vec<f32> },
}

impl Search {
    pub(super) fn into_spec(self) -> QuerySpec {
        let (using, vector) = match self.vector {
            SearchVector::Unnamed(vector) => (String::new(), vector),
            SearchVector::Named { name, vector } => (name, vector),
        };
        QuerySpec {
            prefetches: Vec::new(),
            ranking: Some(Ranking::Nearest(Nearest::Vector(vector))),
            using,
            filter: self.filter,
            params: self.params,
            score_threshold: self.score_threshold,
            limit: self.limit,
            offset: self.offset.unwrap_or_default(),
            with_payload: self.with_payload.unwrap_or(WithPayloadInterface::Bool(false)),
            with_vector: self.with_vector.unwrap_or_default(),
        }
    }
}

/// Several searches in one request.
#[derive(Deserialize)]
pub(super) struct Searches<T> {
    pub(super) searches: Vec<T>,
}

/// `POST /collections/NAME/points/query`, and each of its prefetches.
#[derive(Deserialize)]
pub(super) struct Query {
    #[serde(default)]
    prefetch: Option<OneOrMany>,
    #[serde(default)]
    query: Option<Value>,
    #[serde(default)]
    using: Option<String>,
    #[serde(default)]
    filter: Option<Filter>,
    #[serde(default)]
    params: Option<SearchParams>,
    #[serde(default)]
    score_threshold: Option<f32>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    offset: Option<usize>,
    #[serde(default)]
    with_payload: Option<WithPayloadInterface>,
    #[serde(default, alias = "with_vectors")]
    with_vector: Option<WithVector>,
    #[serde(default)]
    lookup_from: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Many(Vec<Query>),
    One(Box<Query>),
}

impl OneOrMany {
    fn into_prefetches(self) -> Result<Vec<Prefetch>, ApiError> {
        match self {
            Self::Many(many) => many.into_iter().map(Query::into_prefetch).collect(),
            Self::One(one) => Ok(vec![one.into_prefetch()?]),
        }
    }
}

/// Default of `limit`.
const DEFAULT_LIMIT: usize = 10;

impl Query {
    pub(super) fn into_spec(self) -> Result<QuerySpec, ApiError> {
        let (offset, with_payload, with_vector) = (self.offset, self.with_payload.clone(), self.with_vector.clone());
        let candidate = self.into_prefetch()?;
        Ok(QuerySpec {
            prefetches: candidate.prefetches,
            ranking: candidate.ranking,
            using: candidate.using,
            filter: candidate.filter,
            params: candidate.params,
            score_threshold: candidate.score_threshold,
            limit: candidate.limit,
            offset: offset.unwrap_or_default(),
            with_payload: with_payload.unwrap_or(WithPayloadInterface::Bool(false)),
            with_vector: with_vector.unwrap_or_default(),
        })
    }

    fn into_prefetch(self) -> Result<Prefetch, ApiError> {
        if self.lookup_from.is_some() {
            return Err(ApiError::Unsupported("lookup_from".to_owned()));
        }
        Ok(Prefetch {
            prefetches: self.prefetch.map(OneOrMany::into_prefetches).transpose()?.unwrap_or_default(),
            ranking: self.query.map(ranking_in).transpose()?,
            using: self.using.unwrap_or_default(),
            filter: self.filter,
            params: self.params,
            score_threshold: self.score_threshold,
            limit: self.limit.unwrap_or(DEFAULT_LIMIT),
        })
    }
}

/// Parses a bare vector or id, or an object that names the kind of query.
fn ranking_in(query: Value) -> Result<Ranking, ApiError> {
    let Value::Object(mut fields) = query else { return Ok(Ranking::Nearest(nearest_in(query)?)) };
    if fields.contains_key("mmr") {
        return Err(ApiError::Unsupported("nearest query with MMR".to_owned()));
    }
    if let Some(nearest) = fields.remove("nearest") {
        return Ok(Ranking::Nearest(nearest_in(nearest)?));
    }
    if let Some(order) = fields.remove("order_by") {
        let order: OrderByInterface = from_value(order)?;
        return Ok(Ranking::OrderBy(OrderBy::from(order)));
    }
    if let Some(sample) = fields.remove("sample") {
        return match sample.as_str() {
            Some("random") => Ok(Ranking::Sample(Sample::Random)),
            _ => Err(ApiError::BadBody(format!("unknown sample {sample}"))),
        };
    }
    if let Some(fusion) = fields.remove("fusion") {
        return match fusion.as_str() {
            Some("rrf") => Ok(Ranking::Fusion(Fusion::Rrf { k: RRF_K, weights: None })),
            Some("dbsf") => Ok(Ranking::Fusion(Fusion::Dbsf)),
            _ => Err(ApiError::BadBody(format!("unknown fusion {fusion}"))),
        };
    }
    if let Some(rrf) = fields.remove("rrf") {
        let rrf: Rrf = from_value(rrf)?;
        let weights = rrf.weights.map(|weights| weights.into_iter().map(OrderedFloat).collect());
        return Ok(Ranking::Fusion(Fusion::Rrf { k: rrf.k.unwrap_or(RRF_K), weights }));
    }
    let kinds: Vec<_> = fields.keys().map(String::as_str).collect();
    Err(ApiError::Unsupported(format!("query {}", kinds.join(", "))))
}

/// Qdrant's constant for reciprocal rank fusion.
const RRF_K: usize = 2;

#[derive(Deserialize)]
struct Rrf {
    #[serde(default)]
    k: Option<usize>,
    #[serde(default)]
    weights: Option<Vec<f32>>,
}

fn nearest_in(value: Value) -> Result<Nearest, ApiError> {
    match value {
        Value::Array(_) => Ok(Nearest::Vector(from_value(value)?)),
        Value::Number(_) | Value::String(_) => Ok(Nearest::Id(from_value(value)?)),
        _ => Err(ApiError::Unsupported("query that is neither a dense vector nor a point id".to_owned())),
    }
}
