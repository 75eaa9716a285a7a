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

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn words_stay_whole_and_the_end_is_marked() {
        assert_eq!(lines("one two\n  three", 80, 3), ["one two three"]);
        assert_eq!(lines("one two three four", 9, 3), ["one two", "three", "four"]);
        assert_eq!(lines("one two three four", 9, 2), ["one two", "three …"]);
        assert_eq!(lines("abcdefghijklmnop next", 8, 1), ["abcdef …"]);
        assert_eq!(lines("", 80, 3), Vec::<String>::new());
    }
}
