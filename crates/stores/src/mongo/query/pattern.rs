//! Regular expressions: what PCRE, which the server uses, and the `regex` crate have in common.
//!
//! A pattern is translated construct by construct, because the two differ where they look alike. For PCRE, `\d`, `\s`,
//! `\w` and `\b` concern ASCII only, and `$` also matches before a final line break (`pcre2pattern(3)`; the server sets
//! neither `PCRE2_UCP` nor `PCRE2_DOLLAR_ENDONLY`). Constructs without an equivalent are rejected by name.

use regex::{Regex, RegexBuilder};

use super::value::Value;
use crate::mongo::extjson::Kind;

const DIGIT: &str = "0-9";
const WORD: &str = "0-9A-Za-z_";
const SPACE: &str = r"\t\n\x0B\x0C\r ";

/// A supported regular expression.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    source: String,
    options: String,
    regex: Regex,
}

impl Pattern {
    /// Compiles a pattern with the options of `$options`.
    ///
    /// # Errors
    /// The unsupported option or construct.
    pub(super) fn new(source: &str, options: &str) -> Result<Self, String> {
        let mut flags = Flags::default();
        if let Some(option) = options.chars().find(|option| !flags.set(*option)) {
            return Err(format!("unsupported option {option:?}: expected i, m, s or x"));
        }
        let body = flags.set_leading(source);
        let translated = Translation::of(body, flags)?;
        let regex = RegexBuilder::new(&translated).case_insensitive(flags.ignore_case).build().map_err(|error| {
            let error = error.to_string();
            error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        })?;
        Ok(Self { source: source.to_owned(), options: options.to_owned(), regex })
    }

    /// Whether the value is a string in which the expression occurs, or a regular expression with the same pattern and
    /// options.
    pub(super) fn matches(&self, value: Value<'_>) -> bool {
        match value.kind {
            // PCRE rejects subjects that are not UTF-8.
            Kind::String | Kind::Symbol => {
                std::str::from_utf8(value.text()).is_ok_and(|text| self.regex.is_match(text))
            }
            Kind::Regex => value.regex() == (self.source.as_bytes(), self.options.as_bytes()),
            _ => false,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    ignore_case: bool,
    multi_line: bool,
    dot_all: bool,
    extended: bool,
}

impl Flags {
    /// Sets an option; `false` if it is unsupported.
    fn set(&mut self, option: char) -> bool {
        match option {
            'i' => self.ignore_case = true,
            'm' => self.multi_line = true,
            's' => self.dot_all = true,
            'x' => self.extended = true,
            _ => return false,
        }
        true
    }

    /// Sets the options of a leading group such as `(?i)`. Returns the rest of the pattern.
    fn set_leading<'a>(&mut self, source: &'a str) -> &'a str {
        let leading = source.strip_prefix("(?").and_then(|rest| rest.split_once(')'));
        let Some((options, rest)) = leading else { return source };
        let mut flags = *self;
        // PCRE2 gives `xx` another meaning.
        if options.is_empty() || options.contains("xx") || !options.chars().all(|option| flags.set(option)) {
            return source;
        }
        *self = flags;
        rest
    }
}

/// What precedes the position in the pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Nothing that can be repeated.
    Nothing,
    /// Something that can be repeated.
    Atom,
    /// `^` with the option `m`. A character has to follow: PCRE does not match it after a final line break, `regex` does.
    LineStart,
    /// The character after that, which must not be optional.
    LineCharacter,
    Repetition,
    /// `$` without the option `m`, or a group that ends with one. Only the end of the branch may follow.
    End,
}

/// A member of a character class.
enum Member {
    Literal(char),
    Set(String),
}

struct Translation<'a> {
    rest: &'a str,
    flags: Flags,
    out: String,
    before: Before,
    /// For the whole pattern and each open group, whether a branch ends with `$`.
    ends: Vec<bool>,
    /// Names of groups.
    names: Vec<&'a str>,
}

impl<'a> Translation<'a> {
    /// Translates a pattern for `regex`. The result needs the option `i` only.
    fn of(source: &'a str, flags: Flags) -> Result<String, String> {
        let mut this = Self {
            rest: source,
            flags,
            out: String::new(),
            before: Before::Nothing,
            ends: vec![false],
            names: Vec::new(),
        };
        while let Some(character) = this.advance() {
            this.construct(character)?;
        }
        this.end_line_start()?;
        if this.ends.len() > 1 {
            return Err("unclosed group".to_owned());
        }
        Ok(this.out)
    }

    fn advance(&mut self) -> Option<char> {
        let character = self.rest.chars().next()?;
        self.rest = &self.rest[character.len_utf8()..];
        Some(character)
    }

