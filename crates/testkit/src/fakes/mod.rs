//! The ports in memory, with hooks for faults.

pub mod faults;
pub mod journal;
pub mod queue;
pub mod source;
pub mod streams;
pub mod tombstones;
