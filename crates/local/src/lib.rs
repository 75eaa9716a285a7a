//! The local stack: everything that a person needs to try tidewheel on one machine.
//!
//! Three independent parts, none of which ever prints:
//!
//! - [`provision`] finds or fetches a real `mongod`, a real `redis-server` and a sentence-transformers model, checks
//!   what it fetched against pinned sums or signatures, and keeps it in a cache directory;
//! - [`stack`] starts, watches and stops the servers, each on its own or all of them under one data directory;
//! - [`qdrant`] serves Qdrant's API from Qdrant Edge, for machines without a Qdrant server.
//!
//! What happens is told to the caller as [`Event`]s.

mod event;
mod modes;
pub mod provision;
pub mod qdrant;
pub mod stack;

pub use event::{Event, Part, Report, ServerKind, silent};
