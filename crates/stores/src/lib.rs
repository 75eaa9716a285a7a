//! tidewheel stores.

pub mod mongo;
pub mod qdrant;
pub mod redis;
