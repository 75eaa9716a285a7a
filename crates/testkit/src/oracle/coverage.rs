//! Checks whether chunks cover a text.

/// Fails unless the chunks, in order, are parts of the text and omit nothing but white space. They may overlap.
pub(super) fn covers(chunks: &[String], text: &str) -> Result<(), String> {
    let mut covered = 0;
    for (number, chunk) in chunks.iter().enumerate() {
        // The latest gapless position covers most, and no later chunk can require less.
        let gapless = covered + (text[covered..].len() - text[covered..].trim_start().len());
        let end = text.floor_char_boundary((gapless + chunk.len()).min(text.len()));
        let start = text[..end].rfind(chunk.as_str());
        let start = start.ok_or_else(|| format!("unexpected text of chunk {number}: {chunk:?}"))?;
        covered = covered.max(start + chunk.len());
    }
    let rest = text[covered..].trim();
    if rest.is_empty() { Ok(()) } else { Err(format!("end of the text is not covered by a chunk: {rest:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chunks: &[&str], text: &str) -> bool {
        covers(&chunks.iter().map(|chunk| (*chunk).to_owned()).collect::<Vec<_>>(), text).is_ok()
    }

    #[test]
    fn coverage_ignores_white_space_and_overlaps() {
        assert!(check(&[""], ""));
        assert!(check(&[""], " \n"));
        assert!(check(&["one two"], " one two\n"));
        assert!(check(&["one two", "two three", "three"], "one two three"));
        assert!(check(&["a a", "a a", "a"], "a a a a a"));
        assert!(check(&["äé", "日本"], "äé 日本"));
    }

    #[test]
    fn coverage_rejects_gaps_and_foreign_text() {
        assert!(!check(&[""], "one"));
        assert!(!check(&["one"], "one two"));
        assert!(!check(&["one", "three"], "one two three"));
        assert!(!check(&["two three"], "one two three"));
        assert!(!check(&["one", "four"], "one two"));
        assert!(!check(&["a", "a"], "a a a"));
    }
}
