//! The kinds of values that settings have, and how each is read from TOML and from plain text.

use std::borrow::Cow;
use std::time::Duration;

use tidewheel_core::address;
use tidewheel_core::secret::Secret;
use toml::de::DeValue;
use tracing_subscriber::EnvFilter;

use super::units;
use crate::logging;

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text, with white space and lines as they are given.
    Text,
    /// A name or a path: one line without white space around it.
    Line,
    /// The name of a database of MongoDB.
    Database,
    /// An address, which may carry a password.
    Address,
    /// A password or key.
    Secret,
    /// Several names: a list in TOML or JSON, or separated by commas.
    Names,
    /// Several paths of fields.
    Paths,
    /// Several names of hosts.
    Hosts,
    /// A whole number of at least this.
    Count(u64),
    /// A whole number of percent, at least 1.
    Percent,
    /// A span of time.
    Duration,
    /// A span of time that is not zero.
    Period,
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
    /// Directives for the log.
    LogLevel,
}

/// A value of one of the kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Of every kind that is one text and no secret.
    Text(String),
    /// Of [`Kind::Address`].
    Address(Secret),
    /// Of [`Kind::Secret`].
    Secret(Secret),
    /// Of [`Kind::Names`], [`Kind::Paths`] or [`Kind::Hosts`].
    Names(Vec<String>),
    /// Of [`Kind::Count`] or [`Kind::Percent`].
    Count(u64),
    /// Of [`Kind::Duration`] or [`Kind::Period`].
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
            Self::Text => "a text".into(),
            Self::Secret => "a text of one line".into(),
            Self::Line => "a text of one line that is not empty".into(),
            Self::Database => {
                "the name of one database such as \"shop\", without its collections, which go into mongodb.collection"
                    .into()
            }
            Self::Address => "an address such as \"scheme://host:port\"".into(),
            Self::Names => "a name, or a list of names such as [\"a\", \"b\"]".into(),
            Self::Paths => {
                "a path of fields such as \"customer.name\", \"comments.text\" or \"items.0.name\", or a list of them"
                    .into()
            }
            Self::Hosts => "the name of a host without scheme and port, or a list of them".into(),
            Self::Count(0) => "a whole number".into(),
            Self::Count(least) => format!("a whole number of at least {least}"),
            Self::Percent => "a whole number from 1 to 100".into(),
            Self::Duration => "a duration such as \"250ms\", \"15s\" or \"2h\"".into(),
            Self::Period => "a duration above zero such as \"250ms\", \"15s\" or \"2h\"".into(),
            Self::Size => "a size such as \"8MiB\"".into(),
            Self::Share => "a number from 0 to 1 such as 0.05".into(),
            Self::Listen => "an address such as \"127.0.0.1:8080\"".into(),
            Self::ListenOrOff => "an address such as \"127.0.0.1:9090\", or \"off\"".into(),
            Self::Choice(words) => {
                format!("one of {}", words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", "))
            }
            Self::LogLevel => {
                "error, warn, info, debug or trace, or directives such as \"info,tidewheel_stores=debug\"".into()
            }
        }
    }

    /// Reads a value that was given as plain text: in an environment variable, a flag or the table of defaults.
    ///
    /// A line break at the end comes from how the text got here (a mounted secret, a shell), and never counts; other white space
    /// around a text counts only where it can be meant.
    pub(crate) fn read_text(self, text: &str) -> Option<Value> {
        let whole = text.trim_end_matches(['\n', '\r']);
        let text = whole.trim();
        Some(match self {
            Self::Text => Value::Text(whole.to_owned()),
            Self::Secret => Value::Secret(Secret::new(is_line(whole).then_some(whole)?)),
            Self::Line => Value::Text((is_line(text) && !text.is_empty()).then(|| text.to_owned())?),
            Self::Database => Value::Text(is_database(text).then(|| text.to_owned())?),
            Self::Address => Value::Address(Secret::new(is_address(text).then_some(text)?)),
            Self::Names | Self::Paths | Self::Hosts => Value::Names(self.list(&listed(text)?)?),
            Self::Count(least) => Value::Count(text.parse().ok().filter(|count| *count >= least)?),
            Self::Percent => Value::Count(text.parse().ok().filter(|percent| (1..=100).contains(percent))?),
            Self::Duration => Value::Duration(units::parse_duration(text)?),
            Self::Period => Value::Duration(units::parse_duration(text).filter(|period| !period.is_zero())?),
            Self::Size => Value::Size(units::parse_size(text)?),
            Self::Share => Value::Share(units::parse_share(text)?),
            // The others have to find it there.
            Self::Listen => Value::Text((is_listen(text) && !text.ends_with(":0")).then(|| text.to_owned())?),
            Self::ListenOrOff => Value::Text((text == "off" || is_listen(text)).then(|| text.to_owned())?),
            Self::Choice(words) => Value::Text(words.contains(&text).then(|| text.to_owned())?),
            Self::LogLevel => Value::Text(is_log_level(text).then(|| text.to_owned())?),
        })
    }

    /// Reads a value of a TOML file.
    pub(crate) fn read_toml(self, value: &DeValue<'_>) -> Option<Value> {
        match (self, value) {
            (Self::Names | Self::Paths | Self::Hosts, DeValue::Array(items)) => {
                let items: Option<Vec<String>> =
                    items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
                self.list(&items?).map(Value::Names)
            }
            (Self::Count(_) | Self::Percent, DeValue::Integer(number)) => self.read_text(number.as_str()),
            (Self::Count(_) | Self::Percent, _) => None,
            (Self::Share, DeValue::Float(number)) => self.read_text(number.as_str()),
            (Self::Share, DeValue::Integer(number)) => self.read_text(number.as_str()),
            (_, DeValue::String(text)) => self.read_text(text),
            _ => None,
        }
    }

    /// The items of a list, if each is valid.
    fn list(self, items: &[String]) -> Option<Vec<String>> {
        let valid = |item: &str| match self {
            Self::Paths => is_path(item),
            Self::Hosts => is_host(item),
            _ => is_line(item) && !item.is_empty(),
        };
        let items: Vec<String> = items.iter().map(|item| item.trim().to_owned()).collect();
        items.iter().all(|item| valid(item)).then_some(items)
    }
}

