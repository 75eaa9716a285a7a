//! The embedder: turns texts into vectors.
//!
//! [`engine::load`] loads a model directory (or `hash:DIM`) as an [`engine::Engine`]; everything else builds on that
//! trait.

pub mod client;
pub mod engine;
pub mod hash;
pub mod model;
mod pieces;
pub mod service;
pub mod tokens;
