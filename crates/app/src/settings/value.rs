//! Value kinds of settings, and their parsing from TOML and plain text.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value as Json;
use tidewheel_core::catalog::IndexName;
use tidewheel_core::secret::Secret;
use tidewheel_telemetry::logging;
use toml::de::DeValue;
use tracing_subscriber::EnvFilter;

use super::shape::Shape;
use super::{address, units};

/// The kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text; white space and line breaks are preserved.
    Text,
    /// A name or a path: one line, trimmed.
    Line,
    /// A MongoDB database name.
    Database,
    /// A URL, which may contain a password.
    Address,
    /// A password or key.
    Secret,
    /// A list of names: a list in TOML or JSON, or comma-separated.
    Names,
    /// A list of field paths.
    Paths,
    /// A list of host names.
    Hosts,
    /// An integer of at least this value.
    Count(u64),
    /// An integer percentage from 1 to 100.
    Percent,
    /// A duration.
    Duration,
    /// A positive duration.
    Period,
    /// A size in bytes.
    Size,
    /// A number from 0 to 1.
    Share,
    /// `host:port` to listen on.
    Listen,
    /// `host:port` to listen on, or `off`.
    ListenOrOff,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Log directives.
    LogLevel,
    /// The name of an index or of an embedding.
    Name,
    /// True or false.
    Flag,
    /// A MongoDB query: a table, or JSON text. Dates of TOML and extended JSON are MongoDB's types.
    Query,
    /// A table, or JSON text, of this form.
    Structured(Shape),
}

/// A value of one of the kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Any non-secret kind with a single text.
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
    /// Of [`Kind::Flag`].
    Flag(bool),
    /// Of [`Kind::Query`], in extended JSON.
    Query(Json),
    /// Of [`Kind::Structured`].
    Structured(Json),
}

impl Kind {
    /// Describes the expected form, for error messages.
    pub(crate) fn expected(self) -> String {
        match self {
            Self::Text => "a string".into(),
            Self::Secret => "a single-line string".into(),
            Self::Line => "a non-empty single-line string".into(),
            Self::Database => "a database name such as \"shop\"; collection names go into mongodb.collection".into(),
            Self::Address => "a URL such as \"scheme://host:port\"".into(),
            Self::Names => "a name, or a list of names such as [\"a\", \"b\"]".into(),
            Self::Paths => {
                "a field path such as \"customer.name\", \"comments.text\" or \"items.0.name\", or a list of them"
                    .into()
            }
            Self::Hosts => "a host name without scheme and port, or a list of them".into(),
            Self::Count(0) => "an integer".into(),
            Self::Count(least) => format!("an integer of at least {least}"),
            Self::Percent => "an integer from 1 to 100".into(),
            Self::Duration => "a duration such as \"250ms\", \"15s\" or \"2h\"".into(),
            Self::Period => "a positive duration such as \"250ms\", \"15s\" or \"2h\"".into(),
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
            Self::Name => "1 to 64 letters, digits, \"_\" or \"-\"".into(),
            Self::Flag => "true or false".into(),
            Self::Query => "a MongoDB query such as { status = \"open\" }".into(),
            Self::Structured(shape) => shape.expected(),
        }
    }

    /// Parses plain text from an environment variable, a flag or the default table.
    ///
    /// A trailing line break is an artefact of mounted secrets or shells and is always removed; other surrounding white space is
    /// kept only where it can be significant. Returns `None` for queries and structured values, which [`Input`](super::input::Input)
    /// reads.
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
            // Clients need a fixed port.
            Self::Listen => Value::Text((is_listen(text) && !text.ends_with(":0")).then(|| text.to_owned())?),
            Self::ListenOrOff => Value::Text((text == "off" || is_listen(text)).then(|| text.to_owned())?),
            Self::Choice(words) => Value::Text(words.contains(&text).then(|| text.to_owned())?),
            Self::LogLevel => Value::Text(is_log_level(text).then(|| text.to_owned())?),
            Self::Name => Value::Text(IndexName::new(text).is_ok().then(|| text.to_owned())?),
            Self::Flag => Value::Flag(text.parse().ok()?),
            Self::Query | Self::Structured(_) => return None,
        })
    }

    /// Parses a TOML value.
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
            (Self::Flag, DeValue::Boolean(flag)) => Some(Value::Flag(*flag)),
            (_, DeValue::String(text)) => self.read_text(text),
            _ => None,
        }
    }

    /// Returns the trimmed items, if all are valid.
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

