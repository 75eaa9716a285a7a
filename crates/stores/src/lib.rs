//! Adapters of the ports for MongoDB, Redis and Qdrant.

mod addresses;
pub mod mongo;
pub mod qdrant;
pub mod redis;

pub use addresses::ADDRESSES;
