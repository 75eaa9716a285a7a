//! Telemetry of a process: metrics, process reports, OpenTelemetry traces and logging.
//!
//! - [`recorder`] records what the crates report through the `metrics` facade, and renders it for Prometheus;
//! - [`reporter`] makes the report that a process publishes from the same metrics;
//! - [`traces`] exports spans to a collector;
//! - [`logging`] writes log events to stderr;
//! - [`escape`] escapes untrusted text for a terminal, in logs and in the output of commands.
//!
//! Metric names and their meanings are in [`tidewheel_core::metric`], because the pipeline and the embedder use them too; the
//! format of reports is in [`tidewheel_core::report`], because operators' tools read them.

mod buckets;
pub mod escape;
pub mod logging;
pub mod recorder;
mod registry;
pub mod reporter;
pub mod traces;
