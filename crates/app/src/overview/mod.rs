//! Gathers and renders the overview.
//!
//! It is gathered from MongoDB, Redis, Qdrant and the embedder with the settings alone; services publish their own status in
//! Redis every few seconds. Problems and verdict are derived in [`tidewheel_ops::overview`].
//!
//! ```text
//!  Redis, MongoDB, Qdrant, embedder ──Looker::look──▶ Overview ──Overview::judged──▶ with problems and verdict
//!                                      rates over the last ten seconds
//! ```

pub(crate) mod gauges;
mod look;
mod report;
#[cfg(test)]
mod tests;
mod text;
mod view;

pub(crate) use look::Looker;
pub(crate) use text::text;
pub(crate) use view::{History, Paint, draw};
