//! The local stack: everything that a person needs to try tidewheel on one machine.
//!
//! Two independent parts, none of which ever prints:
//!
//! - [`provision`] finds or fetches a real `mongod`, a real `redis-server` and a sentence-transformers model, checks
//!   what it fetched against pinned sums or signatures, and keeps it in a cache directory;
//! - [`stack`] starts, watches and stops the servers, each on its own or all of them under one data directory; its Qdrant is the
//!   program of the package `tidewheel-local-qdrant`, or a real one.
//!
//! What happens is told to the caller as [`Event`]s.

mod event;
mod modes;
pub mod provision;
pub mod stack;

pub use event::{Event, Part, Report, ServerKind, silent};
