//! The embedder's HTTP service, and the clients of this and other embedders.
//!
//! Vectors are computed by a [`tidewheel_engine::Engine`]; everything else builds on that trait.

pub mod client;
pub mod pool;
pub mod service;
