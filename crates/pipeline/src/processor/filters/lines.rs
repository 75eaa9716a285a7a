//! Text whose white space is normalised while it is built.

/// The separation of two words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Gap {
    /// They are one word.
    #[default]
    None,
    Space,
    Line,
}

/// Builds a text in which one space or one line break separates words, except in verbatim text.
#[derive(Debug, Default)]
pub(super) struct Lines {
    text: String,
    /// The separation of the next word from the text.
    gap: Gap,
}

impl Lines {
    /// Separates the next word from the text at least by `gap`.
    pub(super) fn separate(&mut self, gap: Gap) {
        self.gap = self.gap.max(gap);
    }

    /// Appends text in which any white space is a space.
    pub(super) fn flow(&mut self, text: &str) {
        if text.starts_with(char::is_whitespace) {
            self.separate(Gap::Space);
        }
        for (number, word) in text.split_whitespace().enumerate() {
            if number > 0 {
                self.separate(Gap::Space);
            }
            self.push(word);
        }
        if text.ends_with(char::is_whitespace) {
            self.separate(Gap::Space);
        }
    }

    /// Appends text whose line breaks and indents stay. Blank lines are omitted.
    pub(super) fn verbatim(&mut self, text: &str) {
        for (number, line) in text.split('\n').enumerate() {
            if number > 0 {
                self.separate(Gap::Line);
            }
            let kept = line.trim_end();
            if !kept.is_empty() {
                self.push(kept);
            }
            if kept.len() < line.len() {
                self.separate(Gap::Space);
            }
        }
    }

    /// Returns the text.
    pub(super) fn finish(self) -> String {
        self.text
    }

    fn push(&mut self, word: &str) {
        let gap = std::mem::take(&mut self.gap);
        if !self.text.is_empty() {
            self.text.push_str(match gap {
                Gap::None => "",
                Gap::Space => " ",
                Gap::Line => "\n",
            });
        }
        self.text.push_str(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widest_gap_between_words_wins_and_ends_have_none() {
        let mut lines = Lines::default();
        lines.separate(Gap::Line);
        lines.flow("  one\t two\u{a0}");
        lines.separate(Gap::Line);
        lines.flow(" three");
        lines.flow("four ");
        lines.separate(Gap::Space);
        assert_eq!(lines.finish(), "one two\nthreefour");
    }

    #[test]
    fn verbatim_text_keeps_indents_and_omits_blank_lines() {
        let mut lines = Lines::default();
        lines.verbatim("if x:\r\n    y \n\n  \n");
        lines.verbatim("z");
        assert_eq!(lines.finish(), "if x:\n    y\nz");
    }
}