/// Splits a list in plain text: JSON, or comma-separated.
fn listed(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') {
        return serde_json::from_str(text).ok();
    }
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    Some(items.map(str::to_owned).collect())
}

pub(super) fn is_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// Whether MongoDB accepts the database name on every platform.
fn is_database(text: &str) -> bool {
    let forbidden = |letter: char| letter.is_control() || "/\\. \"$*<>:|?,".contains(letter);
    !text.is_empty() && text.len() < 64 && !text.contains(forbidden)
}

fn is_address(text: &str) -> bool {
    let blank = |letter: char| letter.is_control() || letter.is_whitespace();
    text.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty()) && !text.contains(blank)
}

/// Field names separated by dots. Other notations would silently match no field.
pub(super) fn is_path(text: &str) -> bool {
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

/// Whether every directive is valid; the logger would ignore invalid ones.
fn is_log_level(text: &str) -> bool {
    !text.is_empty() && EnvFilter::builder().parse(logging::directives(text)).is_ok()
}

impl Value {
    /// Formats as TOML with secrets redacted.
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
            Self::Flag(flag) => flag.to_string(),
            Self::Query(query) => quoted(&query.to_string()),
            Self::Structured(value) => inline(value),
        }
    }
}

/// Formats as an inline value of TOML.
fn inline(value: &Json) -> String {
    match value {
        Json::Object(fields) if fields.is_empty() => "{}".into(),
        Json::Object(fields) => {
            let key = |name: &str| {
                let is_bare = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
                if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { quoted(name) }
            };
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| format!("{} = {}", key(name), inline(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        Json::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Json::String(text) => quoted(text),
        scalar => scalar.to_string(),
    }
}

/// Formats an invalid text for a message, redacted if it may contain a secret.
pub(super) fn shown_text(text: &str) -> String {
    if text.contains("://") || text.contains('@') { quoted(&address::shown(text)) } else { quoted(text) }
}

/// Redacts credentials in a text that may be a URL by mistake.
pub(crate) fn without_secrets(text: &str) -> Cow<'_, str> {
    if text.contains("://") { address::shown(text).into() } else { text.into() }
}

/// Formats as a TOML string.
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
    fn values_are_formatted_as_toml() {
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
            (Kind::Flag, "true", "true"),
        ] {
            assert_eq!(kind.read_text(text).unwrap().shown(), shown);
        }
    }

    #[test]
    fn structured_values_are_formatted_as_valid_toml() {
        let value = serde_json::json!({
            "customer.name": "cust\"omer", "empty": {}, "list": ["a", 1, 0.5, true], "inner": {"m": 16, "": "x\ny"},
        });
        let shown = Value::Structured(value.clone()).shown();
        assert!(shown.starts_with("{ \"customer.name\" = ") && shown.contains("inner = { m = 16, "), "{shown}");
        let parsed: toml::Table = toml::from_str(&format!("value = {shown}")).unwrap();
        assert_eq!(serde_json::to_value(&parsed["value"]).unwrap(), value);
        let query = Value::Query(serde_json::json!({"status": {"$ne": "draft"}})).shown();
        let parsed: toml::Table = toml::from_str(&format!("value = {query}")).unwrap();
        assert_eq!(parsed["value"].as_str(), Some(r#"{"status":{"$ne":"draft"}}"#));
    }

    #[test]
    fn insignificant_white_space_is_trimmed() {
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
            (Kind::Name, "tickets.g1"),
            (Kind::Name, "my tickets"),
            (Kind::Flag, "yes"),
        ] {
            assert_eq!(kind.read_text(text), None, "{text:?} is accepted as {kind:?}");
        }
    }
}
