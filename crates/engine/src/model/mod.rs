//! Loads a sentence-transformers directory.
//!
//! Every file that affects vectors is read, and every setting in it is either honoured or rejected by name. A model
//! that the engine does not support is rejected at load, with a message that names each unsupported setting.

mod architecture;
mod config;
mod error;
mod files;
mod modules;
mod problems;
mod safetensors;
mod sentence;
mod shards;
mod tokenizer;
mod weights;

pub use architecture::Activation;
pub use config::Description;
pub use error::LoadError;
pub(crate) use files::Files;
pub use modules::Pooling;
pub use sentence::Prompts;
pub use tokenizer::{BertSettings, Side, TokenizerClass, TokenizerSettings};
pub use weights::{Layer, Linear, Norm, Weights};