    fn takes(&mut self, prefix: char) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn construct(&mut self, character: char) -> Result<(), String> {
        if self.flags.extended {
            match character {
                ' ' | '\t' | '\n' | '\x0C' | '\r' => return Ok(()),
                '#' => {
                    // Observed: the server rejects a comment that ends with the pattern.
                    let comment = self.rest.split_once('\n');
                    (_, self.rest) = comment.ok_or("unsupported comment without a line break after it")?;
                    return Ok(());
                }
                // The manual excludes the first, and versions of PCRE treat the others differently.
                '\x0B' | '\u{85}' | '\u{200E}' | '\u{200F}' | '\u{2028}' | '\u{2029}' => {
                    return Err(format!("unsupported white space {character:?} with the option x"));
                }
                _ => {}
            }
        }
        match character {
            '|' => {
                self.end_line_start()?;
                self.out.push('|');
                self.before = Before::Nothing;
                Ok(())
            }
            ')' => self.close(),
            _ if self.before == Before::End => Err("unsupported $ before the end of a branch".to_owned()),
            '*' | '+' | '?' | '{' => self.repetition(character),
            '(' => self.open(),
            '^' if self.flags.multi_line => {
                self.assertion("(?m:^)")?;
                self.before = Before::LineStart;
                Ok(())
            }
            '^' => self.assertion(r"\A"),
            '$' if self.flags.multi_line => self.assertion("(?m:$)"),
            '$' => {
                self.out.push_str(r"\n?\z");
                self.ends_here();
                Ok(())
            }
            '\\' => self.escape(),
            '[' => self.class(),
            '.' => {
                self.atom(if self.flags.dot_all { "(?s:.)" } else { r"[^\n]" });
                Ok(())
            }
            literal => {
                self.atom(&escaped(literal));
                Ok(())
            }
        }
    }

    /// Writes something that matches one character.
    fn atom(&mut self, text: &str) {
        self.out.push_str(text);
        self.before = if self.before == Before::LineStart { Before::LineCharacter } else { Before::Atom };
    }

    /// Writes something that matches a position.
    fn assertion(&mut self, text: &str) -> Result<(), String> {
        self.end_line_start()?;
        self.out.push_str(text);
        self.before = Before::Nothing;
        Ok(())
    }

    fn end_line_start(&self) -> Result<(), String> {
        if self.before == Before::LineStart {
            return Err("unsupported ^ with the option m unless a character follows".to_owned());
        }
        Ok(())
    }

    fn ends_here(&mut self) {
        if let Some(ends) = self.ends.last_mut() {
            *ends = true;
        }
        self.before = Before::End;
    }

    fn open(&mut self) -> Result<(), String> {
        self.end_line_start()?;
        if self.rest.starts_with('*') {
            return Err("unsupported construct (*".to_owned());
        }
        if self.takes('?') && !self.takes(':') {
            // A name has no effect, because no replacement follows.
            let name = self.rest.strip_prefix("P<").or_else(|| self.rest.strip_prefix('<'));
            match name.and_then(|rest| rest.split_once('>')) {
                Some((name, _)) if self.names.contains(&name) => return Err(format!("duplicate group name {name}")),
                Some((name, rest)) if is_name(name) => {
                    self.names.push(name);
                    self.rest = rest;
                }
                _ => {
                    let construct: String = self.rest.chars().take(2).collect();
                    return Err(format!("unsupported construct (?{construct}"));
                }
            }
        }
        self.out.push_str("(?:");
        self.ends.push(false);
        self.before = Before::Nothing;
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        self.end_line_start()?;
        if self.ends.len() == 1 {
            return Err("unopened group".to_owned());
        }
        self.out.push(')');
        if self.ends.pop() == Some(true) {
            self.ends_here();
        } else {
            self.before = Before::Atom;
        }
        Ok(())
    }

    fn repetition(&mut self, character: char) -> Result<(), String> {
        let (text, optional) = match character {
            '{' => {
                let bounds = self.rest.split_once('}').filter(|(bounds, _)| are_bounds(bounds));
                let (bounds, rest) = bounds.ok_or("unsupported { without bounds: expected \\{")?;
                self.rest = rest;
                let least = bounds.split(',').next().unwrap_or_default();
                (format!("{{{bounds}}}"), least.bytes().all(|digit| digit == b'0'))
            }
            other => (other.to_string(), other != '+'),
        };
        match self.before {
            Before::Atom => {}
            Before::LineCharacter if !optional => {}
            Before::LineCharacter => {
                return Err("unsupported ^ with the option m before an optional character".to_owned());
            }
            _ => return Err(format!("nothing to repeat before {text}")),
        }
        self.out.push_str(&text);
        if self.rest.starts_with('+') {
            return Err(format!("unsupported possessive repetition {text}+"));
        }
        if self.takes('?') {
            self.out.push('?');
        }
        self.before = Before::Repetition;
        Ok(())
    }

