//! Text that comes from elsewhere (documents, servers) made harmless for a terminal.
//!
//! A terminal acts on control characters: one sequence clears the screen, another one writes to the clipboard. Characters that
//! turn the direction of text around, or that are invisible, make a line read as what it is not. All of them are shown as
//! escapes. The styles of this program carry a mark that no document can know, and pass.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::sync::OnceLock;

use anstyle::Style;

/// What a style of ours begins with, up to the mark.
const START: &str = "\x1b[";

/// Digits that only this process knows.
fn mark() -> &'static str {
    static MARK: OnceLock<String> = OnceLock::new();
    MARK.get_or_init(|| format!("{:039};", uuid::Uuid::new_v4().as_u128()))
}

/// The sequence that begins a style, marked as ours.
pub(crate) fn style(style: Style) -> String {
    marked(&style.render().to_string())
}

/// The sequence that ends a style, marked as ours.
pub(crate) fn style_end(style: Style) -> String {
    marked(&style.render_reset().to_string())
}

fn marked(sequences: &str) -> String {
    sequences.replace(START, &format!("{START}{}", mark()))
}

/// Lines for people: with our styles, and with every other character escaped on which a terminal may act.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let start = format!("{START}{}", mark());
    let mut escaped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        if let Some((style, after)) = rest.strip_prefix(&start).and_then(|after| after.split_once('m')) {
            let _ = write!(escaped, "{START}{style}m");
            rest = after;
            continue;
        }
        if is_unsafe(letter) {
            escaped.extend(letter.escape_unicode());
        } else {
            escaped.push(letter);
        }
        rest = &rest[letter.len_utf8()..];
    }
    Cow::Owned(escaped)
}

/// A text that takes one line: line breaks and tabs are escaped too.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    let is_break = |letter: char| matches!(letter, '\n' | '\t');
    if !text.contains(|letter: char| is_break(letter) || is_unsafe(letter)) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\t' => escaped.extend(letter.escape_default()),
            _ if is_unsafe(letter) => escaped.extend(letter.escape_unicode()),
            _ => escaped.push(letter),
        }
    }
    Cow::Owned(escaped)
}

/// The same JSON, without characters on which a terminal may act: JSON writes every one of them as `\u` and four digits.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_unsafe(letter) {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(letter);
        }
    }
    Cow::Owned(escaped)
}

/// Whether a terminal may act on it, or shows text as another one than it is. Joiners and marks of direction stay: scripts need
/// them.
fn is_unsafe(letter: char) -> bool {
    match letter {
        '\n' | '\t' => false,
        // Directions that are forced or isolated, and the separators of lines.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' => true,
        // Nothing to be seen.
        '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
        // C0, DEL and C1.
        letter => letter.is_control(),
    }
}

/// Makes what is logged harmless.
pub(crate) struct Escaping<W> {
    inner: W,
    form: Form,
}

/// How a log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A line of JSON for each event.
    Json,
    /// Text.
    Plain,
    /// Text with the log's own colours. The log escapes those of others itself.
    Coloured,
}

impl<W> Escaping<W> {
    pub(crate) fn new(inner: W, form: Form) -> Self {
        Self { inner, form }
    }
}

impl<W: io::Write> io::Write for Escaping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The log writes whole events, so that no character is cut in two.
        let text = String::from_utf8_lossy(bytes);
        let escaped = match self.form {
            Form::Json => json(&text),
            Form::Plain => lines(&text),
            Form::Coloured => Cow::Owned(lines(&text.replace(START, &format!("{START}{}", mark()))).into_owned()),
        };
        self.inner.write_all(escaped.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::printer::{BAD, styled};

    /// OSC 52, clear screen, BEL, CSI as a C1 character, DEL, a line that is overwritten, and a text turned around.
    const HOSTILE: &str = "a\x1b]52;c;ZXZpbA==\x07b\x1b[2Jc\u{9b}31md\x7fe\rf\u{202e}g\u{2066}h\u{200b}i";

    #[test]
    fn control_characters_are_escaped_and_our_styles_stay() {
        let shown = lines(&styled(BAD, HOSTILE)).into_owned();
        assert_eq!(
            shown,
            "\x1b[1m\x1b[31ma\\u{1b}]52;c;ZXZpbA==\\u{7}b\\u{1b}[2Jc\\u{9b}31md\\u{7f}e\\u{d}f\\u{202e}g\\u{2066}h\\u{200b}i\x1b[0m"
        );
        assert_eq!(lines("plain\n\ttext: ü 日本 👩\u{200d}🚀"), "plain\n\ttext: ü 日本 👩\u{200d}🚀");
    }

    #[test]
    fn style_of_a_document_is_none_of_ours() {
        assert_eq!(lines("\x1b[31mred\x1b[0m"), "\\u{1b}[31mred\\u{1b}[0m");
        assert_eq!(lines("\x1b[1;31mred"), "\\u{1b}[1;31mred");
    }

    #[test]
    fn line_has_no_breaks() {
        assert_eq!(line("one\ntwo\tthree\x1b[2J"), "one\\ntwo\\tthree\\u{1b}[2J");
        assert_eq!(line("one two"), "one two");
    }

    #[test]
    fn json_means_the_same() {
        let value = serde_json::json!({"a": HOSTILE, "tag": "\u{e0041}"});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let escaped = json(&text);
        assert!(!escaped.contains(is_unsafe), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn log_keeps_its_own_colours_only() {
        let written = |form: Form, text: &str| {
            let mut writer = Escaping::new(Vec::new(), form);
            writer.write_all(text.as_bytes()).unwrap();
            String::from_utf8(writer.inner).unwrap()
        };
        let event = "\x1b[32m INFO\x1b[0m key=\u{9b}2J\u{202e}\n";
        assert_eq!(written(Form::Coloured, event), "\x1b[32m INFO\x1b[0m key=\\u{9b}2J\\u{202e}\n");
        assert_eq!(written(Form::Plain, "\x1b[2J\n"), "\\u{1b}[2J\n");
        assert_eq!(written(Form::Json, "{\"key\":\"\u{9b}\"}\n"), "{\"key\":\"\\u009b\"}\n");
    }
}
