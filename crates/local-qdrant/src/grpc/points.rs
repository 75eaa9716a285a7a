//! The gRPC service for points.

use std::sync::Arc;
use std::time::Instant;

use qdrant_client::qdrant::points_server::Points;
use qdrant_client::qdrant::{self as proto, points_update_operation::Operation};
use qdrant_edge::{CountRequest, FacetRequest, FacetValue, OrderByInterface, ScrollRequest, UpdateMode};
use tonic::{Request, Response, Status};

use super::super::catalog::Catalog;
use super::super::collection::Outcome;
use super::super::error::ApiError;
use super::super::write::Write;
use super::filter::{filter_in, order_by_in, selector_in};
use super::index::create_index_in;
use super::query::{count, query_in, search_in};
use super::value::{
    id_in, id_out, ids_in, path_in, paths_in, payload_in, point_in, point_vectors_in, record_out, required, scored_out,
    with_payload_in, with_vectors_in,
};

type Answer<T> = Result<Response<T>, Status>;

pub(super) struct PointsService {
    pub(super) catalog: Arc<Catalog>,
}

fn outcome_out(outcome: Outcome) -> proto::UpdateResult {
    let status = if outcome.completed { proto::UpdateStatus::Completed } else { proto::UpdateStatus::Acknowledged };
    proto::UpdateResult { operation_id: Some(outcome.operation_id), status: status.into() }
}

fn mode_in(mode: Option<i32>) -> UpdateMode {
    match mode.map(proto::UpdateMode::try_from) {
        Some(Ok(proto::UpdateMode::InsertOnly)) => UpdateMode::InsertOnly,
        Some(Ok(proto::UpdateMode::UpdateOnly)) => UpdateMode::UpdateOnly,
        Some(Ok(proto::UpdateMode::Upsert) | Err(_)) | None => UpdateMode::Upsert,
    }
}

fn upsert_in(
    points: Vec<proto::PointStruct>,
    filter: Option<proto::Filter>,
    mode: Option<i32>,
) -> Result<Write, ApiError> {
    Ok(Write::Upsert {
        points: points.into_iter().map(point_in).collect::<Result<_, _>>()?,
        condition: filter_in(filter)?,
        mode: mode_in(mode),
    })
}

fn update_vectors_in(points: Vec<proto::PointVectors>, filter: Option<proto::Filter>) -> Result<Write, ApiError> {
    Ok(Write::UpdateVectors {
        points: points.into_iter().map(point_vectors_in).collect::<Result<_, _>>()?,
        condition: filter_in(filter)?,
    })
}

/// One step of a batch.
#[allow(deprecated, reason = "older clients send the deprecated forms")]
fn operation_in(operation: proto::PointsUpdateOperation) -> Result<Write, ApiError> {
    Ok(match required(operation.operation, "operation")? {
        Operation::Upsert(upsert) => upsert_in(upsert.points, upsert.update_filter, upsert.update_mode)?,
        Operation::DeleteDeprecated(points) => Write::Delete(selector_in(Some(points))?),
        Operation::DeletePoints(delete) => Write::Delete(selector_in(delete.points)?),
        Operation::SetPayload(set) => Write::SetPayload {
            payload: payload_in(set.payload),
            key: set.key.as_deref().map(path_in).transpose()?,
            target: selector_in(set.points_selector)?,
        },
        Operation::OverwritePayload(set) => Write::OverwritePayload {
            payload: payload_in(set.payload),
            key: set.key.as_deref().map(path_in).transpose()?,
            target: selector_in(set.points_selector)?,
        },
        Operation::DeletePayload(delete) => {
            Write::DeletePayload { keys: paths_in(&delete.keys)?, target: selector_in(delete.points_selector)? }
        }
        Operation::ClearPayloadDeprecated(points) => Write::ClearPayload(selector_in(Some(points))?),
        Operation::ClearPayload(clear) => Write::ClearPayload(selector_in(clear.points)?),
        Operation::UpdateVectors(update) => update_vectors_in(update.points, update.update_filter)?,
        Operation::DeleteVectors(_) => return Err(unavailable("DeleteVectors")),
    })
}

fn unavailable(call: &str) -> ApiError {
    ApiError::Unsupported(format!("call {call}"))
}

