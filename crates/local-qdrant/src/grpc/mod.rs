//! Qdrant's gRPC API: the generated services on top of the catalog.

mod collections;
mod depth;
mod filter;
mod index;
mod points;
mod query;
mod value;

use std::sync::Arc;

use qdrant_client::qdrant::collections_server::CollectionsServer;
use qdrant_client::qdrant::points_server::PointsServer;
use qdrant_client::qdrant::qdrant_server::{Qdrant, QdrantServer};
use qdrant_client::qdrant::{HealthCheckReply, HealthCheckRequest};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
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
    api_key: Option<ApiKey>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let points = PointsServer::new(points::PointsService { catalog: Arc::clone(&catalog) })
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(usize::MAX);
    let collections = CollectionsServer::new(collections::CollectionsService { catalog });
    let interceptor = tonic::service::InterceptorLayer::new(move |request: Request<()>| match &api_key {
        Some(key) => key.check_metadata(request.metadata()).map(|()| request),
        None => Ok(request),
    });
    let routes = Routes::new(points).add_service(collections).add_service(QdrantServer::new(Health));
    // Inside the interceptor, so that the body of an unauthenticated call is not read.
    let routes = Routes::from(routes.into_axum_router().layer(axum::middleware::from_fn(depth::limit)));
    Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .layer(interceptor)
        .add_routes(routes)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), shutdown)
        .await
}
