//! The stages of the pipeline, and operations on it, written against the ports of `tidewheel-core`.
//!
//! The services are [`producer`], [`processor`] and [`upserter`]. Each of them is a folder with the same files: `mod.rs`
//! documents the guarantees and draws the loop, `options.rs` holds the resolved settings, `plan.rs` makes decisions
//! without side effects, and the rest executes the plan. Each service is built from its options and ports, and then runs
//! in `run(shutdown)` until it is stopped.

pub mod audit;
mod background;
mod backpressure;
mod breaker;
mod carries;
pub mod consumer;
mod isolate;
mod members;
mod metric;
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
pub mod targets;
pub mod upserter;

/// Why an operation that needs a checkpoint cannot start.
pub const NO_PRODUCER: &str = "no producer has run on this Redis yet";
