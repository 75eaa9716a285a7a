//! Encoding of operations in the log.
//!
//! Upserts of dense vectors, nearly all of the traffic, have a compact form: raw floats, payload as JSON. Everything
//! else uses the engine's own serialisation.

use qdrant_edge::{
    Payload, PointId, PointInsertOperations, PointOperations, PointStructPersisted, UpdateOperation,
    VectorStructPersisted,
};
use uuid::Uuid;

use super::write::upsert_operation;

const DENSE_UPSERT: u8 = 1;
const OTHER: u8 = 2;

const NUMBER: u8 = 0;
const UUID: u8 = 1;

/// Length that encodes a missing payload.
const NO_PAYLOAD: u32 = u32::MAX;

/// An unreadable record: the file is corrupted, or another version wrote it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("unknown record kind {0}")]
    Kind(u8),
    #[error("truncated record")]
    Short,
    #[error("invalid JSON in a record: {0}")]
    Json(#[from] serde_json::Error),
}

/// Encodes one operation into `out`; clears it first.
pub(crate) fn encode(operation: &UpdateOperation, out: &mut Vec<u8>) -> Result<(), RecordError> {
    out.clear();
    if let UpdateOperation::PointOperation(PointOperations::UpsertPoints(PointInsertOperations::PointsList(points))) =
        operation
        && points.iter().all(|point| matches!(point.vector, VectorStructPersisted::Single(_)))
    {
        out.push(DENSE_UPSERT);
        for point in points {
            encode_point(point, out)?;
        }
        return Ok(());
    }
    out.push(OTHER);
    serde_json::to_writer(out, operation)?;
    Ok(())
}

/// Decodes a record of [`encode`].
pub(crate) fn decode(record: &[u8]) -> Result<UpdateOperation, RecordError> {
    match record.split_first().ok_or(RecordError::Short)? {
        (&DENSE_UPSERT, mut rest) => {
            let mut points = Vec::new();
            while !rest.is_empty() {
                points.push(decode_point(&mut rest)?);
            }
            Ok(upsert_operation(points))
        }
        (&OTHER, rest) => Ok(serde_json::from_slice(rest)?),
        (&kind, _) => Err(RecordError::Kind(kind)),
    }
}

fn encode_point(point: &PointStructPersisted, out: &mut Vec<u8>) -> Result<(), RecordError> {
    match point.id {
        PointId::NumId(number) => {
            out.push(NUMBER);
            out.extend_from_slice(&number.to_le_bytes());
        }
        PointId::Uuid(uuid) => {
            out.push(UUID);
            out.extend_from_slice(uuid.as_bytes());
        }
    }
    let vector: &[f32] = match &point.vector {
        VectorStructPersisted::Single(vector) => vector,
        VectorStructPersisted::MultiDense(_) | VectorStructPersisted::Named(_) => &[],
    };
    out.extend_from_slice(&length(vector.len()).to_le_bytes());
    out.reserve(size_of_val(vector));
    for value in vector {
        out.extend_from_slice(&value.to_le_bytes());
    }
    match &point.payload {
        None => out.extend_from_slice(&NO_PAYLOAD.to_le_bytes()),
        Some(payload) => {
            let at = out.len();
            out.extend_from_slice(&[0; 4]);
            serde_json::to_writer(&mut *out, payload)?;
            let written = length(out.len() - at - 4).to_le_bytes();
            out[at..at + 4].copy_from_slice(&written);
        }
    }
    Ok(())
}

fn length(length: usize) -> u32 {
    u32::try_from(length).expect("requests are limited to 64 MiB")
}

fn decode_point(rest: &mut &[u8]) -> Result<PointStructPersisted, RecordError> {
    let [kind] = *take::<1>(rest)?;
    let id = match kind {
        NUMBER => PointId::NumId(u64::from_le_bytes(*take(rest)?)),
        UUID => PointId::Uuid(Uuid::from_bytes(*take(rest)?)),
        other => return Err(RecordError::Kind(other)),
    };
    let dim = u32::from_le_bytes(*take(rest)?) as usize;
    let mut vector = Vec::with_capacity(dim.min(rest.len() / size_of::<f32>()));
    for _ in 0..dim {
        vector.push(f32::from_le_bytes(*take(rest)?));
    }
    let payload = match u32::from_le_bytes(*take(rest)?) {
        NO_PAYLOAD => None,
        length => {
            let (json, after) = rest.split_at_checked(length as usize).ok_or(RecordError::Short)?;
            *rest = after;
            Some(Payload(serde_json::from_slice(json)?))
        }
    };
    Ok(PointStructPersisted { id, vector: VectorStructPersisted::Single(vector), payload })
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], RecordError> {
    let (head, tail) = rest.split_first_chunk().ok_or(RecordError::Short)?;
    *rest = tail;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use qdrant_edge::{PayloadOps, SetPayloadOp, VectorPersisted};
    use serde_json::json;

    use super::*;

    fn payload(value: serde_json::Value) -> Payload {
        serde_json::from_value(value).unwrap()
    }

    fn round_trip(operation: &UpdateOperation) {
        let mut record = Vec::new();
        encode(operation, &mut record).unwrap();
        assert_eq!(&decode(&record).unwrap(), operation);
        for cut in 0..record.len() {
            // A truncated record is rejected or is a shorter list of points, but never panics.
            let _ = decode(&record[..cut]).is_ok();
        }
    }

    #[test]
    fn every_kind_of_operation_round_trips() {
        let unicode = json!({"a": 1, "b": -0.1, "n": null, "big": u64::MAX, "deep": {"ü": ["\u{1f30a}", [], {}]}});
        let dense = |id, vector: Vec<f32>, payload| PointStructPersisted {
            id,
            vector: VectorStructPersisted::Single(vector),
            payload,
        };
        let uuid = PointId::Uuid(Uuid::from_u128(7));
        round_trip(&upsert_operation(vec![
            dense(PointId::NumId(u64::MAX), vec![1.0, f32::MIN_POSITIVE, -0.1], Some(payload(unicode.clone()))),
            dense(uuid, vec![0.3; 5], None),
        ]));
        round_trip(&upsert_operation(vec![PointStructPersisted {
            id: uuid,
            vector: VectorStructPersisted::Named(HashMap::from([(
                "text".to_owned(),
                VectorPersisted::Dense(vec![0.1, 1e-30]),
            )])),
            payload: Some(payload(json!({}))),
        }]));
        round_trip(&UpdateOperation::PointOperation(PointOperations::DeletePoints {
            ids: vec![uuid, PointId::NumId(3)],
        }));
        round_trip(&UpdateOperation::PayloadOperation(PayloadOps::SetPayload(SetPayloadOp {
            payload: payload(unicode),
            points: Some(vec![PointId::NumId(0)]),
            filter: None,
            key: Some("a.b[]".parse().unwrap()),
        })));
    }
}