/// The items of a list in plain text: JSON, or separated by commas.
fn listed(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') {
        return serde_json::from_str(text).ok();
    }
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    Some(items.map(str::to_owned).collect())
}

fn is_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// What MongoDB takes as the name of a database on every system.
fn is_database(text: &str) -> bool {
    let forbidden = |letter: char| letter.is_control() || "/\\. \"$*<>:|?,".contains(letter);
    !text.is_empty() && text.len() < 64 && !text.contains(forbidden)
}

fn is_address(text: &str) -> bool {
    let blank = |letter: char| letter.is_control() || letter.is_whitespace();
    text.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty()) && !text.contains(blank)
}

/// Dots divide it into names, and nothing else does: other notations would name fields that no document has.
fn is_path(text: &str) -> bool {
    is_line(text)
        && !text.starts_with('$')
        && !text.contains(['[', ']', '*', '/'])
        && text.split('.').all(|name| !name.is_empty())
}

fn is_host(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    bare.parse::<std::net::IpAddr>().is_ok()
        || (!text.is_empty() && text.chars().all(|letter| letter.is_alphanumeric() || "-._".contains(letter)))
}

/// Whether every directive is understood; the log would leave out the others.
fn is_log_level(text: &str) -> bool {
    !text.is_empty() && EnvFilter::builder().parse(logging::directives(text)).is_ok()
}

impl Value {
    /// As TOML, with secrets hidden.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Text(text) => quoted(&without_secrets(text)),
            Self::Address(address) => quoted(&address::shown(address.reveal())),
            Self::Secret(_) => quoted("***"),
            Self::Names(names) => {
                format!("[{}]", names.iter().map(|name| quoted(&without_secrets(name))).collect::<Vec<_>>().join(", "))
            }
            Self::Count(count) => count.to_string(),
            Self::Duration(duration) => quoted(&units::show_duration(*duration)),
            Self::Size(bytes) => quoted(&units::show_size(*bytes)),
            Self::Share(millionths) => units::show_share(*millionths),
        }
    }
}

