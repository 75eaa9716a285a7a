//! Adapters of the ports for MongoDB, Redis and Qdrant.

pub mod mongo;
pub mod qdrant;
pub mod redis;
