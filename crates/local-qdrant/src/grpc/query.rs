//! Converts searches and universal queries from protobuf to the engine.

use qdrant_client::qdrant::{self as proto, query::Variant, vector_input::Variant as Input};
use qdrant_edge::external::ordered_float::OrderedFloat;
use qdrant_edge::{AcornSearchParams, Fusion, QuantizationSearchParams, Sample, SearchParams};

use super::super::error::ApiError;
use super::super::query::{Nearest, Prefetch, QuerySpec, Ranking};
use super::filter::{filter_in, order_by_in};
use super::value::{id_in, required, with_payload_in, with_vectors_in};

type Result<T> = std::result::Result<T, ApiError>;

/// Default of `limit`.
const DEFAULT_LIMIT: u64 = 10;

pub(super) fn search_in(search: proto::SearchPoints) -> Result<QuerySpec> {
    if search.sparse_indices.is_some() {
        return Err(ApiError::BadInput("Wrong usage of sparse vectors".to_owned()));
    }
    Ok(QuerySpec {
        prefetches: Vec::new(),
        ranking: Some(Ranking::Nearest(Nearest::Vector(search.vector))),
        using: search.vector_name.unwrap_or_default(),
        filter: filter_in(search.filter)?,
        params: search.params.as_ref().map(params_in).transpose()?,
        score_threshold: search.score_threshold,
        limit: count(search.limit),
        offset: count(search.offset.unwrap_or_default()),
        with_payload: with_payload_in(search.with_payload, false)?,
        with_vector: with_vectors_in(search.with_vectors),
    })
}

pub(super) fn query_in(query: proto::QueryPoints) -> Result<QuerySpec> {
    refuse_lookup(query.lookup_from.as_ref())?;
    Ok(QuerySpec {
        prefetches: query.prefetch.into_iter().map(prefetch_in).collect::<Result<_>>()?,
        ranking: query.query.map(ranking_in).transpose()?,
        using: query.using.unwrap_or_default(),
        filter: filter_in(query.filter)?,
        params: query.params.as_ref().map(params_in).transpose()?,
        score_threshold: query.score_threshold,
        limit: count(query.limit.unwrap_or(DEFAULT_LIMIT)),
        offset: count(query.offset.unwrap_or_default()),
        with_payload: with_payload_in(query.with_payload, false)?,
        with_vector: with_vectors_in(query.with_vectors),
    })
}

fn prefetch_in(prefetch: proto::PrefetchQuery) -> Result<Prefetch> {
    refuse_lookup(prefetch.lookup_from.as_ref())?;
    Ok(Prefetch {
        prefetches: prefetch.prefetch.into_iter().map(prefetch_in).collect::<Result<_>>()?,
        ranking: prefetch.query.map(ranking_in).transpose()?,
        using: prefetch.using.unwrap_or_default(),
        filter: filter_in(prefetch.filter)?,
        params: prefetch.params.as_ref().map(params_in).transpose()?,
        score_threshold: prefetch.score_threshold,
        limit: count(prefetch.limit.unwrap_or(DEFAULT_LIMIT)),
    })
}

fn refuse_lookup(lookup: Option<&proto::LookupLocation>) -> Result<()> {
    lookup.map_or(Ok(()), |_| Err(ApiError::Unsupported("lookup_from".to_owned())))
}

fn ranking_in(query: proto::Query) -> Result<Ranking> {
    let unsupported = |kind: &str| Err(ApiError::Unsupported(format!("{kind} query")));
    match required(query.variant, "query")? {
        Variant::Nearest(input) => Ok(Ranking::Nearest(nearest_in(input)?)),
        Variant::OrderBy(order) => Ok(Ranking::OrderBy(order_by_in(order)?)),
        Variant::Fusion(fusion) => match proto::Fusion::try_from(fusion) {
            Ok(proto::Fusion::Rrf) => Ok(Ranking::Fusion(Fusion::Rrf { k: RRF_K, weights: None })),
            Ok(proto::Fusion::Dbsf) => Ok(Ranking::Fusion(Fusion::Dbsf)),
            Err(_) => Err(ApiError::BadInput(format!("unknown fusion {fusion}"))),
        },
        Variant::Rrf(rrf) => Ok(Ranking::Fusion(Fusion::Rrf {
            k: rrf.k.map_or(RRF_K, |k| k as usize),
            weights: (!rrf.weights.is_empty()).then(|| rrf.weights.into_iter().map(OrderedFloat).collect()),
        })),
        Variant::Sample(_) => Ok(Ranking::Sample(Sample::Random)),
        Variant::Recommend(_) => unsupported("recommend"),
        Variant::Discover(_) => unsupported("discover"),
        Variant::Context(_) => unsupported("context"),
        Variant::Formula(_) => unsupported("formula"),
        Variant::NearestWithMmr(_) => unsupported("nearest with MMR"),
        Variant::RelevanceFeedback(_) => unsupported("relevance feedback"),
        Variant::Text(_) => unsupported("text"),
    }
}

/// Qdrant's constant for reciprocal rank fusion.
const RRF_K: usize = 2;

fn nearest_in(input: proto::VectorInput) -> Result<Nearest> {
    match required(input.variant, "vector")? {
        Input::Id(id) => Ok(Nearest::Id(id_in(id)?)),
        Input::Dense(dense) => Ok(Nearest::Vector(dense.data)),
        Input::Sparse(_) => Err(ApiError::BadInput("Wrong usage of sparse vectors".to_owned())),
        Input::MultiDense(_) => Err(ApiError::BadInput("Wrong usage of multi vectors".to_owned())),
        Input::Document(_) | Input::Image(_) | Input::Object(_) => {
            Err(ApiError::Unsupported("inference on the server".to_owned()))
        }
    }
}

fn params_in(params: &proto::SearchParams) -> Result<SearchParams> {
    if params.idf.is_some() {
        return Err(ApiError::Unsupported("search parameter idf".to_owned()));
    }
    Ok(SearchParams {
        hnsw_ef: params.hnsw_ef.map(count),
        exact: params.exact.unwrap_or_default(),
        quantization: params.quantization.as_ref().map(|quantization| QuantizationSearchParams {
            ignore: quantization.ignore.unwrap_or_default(),
            rescore: quantization.rescore,
            oversampling: quantization.oversampling,
        }),
        indexed_only: params.indexed_only.unwrap_or_default(),
        acorn: params.acorn.as_ref().map(|acorn| AcornSearchParams {
            enable: acorn.enable.unwrap_or_default(),
            max_selectivity: acorn.max_selectivity.map(OrderedFloat),
        }),
    })
}

pub(super) fn count(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
