//! Wraps text for a terminal.

/// Returns the first `most` lines of `text` at `width` columns, with white space collapsed; `…` marks truncated text.
///
/// Counts characters, not columns: the terminal itself wraps a line of wide characters.
pub(crate) fn lines(text: &str, width: usize, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut current = String::new();
    let width = width.max(2);
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let length = word.chars().count();
        if !current.is_empty() && current.chars().count() + 1 + length > width {
            lines.push(std::mem::take(&mut current));
        }
        if lines.len() == most {
            return shortened(lines, width);
        }
        if !current.is_empty() {
            current.push(' ');
        }
        current.extend(word.chars().take(width));
        if length > width {
            // The rest of an overlong word is dropped.
            lines.push(std::mem::take(&mut current));
            if lines.len() == most || words.peek().is_none() {
                return shortened(lines, width);
            }
        }
    }
    if !current.is_empty() {
        lines.push(current);
    }
    lines
}

fn shortened(mut lines: Vec<String>, width: usize) -> Vec<String> {
    if let Some(last) = lines.last_mut() {
        if last.chars().count() + 2 > width {
            *last = last.chars().take(width - 2).collect();
        }
        last.push_str(" …");
    }
    lines
}

/// Wraps a line of output between words, with a hanging indent at the start of its text. Backquoted text is meant for copying and
/// is never split. Styles have no width.
pub(crate) fn hanging(line: &str, width: usize) -> String {
    let words = words(line);
    let length: usize = words.iter().map(|word| word.gap + word.columns).sum();
    if length <= width {
        return line.to_owned();
    }
    let indent = indent(&words, width);
    let (mut text, mut column) = (String::with_capacity(line.len() + 64), 0);
    for word in &words {
        if column > indent && column + word.gap + word.columns > width {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent));
            text.extend(word.before.chars().filter(|character| *character != ' '));
            column = indent;
        } else {
            text.push_str(word.before);
            column += word.gap;
        }
        text.push_str(word.text);
        column += word.columns;
    }
    text
}

/// A word with the white space before it.
struct Word<'a> {
    /// Spaces and styles.
    before: &'a str,
    /// Number of spaces.
    gap: usize,
    text: &'a str,
    /// Width in characters, without styles.
    columns: usize,
}

fn words(line: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (before, text) = rest.split_at(before(rest));
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
        let (text, after) = text.split_at(end.map_or(text.len(), |(at, _)| at));
        let gap = before.chars().filter(|character| *character == ' ').count();
        words.push(Word { before, gap, text, columns: columns(text) });
        rest = after;
    }
    words
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

fn columns(text: &str) -> usize {
    anstream::adapter::strip_str(text).map(|part| part.chars().count()).sum()
}

/// Column where the text of a line starts: after its sign (`✔`, `→`), or after its label (`source      …`).
fn indent(words: &[Word<'_>], width: usize) -> usize {
    /// Maximum width of a label; a gap further right belongs to a table.
    const NAMES: usize = 20;
    let mut column = 0;
    let mut indent = 2;
    for (at, word) in words.iter().enumerate() {
        column += word.gap;
        if at > 0 && word.gap > 1 && column <= NAMES {
            return column;
        }
        match at {
            0 => indent = column.max(2),
            1 if words[0].columns == 1 => indent = column,
            _ => {}
        }
        column += word.columns;
    }
    if indent * 2 > width { 2 } else { indent }
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
    }
}
