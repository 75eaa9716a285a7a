//! Counting the tokens of a text.

mod estimate;

use std::ops::Range;

pub use estimate::Estimate;

/// Splits a text as a model's tokeniser does.
pub trait Tokens: Send + Sync {
    /// The byte range of every token of the whole text, in order, without special tokens and without truncation.
    fn spans(&self, text: &str) -> Vec<Range<usize>>;

    /// The kind of the text if the tokens are estimated; `None` if they are exact.
    fn kind(&self, _text: &str) -> Option<Kind> {
        None
    }
}

/// Kinds of text, which differ in the error of the estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Words in Latin letters.
    Latin,
    /// Numbers, identifiers, hashes.
    Dense,
    /// Punctuation and white space.
    Sparse,
    /// Greek, Cyrillic, Armenian, Hebrew, Arabic.
    Alphabet,
    /// Scripts of South and South-East Asia, Georgian, Ethiopic.
    Indic,
    /// Ideographs, kana, Hangul.
    EastAsian,
    /// Emoji, mathematical signs, anything else.
    Symbol,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Latin, Self::Dense, Self::Sparse, Self::Alphabet, Self::Indic, Self::EastAsian, Self::Symbol];

    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Latin => "Latin words",
            Self::Dense => "identifiers and numbers",
            Self::Sparse => "punctuation and white space",
            Self::Alphabet => "Greek, Cyrillic, Hebrew or Arabic",
            Self::Indic => "South and South-East Asian scripts",
            Self::EastAsian => "Chinese, Japanese or Korean",
            Self::Symbol => "symbols",
        }
    }
}

/// Maximum length of a run of letters that counts as one token, in characters.
const LONGEST_WORD: usize = 6;

/// The tokens of models without a vocabulary: a run of up to six letters or digits is a token, and so is every other character
/// that is not white space.
///
/// For models whose vocabulary is unknown, see [`Estimate`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Words;

impl Tokens for Words {
    fn spans(&self, text: &str) -> Vec<Range<usize>> {
        let mut spans: Vec<Range<usize>> = Vec::with_capacity(text.len() / 5);
        let mut word = 0;
        for (start, character) in text.char_indices() {
            let end = start + character.len_utf8();
            if character.is_whitespace() {
                word = 0;
            } else if character.is_alphanumeric() && (1..LONGEST_WORD).contains(&word) {
                word += 1;
                spans.last_mut().expect("a word has begun").end = end;
            } else {
                word = usize::from(character.is_alphanumeric());
                spans.push(start..end);
            }
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_signs_are_tokens() {
        let text = "Ünïcode, in  extraordinary\n日本!";
        let tokens: Vec<_> = Words.spans(text).into_iter().map(|span| &text[span]).collect();
        assert_eq!(tokens, ["Ünïcod", "e", ",", "in", "extrao", "rdinar", "y", "日本", "!"]);
        assert!(Words.spans(" \n ").is_empty());
    }
}