impl PointsService {
    async fn write(
        &self,
        collection: &str,
        wait: Option<bool>,
        write: Result<Write, ApiError>,
    ) -> Answer<proto::PointsOperationResponse> {
        let started = Instant::now();
        let outcome = self.catalog.get(collection)?.write(write?, wait.unwrap_or_default()).await?;
        Ok(Response::new(proto::PointsOperationResponse {
            result: Some(outcome_out(outcome)),
            time: started.elapsed().as_secs_f64(),
            usage: None,
        }))
    }

    async fn run_query(
        &self,
        collection: &str,
        spec: super::super::query::QuerySpec,
    ) -> Result<Vec<proto::ScoredPoint>, ApiError> {
        let collection = self.catalog.get(collection)?;
        spec.check(&collection.shared.config().vectors)?;
        let points = collection.read(move |shard| spec.run(shard)).await?;
        Ok(points.into_iter().map(scored_out).collect())
    }
}

#[tonic::async_trait]
impl Points for PointsService {
    async fn upsert(&self, request: Request<proto::UpsertPoints>) -> Answer<proto::PointsOperationResponse> {
        let request = request.into_inner();
        let write = upsert_in(request.points, request.update_filter, request.update_mode);
        self.write(&request.collection_name, request.wait, write).await
    }

    async fn delete(&self, request: Request<proto::DeletePoints>) -> Answer<proto::PointsOperationResponse> {
        let request = request.into_inner();
        let write = selector_in(request.points).map(Write::Delete);
        self.write(&request.collection_name, request.wait, write).await
    }

    async fn get(&self, request: Request<proto::GetPoints>) -> Answer<proto::GetResponse> {
        let started = Instant::now();
        let request = request.into_inner();
        let ids = ids_in(request.ids)?;
        let with_payload = with_payload_in(request.with_payload, true)?;
        let with_vectors = with_vectors_in(request.with_vectors);
        let collection = self.catalog.get(&request.collection_name)?;
        let records =
            collection.read(move |shard| shard.retrieve(&ids, Some(with_payload), Some(with_vectors))).await?;
        Ok(Response::new(proto::GetResponse {
            result: records.into_iter().map(record_out).collect(),
            time: started.elapsed().as_secs_f64(),
            usage: None,
        }))
    }

    async fn update_vectors(
        &self,
        request: Request<proto::UpdatePointVectors>,
    ) -> Answer<proto::PointsOperationResponse> {
        let request = request.into_inner();
        let write = update_vectors_in(request.points, request.update_filter);
        self.write(&request.collection_name, request.wait, write).await
    }

    async fn delete_vectors(&self, _: Request<proto::DeletePointVectors>) -> Answer<proto::PointsOperationResponse> {
        Err(unavailable("DeleteVectors").into())
    }

    async fn set_payload(&self, request: Request<proto::SetPayloadPoints>) -> Answer<proto::PointsOperationResponse> {
        let request = request.into_inner();
        let write = Write::SetPayload {
            payload: payload_in(request.payload),
            key: request.key.as_deref().map(path_in).transpose()?,
            target: selector_in(request.points_selector)?,
        };
        self.write(&request.collection_name, request.wait, Ok(write)).await
    }

    async fn overwrite_payload(
        &self,
        request: Request<proto::SetPayloadPoints>,
    ) -> Answer<proto::PointsOperationResponse> {
        let request = request.into_inner();
        let write = Write::OverwritePayload {
            payload: payload_in(request.payload),
            key: request.key.as_deref().map(path_in).transpose()?,
            target: selector_in(request.points_selector)?,
        };
        self.write(&request.collection_name, request.wait, Ok(write)).await
    }

    async fn delete_payload(
        &self,
        request: Request<proto::DeletePayloadPoints>,
    ) -> Answer<proto::PointsOperationResponse> {
        let request = request.into_inner();
        let write =
            Write::DeletePayload { keys: paths_in(&request.keys)?, target: selector_in(request.points_selector)? };
        self.write(&request.collection_name, request.wait, Ok(write)).await
    }

    async fn clear_payload(
        &self,
        request: Request<proto::ClearPayloadPoints>,
    ) -> Answer<proto::PointsOperationResponse> {
        let request = request.into_inner();
        let write = selector_in(request.points).map(Write::ClearPayload);
        self.write(&request.collection_name, request.wait, write).await
    }

