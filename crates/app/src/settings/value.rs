//! The kinds of values that settings have, and how each is read from TOML and from plain text.

use std::time::Duration;

use tidewheel_core::secret::Secret;
use toml::de::DeValue;

use super::{redact, units};

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// An address, which may carry a password.
    Address,
    /// A password or key.
    Secret,
    /// Several texts: a list in TOML, separated by commas elsewhere.
    Names,
    /// A whole number of at least this.
    Count(u64),
    /// A span of time.
    Duration,
    /// A number of bytes.
    Size,
    /// A number from 0 to 1.
    Share,
    /// `host:port` to listen on.
    Listen,
    /// `host:port` to listen on, or `off`.
    ListenOrOff,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// A value of one of the kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Of [`Kind::Text`], [`Kind::Choice`] or one of the listen kinds.
    Text(String),
    /// Of [`Kind::Address`].
    Address(Secret),
    /// Of [`Kind::Secret`].
    Secret(Secret),
    /// Of [`Kind::Names`].
    Names(Vec<String>),
    /// Of [`Kind::Count`].
    Count(u64),
    /// Of [`Kind::Duration`].
    Duration(Duration),
    /// Of [`Kind::Size`].
    Size(u64),
    /// Of [`Kind::Share`], in millionths.
    Share(u32),
}

impl Kind {
    /// What to write, for an error's hint.
    pub(crate) fn expected(self) -> String {
        match self {
            Self::Text | Self::Secret => "a text".into(),
            Self::Address => "an address such as \"scheme://host:port\"".into(),
            Self::Names => "a text or a list of texts".into(),
            Self::Count(0) => "a whole number".into(),
            Self::Count(least) => format!("a whole number of at least {least}"),
            Self::Duration => "a duration such as \"250ms\", \"15s\" or \"2h\"".into(),
            Self::Size => "a size such as \"8MiB\"".into(),
            Self::Share => "a number from 0 to 1 such as 0.05".into(),
            Self::Listen => "an address such as \"127.0.0.1:8080\"".into(),
            Self::ListenOrOff => "an address such as \"127.0.0.1:9090\", or \"off\"".into(),
            Self::Choice(words) => {
                format!("one of {}", words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// Reads a value that was given as plain text: in an environment variable, a flag or the table of defaults.
    pub(crate) fn read_text(self, text: &str) -> Option<Value> {
        Some(match self {
            Self::Text => Value::Text(text.to_owned()),
            Self::Secret => Value::Secret(Secret::new(text)),
            Self::Address => Value::Address(Secret::new(text.contains("://").then_some(text)?)),
            Self::Names => Value::Names(
                text.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect(),
            ),
            Self::Count(least) => Value::Count(text.trim().parse().ok().filter(|count| *count >= least)?),
            Self::Duration => Value::Duration(units::parse_duration(text)?),
            Self::Size => Value::Size(units::parse_size(text)?),
            Self::Share => Value::Share(units::parse_share(text)?),
            Self::Listen => Value::Text(is_listen(text).then(|| text.to_owned())?),
            Self::ListenOrOff => Value::Text((text == "off" || is_listen(text)).then(|| text.to_owned())?),
            Self::Choice(words) => Value::Text(words.contains(&text).then(|| text.to_owned())?),
        })
    }

    /// Reads a value of a TOML file.
    pub(crate) fn read_toml(self, value: &DeValue<'_>) -> Option<Value> {
        match (self, value) {
            (Self::Names, DeValue::Array(items)) => items
                .iter()
                .map(|item| item.get_ref().as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
                .map(Value::Names),
            (Self::Names, DeValue::String(text)) => Some(Value::Names(vec![text.to_string()])),
            (Self::Count(_), DeValue::Integer(number)) => self.read_text(number.as_str()),
            (Self::Count(_), _) => None,
            (Self::Share, DeValue::Float(number)) => self.read_text(number.as_str()),
            (Self::Share, DeValue::Integer(number)) => self.read_text(number.as_str()),
            (_, DeValue::String(text)) => self.read_text(text),
            _ => None,
        }
    }
}

impl Value {
    /// As TOML, with secrets hidden.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Address(address) => quoted(&redact::address(address.reveal())),
            Self::Secret(_) => quoted("***"),
            Self::Names(names) => {
                format!("[{}]", names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "))
            }
            Self::Count(count) => count.to_string(),
            Self::Duration(duration) => quoted(&units::show_duration(*duration)),
            Self::Size(bytes) => quoted(&units::show_size(*bytes)),
            Self::Share(millionths) => units::show_share(*millionths),
        }
    }
}

/// A TOML basic string.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn is_listen(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_they_are_written() {
        for (kind, text, shown) in [
            (Kind::Text, "{{ subject }}\n", "\"\"\"\n{{ subject }}\n\"\"\""),
            (Kind::Names, "a, b*,", r#"["a", "b*"]"#),
            (Kind::Count(1), "7", "7"),
            (Kind::Duration, "90s", r#""1m30s""#),
            (Kind::Size, "1024KiB", r#""1MiB""#),
            (Kind::Share, "0.050", "0.05"),
            (Kind::Share, "1.0", "1"),
            (Kind::Secret, "hunter2", r#""***""#),
            (Kind::Address, "redis://:hunter2@cache:6379", r#""redis://:***@cache:6379""#),
            (Kind::ListenOrOff, "off", r#""off""#),
        ] {
            assert_eq!(kind.read_text(text).unwrap().shown(), shown);
        }
    }

    #[test]
    fn what_is_not_of_the_kind_is_refused() {
        for (kind, text) in [
            (Kind::Count(1), "0"),
            (Kind::Count(0), "-1"),
            (Kind::Share, "1.1"),
            (Kind::Share, "-0.1"),
            (Kind::Share, "5%"),
            (Kind::Listen, "off"),
            (Kind::Listen, ":8080"),
            (Kind::Listen, "localhost"),
            (Kind::Choice(&["a", "b"]), "c"),
            (Kind::Address, "localhost"),
        ] {
            assert_eq!(kind.read_text(text), None, "{text:?} is accepted as {kind:?}");
        }
    }
}
