//! The local stack: everything needed to try tidewheel on one machine.
//!
//! Three independent parts, none of which ever prints:
//!
//! - [`provision`] finds or fetches a real `mongod`, a real `redis-server` and a sentence-transformers model, verifies
//!   downloads against pinned checksums or signatures, and caches them;
//! - [`stack`] starts, supervises and stops the servers, individually or all of them under one data directory;
//! - [`qdrant`] serves Qdrant's API from Qdrant Edge, for machines without a Qdrant server.
//!
//! Progress is reported to the caller as [`Event`]s.

mod event;
mod modes;
pub mod provision;
pub mod qdrant;
pub mod stack;

pub use event::{Event, Part, Report, ServerKind, silent};
