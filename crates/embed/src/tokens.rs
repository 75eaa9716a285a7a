//! From text to token ids, exactly as the model was trained.
//!
//! The vocabulary and its rules come from `tokenizer.json`; the limits do not. Truncation and padding that are baked
//! into that file are ignored: a text is cut at the model's own maximum, and nothing is ever padded.

use std::ops::Range;
use std::path::Path;

use tidewheel_core::tokens::Tokens;
use tokenizers::PreTokenizerWrapper;

use crate::model::{Description, LoadError};

/// One text as the model reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids, special tokens included, at most as many as the model takes.
    pub ids: Vec<u32>,
}

/// Bytes read at first for each token that is wanted. English has about four and a half to a token; what does not
/// suffice is doubled.
const BYTES_PER_TOKEN: usize = 8;

/// Splits texts into the tokens of one model. All methods may be called from any number of threads.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Special tokens in front of every text.
    before: Vec<u32>,
    /// Special tokens behind every text.
    after: Vec<u32>,
    max_tokens: usize,
    lowercase: bool,
    /// White space always ends a token, so a long text may be read piece by piece.
    splits_at_space: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of the model.
    ///
    /// # Errors
    /// The file is missing or malformed, or its ids do not fit the model.
    pub fn load(model: &Description) -> Result<Self, LoadError> {
        let path = model.directory.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|cause| LoadError::io(&path, cause))?;
        Self::parse(&bytes, model, &path)
    }

    fn parse(bytes: &[u8], model: &Description, path: &Path) -> Result<Self, LoadError> {
        let malformed = |cause: &dyn ToString| LoadError::malformed(path, cause.to_string());
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|cause| malformed(&cause))?;
        inner.with_truncation(None).map_err(|cause| malformed(&cause))?;
        inner.with_padding(None);
        let largest = inner.get_vocab(true).into_values().max().unwrap_or(0) as usize;
        if largest >= model.vocabulary {
            let cause = format!("it has the token id {largest}, config.json says vocab_size {}", model.vocabulary);
            return Err(malformed(&cause));
        }

        // Where the text stands among the special tokens is learned from one that has a token of its own.
        let plain = inner.encode_fast("a", false).map_err(|cause| malformed(&cause))?;
        let special = inner.encode_fast("a", true).map_err(|cause| malformed(&cause))?;
        if special.get_type_ids().iter().any(|kind| *kind != 0) {
            return Err(malformed(&"it gives a single text a token type other than 0"));
        }
        let (plain, special) = (plain.get_ids(), special.get_ids());
        let at = special
            .windows(plain.len().max(1))
            .position(|window| window == plain)
            .ok_or_else(|| malformed(&"its special tokens replace the text"))?;
        let (before, after) = (special[..at].to_vec(), special[at + plain.len()..].to_vec());
        if before.len() + after.len() >= model.max_tokens {
            return Err(malformed(&"its special tokens leave no room for a text"));
        }
        let splits_at_space = matches!(inner.get_pre_tokenizer(), Some(PreTokenizerWrapper::BertPreTokenizer(_)));
        Ok(Self { inner, before, after, max_tokens: model.max_tokens, lowercase: model.lowercase, splits_at_space })
    }

    /// The most tokens that an encoding has, special tokens included.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The tokens of one text, cut at the model's maximum.
    #[must_use]
    pub fn encode(&self, text: &str) -> Encoding {
        let room = self.max_tokens - self.before.len() - self.after.len();
        let lowered;
        let text = if self.lowercase {
            lowered = text.to_lowercase();
            &lowered
        } else {
            text
        };
        let encoding = self.head(text, room);
        let kept = &encoding.get_ids()[..encoding.len().min(room)];
        Encoding { ids: [&self.before, kept, &self.after].concat() }
    }

    /// The tokens of so much of the text that there are `room` of them, or of the whole text.
    fn head(&self, text: &str, room: usize) -> tokenizers::Encoding {
        let mut bytes = room * BYTES_PER_TOKEN;
        if self.splits_at_space {
            while let Some(end) = word_end(text, bytes) {
                let encoding = self.plain(&text[..end], false);
                if encoding.len() >= room {
                    return encoding;
                }
                bytes *= 2;
            }
        }
        self.plain(text, false)
    }

    fn plain(&self, text: &str, offsets: bool) -> tokenizers::Encoding {
        let encoding = if offsets { self.inner.encode(text, false) } else { self.inner.encode_fast(text, false) };
        // The library fails on broken vocabularies only, and this one has encoded a text at load.
        encoding.expect("a loaded vocabulary encodes every text")
    }
}

impl Tokens for Tokenizer {
    fn spans(&self, text: &str) -> Vec<Range<usize>> {
        self.plain(text, true).get_offsets().iter().map(|&(start, end)| start..end).collect()
    }
}

/// The first place at or after `bytes` where the text has white space, if anything follows.
fn word_end(text: &str, bytes: usize) -> Option<usize> {
    let tail = text.as_bytes().get(bytes..)?;
    // ASCII bytes are never inside another character.
    let end = bytes + tail.iter().position(|byte| matches!(byte, b' ' | b'\n' | b'\t' | b'\r'))?;
    Some(end)
}
