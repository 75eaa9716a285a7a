//! Splits texts into chunks that the embedder accepts.
//!
//! Tokens are exact if the vocabulary is available. Otherwise they are estimated, and the embedder may reject a chunk
//! as too long. Then the document is split again with a smaller limit, as often as needed, and the limit is remembered
//! for texts of the same [kind](tidewheel_core::tokens::Kind): a limit learned from one Chinese document applies to the
//! next, but not to English ones. A document that needs a smaller limit than its kind is remembered individually. A
//! document keeps its chunks as long as no new limit is learned.
//!
//! Limits are those of the input of the embedder. A prefix takes its tokens from every chunk of its document, and leaves
//! at least 8 of the configured limit.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tidewheel_core::chunking::{ChunkLimits, chunk};
use tidewheel_core::embedded::input;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::DocumentId;
use tidewheel_core::tokens::{Kind, Tokens};
use tracing::info;

use super::options::SettingNames;

/// Minimum limit of tokens per chunk, without the prefix: an embedder that rejects fewer rejects them for another reason.
const LEAST: usize = 8;

/// Divisor of the limit down to which one document may lower it for others of its kind.
const LEARNED: usize = 4;

/// Maximum number of remembered documents. A forgotten one costs a rejected request.
const REMEMBERED: usize = 10_000;

/// The chunks of a text, with the limit used for the split.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chunks {
    /// The texts in order; at least one.
    pub(super) texts: Vec<String>,
    /// Maximum number of tokens in each, with the prefix.
    pub(super) limit: usize,
}

/// Splits texts, and learns from rejections.
pub(super) struct Splitter {
    tokens: Arc<dyn Tokens>,
    limits: ChunkLimits,
    /// Maximum number of chunks of a document.
    most: usize,
    names: &'static SettingNames,
    /// For each kind of text, the learned maximum of tokens per chunk.
    learned: [AtomicUsize; Kind::ALL.len()],
    /// Documents with a rejected chunk, and their limits.
    remembered: Mutex<HashMap<DocumentId, usize>>,
}

impl Splitter {
    /// Splits into at most `most` chunks within these limits. Messages name these settings.
    pub(super) fn new(tokens: Arc<dyn Tokens>, limits: ChunkLimits, most: usize, names: &'static SettingNames) -> Self {
        let learned = std::array::from_fn(|_| AtomicUsize::new(limits.max_tokens()));
        Self { tokens, limits, most, names, learned, remembered: Mutex::default() }
    }

    /// Returns the number of tokens of the text.
    pub(super) fn count(&self, text: &str) -> usize {
        self.tokens.spans(text).len()
    }

    /// Splits a document's text into chunks that the prefix will precede.
    ///
    /// # Errors
    /// Poison, if there are too many, or the prefix leaves too few tokens.
    pub(super) fn split(&self, document: DocumentId, text: String, prefix: &str) -> Result<Chunks, PortError> {
        let overhead = self.overhead(prefix)?;
        let remembered = self.remembered(document);
        let least = self.learned.iter().map(|limit| limit.load(Ordering::Relaxed)).chain(remembered).min();
        // In bytes; a token has at least one.
        let most = input(prefix, "").len() + text.len();
        if self.limits.with_max_tokens(least.unwrap_or_default()).surely_fit(most) {
            return Ok(Chunks { texts: vec![text], limit: self.limits.max_tokens() });
        }
        let limit = self.tokens.kind(&text).map_or(self.limits.max_tokens(), |kind| self.learned(kind));
        self.cut(&text, remembered.map_or(limit, |remembered| remembered.min(limit)), overhead)
    }

    /// Splits a text again after a chunk of at most `limit` tokens was rejected as too long; `None` if smaller chunks
    /// would be rejected too.
    pub(super) fn split_finer(
        &self,
        document: DocumentId,
        text: &str,
        prefix: &str,
        limit: usize,
    ) -> Option<Result<Chunks, PortError>> {
        let overhead = match self.overhead(prefix) {
            Ok(overhead) => overhead,
            Err(error) => return Some(Err(error)),
        };
        let limit = limit.min(overhead + self.count(text));
        // Small steps while the estimate may be at fault, large ones afterwards.
        let finer = if limit > self.limits.max_tokens() / 2 { limit * 2 / 3 } else { limit / 2 };
        if finer < overhead + LEAST {
            return None;
        }
        if let Some(kind) = self.tokens.kind(text) {
            self.learn(kind, finer);
        }
        self.remember(document, finer);
        Some(self.cut(text, finer, overhead))
    }