    async fn create_field_index(
        &self,
        request: Request<proto::CreateFieldIndexCollection>,
    ) -> Answer<proto::PointsOperationResponse> {
        let request = request.into_inner();
        let write = create_index_in(&request.field_name, request.field_type, request.field_index_params);
        self.write(&request.collection_name, request.wait, write.map(Write::CreateIndex)).await
    }

    async fn delete_field_index(
        &self,
        request: Request<proto::DeleteFieldIndexCollection>,
    ) -> Answer<proto::PointsOperationResponse> {
        let request = request.into_inner();
        let write = path_in(&request.field_name).map(Write::DeleteIndex);
        self.write(&request.collection_name, request.wait, write).await
    }

    async fn create_vector_name(
        &self,
        _: Request<proto::CreateVectorNameRequest>,
    ) -> Answer<proto::PointsOperationResponse> {
        Err(unavailable("CreateVectorName").into())
    }

    async fn delete_vector_name(
        &self,
        _: Request<proto::DeleteVectorNameRequest>,
    ) -> Answer<proto::PointsOperationResponse> {
        Err(unavailable("DeleteVectorName").into())
    }

    async fn search(&self, request: Request<proto::SearchPoints>) -> Answer<proto::SearchResponse> {
        let started = Instant::now();
        let request = request.into_inner();
        let collection = request.collection_name.clone();
        let result = self.run_query(&collection, search_in(request)?).await?;
        Ok(Response::new(proto::SearchResponse { result, time: started.elapsed().as_secs_f64(), usage: None }))
    }

    async fn search_batch(&self, request: Request<proto::SearchBatchPoints>) -> Answer<proto::SearchBatchResponse> {
        let started = Instant::now();
        let request = request.into_inner();
        let mut result = Vec::with_capacity(request.search_points.len());
        for search in request.search_points {
            result.push(proto::BatchResult {
                result: self.run_query(&request.collection_name, search_in(search)?).await?,
            });
        }
        Ok(Response::new(proto::SearchBatchResponse { result, time: started.elapsed().as_secs_f64(), usage: None }))
    }

    async fn search_groups(&self, _: Request<proto::SearchPointGroups>) -> Answer<proto::SearchGroupsResponse> {
        Err(unavailable("SearchGroups").into())
    }

    async fn scroll(&self, request: Request<proto::ScrollPoints>) -> Answer<proto::ScrollResponse> {
        let started = Instant::now();
        let request = request.into_inner();
        let scroll = ScrollRequest {
            offset: request.offset.map(id_in).transpose()?,
            limit: Some(request.limit.map_or(ScrollRequest::default_limit(), |limit| limit as usize)),
            filter: filter_in(request.filter)?,
            with_payload: Some(with_payload_in(request.with_payload, true)?),
            with_vector: with_vectors_in(request.with_vectors),
            order_by: request.order_by.map(|order| order_by_in(order).map(OrderByInterface::Struct)).transpose()?,
        };
        if scroll.limit == Some(0) {
            return Err(ApiError::BadInput("limit must be at least 1".to_owned()).into());
        }
        let collection = self.catalog.get(&request.collection_name)?;
        let (records, next) = collection.read(move |shard| shard.scroll(scroll)).await?;
        Ok(Response::new(proto::ScrollResponse {
            next_page_offset: next.map(id_out),
            result: records.into_iter().map(record_out).collect(),
            time: started.elapsed().as_secs_f64(),
            usage: None,
        }))
    }

    async fn recommend(&self, _: Request<proto::RecommendPoints>) -> Answer<proto::RecommendResponse> {
        Err(unavailable("Recommend").into())
    }

    async fn recommend_batch(&self, _: Request<proto::RecommendBatchPoints>) -> Answer<proto::RecommendBatchResponse> {
        Err(unavailable("RecommendBatch").into())
    }

    async fn recommend_groups(
        &self,
        _: Request<proto::RecommendPointGroups>,
    ) -> Answer<proto::RecommendGroupsResponse> {
        Err(unavailable("RecommendGroups").into())
    }

    async fn discover(&self, _: Request<proto::DiscoverPoints>) -> Answer<proto::DiscoverResponse> {
        Err(unavailable("Discover").into())
    }

    async fn discover_batch(&self, _: Request<proto::DiscoverBatchPoints>) -> Answer<proto::DiscoverBatchResponse> {
        Err(unavailable("DiscoverBatch").into())
    }

