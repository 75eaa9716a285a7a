//! The endpoints, with authentication and request counts.

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tidewheel_serving::{Access, Routes};

use super::error::ApiError;
use super::{Service, handlers, openai};

impl Service {
    /// Returns the router with all endpoints.
    pub fn router(&self) -> Router {
        self.routes().into_router().with_state(self.clone())
    }

    fn routes(&self) -> Routes<Self> {
        let guarded = Routes::default()
            .post("/encode", handlers::encode)
            .post("/encode_batch", handlers::encode_batch)
            .get("/info", handlers::info)
            .get("/metrics", handlers::metrics)
            .get("/tokenizer", handlers::tokenizer)
            .map(|router| {
                router
                    .method_not_allowed_fallback(handlers::wrong_method)
                    .route_layer(from_fn_with_state(self.clone(), guard))
            });
        let openai = Routes::default().post("/v1/embeddings", openai::embeddings).map(|router| {
            router
                .method_not_allowed_fallback(openai::wrong_method)
                .route_layer(from_fn_with_state(self.clone(), guard_openai))
        });
        Routes::default()
            .get("/health", handlers::health)
            .get("/ready", handlers::ready)
            .map(|router| router.method_not_allowed_fallback(handlers::wrong_method))
            .merge(guarded)
            .merge(openai)
            .map(|router| router.fallback(handlers::unknown).layer(from_fn_with_state(self.clone(), count)))
    }

    /// Returns the error for a request without a valid token.
    fn denied(&self, request: &Request) -> Option<ApiError> {
        match self.inner.gate.check(request) {
            Access::Granted => None,
            Access::Missing | Access::Wrong => Some(ApiError::unauthorized()),
            Access::TooMany(wait) => {
                Some(ApiError::busy("too many wrong tokens from this address", wait.as_secs() + 1))
            }
        }
    }
}

/// Requires the token, if one is set.
async fn guard(State(service): State<Service>, request: Request, next: Next) -> Response {
    match service.denied(&request) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    }
}

/// Like [`guard`], with errors in OpenAI's format.
async fn guard_openai(State(service): State<Service>, request: Request, next: Next) -> Response {
    match service.denied(&request) {
        Some(refusal) => refusal.into_openai(),
        None => next.run(request).await,
    }
}

/// Counts responses by status.
async fn count(State(service): State<Service>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status().as_u16();
    service.inner.metrics.answered(status);
    if status == 429 {
        service.inner.metrics.refused();
    }
    response
}

#[cfg(test)]
mod tests {
    use tidewheel_engine::{ModelSource, ModelSpec, load};
    use tidewheel_testkit::openapi;

    use super::*;
    use crate::service::ServiceOptions;

    #[test]
    fn openapi_document_lists_exactly_the_served_routes() {
        let engine = load(&ModelSpec::new(ModelSource::Hash(8))).unwrap();
        let routes = Service::start(engine, ServiceOptions::default()).unwrap().routes();
        assert_eq!(*routes.names(), openapi::operations("embedder.yaml"));
    }
}
