//! Clients of remote embedders: adapters of [`tidewheel_core::ports::Embedder`].
//!
//! [`TidewheelClient`] uses tidewheel's own service; [`RemoteClient`] uses text-embeddings-inference, Ollama, and every
//! service with OpenAI's `/v1/embeddings` API: OpenAI itself, vLLM and many others.
//!
//! Guarantees of both:
//! - a result has one vector per text, in order, of the embedder's dimension, all finite and none zero;
//! - nothing is retried: the error class tells whether to wait (and the requested delay), whether the texts are rejected,
//!   or whether an operator must act; both clients share one classification.

mod api;
mod batch;
mod choice;
mod http;
mod info;
mod length;
mod limiter;
mod remote;
mod tidewheel;
mod tokens;

pub use api::Api;
pub use choice::serves;
pub use remote::{RemoteClient, RemoteOptions};
pub use tidewheel::{ClientOptions, TidewheelClient};
