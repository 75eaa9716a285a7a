//! The local stack: everything needed to try tidewheel on one machine.
//!
//! Two independent parts, none of which ever prints:
//!
//! - [`provision`] finds or fetches a real `mongod`, a real `redis-server` and a sentence-transformers model, verifies
//!   downloads against pinned checksums or signatures, and caches them;
//! - [`stack`] starts, supervises and stops the servers, individually or all of them under one data directory;
//!   its Qdrant is the program of the package `tidewheel-local-qdrant`, or a real server.
//!
//! Progress is reported to the caller as [`Event`]s.

mod event;
mod modes;
pub mod provision;
pub mod stack;

pub use event::{Event, Part, Report, ServerKind, silent};