    /// Returns the tokens that the prefix takes from every chunk.
    fn overhead(&self, prefix: &str) -> Result<usize, PortError> {
        if prefix.is_empty() {
            return Ok(0);
        }
        let (tokens, limit) = (self.count(&input(prefix, "")), self.limits.max_tokens());
        if tokens + LEAST > limit {
            return Err(PortError::poison(format!(
                "the prefix of the document's chunks has {tokens} tokens, which leave fewer than {LEAST} of {limit} for a chunk: shorten chunk.prefix"
            )));
        }
        Ok(tokens)
    }

    fn remembered(&self, document: DocumentId) -> Option<usize> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).get(&document).copied()
    }

    fn remember(&self, document: DocumentId, limit: usize) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(document, limit);
    }

    fn learned(&self, kind: Kind) -> usize {
        self.learned[kind as usize].load(Ordering::Relaxed)
    }

    fn learn(&self, kind: Kind, limit: usize) {
        let limit = limit.max(self.limits.max_tokens() / LEARNED).max(LEAST);
        let before = self.learned[kind as usize].fetch_min(limit, Ordering::Relaxed);
        if limit < before {
            info!(
                kind = kind.name(),
                "the embedder rejected a chunk of about {before} tokens as too long; texts of this kind are split at {limit} from now on"
            );
        }
    }

    /// Cuts a text into chunks of at most `limit` tokens, of which the prefix takes `overhead`.
    fn cut(&self, text: &str, limit: usize, overhead: usize) -> Result<Chunks, PortError> {
        // A limit that was learned from other documents may leave less room beside the prefix.
        let room = if overhead == 0 { limit } else { limit.saturating_sub(overhead).max(LEAST) };
        let ranges = chunk(text, &self.tokens.spans(text), self.limits.with_max_tokens(room));
        if ranges.len() > self.most {
            let (bytes, chunks, most) = (text.len(), ranges.len(), self.most);
            let SettingNames { most_chunks, fields, .. } = self.names;
            return Err(PortError::poison(format!(
                "the document's text of {bytes} bytes has {chunks} chunks, but {most_chunks} is {most}: raise it, or select less of the document with {fields}"
            )));
        }
        Ok(Chunks { texts: ranges.into_iter().map(|range| text[range].to_owned()).collect(), limit })
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::error::ErrorClass;
    use tidewheel_core::identity::Namespace;
    use tidewheel_core::tokens::{Estimate, Words};

    use super::*;

    const CHINESE: &str = "订单已发货，请在三天内查收。如有问题请联系客服。";

    fn splitter(tokens: impl Tokens + 'static, most: usize) -> Splitter {
        Splitter::new(Arc::new(tokens), ChunkLimits::new(60, 6), most, &SettingNames::SHORT_FORM)
    }

    fn document(key: &str) -> DocumentId {
        DocumentId::new(&Namespace::new("shop", "tickets"), key)
    }

    #[test]
    fn rejected_text_is_split_finer_down_to_the_minimum() {
        let (splitter, id) = (splitter(Estimate, 1_000), document("1"));
        let text = CHINESE.repeat(20);
        let mut chunks = splitter.split(id, text.clone(), "").unwrap();
        let mut limits = vec![chunks.limit];
        while let Some(finer) = splitter.split_finer(id, &text, "", chunks.limit) {
            let finer = finer.unwrap();
            assert!(finer.texts.len() > chunks.texts.len());
            // A split character counts in both chunks.
            assert!(finer.texts.iter().all(|text| Estimate::count(text) <= finer.limit + 1));
            limits.push(finer.limit);
            chunks = finer;
        }
        assert_eq!(limits, [60, 40, 26, 13]);
        assert_eq!(splitter.split(id, text, "").unwrap(), chunks, "the document is remembered");
    }

    #[test]
    fn learned_limit_applies_to_the_same_kind_only_and_is_bounded() {
        let (splitter, [one, other]) = (splitter(Estimate, 1_000), ["1", "2"].map(document));
        let (chinese, english) = (CHINESE.repeat(20), "The parcel has not arrived. ".repeat(40));
        let split = |text: &str| splitter.split(other, text.to_owned(), "").unwrap();
        let before = (split(&chinese), split(&english));
        splitter.split_finer(one, &chinese, "", 60);
        let after = split(&chinese);
        assert_eq!(after.limit, 40);
        assert!(after.texts.len() > before.0.texts.len());
        assert_eq!(split(&english), before.1);
        for limit in [40, 26, 20] {
            splitter.split_finer(one, &chinese, "", limit);
        }
        assert_eq!(split(&chinese).limit, 15);
    }

    #[test]
    fn rejected_short_text_is_split_too() {
        let (splitter, id) = (splitter(Estimate, 1_000), document("1"));
        let chunks = splitter.split(id, CHINESE.to_owned(), "").unwrap();
        assert_eq!(chunks.texts.len(), 1);
        let finer = splitter.split_finer(id, CHINESE, "", chunks.limit).unwrap().unwrap();
        assert_eq!(finer.texts.len(), 2, "{finer:?}");
        assert!(splitter.split_finer(id, "short", "", 60).is_none());
    }

    #[test]
    fn exact_tokens_change_no_limit_of_other_documents() {
        let splitter = splitter(Words, 1_000);
        let text = "word ".repeat(200);
        let before = splitter.split(document("2"), text.clone(), "").unwrap();
        let finer = splitter.split_finer(document("1"), &text, "", 60).unwrap().unwrap();
        assert!(finer.texts.len() > before.texts.len());
        assert_eq!(splitter.split(document("2"), text, "").unwrap(), before);
    }

    #[test]
    fn too_many_chunks_error_names_size_and_setting() {
        let text = "word ".repeat(600);
        let error = splitter(Words, 5).split(document("1"), text.clone(), "").unwrap_err();
        assert_eq!(error.class, ErrorClass::Poison);
        for part in ["3000 bytes", "chunks", "documents.max_chunks is 5"] {
            assert!(error.message.contains(part), "{}", error.message);
        }
        assert!(splitter(Words, 1_000).split(document("1"), text, "").is_ok());
    }

    #[test]
    fn chunks_leave_room_for_the_prefix() {
        let (splitter, id) = (splitter(Words, 1_000), document("1"));
        let text = "word ".repeat(200);
        let prefix = "late ".repeat(30);
        let plain = splitter.split(id, text.clone(), "").unwrap();
        let chunks = splitter.split(id, text, &prefix).unwrap();
        assert!(chunks.texts.len() > plain.texts.len());
        let whole = |chunk: &String| splitter.count(&input(&prefix, chunk));
        assert_eq!(chunks.texts.iter().map(whole).max(), Some(60));
        assert!(chunks.texts.iter().all(|chunk| !chunk.contains("late")));
        // A short text is one chunk, and a text that just fits without the prefix is not.
        assert_eq!(splitter.split(id, "short".to_owned(), &prefix).unwrap().texts, ["short"]);
        assert_eq!(splitter.split(id, "word ".repeat(60), "").unwrap().texts.len(), 1);
        assert!(splitter.split(id, "word ".repeat(60), &prefix).unwrap().texts.len() > 1);
    }

    #[test]
    fn prefix_that_leaves_fewer_than_8_tokens_is_poison() {
        let (splitter, id) = (splitter(Words, 1_000), document("1"));
        for (words, fits) in [(52, true), (53, false), (5_000, false)] {
            let prefix = vec!["a"; words].join(" ");
            let split = splitter.split(id, "word ".repeat(20), &prefix);
            assert_eq!(split.is_ok(), fits, "{words}");
            let Err(error) = split else { continue };
            assert_eq!(error.class, ErrorClass::Poison);
            let expected =
                format!("has {words} tokens, which leave fewer than 8 of 60 for a chunk: shorten chunk.prefix");
            assert!(error.message.ends_with(&expected), "{}", error.message);
            let finer = splitter.split_finer(id, "text", &prefix, 60);
            assert_eq!(finer, Some(Err(error)));
        }
    }

    #[test]
    fn rejected_text_behind_a_prefix_is_split_finer_until_8_tokens_are_left() {
        let (splitter, id) = (splitter(Words, 1_000), document("1"));
        let (text, prefix) = ("word ".repeat(200), ["a"; 10].join(" "));
        let mut chunks = splitter.split(id, text.clone(), &prefix).unwrap();
        let mut limits = vec![chunks.limit];
        while let Some(finer) = splitter.split_finer(id, &text, &prefix, chunks.limit) {
            chunks = finer.unwrap();
            assert!(chunks.texts.iter().all(|chunk| splitter.count(&input(&prefix, chunk)) <= chunks.limit));
            limits.push(chunks.limit);
        }
        assert_eq!(limits, [60, 40, 26]);
    }
}
