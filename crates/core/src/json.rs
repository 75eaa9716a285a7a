//! Parsing of JSON as deep as MongoDB stores it.
//!
//! `serde_json` stops at 127 levels. MongoDB stores documents of up to 180, and extended JSON adds two for a date or a
//! binary value.

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Error, Map, Number, Value};

/// Maximum nesting of objects and arrays. Recursion over such a value needs a small part of a thread's stack.
pub const MAX_LEVELS: usize = 256;

/// Levels that one parser reads before it passes the rest to a new one. Below `serde_json`'s own limit.
const STRETCH: usize = 100;

/// Parses a JSON text that nests up to [`MAX_LEVELS`] objects and arrays.
///
/// # Errors
/// The text is not JSON, or nests deeper.
pub fn parse(text: &str) -> Result<Value, Error> {
    // The limit has no error category, so every failure is parsed again; only malformed text pays for that.
    serde_json::from_str(text).or_else(|_| parse_deep(text))
}

fn parse_deep(text: &str) -> Result<Value, Error> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let value = Nested { above: 0 }.deserialize(&mut parser)?;
    parser.end()?;
    Ok(value)
}

/// Returns the nesting depth of objects and arrays; 0 for a scalar.
pub fn levels(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(levels).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}

/// A value nested in `above` objects and arrays.
#[derive(Clone, Copy)]
struct Nested {
    above: usize,
}

impl Nested {
    fn inside<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.above == MAX_LEVELS {
            return Err(E::custom(format_args!("more than {MAX_LEVELS} levels of objects and arrays")));
        }
        Ok(Self { above: self.above + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.above == 0 || !self.above.is_multiple_of(STRETCH) {
            return deserializer.deserialize_any(self);
        }
        // `serde_json` skips over raw values without recursion.
        let raw = <&RawValue as serde::Deserialize>::deserialize(deserializer)?;
        serde_json::Deserializer::from_str(raw.get()).deserialize_any(self).map_err(D::Error::custom)
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = Value;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let item = self.inside::<A::Error>()?;
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(item)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let field = self.inside::<A::Error>()?;
        let mut fields = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            fields.insert(name, entries.next_value_seed(field)?);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nested(levels: usize, object: impl Fn(usize) -> bool, leaf: &str) -> String {
        let (mut before, mut after) = (String::new(), String::new());
        for level in 0..levels {
            let (open, close) = if object(level) { (r#"{"a":"#, '}') } else { ("[", ']') };
            before.push_str(open);
            after.insert(0, close);
        }
        format!("{before}{leaf}{after}")
    }

    #[test]
    fn every_depth_up_to_the_limit_is_parsed() {
        for levels_of in [1, 99, 100, 101, 126, 127, 128, 199, 200, 201, MAX_LEVELS] {
            for object in [(|_| true) as fn(usize) -> bool, |_| false, |level| level.is_multiple_of(2)] {
                let text = nested(levels_of, object, r#"["é",-1,2.5,18446744073709551615,null,true]"#);
                if levels_of < MAX_LEVELS {
                    let value = parse(&text).unwrap();
                    assert_eq!(levels(&value), levels_of + 1);
                    assert_eq!(value.to_string(), text);
                } else {
                    assert!(parse(&text).unwrap_err().to_string().contains("more than 256 levels"));
                }
            }
        }
    }

    #[test]
    fn both_parsers_return_the_same_value() {
        let text = r#"{"a": {"b": [1, -2, 0.5, 1e300, "\u00e9\n", null, {}, []]}, "a": {"b": true}, "c": 1.0}"#;
        assert_eq!(parse_deep(text).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(levels(&json!({"a": [{}]})), 3);
        assert_eq!(levels(&json!(1)), 0);
    }

    #[test]
    fn malformed_text_is_an_error_at_every_depth() {
        for text in ["", "{", "[1,]", "{} x", &nested(150, |_| true, "x"), &format!("{}]", nested(150, |_| false, "1"))]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