    async fn count(&self, request: Request<proto::CountPoints>) -> Answer<proto::CountResponse> {
        let started = Instant::now();
        let request = request.into_inner();
        let query = CountRequest { filter: filter_in(request.filter)?, exact: request.exact.unwrap_or(true) };
        let collection = self.catalog.get(&request.collection_name)?;
        let count = collection.read(move |shard| shard.count(query)).await?;
        Ok(Response::new(proto::CountResponse {
            result: Some(proto::CountResult { count: count as u64 }),
            time: started.elapsed().as_secs_f64(),
            usage: None,
        }))
    }

    async fn update_batch(&self, request: Request<proto::UpdateBatchPoints>) -> Answer<proto::UpdateBatchResponse> {
        let started = Instant::now();
        let request = request.into_inner();
        let collection = self.catalog.get(&request.collection_name)?;
        let writes = request.operations.into_iter().map(operation_in).collect::<Result<Vec<_>, _>>()?;
        let outcomes = collection.write_all(writes, request.wait.unwrap_or_default()).await?;
        Ok(Response::new(proto::UpdateBatchResponse {
            result: outcomes.into_iter().map(outcome_out).collect(),
            time: started.elapsed().as_secs_f64(),
            usage: None,
        }))
    }

    async fn query(&self, request: Request<proto::QueryPoints>) -> Answer<proto::QueryResponse> {
        let started = Instant::now();
        let request = request.into_inner();
        let collection = request.collection_name.clone();
        let result = self.run_query(&collection, query_in(request)?).await?;
        Ok(Response::new(proto::QueryResponse { result, time: started.elapsed().as_secs_f64(), usage: None }))
    }

    async fn query_batch(&self, request: Request<proto::QueryBatchPoints>) -> Answer<proto::QueryBatchResponse> {
        let started = Instant::now();
        let request = request.into_inner();
        let mut result = Vec::with_capacity(request.query_points.len());
        for query in request.query_points {
            result
                .push(proto::BatchResult { result: self.run_query(&request.collection_name, query_in(query)?).await? });
        }
        Ok(Response::new(proto::QueryBatchResponse { result, time: started.elapsed().as_secs_f64(), usage: None }))
    }

    async fn query_groups(&self, _: Request<proto::QueryPointGroups>) -> Answer<proto::QueryGroupsResponse> {
        Err(unavailable("QueryGroups").into())
    }

    async fn facet(&self, request: Request<proto::FacetCounts>) -> Answer<proto::FacetResponse> {
        use proto::facet_value::Variant;
        let started = Instant::now();
        let request = request.into_inner();
        let query = FacetRequest {
            key: path_in(&request.key)?,
            limit: count(request.limit.unwrap_or(FacetRequest::DEFAULT_LIMIT as u64)),
            filter: filter_in(request.filter)?,
            exact: request.exact.unwrap_or_default(),
        };
        let collection = self.catalog.get(&request.collection_name)?;
        let response = collection.read(move |shard| shard.facet(query)).await?;
        let hits = response.hits.into_iter().map(|hit| {
            let variant = match hit.value {
                FacetValue::Keyword(keyword) => Variant::StringValue(keyword),
                FacetValue::Int(integer) => Variant::IntegerValue(integer),
                FacetValue::Bool(flag) => Variant::BoolValue(flag),
                FacetValue::Uuid(uuid) => Variant::StringValue(uuid::Uuid::from_u128(uuid).to_string()),
            };
            proto::FacetHit { value: Some(proto::FacetValue { variant: Some(variant) }), count: hit.count as u64 }
        });
        Ok(Response::new(proto::FacetResponse {
            hits: hits.collect(),
            time: started.elapsed().as_secs_f64(),
            usage: None,
        }))
    }

    async fn search_matrix_pairs(
        &self,
        _: Request<proto::SearchMatrixPoints>,
    ) -> Answer<proto::SearchMatrixPairsResponse> {
        Err(unavailable("SearchMatrixPairs").into())
    }

    async fn search_matrix_offsets(
        &self,
        _: Request<proto::SearchMatrixPoints>,
    ) -> Answer<proto::SearchMatrixOffsetsResponse> {
        Err(unavailable("SearchMatrixOffsets").into())
    }
}
