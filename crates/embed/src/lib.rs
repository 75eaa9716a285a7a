//! The embedder: from text to vector.
//!
//! [`engine::load`] turns a model directory (or `hash:DIM`) into an [`engine::Engine`]; everything else here is built
//! on that trait.

pub mod client;
pub mod engine;
pub mod hash;
pub mod model;
mod pieces;
pub mod service;
pub mod tokens;
