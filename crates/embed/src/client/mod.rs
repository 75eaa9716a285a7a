//! Embedders elsewhere, behind [`tidewheel_core::ports::Embedder`].
//!
//! [`TidewheelClient`] speaks to this program's own service, [`OpenAiClient`] to everything that answers
//! `/v1/embeddings` in OpenAI's form: OpenAI itself, text-embeddings-inference, Ollama, vLLM and others.
//!
//! Guarantees of both:
//! - an answer has one vector for each text, in order, of the embedder's dimension, all finite and none zero;
//! - nothing is tried twice: the error says whether to wait (and how long the other side asked for), whether the
//!   texts are to blame, or whether a person is needed, as decided in one place for both.

mod check;
mod http;
mod limiter;
mod openai;
mod tidewheel;
mod tokens;

pub use openai::{OpenAiClient, OpenAiOptions};
pub use tidewheel::{ClientOptions, TidewheelClient};
