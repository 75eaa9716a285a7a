//! Splits a long text into chunks that fit the model.
//!
//! The text is tokenised once; cuts are then chosen from the tokens' byte ranges alone, so that the cost is linear in
//! the length of the text and testable without a tokeniser.

use std::ops::Range;

/// Size limits of chunks, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLimits {
    max_tokens: usize,
    overlap: usize,
}

impl ChunkLimits {
    /// At most `max_tokens` (at least 1) per chunk, of which `overlap` repeat the previous chunk. The overlap is capped
    /// at half a chunk, so that chunking always makes progress.
    pub fn new(max_tokens: usize, overlap: usize) -> Self {
        let max_tokens = max_tokens.max(1);
        Self { max_tokens, overlap: overlap.min(max_tokens / 2) }
    }

    /// Maximum number of tokens per chunk.
    pub fn max_tokens(self) -> usize {
        self.max_tokens
    }

    /// The same limits with fewer tokens per chunk, and the overlap capped accordingly.
    #[must_use]
    pub fn with_max_tokens(self, max_tokens: usize) -> Self {
        Self::new(max_tokens, self.overlap)
    }

    /// Whether a text of this many bytes fits into one chunk regardless of its tokens: a token has at least one byte.
    pub fn surely_fit(self, bytes: usize) -> bool {
        bytes <= self.max_tokens
    }
}

/// Quality of a cut position. Greater is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Boundary {
    InsideCharacter,
    InsideWord,
    Word,
    Sentence,
    Line,
    Paragraph,
}

/// Returns the byte ranges of the chunks of `text`, whose tokens are at `spans`.
///
/// There is always at least one chunk, the whole text if it fits. Each holds at most `max_tokens` tokens and ends at
/// the best boundary in its second half: a paragraph's end before a line's, a sentence's, a word's; among equals the
/// latest. Every token lies in some chunk, and the next chunk starts at the first word within the overlap. Chunks of a
/// longer text neither begin nor end with white space, and each adds more than white space to the previous one.
pub fn chunk(text: &str, spans: &[Range<usize>], limits: ChunkLimits) -> Vec<Range<usize>> {
    if spans.len() <= limits.max_tokens {
        return std::iter::once(0..text.len()).collect();
    }
    let mut chunks: Vec<Range<usize>> = Vec::with_capacity(spans.len() / (limits.max_tokens - limits.overlap) + 1);
    let (mut first, mut end) = (0, 0);
    loop {
        end = cut(text, spans, first, end, limits.max_tokens);
        let range = trimmed(text, bytes(text, &spans[first..end]));
        if !range.is_empty() && chunks.last().is_none_or(|last| last.end < range.end) {
            chunks.push(range);
        }
        if end == spans.len() {
            break;
        }
        first = restart(text, spans, first, end, limits.overlap);
    }
    if chunks.is_empty() {
        chunks.push(0..0);
    }
    chunks
}

/// The range without leading and trailing white space.
fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let start = range.end - text[range.clone()].trim_start().len();
    start..start + text[start..range.end].trim_end().len()
}

/// One past the last token of the chunk that starts at token `first`; always after `previous`, the end of the previous
/// chunk, or the overlap would become a separate chunk.
fn cut(text: &str, spans: &[Range<usize>], first: usize, previous: usize, max_tokens: usize) -> usize {
    let end = first + max_tokens;
    if end >= spans.len() {
        return spans.len();
    }
    let earliest = (first + max_tokens.div_ceil(2)).max(previous + 1);
    (earliest..=end).max_by_key(|&at| (boundary(text, spans, at), at)).unwrap_or(end)
}

/// The first token of the chunk that follows `first..end`.
fn restart(text: &str, spans: &[Range<usize>], first: usize, end: usize, overlap: usize) -> usize {
    let earliest = end.saturating_sub(overlap).max(first + 1);
    (earliest..end).find(|&at| boundary(text, spans, at) > Boundary::InsideWord).unwrap_or(end)
}

/// The boundary between token `at - 1` and token `at`. White space may be a part of either, or a token of its own.
fn boundary(text: &str, spans: &[Range<usize>], at: usize) -> Boundary {
    let (before, after) = (&spans[at - 1], &spans[at]);
    if !text.is_char_boundary(before.end) {
        return Boundary::InsideCharacter;
    }
    let token = |span: &Range<usize>| text.get(span.clone()).unwrap_or_default();
    let (before, gap, after) = (token(before), token(&(before.end..after.start)), token(after));
    let kept = before.trim_end();
    let space = [&before[kept.len()..], gap, &after[..after.len() - after.trim_start().len()]];
    let mut newlines = space.iter().flat_map(|part| part.bytes()).filter(|byte| *byte == b'\n');
    if newlines.next().is_some() {
        return if newlines.next().is_some() { Boundary::Paragraph } else { Boundary::Line };
    }
    let joined = space.iter().all(|part| part.is_empty());
    match kept.chars().next_back() {
        Some('。' | '！' | '？') => Boundary::Sentence,
        Some('.' | '!' | '?') if !joined => Boundary::Sentence,
        _ if joined => Boundary::InsideWord,
        _ => Boundary::Word,
    }
}

