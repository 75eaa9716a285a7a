//! The embedder: from text to vector, as an HTTP service, and the clients of this and of other embedders.
//!
//! What computes the vectors is a [`tidewheel_engine::Engine`]; everything here is built on that trait.

pub mod client;
pub mod service;
