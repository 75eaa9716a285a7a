//! Tokenization exactly as in the model's training.
//!
//! The vocabulary and its rules come from `tokenizer.json` with the overrides of the neighbouring files; the limits do
//! not. Truncation and padding settings in that file are ignored: a text is truncated at the model's own maximum, and
//! never padded.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tidewheel_core::tokens::Tokens;
use tokenizers::normalizers::{BertNormalizer, Lowercase, Sequence};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, TruncationDirection};

use crate::Text;
use crate::model::{BertSettings, Description, Files, LoadError, Side, TokenizerSettings};
use crate::pieces;

/// A tokenized text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids, including special tokens, at most the model's maximum.
    pub ids: Vec<u32>,
    /// Number of leading tokens that are not pooled.
    pub unpooled: usize,
}

impl Encoding {
    /// Creates an encoding with all tokens pooled.
    #[must_use]
    pub fn new(ids: Vec<u32>) -> Self {
        Self { ids, unpooled: 0 }
    }

    /// Borrows the encoding as engine input.
    #[must_use]
    pub fn text(&self) -> Text<'_> {
        Text { ids: &self.ids, unpooled: self.unpooled }
    }
}

/// Bytes initially read per wanted token. English has about four and a half per token; the number is doubled until it
/// suffices.
const BYTES_PER_TOKEN: usize = 8;

/// The tokenizer of one model. All methods may be called concurrently.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Special tokens before every text.
    before: Vec<u32>,
    /// Special tokens after every text.
    after: Vec<u32>,
    max_tokens: usize,
    /// The truncation side.
    side: Side,
    /// White space always ends a token, so that long texts can be tokenized piecewise.
    splits_at_space: bool,
    /// Whether other files overrode settings of `tokenizer.json`.
    overridden: bool,
}

impl Tokenizer {
    /// Loads the model's `tokenizer.json` and applies the settings of the neighbouring files.
    ///
    /// # Errors
    /// The file is missing or malformed, its ids exceed the model's vocabulary, or it contradicts the other settings.
    pub fn load(model: &Description) -> Result<Self, LoadError> {
        let files = Files::new(&model.directory);
        let path = files.path(&model.tokenizer.file);
        let bytes = files.tokenizer(&model.tokenizer.file)?;
        // The library panics on some crafted vocabularies.
        let parsed = catch_unwind(AssertUnwindSafe(|| Self::parse(&bytes, model, &path)));
        parsed.unwrap_or_else(|_| Err(LoadError::malformed(&path, "the tokenizers library panicked")))
    }

    fn parse(bytes: &[u8], model: &Description, path: &Path) -> Result<Self, LoadError> {
        let malformed = |cause: &dyn ToString| LoadError::malformed(path, cause.to_string());
        let settings = &model.tokenizer;
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|cause| malformed(&cause))?;
        let own_side = inner.get_truncation().map(|truncation| match truncation.direction {
            TruncationDirection::Left => Side::Left,
            TruncationDirection::Right => Side::Right,
        });
        inner.with_truncation(None).map_err(|cause| malformed(&cause))?;
        inner.with_padding(None);
        let overridden = apply(settings, &mut inner, model.vocabulary).map_err(|cause| malformed(&cause))?;
        let largest = inner.get_vocab(true).into_values().max().unwrap_or(0) as usize;
        if largest >= model.vocabulary {
            let cause = format!("token id {largest} is not below vocab_size {} of config.json", model.vocabulary);
            return Err(malformed(&cause));
        }
        // Text outside every vocabulary: without an unknown token, every such text would fail.
        for probe in ["\u{10fffd}", "\u{e000}a\u{301}\u{4e00}\0 \n"] {
            inner
                .encode_fast(probe, false)
                .map_err(|cause| malformed(&format!("cannot encode every text: {cause}")))?;
        }
        let (before, after) = around(&inner, path)?;
        if before.len() + after.len() >= model.max_tokens {
            return Err(malformed(&"special tokens leave no room for text"));
        }
        check_around(settings, &inner, model, [&before, &after])?;
        // An added token that contains white space would be split.
        let added = inner.get_added_tokens_decoder();
        let splits_at_space = matches!(inner.get_pre_tokenizer(), Some(PreTokenizerWrapper::BertPreTokenizer(_)))
            && !added.values().any(|token| token.content.contains(char::is_whitespace));
        Ok(Self {
            inner,
            before,
            after,
            max_tokens: model.max_tokens,
            side: settings.truncation_side.or(own_side).unwrap_or(Side::Right),
            splits_at_space,
            overridden,
        })
    }

    /// Returns the maximum number of tokens of an encoding, including special tokens.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Whether long texts are truncated on the left.
    pub(crate) fn cuts_left(&self) -> bool {
        self.side == Side::Left
    }

    /// Whether other files overrode settings of `tokenizer.json`.
    pub(crate) fn is_overridden(&self) -> bool {
        self.overridden
    }

    /// Serializes the tokenizer as a `tokenizer.json` with all overrides applied.
    pub(crate) fn to_json(&self) -> Option<String> {
        self.inner.to_string(false).ok()
    }

    /// Tokenizes one text, truncated at the model's maximum.
    #[must_use]
    pub fn encode(&self, text: &str) -> Encoding {
        let room = self.max_tokens - self.before.len() - self.after.len();
        let encoding = match self.side {
            Side::Right => self.head(text, room),
            Side::Left => self.plain(text, false),
        };
        let all = encoding.get_ids();
        let kept = match self.side {
            Side::Right => &all[..all.len().min(room)],
            Side::Left => &all[all.len().saturating_sub(room)..],
        };
        Encoding::new([&self.before, kept, &self.after].concat())
    }

    /// Returns the number of prompt tokens before a text, as sentence-transformers counts them: those of the prompt
    /// alone, without a trailing special token.
    #[must_use]
    pub fn prompt_tokens(&self, prompt: &str) -> usize {
        if prompt.is_empty() {
            return 0;
        }
        let ids = self.encode(prompt).ids;
        let added = self.inner.get_added_tokens_decoder();
        let special = |id: &u32| self.after.contains(id) || added.get(id).is_some_and(|token| token.special);
        ids.len() - usize::from(ids.last().is_some_and(special))
    }

    /// Tokenizes enough of the text's beginning for `room` tokens, or the whole text.
    fn head(&self, text: &str, room: usize) -> tokenizers::Encoding {
        let mut bytes = room.saturating_mul(BYTES_PER_TOKEN);
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
        // The library fails only on broken vocabularies, and this one encoded unknown text at load.
        encoding.expect("a loaded vocabulary encodes every text")
    }
}

