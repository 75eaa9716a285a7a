//! The whole pipeline on real servers: a real mongod, a real redis-server, Qdrant's real engine, and the services as the
//! processes that a user runs. After each story the index equals the source, document by document and point by point.

mod alerts;
mod clients;
mod dead_letters;
mod demo;
mod embedder;
mod embedder_memory;
mod history;
mod index;
mod isolation;
mod kills;
mod large;
mod memory;
mod monitor;
mod operations;
mod outages;
mod recovery;
mod replays;
mod reuse;
mod rolling;
mod runbook;
mod shutdown;
mod snapshot;
mod soak;
mod source;
mod takeover;
mod terminal;
mod trace;
mod traces;
mod transactions;
mod verify;
mod wait;
mod world;
mod writer;
