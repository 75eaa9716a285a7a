//! Embedders elsewhere, behind [`tidewheel_core::ports::Embedder`].
//!
//! [`TidewheelClient`] speaks to this program's own service; [`RemoteClient`] to text-embeddings-inference, to Ollama, and
//! to everything that answers `/v1/embeddings` in OpenAI's form: OpenAI itself, vLLM and many others.
//!
//! Guarantees of both:
//! - an answer has one vector for each text, in order, of the embedder's dimension, all finite and none zero;
//! - nothing is tried twice: the error says whether to wait (and how long the other side asked for), whether the
//!   texts are to blame, or whether a person is needed, as decided in one place for both.

mod api;
mod batch;
mod check;
mod http;
mod length;
mod limiter;
mod remote;
mod tidewheel;
mod tokens;

pub use api::Api;
pub use http::secure;
pub use remote::{RemoteClient, RemoteOptions};
pub use tidewheel::{ClientOptions, TidewheelClient};
