//! Wraps text for a terminal. Styles have no width; wide characters have two columns.

use textwrap::core::{Word, display_width};
use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

/// Returns the first `most` lines of `text` at `width` columns, with white space collapsed; `…` marks truncated text.
pub(crate) fn lines(text: &str, width: usize, most: usize) -> Vec<String> {
    let width = width.max(2);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() {
        return Vec::new();
    }
    let wrapped = textwrap::wrap(&text, options(width).word_separator(WordSeparator::AsciiSpace));
    let truncated = wrapped.len() > most;
    let mut lines: Vec<String> = wrapped.into_iter().take(most).map(String::from).collect();
    if let Some(last) = lines.last_mut().filter(|_| truncated) {
        while display_width(last) + 2 > width {
            last.pop();
        }
        last.push_str(" …");
    }
    lines
}

/// Wraps a line of output between words, with a hanging indent at the start of its text. Backquoted text is meant for copying and
/// is never split.
pub(crate) fn hanging(line: &str, width: usize) -> String {
    if display_width(line) <= width {
        return line.to_owned();
    }
    let (start, indent) = text_start(line, width);
    let (head, text) = line.split_at(start);
    let indent = " ".repeat(indent);
    let options = options(width).break_words(false).initial_indent(head).subsequent_indent(&indent);
    textwrap::fill(text, options.word_separator(WordSeparator::Custom(words)))
}

fn options<'a>(width: usize) -> Options<'a> {
    Options::new(width).word_splitter(WordSplitter::NoHyphenation).wrap_algorithm(WrapAlgorithm::FirstFit)
}

/// Splits before each word, with its trailing spaces.
fn words(line: &str) -> Box<dyn Iterator<Item = Word<'_>> + '_> {
    let mut rest = line;
    Box::new(std::iter::from_fn(move || {
        let after = rest[word_end(rest)..].trim_start_matches(' ');
        let (word, after) = rest.split_at(rest.len() - after.len());
        rest = after;
        (!word.is_empty()).then(|| Word::from(word))
    }))
}

/// Returns the position of the first space that is not backquoted.
fn word_end(text: &str) -> usize {
    let mut quoted = false;
    let end = text.char_indices().find(|&(at, character)| {
        match character {
            // An unclosed backquote is an ordinary character.
            '`' => quoted = !quoted && text[at + 1..].contains('`'),
            ' ' => return !quoted,
            _ => {}
        }
        false
    });
    end.map_or(text.len(), |(at, _)| at)
}

/// Length in bytes of the leading spaces and styles.
fn before(text: &str) -> usize {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(' ');
        match rest.strip_prefix("\x1b[").and_then(|style| style.find('m')) {
            Some(end) => rest = &rest[end + 3..],
            None => return text.len() - rest.len(),
        }
    }
}

/// Returns where the text of a line starts, in bytes, and the indent of the lines below it: after its sign (`✔`, `→`), or
/// after its label (`source      …`).
fn text_start(line: &str, width: usize) -> (usize, usize) {
    /// Maximum width of a label; a gap further right belongs to a table.
    const NAMES: usize = 20;
    let mut start = before(line);
    let (mut at, mut number, mut follows_sign) = (0, 0, false);
    while at < line.len() {
        let gap = before(&line[at..]);
        let word = at + gap;
        if number > 0 && display_width(&line[at..word]) > 1 && display_width(&line[..word]) <= NAMES {
            return (word, display_width(&line[..word]));
        }
        if number == 1 && follows_sign {
            start = word;
        }
        let end = word + word_end(&line[word..]);
        follows_sign = display_width(&line[word..end]) == 1;
        (at, number) = (end, number + 1);
    }
    match display_width(&line[..start]) {
        column if column * 2 > width => (before(line), 2),
        column => (start, column.max(2)),
    }
}

#[cfg(test)]
mod tests {
    use super::{hanging, lines};

    #[test]
    fn hanging_indents_wrapped_lines_to_the_text() {
        assert_eq!(hanging("short", 10), "short");
        assert_eq!(hanging("  → one two three four", 14), "  → one two\n    three four");
        assert_eq!(hanging("source      one two three", 20), "source      one two\n            three");
        assert_eq!(hanging("✔ redis   one two three", 18), "✔ redis   one two\n          three");
        assert_eq!(hanging("one two three four", 9), "one two\n  three\n  four");
    }

    #[test]
    fn hanging_keeps_commands_whole_and_ignores_styles() {
        let line = "! see `tidewheel status` and the rest";
        assert_eq!(hanging(line, 20), "! see\n  `tidewheel status`\n  and the rest");
        assert_eq!(hanging("a lonely ` is no quote", 12), "a lonely `\n  is no\n  quote");
        assert_eq!(
            hanging("\x1b[32m✔\x1b[0m \x1b[1mall\x1b[0m is well", 13),
            "\x1b[32m✔\x1b[0m \x1b[1mall\x1b[0m is well"
        );
        // The column after a label, styled as the program prints it.
        assert_eq!(
            hanging("\x1b[1msource      \x1b[0m one two", 16),
            "\x1b[1msource      \x1b[0m one\n             two"
        );
        let overlong = "x".repeat(30);
        assert_eq!(hanging(&format!("see {overlong} there"), 20), format!("see\n  {overlong}\n  there"));
    }

    #[test]
    fn lines_keeps_words_whole_and_marks_truncation() {
        assert_eq!(lines("one two\n  three", 80, 3), ["one two three"]);
        assert_eq!(lines("one two three four", 9, 3), ["one two", "three", "four"]);
        assert_eq!(lines("one two three four", 9, 2), ["one two", "three …"]);
        assert_eq!(lines("abcdefghijklmnop next", 8, 1), ["abcdef …"]);
        assert_eq!(lines("", 80, 3), Vec::<String>::new());
        assert_eq!(lines("abcdefghijkl next", 8, 3), ["abcdefgh", "ijkl", "next"]);
    }

    #[test]
    fn wide_characters_have_two_columns() {
        assert_eq!(lines("東京都 大阪府", 8, 3), ["東京都", "大阪府"]);
        assert_eq!(lines("東京都庁 大阪府", 8, 1), ["東京都 …"]);
        assert_eq!(hanging("→ 東京都 大阪府", 10), "→ 東京都\n  大阪府");
    }
}
