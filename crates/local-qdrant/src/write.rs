//! Validates writes and resolves them to plain operations.
//!
//! Filters ("all points that match") and conditions ("only if the stored point matches") are evaluated once, here,
//! against the current points, and become operations on ids. The logged operations, which are replayed after a restart,
//! therefore never depend on the state to which they are applied.

use std::collections::HashSet;

use qdrant_edge::{
    Condition, ConditionalInsertOperation, CreateIndex, DeletePayloadOp, EdgeShard, FieldIndexOperations, Filter,
    HasIdCondition, JsonPath, OperationResult, Payload, PayloadOps, PointId, PointInsertOperations, PointOperations,
    PointStructPersisted, PointVectorsPersisted, ScrollRequest, SetPayloadOp, UpdateMode, UpdateOperation,
    UpdateVectorsOp, VectorOperations, VectorPersisted, VectorStructPersisted, WithPayloadInterface, WithVector,
};

use super::config::{UNNAMED, Vectors};
use super::error::ApiError;
use super::nesting;

/// The points that an operation affects.
#[derive(Debug, Clone)]
pub(crate) enum Selector {
    Ids(Vec<PointId>),
    Filter(Filter),
}

/// A requested write.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    /// Inserts and replaces points. A stored point that does not match `condition` is not changed; a missing one is
    /// inserted, unless `mode` forbids it.
    Upsert {
        points: Vec<PointStructPersisted>,
        condition: Option<Filter>,
        mode: UpdateMode,
    },
    Delete(Selector),
    SetPayload {
        payload: Payload,
        key: Option<JsonPath>,
        target: Selector,
    },
    OverwritePayload {
        payload: Payload,
        key: Option<JsonPath>,
        target: Selector,
    },
    DeletePayload {
        keys: Vec<JsonPath>,
        target: Selector,
    },
    ClearPayload(Selector),
    UpdateVectors {
        points: Vec<PointVectorsPersisted>,
        condition: Option<Filter>,
    },
    CreateIndex(CreateIndex),
    DeleteIndex(JsonPath),
}

impl Write {
    /// Rejects vectors that do not match the collection, and payloads that nest too deep, before anything is applied,
    /// so that a batch with one invalid point changes nothing.
    pub(crate) fn check(&self, vectors: &Vectors) -> Result<(), ApiError> {
        match self {
            Self::Upsert { points, .. } => points.iter().try_for_each(|point| {
                point.payload.as_ref().map_or(Ok(()), |payload| nesting::check(payload, None))?;
                check_vectors(&point.vector, vectors)
            }),
            Self::SetPayload { payload, key, .. } | Self::OverwritePayload { payload, key, .. } => {
                nesting::check(payload, key.as_ref())
            }
            Self::UpdateVectors { points, .. } => {
                points.iter().try_for_each(|point| check_vectors(&point.vector, vectors))
            }
            _ => Ok(()),
        }
    }

