//! Reads and searches of the fake collection.

use async_trait::async_trait;
use serde_json::{Map, Value};
use tidewheel_core::filter::Filter;
use tidewheel_core::payload::fingerprint_of;
use tidewheel_core::ports::{Hit, IndexReader, IndexedPoint, KnownVector, KnownVectors, Point, PortResult, Searcher};
use uuid::Uuid;

use super::super::filter;
use super::{FakeIndex, has_vector, missing};

#[async_trait]
impl IndexReader for FakeIndex {
    fn name(&self) -> &str {
        &self.name
    }

    async fn exists(&self) -> PortResult<bool> {
        drop(self.called("exists"));
        self.faults.around("exists", || Ok(self.state().collection.is_some())).await
    }

    async fn count(&self) -> PortResult<Option<u64>> {
        drop(self.called("count"));
        let count = || Ok(self.state().collection.as_ref().map(|collection| collection.points.len() as u64));
        self.faults.around("count", count).await
    }

    async fn points(&self, ids: &[Uuid], fields: &[&str]) -> PortResult<Vec<IndexedPoint>> {
        self.called("points").reads(ids.len());
        let points = || {
            let state = self.state();
            let points = state.collection.iter().flat_map(|collection| collection.points.values());
            Ok(points.filter(|point| ids.contains(&point.id)).map(|point| indexed(point, fields)).collect())
        };
        self.faults.around("points", points).await
    }

    async fn page(&self, after: Option<Uuid>, limit: usize, fields: &[&str]) -> PortResult<Vec<IndexedPoint>> {
        self.called("page").reads(limit);
        let page = || {
            let state = self.state();
            let points = state.collection.iter().flat_map(|collection| collection.points.values());
            let after = points.filter(|point| after.is_none_or(|after| point.id > after));
            Ok(after.take(limit).map(|point| indexed(point, fields)).collect())
        };
        self.faults.around("page", page).await
    }
}

#[async_trait]
impl Searcher for FakeIndex {
    async fn search(
        &self,
        vector: Vec<f32>,
        limit: usize,
        filter: Option<&Filter>,
        fields: &[&str],
    ) -> PortResult<Vec<Hit>> {
        drop(self.called("search"));
        let search = || {
            let state = self.state();
            let collection = state.collection.as_ref().ok_or_else(missing)?;
            collection.check(vector.len())?;
            let mut hits = Vec::new();
            for point in collection.points.values().filter(|point| has_vector(point)) {
                if filter.map_or(Ok(true), |filter| filter::matches(filter, point.id, &point.payload))? {
                    let score = cosine(&vector, &point.vector);
                    hits.push(Hit { id: point.id, score, payload: indexed(point, fields).payload });
                }
            }
            hits.sort_by(|a, b| b.score.total_cmp(&a.score));
            hits.truncate(limit);
            Ok(hits)
        };
        self.faults.around("search", search).await
    }
}

#[async_trait]
impl KnownVectors for FakeIndex {
    async fn known(&self, points: &[Uuid]) -> PortResult<Vec<KnownVector>> {
        drop(self.called("known"));
        let known = || {
            let state = self.state();
            let stored = state.collection.iter().flat_map(|collection| &collection.points);
            let known = |(id, point): (&Uuid, &Point)| {
                let fingerprint = fingerprint_of(&point.payload)?.to_owned();
                Some(KnownVector { id: *id, fingerprint, vector: point.vector.clone() })
            };
            let stored = stored.filter(|(id, point)| points.contains(id) && has_vector(point));
            Ok(stored.filter_map(known).collect())
        };
        self.faults.around("known", known).await
    }
}

/// The point with these payload fields, whose paths have at most two names; all if `fields` is empty.
fn indexed(point: &Point, fields: &[&str]) -> IndexedPoint {
    let mut payload = if fields.is_empty() { point.payload.clone() } else { Map::new() };
    for field in fields {
        match field.split_once('.') {
            None => payload.extend(point.payload.get(*field).map(|value| ((*field).to_owned(), value.clone()))),
            Some((outer, inner)) => {
                if let Some(value) = point.payload.get(outer).and_then(|object| object.get(inner)) {
                    payload.entry(outer).or_insert_with(|| Value::Object(Map::new()))[inner] = value.clone();
                }
            }
        }
    }
    IndexedPoint { id: point.id, payload }
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let norms = dot(a, a).sqrt() * dot(b, b).sqrt();
    if norms == 0.0 { 0.0 } else { dot(a, b) / norms }
}
