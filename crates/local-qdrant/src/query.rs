//! A query of either API, converted for the engine: point ids are resolved to their vectors first.

use qdrant_edge::external::ordered_float::OrderedFloat;
use qdrant_edge::{
    Condition, EdgeShard, Filter, Fusion, HasIdCondition, NamedQuery, OperationError, OperationResult, OrderBy,
    PointId, QueryEnum, QueryRequest, Sample, ScoredPoint, ScoringQuery, SearchParams, VectorInternal,
    VectorStructInternal, WithPayloadInterface, WithVector,
};

use super::config::{UNNAMED, Vectors};
use super::error::ApiError;
use super::write::check_dense;

/// Maximum results, because the engine allocates memory for as many.
const MAX_LIMIT: usize = 1 << 20;

/// The target of a nearest-neighbour query.
#[derive(Debug, Clone)]
pub(crate) enum Nearest {
    Vector(Vec<f32>),
    /// The vector of a stored point, which is excluded from the result.
    Id(PointId),
}

/// The ranking of the results.
#[derive(Debug, Clone)]
pub(crate) enum Ranking {
    Nearest(Nearest),
    OrderBy(OrderBy),
    Fusion(Fusion),
    Sample(Sample),
}

/// One source of candidates.
#[derive(Debug, Clone)]
pub(crate) struct Prefetch {
    pub(crate) prefetches: Vec<Prefetch>,
    pub(crate) ranking: Option<Ranking>,
    pub(crate) using: String,
    pub(crate) filter: Option<Filter>,
    pub(crate) params: Option<SearchParams>,
    pub(crate) score_threshold: Option<f32>,
    pub(crate) limit: usize,
}

/// A query. Without `ranking` it is a scroll by id.
#[derive(Debug, Clone)]
pub(crate) struct QuerySpec {
    pub(crate) prefetches: Vec<Prefetch>,
    pub(crate) ranking: Option<Ranking>,
    pub(crate) using: String,
    pub(crate) filter: Option<Filter>,
    pub(crate) params: Option<SearchParams>,
    pub(crate) score_threshold: Option<f32>,
    pub(crate) limit: usize,
    pub(crate) offset: usize,
    pub(crate) with_payload: WithPayloadInterface,
    pub(crate) with_vector: WithVector,
}

impl QuerySpec {
    /// Rejects query vectors that do not match the collection.
    pub(crate) fn check(&self, vectors: &Vectors) -> Result<(), ApiError> {
        if self.limit.saturating_add(self.offset) > MAX_LIMIT {
            return Err(ApiError::BadInput(format!("limit plus offset must be at most {MAX_LIMIT}")));
        }
        check_ranking(self.ranking.as_ref(), &self.using, vectors)?;
        self.prefetches.iter().try_for_each(|prefetch| prefetch.check(vectors))
    }

    /// Runs the query. Blocking.
    pub(crate) fn run(self, shard: &EdgeShard) -> OperationResult<Vec<ScoredPoint>> {
        let (query, filter) = resolve(shard, self.ranking, &self.using, self.filter)?;
        let prefetches = self.prefetches.into_iter().map(|prefetch| prefetch.resolve(shard));
        // The engine does not apply the offset: in Qdrant, the collection does so when it merges its shards.
        let mut points = shard.query(QueryRequest {
            prefetches: prefetches.collect::<OperationResult<_>>()?,
            query,
            filter,
            score_threshold: self.score_threshold.map(OrderedFloat),
            limit: self.limit.saturating_add(self.offset),
            offset: 0,
            params: self.params,
            with_vector: self.with_vector,
            with_payload: self.with_payload,
        })?;
        points.drain(..self.offset.min(points.len()));
        Ok(points)
    }
}

impl Prefetch {
    fn check(&self, vectors: &Vectors) -> Result<(), ApiError> {
        if self.limit > MAX_LIMIT {
            return Err(ApiError::BadInput(format!("the limit of a prefetch must be at most {MAX_LIMIT}")));
        }
        check_ranking(self.ranking.as_ref(), &self.using, vectors)?;
        self.prefetches.iter().try_for_each(|prefetch| prefetch.check(vectors))
    }

    fn resolve(self, shard: &EdgeShard) -> OperationResult<qdrant_edge::Prefetch> {
        let (query, filter) = resolve(shard, self.ranking, &self.using, self.filter)?;
        let prefetches = self.prefetches.into_iter().map(|prefetch| prefetch.resolve(shard));
        Ok(qdrant_edge::Prefetch {
            prefetches: prefetches.collect::<OperationResult<_>>()?,
            query,
            limit: self.limit,
            params: self.params,
            filter,
            score_threshold: self.score_threshold.map(OrderedFloat),
        })
    }
}

fn check_ranking(ranking: Option<&Ranking>, using: &str, vectors: &Vectors) -> Result<(), ApiError> {
    match ranking {
        Some(Ranking::Nearest(Nearest::Vector(vector))) => check_dense(using, vector, vectors),
        Some(Ranking::Nearest(Nearest::Id(_))) => vectors.get(using).map(|_| ()),
        Some(Ranking::OrderBy(_) | Ranking::Fusion(_) | Ranking::Sample(_)) | None => Ok(()),
    }
}

/// Converts the ranking for the engine, and extends the filter.
fn resolve(
    shard: &EdgeShard,
    ranking: Option<Ranking>,
    using: &str,
    filter: Option<Filter>,
) -> OperationResult<(Option<ScoringQuery>, Option<Filter>)> {
    let nearest = |vector| {
        let using = (using != UNNAMED).then(|| using.to_owned());
        Some(ScoringQuery::Vector(QueryEnum::Nearest(NamedQuery { query: VectorInternal::Dense(vector), using })))
    };
    Ok(match ranking {
        None => (None, filter),
        Some(Ranking::Nearest(Nearest::Vector(vector))) => (nearest(vector), filter),
        Some(Ranking::Nearest(Nearest::Id(id))) => {
            let vector = vector_of(shard, id, using)?;
            let itself = Condition::HasId(std::iter::once(id).collect::<HasIdCondition>());
            (nearest(vector), Filter::merge_opts(filter, Some(Filter::new_must_not(itself))))
        }
        Some(Ranking::OrderBy(order)) => (Some(ScoringQuery::OrderBy(order)), filter),
        Some(Ranking::Fusion(fusion)) => (Some(ScoringQuery::Fusion(fusion)), filter),
        Some(Ranking::Sample(sample)) => (Some(ScoringQuery::Sample(sample)), filter),
    })
}

fn vector_of(shard: &EdgeShard, id: PointId, using: &str) -> OperationResult<Vec<f32>> {
    let records = shard.retrieve(&[id], Some(WithPayloadInterface::Bool(false)), Some(WithVector::Bool(true)))?;
    let record = records.into_iter().next().ok_or(OperationError::PointIdError { missed_point_id: id })?;
    let found = match record.vector {
        Some(VectorStructInternal::Single(vector)) if using == UNNAMED => Some(vector),
        Some(VectorStructInternal::Named(mut named)) => match named.remove(using) {
            Some(VectorInternal::Dense(vector)) => Some(vector),
            _ => None,
        },
        _ => None,
    };
    found.ok_or_else(|| OperationError::vector_name_not_exists(using))
}