    /// Resolves the write to a plain operation. `None`: nothing to do.
    pub(crate) fn resolve(self, shard: &EdgeShard) -> OperationResult<Option<UpdateOperation>> {
        Ok(match self {
            Self::Upsert { points, condition, mode } => {
                let points = resolve_upsert(shard, last_of_each(points), condition, mode)?;
                (!points.is_empty()).then(|| upsert_operation(points))
            }
            Self::Delete(target) => on_ids(resolve_target(shard, target)?, |ids| {
                UpdateOperation::PointOperation(PointOperations::DeletePoints { ids })
            }),
            Self::SetPayload { payload, key, target } => on_ids(resolve_target(shard, target)?, |ids| {
                payload_operation(PayloadOps::SetPayload(set_payload(ids, payload, key)))
            }),
            Self::OverwritePayload { payload, key: None, target } => on_ids(resolve_target(shard, target)?, |ids| {
                payload_operation(PayloadOps::OverwritePayload(set_payload(ids, payload, None)))
            }),
            // With a key, only that part of the payload is replaced, as setting does.
            Self::OverwritePayload { payload, key, target } => on_ids(resolve_target(shard, target)?, |ids| {
                payload_operation(PayloadOps::SetPayload(set_payload(ids, payload, key)))
            }),
            Self::DeletePayload { keys, target } => on_ids(resolve_target(shard, target)?, |ids| {
                let operation = DeletePayloadOp { keys, points: Some(ids), filter: None };
                payload_operation(PayloadOps::DeletePayload(operation))
            }),
            Self::ClearPayload(target) => {
                on_ids(resolve_target(shard, target)?, |points| payload_operation(PayloadOps::ClearPayload { points }))
            }
            Self::UpdateVectors { mut points, condition } => {
                if let Some(condition) = condition {
                    let ids = points.iter().map(|point| point.id).collect();
                    let matching: HashSet<_> = matching_ids(shard, Some(ids), condition)?.into_iter().collect();
                    points.retain(|point| matching.contains(&point.id));
                }
                let operation = VectorOperations::UpdateVectors(UpdateVectorsOp { points, update_filter: None });
                Some(UpdateOperation::VectorOperation(operation))
            }
            Self::CreateIndex(index) => {
                Some(UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(index)))
            }
            Self::DeleteIndex(field) => {
                Some(UpdateOperation::FieldIndexOperation(FieldIndexOperations::DeleteIndex(field)))
            }
        })
    }
}

fn on_ids(ids: Vec<PointId>, operation: impl FnOnce(Vec<PointId>) -> UpdateOperation) -> Option<UpdateOperation> {
    (!ids.is_empty()).then(|| operation(ids))
}

fn payload_operation(operation: PayloadOps) -> UpdateOperation {
    UpdateOperation::PayloadOperation(operation)
}

fn set_payload(ids: Vec<PointId>, payload: Payload, key: Option<JsonPath>) -> SetPayloadOp {
    SetPayloadOp { payload, points: Some(ids), filter: None, key }
}

pub(crate) fn upsert_operation(points: Vec<PointStructPersisted>) -> UpdateOperation {
    let points = PointInsertOperations::PointsList(points);
    UpdateOperation::PointOperation(PointOperations::UpsertPoints(points))
}

/// Keeps the last occurrence of each id in a batch.
fn last_of_each(mut points: Vec<PointStructPersisted>) -> Vec<PointStructPersisted> {
    let mut seen = HashSet::with_capacity(points.len());
    if points.iter().all(|point| seen.insert(point.id)) {
        return points;
    }
    seen.clear();
    points.reverse();
    points.retain(|point| seen.insert(point.id));
    points.reverse();
    points
}

fn resolve_upsert(
    shard: &EdgeShard,
    mut points: Vec<PointStructPersisted>,
    condition: Option<Filter>,
    mode: UpdateMode,
) -> OperationResult<Vec<PointStructPersisted>> {
    if condition.is_none() && mode == UpdateMode::Upsert {
        return Ok(points);
    }
    let ids: Vec<PointId> = points.iter().map(|point| point.id).collect();
    let stored = existing_ids(shard, &ids)?;
    // Stored points that match the condition.
    let replaceable: HashSet<PointId> = match condition {
        _ if stored.is_empty() || mode == UpdateMode::InsertOnly => HashSet::new(),
        None => stored.clone(),
        Some(condition) => {
            matching_ids(shard, Some(stored.iter().copied().collect()), condition)?.into_iter().collect()
        }
    };
    points.retain(|point| {
        if stored.contains(&point.id) { replaceable.contains(&point.id) } else { mode != UpdateMode::UpdateOnly }
    });
    Ok(points)
}

fn resolve_target(shard: &EdgeShard, target: Selector) -> OperationResult<Vec<PointId>> {
    match target {
        Selector::Ids(ids) => Ok(ids),
        Selector::Filter(filter) => matching_ids(shard, None, filter),
    }
}

