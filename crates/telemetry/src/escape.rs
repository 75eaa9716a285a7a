//! Escapes untrusted text (documents, server messages) for a terminal.
//!
//! A terminal interprets control characters: one sequence clears the screen, another one writes to the clipboard. Bidirectional
//! overrides and invisible characters make a line read as something else. All of them are printed as escapes. The program's own
//! styles carry a random mark that no document can contain, and pass through.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::sync::OnceLock;

use anstyle::Style;

/// Prefix of an own style, up to the mark.
const START: &str = "\x1b[";

/// Digits unique to this process.
fn mark() -> &'static str {
    static MARK: OnceLock<String> = OnceLock::new();
    MARK.get_or_init(|| format!("{:039};", uuid::Uuid::new_v4().as_u128()))
}

/// The sequence that starts a style, with the mark.
pub fn style(style: Style) -> String {
    marked(&style.render().to_string())
}

/// The sequence that ends a style, with the mark.
pub fn style_end(style: Style) -> String {
    marked(&style.render_reset().to_string())
}

fn marked(sequences: &str) -> String {
    sequences.replace(START, &format!("{START}{}", mark()))
}

/// Escapes human-readable lines: own styles pass, all other unsafe characters are escaped.
pub fn lines(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let start = format!("{START}{}", mark());
    let mut escaped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if let Some((style, after)) = rest.strip_prefix(&start).and_then(|after| after.split_once('m')) {
            let _ = write!(escaped, "{START}{style}m");
            rest = after;
            continue;
        }
        if is_unsafe(character) {
            escaped.extend(character.escape_unicode());
        } else {
            escaped.push(character);
        }
        rest = &rest[character.len_utf8()..];
    }
    Cow::Owned(escaped)
}

/// Escapes a single line, including line breaks and tabs.
pub fn line(text: &str) -> Cow<'_, str> {
    let is_break = |character: char| matches!(character, '\n' | '\t');
    if !text.contains(|character: char| is_break(character) || is_unsafe(character)) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => escaped.extend(character.escape_default()),
            _ if is_unsafe(character) => escaped.extend(character.escape_unicode()),
            _ => escaped.push(character),
        }
    }
    Cow::Owned(escaped)
}

/// Escapes unsafe characters in JSON as `\u` and four digits, which keeps the value the same.
pub fn json(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unsafe(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Whether a terminal may interpret the character, or it disguises text. Joiners and directional marks pass: scripts need them.
fn is_unsafe(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        // Bidirectional overrides and isolates, line and paragraph separators.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' => true,
        // Invisible characters.
        '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
        // C0, DEL and C1.
        character => character.is_control(),
    }
}

/// A writer that escapes log events.
pub struct Escaping<W> {
    inner: W,
    form: Form,
}

/// Log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One line of JSON per event.
    Json,
    /// Text.
    Plain,
    /// Text with the subscriber's own colours; it escapes foreign ones itself.
    Coloured,
}

impl<W> Escaping<W> {
    /// Escapes text written to `inner`.
    pub fn new(inner: W, form: Form) -> Self {
        Self { inner, form }
    }
}

impl<W: io::Write> io::Write for Escaping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The subscriber writes whole events, so that no character is split.
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

    /// OSC 52, clear screen, BEL, CSI as a C1 character, DEL, a line overwritten by CR, and bidirectional overrides.
    const HOSTILE: &str = "a\x1b]52;c;ZXZpbA==\x07b\x1b[2Jc\u{9b}31md\x7fe\rf\u{202e}g\u{2066}h\u{200b}i";

    #[test]
    fn lines_escapes_control_characters_and_keeps_own_styles() {
        let red = Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
        let shown = lines(&format!("{}{HOSTILE}{}", style(red), style_end(red))).into_owned();
        assert_eq!(
            shown,
            "\x1b[1m\x1b[31ma\\u{1b}]52;c;ZXZpbA==\\u{7}b\\u{1b}[2Jc\\u{9b}31md\\u{7f}e\\u{d}f\\u{202e}g\\u{2066}h\\u{200b}i\x1b[0m"
        );
        assert_eq!(lines("plain\n\ttext: ü 日本 👩\u{200d}🚀"), "plain\n\ttext: ü 日本 👩\u{200d}🚀");
    }

    #[test]
    fn lines_escapes_styles_of_documents() {
        assert_eq!(lines("\x1b[31mred\x1b[0m"), "\\u{1b}[31mred\\u{1b}[0m");
        assert_eq!(lines("\x1b[1;31mred"), "\\u{1b}[1;31mred");
    }

    #[test]
    fn line_escapes_line_breaks() {
        assert_eq!(line("one\ntwo\tthree\x1b[2J"), "one\\ntwo\\tthree\\u{1b}[2J");
        assert_eq!(line("one two"), "one two");
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({"a": HOSTILE, "tag": "\u{e0041}"});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let escaped = json(&text);
        assert!(!escaped.contains(is_unsafe), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn log_keeps_only_its_own_colours() {
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
