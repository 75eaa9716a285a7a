//! The local Qdrant, used as its clients use it: over gRPC and REST, killed and started again.

mod collections;
mod conditions;
mod durability;
mod full_disk;
mod indexes;
mod metadata;
mod nesting;
mod points;
mod rest;
mod server;
mod sharing;
