//! From text to token ids, exactly as the model was trained.
//!
//! The vocabulary and its rules come from `tokenizer.json`, as the files beside it change them; the limits do not.
//! Truncation and padding that are baked into that file are ignored: a text is cut at the model's own maximum, and
//! nothing is ever padded.

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

/// One text as the model reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids, special tokens included, at most as many as the model takes.
    pub ids: Vec<u32>,
    /// So many of the first tokens are not pooled.
    pub unpooled: usize,
}

impl Encoding {
    /// A text whose tokens are all pooled.
    #[must_use]
    pub fn new(ids: Vec<u32>) -> Self {
        Self { ids, unpooled: 0 }
    }

    /// As engines take it.
    #[must_use]
    pub fn text(&self) -> Text<'_> {
        Text { ids: &self.ids, unpooled: self.unpooled }
    }
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
    /// Where a long text is cut.
    side: Side,
    /// White space always ends a token, so a long text may be read piece by piece.
    splits_at_space: bool,
    /// Whether settings beside `tokenizer.json` replaced what it says.
    overridden: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of the model, and applies the settings beside it.
    ///
    /// # Errors
    /// The file is missing or malformed, its ids do not fit the model, or it contradicts the settings beside it.
    pub fn load(model: &Description) -> Result<Self, LoadError> {
        let files = Files::new(&model.directory);
        let path = files.path(&model.tokenizer.file);
        let bytes = files.tokenizer(&model.tokenizer.file)?;
        // A vocabulary can be built so that the library panics on it.
        let parsed = catch_unwind(AssertUnwindSafe(|| Self::parse(&bytes, model, &path)));
        parsed.unwrap_or_else(|_| Err(LoadError::malformed(&path, "the tokenizers library cannot work with it")))
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
            let cause = format!("it has the token id {largest}, config.json says vocab_size {}", model.vocabulary);
            return Err(malformed(&cause));
        }
        // Text that no vocabulary has: without a token for it, every such text would fail.
        for probe in ["\u{10fffd}", "\u{e000}a\u{301}\u{4e00}\0 \n"] {
            inner
                .encode_fast(probe, false)
                .map_err(|cause| malformed(&format!("it cannot encode every text: {cause}")))?;
        }
        let (before, after) = around(&inner, path)?;
        if before.len() + after.len() >= model.max_tokens {
            return Err(malformed(&"its special tokens leave no room for a text"));
        }
        check_around(settings, &inner, model, [&before, &after])?;
        // An added token with white space in it would be cut in two.
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

    /// The most tokens that an encoding has, special tokens included.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Whether long texts lose their beginning.
    pub(crate) fn cuts_left(&self) -> bool {
        self.side == Side::Left
    }

    /// Whether settings beside `tokenizer.json` replaced what it says.
    pub(crate) fn is_overridden(&self) -> bool {
        self.overridden
    }

    /// As a `tokenizer.json` in which everything is applied.
    pub(crate) fn to_json(&self) -> Option<String> {
        self.inner.to_string(false).ok()
    }

    /// The tokens of one text, cut at the model's maximum.
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

    /// Tokens that a prompt has in front of a text, as sentence-transformers counts them: those of the prompt alone,
    /// without a special token at its end.
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

    /// The tokens of so much of the text that there are `room` of them, or of the whole text.
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
        // The library fails on broken vocabularies only, and this one has encoded unknown text at load.
        encoding.expect("a loaded vocabulary encodes every text")
    }
}

impl Tokens for Tokenizer {
    fn spans(&self, text: &str) -> Vec<Range<usize>> {
        pieces::spans(text, |piece| self.plain(piece, true))
    }
}

/// Applies the settings beside `tokenizer.json` as transformers does, and returns whether they replaced what it says.
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
        // One that gets an id without a row in the embedding would make texts fail that hold it.
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

/// The special tokens in front of and behind a text: learned from one that has a token of its own.
fn around(inner: &tokenizers::Tokenizer, path: &Path) -> Result<(Vec<u32>, Vec<u32>), LoadError> {
    let malformed = |cause: &dyn ToString| LoadError::malformed(path, cause.to_string());
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
    Ok((special[..at].to_vec(), special[at + plain.len()..].to_vec()))
}

/// Transformers builds what surrounds a text from the settings, the tokenizers library from the file: if they differ,
/// there is no telling which the model was trained with.
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
            let problem = format!("tokenizer_config.json has {key} {token:?}, but tokenizer.json puts {found:?} there");
            return Err(LoadError::unsupported(&model.directory, problem));
        }
    }
    Ok(())
}

/// The first place at or after `bytes` where the text has white space, if anything follows.
fn word_end(text: &str, bytes: usize) -> Option<usize> {
    let tail = text.as_bytes().get(bytes..)?;
    // ASCII bytes are never inside another character.
    let end = bytes + tail.iter().position(|byte| matches!(byte, b' ' | b'\n' | b'\t' | b'\r'))?;
    Some(end)
}
