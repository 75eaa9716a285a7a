//! The Qdrant adapter on a server with Qdrant's gRPC API: the local stack's, or the one in `TIDEWHEEL_TEST_QDRANT_URL`.

mod contract;
mod indexed;
mod oracle;
mod outage;
mod server;
mod settings;
mod shape;
mod tls;
