//! The use cases of an operator: each returns data, and sees ports only.
//!
//! The command line, the console, the operations server and tests call the same functions. They own settings, arguments and
//! output; this crate has none of these, so that each use case runs on the fakes of `tidewheel-testkit`.
//!
//! - [`overview`]: sync state, bottleneck, cause, ETA and remedy.
//! - [`wait`]: waits until everything committed up to a time is searchable.
//! - [`search`]: ranks documents by their best chunk.
//! - [`inspect`]: shows where a document is across every hop, and why.
//! - [`verify`]: compares the index with the source, and repairs it.
//! - [`replay`]: plans replays.
//! - [`dead_letters`]: lists, retries and deletes dead letters.
//! - [`installation`]: shows and takes over the ownership of Redis and of the collection.
//! - [`indexes`]: plans and submits changes of declarations, and watches their progress.
//!
//! [`selection`] decides which indexes a use case concerns; [`catalog`] reads which there are.

pub mod catalog;
pub mod dead_letters;
pub mod indexes;
pub mod inspect;
pub mod installation;
mod layout;
pub mod overview;
mod probe;
pub mod replay;
#[cfg(test)]
mod samples;
pub mod search;
pub mod selection;
pub mod text;
pub mod times;
pub mod verify;
pub mod wait;

pub use layout::check_layout;
pub use probe::{Probe, within};
