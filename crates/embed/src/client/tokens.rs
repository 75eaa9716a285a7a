//! A model's tokeniser away from the model.

use std::ops::Range;

use tidewheel_core::error::PortError;
use tidewheel_core::tokens::Tokens;
use tokenizers::Tokenizer;

use crate::pieces;

/// The tokeniser that a `tokenizer.json` describes, without its truncation and padding.
pub(super) struct ModelTokens(Tokenizer);

impl ModelTokens {
    /// Reads the content of a `tokenizer.json`.
    pub(super) fn parse(json: &[u8]) -> Result<Self, PortError> {
        let malformed = |cause: &dyn std::fmt::Display| {
            PortError::fatal(format!("the embedder's tokenizer cannot be understood: {cause}"))
                .with_hint("let processor and embedder be of the same version")
        };
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|cause| malformed(&cause))?;
        tokenizer.with_truncation(None).map_err(|cause| malformed(&cause))?;
        tokenizer.with_padding(None);
        Ok(Self(tokenizer))
    }
}

impl Tokens for ModelTokens {
    fn spans(&self, text: &str) -> Vec<Range<usize>> {
        pieces::spans(text, |piece| self.0.encode(piece, false).expect("a loaded vocabulary encodes every text"))
    }
}
