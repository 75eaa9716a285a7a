//! Reading a sentence-transformers directory.
//!
//! What is read here is exactly what the directory says: nothing is guessed that would change an answer. A model that
//! the engine cannot compute is refused at load, with a message that names what is missing.

mod config;
mod error;
mod weights;

pub use config::{Activation, Description, Pooling};
pub use error::LoadError;
pub use weights::{Layer, Linear, Norm, Weights};
