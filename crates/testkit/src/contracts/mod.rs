//! Contracts of the ports: run on the fakes and on the adapters of real servers.

pub mod catalog;
pub mod collections;
pub mod dead_letters;
pub mod handover;
pub mod index;
pub mod inspector;
pub mod journal;
pub mod ownership;
pub mod positions;
pub mod queue;
pub mod samples;
pub mod source;
pub mod stream_log;
pub mod streams;
pub mod targets;
pub mod tombstones;
pub mod trimming;
