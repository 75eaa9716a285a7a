//! Tokenizes long texts piecewise: an encoding takes over a hundred bytes per token while it is built.

use std::ops::Range;

use tokenizers::Encoding;

/// Minimum bytes per piece.
const PIECE: usize = 256 << 10;

/// Returns the byte range of every token of the text.
pub fn spans(text: &str, encode: impl Fn(&str) -> Encoding) -> Vec<Range<usize>> {
    let mut spans = Vec::with_capacity(text.len() / 4);
    for piece in pieces(text, PIECE) {
        let first = piece.start;
        let encoding = encode(&text[piece]);
        spans.extend(encoding.get_offsets().iter().map(|&(start, end)| first + start..first + end));
    }
    spans
}

/// Splits the text before single spaces between words, where every vocabulary begins a new token. A text without such
/// spaces is one piece.
fn pieces(text: &str, least: usize) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let single = |at: &usize| {
        let apart = |byte: Option<&u8>| byte.is_some_and(|byte| !byte.is_ascii_whitespace() && byte.is_ascii());
        bytes[*at] == b' ' && apart(bytes.get(at - 1)) && apart(bytes.get(at + 1))
    };
    let mut pieces = Vec::new();
    let mut start = 0;
    while let Some(end) = (start + least..bytes.len()).find(single) {
        pieces.push(start..end);
        start = end;
    }
    pieces.push(start..bytes.len());
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_cover_text_and_begin_at_single_spaces(text in "([a-zé ]{0,4} ?\n?){0,60}", least in 1usize..30) {
            let pieces = pieces(&text, least);
            let joined: String = pieces.iter().map(|piece| &text[piece.clone()]).collect();
            prop_assert_eq!(&joined, &text);
            for piece in &pieces[1..] {
                prop_assert!(text[piece.clone()].starts_with(' ') && !text[..piece.start].ends_with(' '));
            }
        }
    }
}
