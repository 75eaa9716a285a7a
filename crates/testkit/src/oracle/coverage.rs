//! Whether chunks give a text again.

/// Fails unless the chunks, in order, are parts of the text and leave nothing of it out but white space. They may overlap.
pub(super) fn covers(chunks: &[String], text: &str) -> Result<(), String> {
    let mut covered = 0;
    for (number, chunk) in chunks.iter().enumerate() {
        // The latest place that leaves no gap covers most, and nothing that comes later can need less.
        let gapless = covered + (text[covered..].len() - text[covered..].trim_start().len());
        let end = text.floor_char_boundary((gapless + chunk.len()).min(text.len()));
        let start = text[..end].rfind(chunk.as_str());
        let start = start.ok_or_else(|| format!("the text of chunk {number} is not where it should be: {chunk:?}"))?;
        covered = covered.max(start + chunk.len());
    }
    let rest = text[covered..].trim();
    if rest.is_empty() { Ok(()) } else { Err(format!("no chunk has the end of the text: {rest:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chunks: &[&str], text: &str) -> bool {
        covers(&chunks.iter().map(|chunk| (*chunk).to_owned()).collect::<Vec<_>>(), text).is_ok()
    }

    #[test]
    fn white_space_and_overlaps_do_not_matter() {
        assert!(check(&[""], ""));
        assert!(check(&[""], " \n"));
        assert!(check(&["one two"], " one two\n"));
        assert!(check(&["one two", "two three", "three"], "one two three"));
        assert!(check(&["a a", "a a", "a"], "a a a a a"));
        assert!(check(&["äé", "日本"], "äé 日本"));
    }

    #[test]
    fn gaps_and_foreign_texts_do() {
        assert!(!check(&[""], "one"));
        assert!(!check(&["one"], "one two"));
        assert!(!check(&["one", "three"], "one two three"));
        assert!(!check(&["two three"], "one two three"));
        assert!(!check(&["one", "four"], "one two"));
        assert!(!check(&["a", "a"], "a a a"));
    }
}
