//! A router that lists its routes, for the comparison with an OpenAPI document. axum's own has no such list.

use std::collections::BTreeSet;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodRouter, get, post};

/// A router and the names of its routes.
#[must_use]
pub struct Routes<S> {
    router: Router<S>,
    names: BTreeSet<String>,
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self { router: Router::new(), names: BTreeSet::new() }
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// Adds a route for `GET`, which also serves `HEAD`.
    pub fn get<T: 'static>(self, path: &str, handler: impl Handler<T, S>) -> Self {
        self.route("GET", path, get(handler))
    }

    /// Adds a route for `POST`.
    pub fn post<T: 'static>(self, path: &str, handler: impl Handler<T, S>) -> Self {
        self.route("POST", path, post(handler))
    }

    fn route(mut self, method: &str, path: &str, handler: MethodRouter<S>) -> Self {
        self.names.insert(format!("{method} {path}"));
        Self { router: self.router.route(path, handler), ..self }
    }

    /// Changes the router, to add middleware and fallbacks.
    pub fn map(self, change: impl FnOnce(Router<S>) -> Router<S>) -> Self {
        Self { router: change(self.router), ..self }
    }

    /// Adds the routes of another router.
    pub fn merge(mut self, other: Self) -> Self {
        self.names.extend(other.names);
        Self { router: self.router.merge(other.router), ..self }
    }

    /// Returns the routes by method and path: `GET /health`.
    pub fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Returns the router.
    pub fn into_router(self) -> Router<S> {
        self.router
    }
}
