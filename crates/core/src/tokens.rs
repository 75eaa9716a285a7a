//! Counting the tokens of a text.

use std::ops::Range;

/// Splits a text as a model's tokeniser does.
pub trait Tokens: Send + Sync {
    /// The byte range of every token of the whole text, in order, without special tokens and without truncation.
    fn spans(&self, text: &str) -> Vec<Range<usize>>;
}

/// Longest run of letters that counts as one token, in characters.
const LONGEST_WORD: usize = 6;

/// An estimate for models whose tokeniser is not at hand: a run of up to six letters or digits is a token, and so is
/// every other character that is not white space.
///
/// English prose has about 1.3 such tokens a word, like WordPiece and the byte-pair encodings of remote models.
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
