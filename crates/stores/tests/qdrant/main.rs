//! The Qdrant adapter on a server that speaks Qdrant's gRPC API: the local stack's, or with `TIDEWHEEL_TEST_QDRANT_URL`
//! any other.

mod contract;
mod oracle;
mod outage;
mod server;
mod shape;
mod tls;
