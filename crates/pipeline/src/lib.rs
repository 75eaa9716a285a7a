//! The stages of the pipeline, and the operations on it, written against the ports of `tidewheel-core`.
//!
//! Each service is a folder with the same files: `mod.rs` opens with the guarantees and a drawing of the loop,
//! `options.rs` holds the resolved settings, `plan.rs` decides without doing anything, and the rest acts on the plan.
//! The recipe is the same for all: build it with its options and ports, then `run(shutdown)` until it is told to stop.

pub mod audit;
pub mod consumer;
pub mod health;
mod isolate;
mod meters;
mod newest;
mod offload;
pub mod ownership;
pub mod parking;
pub mod processor;
pub mod producer;
pub mod replay;
pub mod retry;
pub mod service;
mod spans;
pub mod upserter;
