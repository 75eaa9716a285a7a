//! Breaks texts into lines for a terminal.

/// The first `most` lines of `text` at `width` columns, white space collapsed; `…` ends a text that is longer.
///
/// Counts characters, not columns: a line of wide characters gets longer, and the terminal breaks it.
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
            // The rest of a monster of a word is of no use to a reader.
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

/// A line of output in as many lines as this width needs: broken between words, the rest under the beginning of its text. What
/// stands in backquotes is to be copied and stays together. Styles take no room.
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
            text.extend(word.before.chars().filter(|letter| *letter != ' '));
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

/// A word with what is before it.
struct Word<'a> {
    /// Spaces and styles.
    before: &'a str,
    /// How many spaces.
    gap: usize,
    text: &'a str,
    /// How much room it takes: characters, without styles.
    columns: usize,
}

fn words(line: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (before, text) = rest.split_at(before(rest));
        let mut quoted = false;
        let end = text.char_indices().find(|&(at, letter)| {
            match letter {
                // One that is never closed is a letter like others.
                '`' => quoted = !quoted && text[at + 1..].contains('`'),
                ' ' => return !quoted,
                _ => {}
            }
            false
        });
        let (text, after) = text.split_at(end.map_or(text.len(), |(at, _)| at));
        let gap = before.chars().filter(|letter| *letter == ' ').count();
        words.push(Word { before, gap, text, columns: columns(text) });
        rest = after;
    }
    words
}

/// Spaces and styles at the beginning, in bytes.
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

/// Where the text of a line begins: behind its sign (`✔`, `→`), or in the column behind its name (`source      …`).
fn indent(words: &[Word<'_>], width: usize) -> usize {
    /// A name is no longer; a wider gap further on is of a table.
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
    fn the_rest_of_a_line_stands_under_its_text() {
        assert_eq!(hanging("short", 10), "short");
        assert_eq!(hanging("  → one two three four", 14), "  → one two\n    three four");
        assert_eq!(hanging("source      one two three", 20), "source      one two\n            three");
        assert_eq!(hanging("✔ redis   one two three", 18), "✔ redis   one two\n          three");
        assert_eq!(hanging("one two three four", 9), "one two\n  three\n  four");
    }

    #[test]
    fn commands_stay_whole_and_styles_take_no_room() {
        let line = "! see `tidewheel status` and the rest";
        assert_eq!(hanging(line, 20), "! see\n  `tidewheel status`\n  and the rest");
        assert_eq!(hanging("a lonely ` is no quote", 12), "a lonely `\n  is no\n  quote");
        assert_eq!(
            hanging("\x1b[32m✔\x1b[0m \x1b[1mall\x1b[0m is well", 13),
            "\x1b[32m✔\x1b[0m \x1b[1mall\x1b[0m is well"
        );
        // The column behind a name, styled as the program does it.
        assert_eq!(
            hanging("\x1b[1msource      \x1b[0m one two", 16),
            "\x1b[1msource      \x1b[0m one\n             two"
        );
        let monster = "x".repeat(30);
        assert_eq!(hanging(&format!("see {monster} there"), 20), format!("see\n  {monster}\n  there"));
    }

    #[test]
    fn words_stay_whole_and_the_end_is_marked() {
        assert_eq!(lines("one two\n  three", 80, 3), ["one two three"]);
        assert_eq!(lines("one two three four", 9, 3), ["one two", "three", "four"]);
        assert_eq!(lines("one two three four", 9, 2), ["one two", "three …"]);
        assert_eq!(lines("abcdefghijklmnop next", 8, 1), ["abcdef …"]);
        assert_eq!(lines("", 80, 3), Vec::<String>::new());
    }
}