    /// Translates what follows a backslash.
    fn escape(&mut self) -> Result<(), String> {
        let character = self.advance().ok_or("a backslash at the end")?;
        let set = match character {
            'd' => format!("[{DIGIT}]"),
            'D' => format!("[^{DIGIT}]"),
            's' => format!("[{SPACE}]"),
            'S' => format!("[^{SPACE}]"),
            // Otherwise the option `i` adds two letters beyond ASCII, which fold to `k` and `s`.
            'w' => format!("(?-i:[{WORD}])"),
            'W' => format!("(?-i:[^{WORD}])"),
            'b' => return self.assertion(r"(?-u:\b)"),
            'A' => return self.assertion(r"\A"),
            'z' => return self.assertion(r"\z"),
            other => escaped(self.literal(other)?),
        };
        self.atom(&set);
        Ok(())
    }

    /// The character that an escape stands for.
    fn literal(&mut self, character: char) -> Result<char, String> {
        Ok(match character {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'f' => '\x0C',
            'a' => '\x07',
            'e' => '\x1B',
            'x' => return self.hexadecimal().ok_or_else(|| "invalid \\x: expected \\xhh or \\x{h…}".to_owned()),
            other if other.is_ascii_alphanumeric() => return Err(format!("unsupported escape \\{other}")),
            other => other,
        })
    }

    fn hexadecimal(&mut self) -> Option<char> {
        let (digits, rest) = match self.rest.strip_prefix('{') {
            Some(rest) => rest.split_once('}')?,
            None => self.rest.split_at_checked(2)?,
        };
        self.rest = rest;
        let is_valid = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        u32::from_str_radix(digits, 16).ok().filter(|_| is_valid).and_then(char::from_u32)
    }

    /// Translates a character class after its opening bracket. Its members are escaped one by one, because `regex` has
    /// nested classes and operators such as `&&`.
    fn class(&mut self) -> Result<(), String> {
        let mut class = "[".to_owned();
        if self.takes('^') {
            class.push('^');
        }
        let mut is_first = true;
        loop {
            let character = self.advance().ok_or("unclosed [")?;
            let literal = match character {
                ']' if !is_first => break,
                '-' if !is_first && !self.rest.starts_with(']') => {
                    return Err("unsupported - in a character class: expected \\-".to_owned());
                }
                other => match self.member(other)? {
                    Member::Literal(literal) => literal,
                    Member::Set(set) => {
                        class.push_str(&set);
                        is_first = false;
                        continue;
                    }
                },
            };
            is_first = false;
            class.push_str(&escaped(literal));
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.takes('-');
                let end = self.advance().ok_or("unclosed [")?;
                let Member::Literal(end) = self.member(end)? else {
                    return Err("invalid range in a character class".to_owned());
                };
                class.push('-');
                class.push_str(&escaped(end));
            }
        }
        class.push(']');
        self.atom(&class);
        Ok(())
    }

    fn member(&mut self, character: char) -> Result<Member, String> {
        match character {
            '[' if self.rest.starts_with([':', '.', '=']) => {
                let construct: String = self.rest.chars().take(1).collect();
                Err(format!("unsupported construct [{construct} in a character class"))
            }
            '\\' => {
                let character = self.advance().ok_or("a backslash at the end")?;
                Ok(Member::Set(match character {
                    'd' => DIGIT.to_owned(),
                    'D' => format!("[^{DIGIT}]"),
                    's' => SPACE.to_owned(),
                    'S' => format!("[^{SPACE}]"),
                    'w' | 'W' if self.flags.ignore_case => {
                        return Err(format!("unsupported \\{character} in a character class with the option i"));
                    }
                    'w' => WORD.to_owned(),
                    'W' => format!("[^{WORD}]"),
                    other => return self.literal(other).map(Member::Literal),
                }))
            }
            other => Ok(Member::Literal(other)),
        }
    }
}

/// Whether this is the inner part of `{n}`, `{n,}` or `{n,m}`.
fn are_bounds(text: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once(',') {
        Some((least, most)) => is_number(least) && (most.is_empty() || is_number(most)),
        None => is_number(text),
    }
}

fn is_name(text: &str) -> bool {
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_word && !text.is_empty() && text.len() <= 32 && !text.starts_with(|first: char| first.is_ascii_digit())
}

/// The character as a pattern of its own, also in a character class.
fn escaped(character: char) -> String {
    regex::escape(character.encode_utf8(&mut [0; 4]))
}

#[cfg(test)]
mod tests;