/// Returns those of these ids that are stored.
pub(crate) fn existing_ids(shard: &EdgeShard, ids: &[PointId]) -> OperationResult<HashSet<PointId>> {
    let records = shard.retrieve(ids, Some(WithPayloadInterface::Bool(false)), Some(WithVector::Bool(false)))?;
    Ok(records.into_iter().map(|record| record.id).collect())
}

/// Returns the stored points that match, among `within` or among all.
fn matching_ids(shard: &EdgeShard, within: Option<Vec<PointId>>, filter: Filter) -> OperationResult<Vec<PointId>> {
    let (filter, limit) = match within {
        Some(ids) => {
            let limit = ids.len();
            let has_id = Condition::HasId(ids.into_iter().collect::<HasIdCondition>());
            let both = Filter { must: Some(vec![has_id, Condition::Filter(filter)]), ..Filter::default() };
            (both, limit)
        }
        // A bound instead of "all": the engine allocates memory for the whole limit.
        None => (filter, shard.info().points_count),
    };
    let request = ScrollRequest {
        offset: None,
        limit: Some(limit.max(1)),
        filter: Some(filter),
        with_payload: Some(WithPayloadInterface::Bool(false)),
        with_vector: WithVector::Bool(false),
        order_by: None,
    };
    let (records, _) = shard.scroll(request)?;
    Ok(records.into_iter().map(|record| record.id).collect())
}

fn check_vectors(given: &VectorStructPersisted, vectors: &Vectors) -> Result<(), ApiError> {
    match given {
        VectorStructPersisted::Single(vector) => check_dense(UNNAMED, vector, vectors),
        VectorStructPersisted::MultiDense(_) => Err(ApiError::BadInput("Wrong usage of multi vectors".to_owned())),
        VectorStructPersisted::Named(named) => named.iter().try_for_each(|(name, vector)| match vector {
            VectorPersisted::Dense(vector) => check_dense(name, vector, vectors),
            VectorPersisted::Sparse(_) => Err(ApiError::BadInput("Wrong usage of sparse vectors".to_owned())),
            VectorPersisted::MultiDense(_) => Err(ApiError::BadInput("Wrong usage of multi vectors".to_owned())),
        }),
    }
}

/// Rejects a dense vector with an unknown name or a wrong length.
pub(crate) fn check_dense(name: &str, vector: &[f32], vectors: &Vectors) -> Result<(), ApiError> {
    let expected = vectors.get(name)?.size;
    if vector.len() == expected {
        return Ok(());
    }
    let got = vector.len();
    Err(ApiError::BadInput(format!("Vector dimension error: expected dim: {expected}, got {got}")))
}

/// Removes points that no longer exist from an operation of the log: a later record deleted them before the engine was
/// stopped. Upserts and deletes do not need this.
pub(crate) fn without_missing(shard: &EdgeShard, operation: UpdateOperation) -> OperationResult<UpdateOperation> {
    Ok(match operation {
        UpdateOperation::PayloadOperation(mut payload) => {
            if let Some(ids) = payload.point_ids() {
                let stored = existing_ids(shard, &ids)?;
                payload.retain_point_ids(|id| stored.contains(id));
            }
            UpdateOperation::PayloadOperation(payload)
        }
        UpdateOperation::VectorOperation(mut vectors) => {
            if let Some(ids) = vectors.point_ids() {
                let stored = existing_ids(shard, &ids)?;
                vectors.retain_point_ids(|id| stored.contains(id));
            }
            UpdateOperation::VectorOperation(vectors)
        }
        // Never written by `resolve`; listed for completeness.
        UpdateOperation::PointOperation(PointOperations::UpsertPointsConditional(ConditionalInsertOperation {
            points_op,
            ..
        })) => UpdateOperation::PointOperation(PointOperations::UpsertPoints(points_op)),
        other => other,
    })
}