/// The bytes from the first to the last token. Byte-level tokenisers may split a character; the range then includes all
/// of it.
fn bytes(text: &str, spans: &[Range<usize>]) -> Range<usize> {
    let (start, end) = (spans[0].start, spans[spans.len() - 1].end);
    text.floor_char_boundary(start)..text.ceil_char_boundary(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tokens::{Estimate, Tokens, Words};

    fn chunks(text: &str, max_tokens: usize, overlap: usize) -> Vec<&str> {
        let spans = Words.spans(text);
        chunk(text, &spans, ChunkLimits::new(max_tokens, overlap)).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn text_within_the_limit_is_one_unchanged_chunk() {
        assert_eq!(chunks(" one two ", 2, 1), [" one two "]);
        assert_eq!(chunks("", 2, 1), [""]);
    }

    #[test]
    fn cuts_fall_on_the_best_boundary_of_the_second_half() {
        assert_eq!(chunks("a b c. d e\n\nf g h", 7, 0), ["a b c. d e", "f g h"]);
        assert_eq!(chunks("a b c d. e f g h", 7, 0), ["a b c d.", "e f g h"]);
        assert_eq!(chunks("a b c d e f g h", 4, 0), ["a b c d", "e f g h"]);
        assert_eq!(chunks("一二。三四五六七八九十一二三四", 2, 0)[0], "一二。");
    }

    #[test]
    fn chunks_overlap_by_whole_words() {
        assert_eq!(chunks("a b c d e f", 4, 1), ["a b c d", "d e f"]);
        assert_eq!(chunks("extraordinary extraordinary", 3, 2), ["extraordinary", "extraordinary"]);
    }

    #[test]
    fn white_space_with_its_own_tokens_is_in_no_chunk() {
        let blank = "\n".repeat(50);
        let text = format!("one two{blank}three four");
        let chunks = |text: &str, max_tokens, overlap| {
            let limits = ChunkLimits::new(max_tokens, overlap);
            let ranges = chunk(text, &Estimate.spans(text), limits);
            ranges.into_iter().map(|range| text[range].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(chunks(&text, 8, 0), ["one two", "three four"]);
        assert_eq!(chunks(&text, 8, 4), ["one two", "three four"]);
        assert_eq!(chunks(&blank, 8, 0), [""]);
    }

    proptest! {
        #[test]
        fn estimated_chunks_omit_only_white_space(
            text in "([a-zA-Z0-9äé日本語😀.!?,\n\t ]{0,12}){0,60}",
            max_tokens in 1usize..20,
            overlap in 0usize..20,
        ) {
            let ranges = chunk(&text, &Estimate.spans(&text), ChunkLimits::new(max_tokens, overlap));
            prop_assert!(!ranges.is_empty());
            let mut covered = 0;
            for range in &ranges {
                prop_assert!(text.is_char_boundary(range.start) && text.is_char_boundary(range.end));
                let gap = text.get(covered..range.start).unwrap_or_default();
                prop_assert!(gap.trim().is_empty(), "{gap:?} is in no chunk");
                covered = covered.max(range.end);
            }
            prop_assert!(text[covered..].trim().is_empty());
        }

        #[test]
        fn every_token_is_covered_in_order_within_the_limit(
            text in "([a-zA-Zäé日.!?,\n ]{0,12}){0,60}",
            max_tokens in 1usize..20,
            overlap in 0usize..20,
        ) {
            let spans = Words.spans(&text);
            let ranges = chunk(&text, &spans, ChunkLimits::new(max_tokens, overlap));
            prop_assert!(!ranges.is_empty());
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].start < pair[1].start && pair[0].end < pair[1].end);
            }
            for range in &ranges {
                prop_assert!(text.is_char_boundary(range.start) && text.is_char_boundary(range.end));
                let inside = spans.iter().filter(|span| range.start <= span.start && span.end <= range.end).count();
                prop_assert!(inside <= max_tokens);
            }
            for span in &spans {
                prop_assert!(ranges.iter().any(|range| range.start <= span.start && span.end <= range.end));
            }
        }
    }
}
