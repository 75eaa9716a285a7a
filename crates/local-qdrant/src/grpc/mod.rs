//! Qdrant's gRPC API: the generated services on top of the catalog.

mod collections;
mod config;
mod depth;
mod filter;
mod index;
mod points;
mod quantization;
mod query;
mod value;

use std::sync::Arc;

use axum::extract::{Request as HttpRequest, State};
use axum::middleware::{self, Next};
use axum::response::Response as HttpResponse;
use qdrant_client::qdrant::collections_server::CollectionsServer;
use qdrant_client::qdrant::points_server::PointsServer;
use qdrant_client::qdrant::qdrant_server::{Qdrant, QdrantServer};
use qdrant_client::qdrant::{HealthCheckReply, HealthCheckRequest};
use tidewheel_serving::Server;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::auth::ApiKey;
use super::catalog::Catalog;
use super::{MAX_MESSAGE, TITLE, VERSION};

struct Health;

#[tonic::async_trait]
impl Qdrant for Health {
    async fn health_check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckReply>, Status> {
        Ok(Response::new(HealthCheckReply { title: TITLE.to_owned(), version: VERSION.to_owned(), commit: None }))
    }
}

/// HTTP/2 flow-control window: fits a batch of points, instead of 64 KiB at a time.
const WINDOW: u32 = 4 << 20;

/// Serves until `shutdown`, then drains the calls in flight.
pub(super) async fn serve(
    listener: TcpListener,
    catalog: Arc<Catalog>,
    api_key: ApiKey,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let points = PointsServer::new(points::PointsService { catalog: Arc::clone(&catalog) })
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(usize::MAX);
    let collections = CollectionsServer::new(collections::CollectionsService { catalog });
    let routes = Routes::new(points).add_service(collections).add_service(QdrantServer::new(Health));
    let router = routes
        .into_axum_router()
        .layer(middleware::from_fn(depth::limit))
        // Outermost, so that the body of an unauthenticated call is not read.
        .layer(middleware::from_fn_with_state(api_key, authorize));
    Server::new(listener).with_http2(WINDOW).serve(router, shutdown).await;
}

async fn authorize(State(key): State<ApiKey>, request: HttpRequest, next: Next) -> HttpResponse {
    match key.check(&request) {
        Ok(()) => next.run(request).await,
        Err(denied) => denied.into_grpc(),
    }
}
