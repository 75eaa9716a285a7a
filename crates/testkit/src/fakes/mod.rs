//! In-memory implementations of the ports, with fault injection.

pub mod catalog;
pub mod collections;
pub mod dead_letters;
pub mod embedder;
pub mod embedders;
pub mod faults;
mod filter;
pub mod index;
pub mod inspector;
pub mod journal;
pub mod ownership;
pub mod process;
pub mod queue;
pub mod queue_server;
pub mod reports;
pub mod source;
pub mod spans;
mod state;
pub mod stream_log;
pub mod streams;
pub mod target;
