//! Values as given, in TOML or as plain text, and their parsing by the kind of their key.

use serde_json::{Map, Value as Json, json};
use tidewheel_core::time::days_since_epoch;
use toml::de::{DeTable, DeValue};
use toml::value::{Date, Datetime, Offset};

use super::error::Problem;
use super::origin::Origin;
use super::shape::Report;
use super::value::{Kind, Value, quoted, shown_text};
use super::{address, filter};

/// A value as given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input<'a> {
    /// Plain text, of an environment variable, a flag or the default table.
    Text(&'a str),
    /// TOML.
    Toml(&'a DeValue<'a>),
}

impl Input<'_> {
    /// Whether it unsets a key without a default.
    pub(super) fn is_empty(self) -> bool {
        match self {
            Self::Text(text) => text.trim().is_empty(),
            Self::Toml(value) => value.as_str() == Some(""),
        }
    }

    /// Parses the value of the key with this full name. Adds every problem; there is at least one if the result is `None`.
    pub(super) fn read(self, kind: Kind, key: &str, origin: &Origin, problems: &mut Vec<Problem>) -> Option<Value> {
        let read = match (kind, self) {
            (Kind::Structured(shape), _) => {
                if let Some(value) = self.object() {
                    return shape.read(&value, key, &mut Report { origin, problems }).map(Value::Structured);
                }
                None
            }
            (Kind::Query, _) => {
                let query = self.object();
                if let Some(Err(cause)) = query.as_ref().map(filter::canonical) {
                    problems.push(Problem::Rejected { key: key.to_owned(), origin: origin.clone(), cause });
                    return None;
                }
                query.map(Value::Query)
            }
            (kind, Self::Text(text)) => kind.read_text(text),
            (kind, Self::Toml(value)) => kind.read_toml(value),
        };
        if read.is_none() {
            let (key, given, expected) = (key.to_owned(), self.shown(kind), kind.expected());
            problems.push(Problem::Invalid { key, given, origin: origin.clone(), expected });
        }
        read
    }

    /// The value as an object of extended JSON, if it is a table or a text of JSON.
    fn object(self) -> Option<Json> {
        let value = match self {
            Self::Text(text) => serde_json::from_str(text).ok(),
            Self::Toml(DeValue::String(text)) => serde_json::from_str(text).ok(),
            Self::Toml(DeValue::Table(table)) => of_table(table),
            Self::Toml(_) => None,
        };
        value.filter(Json::is_object)
    }

    /// Formats an invalid value for a message, redacted if it is or may contain a secret.
    fn shown(self, kind: Kind) -> String {
        let text = |text: &str| match kind {
            Kind::Secret => quoted("***"),
            Kind::Address => quoted(&address::shown(text)),
            _ => shown_text(text),
        };
        match self {
            Self::Text(given) => text(given),
            Self::Toml(DeValue::String(given)) => text(given),
            Self::Toml(DeValue::Integer(number)) => number.as_str().to_owned(),
            Self::Toml(DeValue::Float(number)) => number.as_str().to_owned(),
            Self::Toml(DeValue::Boolean(switch)) => switch.to_string(),
            Self::Toml(other) => format!("({})", other.type_str()),
        }
    }
}

/// Converts TOML to extended JSON; `None` if it has a time without a date, or a number beyond the range.
fn of_toml(value: &DeValue<'_>) -> Option<Json> {
    Some(match value {
        DeValue::String(text) => Json::String((**text).to_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok()?.into(),
        DeValue::Float(number) => {
            let number: f64 = number.as_str().parse().ok()?;
            // JSON has no NaN and no infinities.
            serde_json::Number::from_f64(number).map_or_else(
                || {
                    let name = if number.is_nan() {
                        "NaN"
                    } else if number > 0.0 {
                        "Infinity"
                    } else {
                        "-Infinity"
                    };
                    json!({ "$numberDouble": name })
                },
                Json::Number,
            )
        }
        DeValue::Boolean(flag) => Json::Bool(*flag),
        DeValue::Datetime(at) => json!({ "$date": { "$numberLong": millis(at)?.to_string() } }),
        DeValue::Array(items) => Json::Array(items.iter().map(|item| of_toml(item.get_ref())).collect::<Option<_>>()?),
        DeValue::Table(table) => of_table(table)?,
    })
}

fn of_table(table: &DeTable<'_>) -> Option<Json> {
    // The parser's table does not preserve the order of the file, which is part of a document of MongoDB.
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let field = |name: &str, value| Some((name.to_owned(), of_toml(value)?));
    let fields = entries.into_iter().map(|(name, value)| field(name.get_ref(), value.get_ref()));
    fields.collect::<Option<Map<_, _>>>().map(Json::Object)
}

/// Milliseconds since the Unix epoch. A date without an offset is in UTC, one without a time at midnight; `None` without a date.
fn millis(at: &Datetime) -> Option<i64> {
    let Date { year, month, day } = at.date?;
    let days = days_since_epoch(year.into(), month.into(), day.into());
    let in_day = at.time.map_or(0, |time| {
        let seconds = (i64::from(time.hour) * 60 + i64::from(time.minute)) * 60 + i64::from(time.second.unwrap_or(0));
        seconds * 1_000 + i64::from(time.nanosecond.unwrap_or(0) / 1_000_000)
    });
    let offset = match at.offset {
        Some(Offset::Custom { minutes }) => i64::from(minutes) * 60_000,
        Some(Offset::Z) | None => 0,
    };
    Some(i64::try_from(days).ok()? * 86_400_000 + in_day - offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(toml: &str) -> Option<Json> {
        of_table(DeTable::parse(toml).unwrap().get_ref())
    }

    #[test]
    fn toml_is_converted_in_the_order_of_the_file() {
        let toml = r#"z = 1
a = { "$in" = ["x", 2.5, true] }
hex = 0xff
inf = [inf, -inf, nan]
"#;
        let expected = r#"{"z":1,"a":{"$in":["x",2.5,true]},"hex":255,"inf":[{"$numberDouble":"Infinity"},{"$numberDouble":"-Infinity"},{"$numberDouble":"NaN"}]}"#;
        assert_eq!(converted(toml).unwrap().to_string(), expected);
    }

    #[test]
    fn toml_dates_become_dates_of_extended_json() {
        for (toml, millis) in [
            ("1970-01-01T00:00:00Z", "0"),
            ("2024-03-01T09:00:00.5+02:00", "1709276400500"),
            ("2024-03-01 09:00:00", "1709283600000"),
            ("2024-03-01", "1709251200000"),
            ("1969-12-31T23:59:59Z", "-1000"),
            ("0001-01-01", "-62135596800000"),
        ] {
            let expected = json!({ "at": { "$date": { "$numberLong": millis } } });
            assert_eq!(converted(&format!("at = {toml}")), Some(expected), "{toml}");
        }
        assert_eq!(converted("at = 09:00:00"), None);
    }
}
