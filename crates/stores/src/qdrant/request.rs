//! Builders of requests, as pure functions.

use std::collections::HashMap;

use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::points_update_operation::{Operation, OverwritePayload};
use qdrant_client::qdrant::vectors::VectorsOptions;
use qdrant_client::qdrant::with_payload_selector::SelectorOptions;
use qdrant_client::qdrant::{
    DeletePoints, DenseVector, Filter, GetPoints, NamedVectors, PayloadIncludeSelector, PointId, PointStruct,
    PointsSelector, PointsUpdateOperation, Query, QueryPoints, ScrollPoints, UpdateBatchPoints, UpsertPoints, Value,
    Vector, VectorInput, Vectors, WithPayloadSelector, WithVectorsSelector, point_id, query, vector, vector_input,
    with_vectors_selector,
};
use tidewheel_core::payload::{FINGERPRINT, fingerprint_of};
use tidewheel_core::ports::{DocumentPoints, Point};
use tidewheel_core::version::Version;
use uuid::Uuid;

use super::batch::Part;
use super::{fence, value};

/// The payload field with both halves of the version.
const VERSION: &str = "_tidewheel.version";

/// Upserts points that are missing or older.
pub(super) fn upsert(collection: &str, parts: &[Part<'_>]) -> UpsertPoints {
    UpsertPoints {
        collection_name: collection.to_owned(),
        wait: Some(true),
        points: parts.iter().flat_map(|part| part.points.iter().map(|own| point(part.document, own))).collect(),
        update_filter: Some(fence::replaceable(by_version(parts, |_| true))),
        ..UpsertPoints::default()
    }
}

/// Deletes older versions of the points that are stored without a vector, before the upsert: an upsert moves a point out of an
/// indexed segment with its old vectors, and replaces only those that it names. `None` if all points have a vector.
pub(super) fn clear(collection: &str, parts: &[Part<'_>]) -> Option<DeletePoints> {
    let groups = by_version(parts, |point| !has_vector(point));
    (!groups.is_empty()).then(|| delete(collection, fence::replaceable(groups)))
}

fn has_vector(point: &Point) -> bool {
    point.vector.iter().any(|number| *number != 0.0)
}

/// Groups the points of documents of one version into one filter clause, such as all rows of a snapshot.
fn by_version(parts: &[Part<'_>], select: impl Fn(&Point) -> bool) -> Vec<(Version, Vec<PointId>)> {
    let mut groups: Vec<(Version, Vec<PointId>)> = Vec::new();
    for part in parts {
        let ids: Vec<PointId> = part.points.iter().filter(|point| select(point)).map(|point| id(point.id)).collect();
        if ids.is_empty() {
            continue;
        }
        match groups.iter_mut().find(|(version, _)| *version == part.document.version) {
            Some((_, group)) => group.extend(ids),
            None => groups.push((part.document.version, ids)),
        }
    }
    groups
}

fn point(document: &DocumentPoints, point: &Point) -> PointStruct {
    let vectors = if !has_vector(point) {
        // Stores the point without a vector. A zero vector would match every search, with similarity 0.
        VectorsOptions::Vectors(NamedVectors::default())
    } else {
        let dense = vector::Vector::Dense(DenseVector { data: point.vector.clone() });
        VectorsOptions::Vector(Vector { vector: Some(dense), ..Vector::default() })
    };
    PointStruct {
        id: Some(id(point.id)),
        vectors: Some(Vectors { vectors_options: Some(vectors) }),
        payload: payload(document, point),
    }
}

/// Writes the payload of points that are older and have the same fingerprint; points without a fingerprint are skipped.
pub(super) fn refresh(collection: &str, parts: &[Part<'_>]) -> UpdateBatchPoints {
    let points = parts.iter().flat_map(|part| part.points.iter().map(|own| (part.document, own)));
    let operation = |(document, own): (&DocumentPoints, &Point)| {
        let filter = fence::refreshable(id(own.id), document.version, fingerprint_of(&own.payload)?);
        let operation = Operation::OverwritePayload(OverwritePayload {
            payload: payload(document, own),
            points_selector: Some(PointsSelector { points_selector_one_of: Some(PointsSelectorOneOf::Filter(filter)) }),
            ..OverwritePayload::default()
        });
        Some(PointsUpdateOperation { operation: Some(operation) })
    };
    UpdateBatchPoints {
        collection_name: collection.to_owned(),
        wait: Some(true),
        operations: points.filter_map(operation).collect(),
        ..UpdateBatchPoints::default()
    }
}

/// The payload of one of a document's points.
pub fn payload(document: &DocumentPoints, point: &Point) -> HashMap<String, Value> {
    let mut payload = value::to_payload(document.fields_of(point));
    payload.extend(value::to_payload(&point.payload));
    payload
}

/// Checks which of these points exist.
pub(super) fn which_exist(collection: &str, ids: impl Iterator<Item = Uuid>) -> GetPoints {
    GetPoints {
        collection_name: collection.to_owned(),
        ids: ids.map(id).collect(),
        with_payload: Some(WithPayloadSelector { selector_options: Some(SelectorOptions::Enable(false)) }),
        ..GetPoints::default()
    }
}

/// Reads the versions of these points.
pub(super) fn versions(collection: &str, ids: impl Iterator<Item = Uuid>) -> GetPoints {
    GetPoints { with_payload: Some(selected(&[VERSION])), ..which_exist(collection, ids) }
}

/// Reads the vectors and fingerprints of these points.
pub(super) fn known(collection: &str, ids: &[Uuid]) -> GetPoints {
    let vectors = with_vectors_selector::SelectorOptions::Enable(true);
    GetPoints {
        with_vectors: Some(WithVectorsSelector { selector_options: Some(vectors) }),
        ..points(collection, ids, &[FINGERPRINT])
    }
}

/// Deletes every point that the filter selects.
pub(super) fn delete(collection: &str, filter: Filter) -> DeletePoints {
    DeletePoints {
        collection_name: collection.to_owned(),
        wait: Some(true),
        points: Some(PointsSelector { points_selector_one_of: Some(PointsSelectorOneOf::Filter(filter)) }),
        ..DeletePoints::default()
    }
}

/// Lists the ids of points that the filter selects, in order, from `start`.
pub(super) fn ids(collection: &str, filter: Filter, start: Option<PointId>, limit: u32) -> ScrollPoints {
    ScrollPoints {
        collection_name: collection.to_owned(),
        filter: Some(filter),
        offset: start,
        limit: Some(limit),
        with_payload: Some(WithPayloadSelector { selector_options: Some(SelectorOptions::Enable(false)) }),
        ..ScrollPoints::default()
    }
}

/// Searches the nearest points, with these payload fields.
pub(super) fn search(
    collection: &str,
    vector: Vec<f32>,
    limit: usize,
    filter: Option<Filter>,
    fields: &[&str],
) -> QueryPoints {
    let nearest = VectorInput { variant: Some(vector_input::Variant::Dense(DenseVector { data: vector })) };
    QueryPoints {
        collection_name: collection.to_owned(),
        query: Some(Query { variant: Some(query::Variant::Nearest(nearest)) }),
        filter,
        limit: Some(limit as u64),
        with_payload: Some(selected(fields)),
        ..QueryPoints::default()
    }
}

/// Lists points in id order, from `start`.
pub(super) fn page(collection: &str, start: Uuid, limit: usize, fields: &[&str]) -> ScrollPoints {
    ScrollPoints {
        collection_name: collection.to_owned(),
        offset: Some(id(start)),
        limit: Some(u32::try_from(limit).unwrap_or(u32::MAX)),
        with_payload: Some(selected(fields)),
        ..ScrollPoints::default()
    }
}

/// Reads these points.
pub(super) fn points(collection: &str, ids: &[Uuid], fields: &[&str]) -> GetPoints {
    GetPoints { with_payload: Some(selected(fields)), ..which_exist(collection, ids.iter().copied()) }
}

/// Selects these payload fields; all if `fields` is empty.
fn selected(fields: &[&str]) -> WithPayloadSelector {
    if fields.is_empty() {
        return whole_payload();
    }
    let fields = fields.iter().map(|field| (*field).to_owned()).collect();
    WithPayloadSelector { selector_options: Some(SelectorOptions::Include(PayloadIncludeSelector { fields })) }
}

fn whole_payload() -> WithPayloadSelector {
    WithPayloadSelector { selector_options: Some(SelectorOptions::Enable(true)) }
}

pub(super) fn id(uuid: Uuid) -> PointId {
    PointId { point_id_options: Some(point_id::PointIdOptions::Uuid(uuid.to_string())) }
}