/// A text that is no address by its kind, but may be one by mistake.
pub(crate) fn without_secrets(text: &str) -> Cow<'_, str> {
    if text.contains("://") { address::shown(text).into() } else { text.into() }
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
            (Kind::Text, "{{ subject }}\n{{ content }}", "\"\"\"\n{{ subject }}\n{{ content }}\"\"\""),
            (Kind::Names, "a, b*,", r#"["a", "b*"]"#),
            (Kind::Count(1), "7", "7"),
            (Kind::Duration, "90s", r#""1m30s""#),
            (Kind::Size, "1024KiB", r#""1MiB""#),
            (Kind::Share, "0.050", "0.05"),
            (Kind::Share, "1.0", "1"),
            (Kind::Secret, "hunter2", r#""***""#),
            (Kind::Address, "redis://:hunter2@cache:6379", r#""redis://***@cache:6379""#),
            (Kind::Line, "redis://:hunter2@cache:6379", r#""redis://***@cache:6379""#),
            (Kind::Names, "a, redis://:hunter2@cache", r#"["a", "redis://***@cache"]"#),
            (Kind::ListenOrOff, "off", r#""off""#),
        ] {
            assert_eq!(kind.read_text(text).unwrap().shown(), shown);
        }
    }

    #[test]
    fn text_is_read_without_the_white_space_that_nobody_means() {
        for (kind, text, read) in [
            (Kind::Line, " shop\n", "\"shop\""),
            (Kind::Database, "shop\r\n", "\"shop\""),
            (Kind::Count(1), "7\n", "7"),
            (Kind::Duration, "15s\n", "\"15s\""),
            (Kind::Choice(&["a"]), "a\n", "\"a\""),
            (Kind::Listen, "127.0.0.1:80\n", "\"127.0.0.1:80\""),
            (Kind::Address, "http://far\n", "\"http://far\""),
            (Kind::Text, "query: \n", "\"query: \""),
            (Kind::Names, "a\n,b\n", r#"["a", "b"]"#),
            (Kind::Names, r#"["a", "b,c"]"#, r#"["a", "b,c"]"#),
            (Kind::Names, "[]", "[]"),
            (Kind::Paths, "customer.name,items.0.name", r#"["customer.name", "items.0.name"]"#),
        ] {
            assert_eq!(kind.read_text(text).map(|value| value.shown()).as_deref(), Some(read), "{text:?} as {kind:?}");
        }
    }

    #[test]
    fn invalid_value_is_rejected() {
        for (kind, text) in [
            (Kind::Count(1), "0"),
            (Kind::Count(0), "-1"),
            (Kind::Percent, "150"),
            (Kind::Period, "0s"),
            (Kind::Share, "1.1"),
            (Kind::Share, "-0.1"),
            (Kind::Share, "5%"),
            (Kind::Listen, "off"),
            (Kind::Listen, ":8080"),
            (Kind::Listen, "localhost"),
            (Kind::Listen, "127.0.0.1:0"),
            (Kind::Choice(&["a", "b"]), "c"),
            (Kind::Address, "localhost"),
            (Kind::Address, "http://"),
            (Kind::Address, "http://a b"),
            (Kind::Line, " \n"),
            (Kind::Line, "a\nb"),
            (Kind::Secret, "one\ntwo"),
            (Kind::Database, "shop.tickets"),
            (Kind::Database, "shop/tickets"),
            (Kind::Database, "shop,stock"),
            (Kind::Names, r#"["a", 1]"#),
            (Kind::Names, r#"["a""#),
            (Kind::Names, r#"["a", ""]"#),
            (Kind::Paths, "customer."),
            (Kind::Paths, "$.customer.ssn"),
            (Kind::Paths, "items[0].name"),
            (Kind::Paths, "customer.*"),
            (Kind::Hosts, "https://ops.example.com"),
            (Kind::Hosts, "ops.example.com:443"),
            (Kind::LogLevel, "verbose"),
            (Kind::LogLevel, "info,tidewheel=loud"),
        ] {
            assert_eq!(kind.read_text(text), None, "{text:?} is accepted as {kind:?}");
        }
    }
}
