//! The local Qdrant over gRPC and REST, with kills and restarts.

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
mod settings;
mod sharing;
