//! Truncation on word boundaries.

use std::borrow::Cow;

/// Returns `text` if it has at most `length` plus `leeway` characters, else its beginning and `end`: together at most
/// `length` characters, and only whole words unless `killwords`. A first word that is too long is cut.
///
/// # Errors
///
/// `end` has more than `length` characters.
pub(super) fn truncate<'a>(
    text: &'a str,
    length: usize,
    killwords: bool,
    end: &str,
    leeway: usize,
) -> Result<Cow<'a, str>, String> {
    let Some(kept) = length.checked_sub(end.chars().count()) else {
        return Err(format!("invalid length {length}: expected at least the length of the end \"{end}\""));
    };
    if text.chars().nth(length.saturating_add(leeway)).is_none() {
        return Ok(Cow::Borrowed(text));
    }
    let cut = text.char_indices().nth(kept).map_or(text.len(), |(at, _)| at);
    let (mut head, rest) = text.split_at(cut);
    if !killwords {
        if !rest.starts_with(char::is_whitespace)
            && let Some(space) = head.rfind(char::is_whitespace)
            && !head[..space].trim().is_empty()
        {
            head = &head[..space];
        }
        head = head.trim_end();
    }
    Ok(Cow::Owned(format!("{head}{end}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_text_ends_after_a_whole_word() {
        let cut = |text: &str, length: usize| truncate(text, length, false, "…", 0).unwrap().into_owned();
        assert_eq!(cut("foo bar baz qux", 15), "foo bar baz qux");
        assert_eq!(cut("foo bar baz qux", 14), "foo bar baz…");
        assert_eq!(cut("foo bar baz qux", 8), "foo bar…");
        assert_eq!(cut("foo bar baz qux", 7), "foo…");
        assert_eq!(cut("unbreakable words", 6), "unbre…");
        assert_eq!(cut("  unbreakable", 6), "  unb…");
        assert_eq!(cut("grüße aus köln", 10), "grüße aus…");
        assert_eq!(cut("text", 1), "…");
    }

    #[test]
    fn options_are_those_of_jinja2() {
        assert_eq!(truncate("foo bar baz qux", 9, false, "...", 0).unwrap(), "foo...");
        assert_eq!(truncate("foo bar baz qux", 9, true, "...", 0).unwrap(), "foo ba...");
        assert_eq!(truncate("foo bar baz qux", 11, false, "...", 5).unwrap(), "foo bar baz qux");
        assert_eq!(truncate("foo bar baz qux", 11, false, "...", 0).unwrap(), "foo bar...");
        assert_eq!(truncate("foo bar baz qux", 11, false, "", 0).unwrap(), "foo bar baz");
        let error = truncate("text", 2, false, "...", 0).unwrap_err();
        assert!(error.contains("invalid length 2"), "{error}");
    }

    proptest! {
        #[test]
        fn truncated_text_is_a_prefix_and_the_end(text in ".{0,60}", length in 1usize..40, killwords: bool) {
            let cut = truncate(&text, length, killwords, "…", 0).unwrap();
            if text.chars().count() <= length {
                prop_assert_eq!(cut.as_ref(), text.as_str());
            } else {
                prop_assert!(cut.chars().count() <= length, "{cut:?}");
                prop_assert!(text.starts_with(cut.strip_suffix('…').unwrap()), "{cut:?}");
            }
        }
    }
}
