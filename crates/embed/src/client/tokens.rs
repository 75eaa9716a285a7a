//! The client-side tokenizer of a remote model.

use std::ops::Range;

use tidewheel_core::error::PortError;
use tidewheel_core::tokens::Tokens;
use tokenizers::Tokenizer;

use tidewheel_engine::pieces;

/// The tokenizer of a `tokenizer.json`, without truncation and padding.
pub(super) struct ModelTokens(Tokenizer);

impl ModelTokens {
    /// Parses a `tokenizer.json`.
    pub(super) fn parse(json: &[u8]) -> Result<Self, PortError> {
        let malformed = |cause: &dyn std::fmt::Display| {
            PortError::fatal(format!("invalid tokenizer from the embedder: {cause}"))
                .with_hint("run processor and embedder at the same version")
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