impl Tokens for Tokenizer {
    fn spans(&self, text: &str) -> Vec<Range<usize>> {
        pieces::spans(text, |piece| self.plain(piece, true))
    }
}

/// Applies the settings of the neighbouring files as transformers does. Returns whether they override `tokenizer.json`.
fn apply(
    settings: &TokenizerSettings,
    inner: &mut tokenizers::Tokenizer,
    vocabulary: usize,
) -> tokenizers::Result<bool> {
    let mut overridden = false;
    if let (Some(bert), Some(NormalizerWrapper::BertNormalizer(own))) = (settings.bert, inner.get_normalizer()) {
        let BertSettings { lowercase, strip_accents, chinese } = bert;
        if (own.lowercase, own.strip_accents, own.handle_chinese_chars) != (lowercase, strip_accents, chinese) {
            let clean = own.clean_text;
            inner.with_normalizer(Some(BertNormalizer::new(clean, chinese, strip_accents, lowercase)))?;
            overridden = true;
        }
    }
    if let (Some(space), Some(PreTokenizerWrapper::ByteLevel(own))) = (settings.prefix_space, inner.get_pre_tokenizer())
        && own.add_prefix_space != space
    {
        let (offsets, pattern) = (own.trim_offsets, own.use_regex);
        inner.with_pre_tokenizer(Some(ByteLevel::new(space, offsets, pattern)));
        overridden = true;
    }
    if settings.lowercase {
        let own = inner.get_normalizer().cloned();
        let lowers = |normalizer: &NormalizerWrapper| matches!(normalizer, NormalizerWrapper::Lowercase(_));
        let parts = match own {
            Some(NormalizerWrapper::Sequence(parts)) => parts.into_iter().collect(),
            other => Vec::from_iter(other),
        };
        if !parts.iter().any(lowers) {
            let parts = std::iter::once(Lowercase.into()).chain(parts).collect();
            inner.with_normalizer(Some(Sequence::new(parts)))?;
        }
    }
    let known = inner.get_added_vocabulary().get_vocab().clone();
    let new: Vec<_> = settings.special_tokens.iter().filter(|token| !known.contains_key(&token.content)).collect();
    for token in new {
        // A token whose id has no embedding row would fail every text that contains it.
        if inner.token_to_id(&token.content).is_none() && inner.get_vocab_size(true) >= vocabulary {
            continue;
        }
        if token.special {
            inner.add_special_tokens([token.clone()])?;
        } else {
            inner.add_tokens([token.clone()])?;
        }
    }
    inner.set_encode_special_tokens(settings.split_special_tokens);
    Ok(overridden)
}

/// Returns the special tokens before and after a text, derived from the encoding of a sample text.
fn around(inner: &tokenizers::Tokenizer, path: &Path) -> Result<(Vec<u32>, Vec<u32>), LoadError> {
    let malformed = |cause: &dyn ToString| LoadError::malformed(path, cause.to_string());
    let plain = inner.encode_fast("a", false).map_err(|cause| malformed(&cause))?;
    let special = inner.encode_fast("a", true).map_err(|cause| malformed(&cause))?;
    if special.get_type_ids().iter().any(|kind| *kind != 0) {
        return Err(malformed(&"unsupported token type other than 0 in a single text"));
    }
    let (plain, special) = (plain.get_ids(), special.get_ids());
    let at = special
        .windows(plain.len().max(1))
        .position(|window| window == plain)
        .ok_or_else(|| malformed(&"special tokens replace the text"))?;
    Ok((special[..at].to_vec(), special[at + plain.len()..].to_vec()))
}

/// Compares the special tokens around a text: transformers takes them from the settings, the tokenizers library from the
/// file. If they differ, it is unknown which the model was trained with.
fn check_around(
    settings: &TokenizerSettings,
    inner: &tokenizers::Tokenizer,
    model: &Description,
    [before, after]: [&[u32]; 2],
) -> Result<(), LoadError> {
    let Some([first, last]) = &settings.around else { return Ok(()) };
    for (key, token, found) in [("cls_token", first, before), ("sep_token", last, after)] {
        let expected = inner.token_to_id(token);
        if expected.is_none_or(|expected| found != [expected]) {
            let problem = format!("tokenizer_config.json has {key} {token:?}, but tokenizer.json has {found:?}");
            return Err(LoadError::unsupported(&model.directory, problem));
        }
    }
    Ok(())
}

/// Returns the first position at or after `bytes` with white space.
fn word_end(text: &str, bytes: usize) -> Option<usize> {
    let tail = text.as_bytes().get(bytes..)?;
    // ASCII bytes are never inside another character.
    let end = bytes + tail.iter().position(|byte| matches!(byte, b' ' | b'\n' | b'\t' | b'\r'))?;
    Some(end)
}
