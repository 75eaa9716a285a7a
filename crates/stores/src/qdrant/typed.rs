//! Reads settings in the form of Qdrant's REST API as typed values. An error names the setting.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tidewheel_core::error::PortError;

/// An object of settings. A read removes the field, so that [`Object::end`] finds unknown ones.
pub(super) struct Object<'a> {
    path: String,
    fields: BTreeMap<&'a str, &'a Value>,
}

impl<'a> Object<'a> {
    /// The fields of the setting at this path.
    pub(super) fn new(path: impl Into<String>, fields: &'a Map<String, Value>) -> Self {
        let fields = fields.iter().filter(|(_, value)| !value.is_null());
        Self { path: path.into(), fields: fields.map(|(name, value)| (name.as_str(), value)).collect() }
    }

    /// The setting at this path.
    ///
    /// # Errors
    /// It is not an object.
    pub(super) fn of(path: impl Into<String>, value: &'a Value) -> Result<Self, PortError> {
        let path = path.into();
        match value {
            Value::Object(fields) => Ok(Self::new(path, fields)),
            other => Err(invalid(&path, other, "a table")),
        }
    }

    /// Removes a field; returns its path and value.
    pub(super) fn take(&mut self, name: &str) -> Option<(String, &'a Value)> {
        let value = self.fields.remove(name)?;
        Some((format!("{}.{name}", self.path), value))
    }

    fn read<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, PortError> {
        let Some((path, value)) = self.take(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| invalid(&path, value, expected))
    }

    /// A table.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Self>, PortError> {
        self.take(name).map(|(path, value)| Self::of(path, value)).transpose()
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, PortError> {
        self.read(name, "true or false", Value::as_bool)
    }

    /// A whole number that its type holds.
    pub(super) fn number<T: TryFrom<u64>>(&mut self, name: &str) -> Result<Option<T>, PortError> {
        self.read(name, "a whole number", |value| T::try_from(value.as_u64()?).ok())
    }

    /// A number.
    pub(super) fn decimal(&mut self, name: &str) -> Result<Option<f64>, PortError> {
        self.read(name, "a number", Value::as_f64)
    }

    /// A text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<&'a str>, PortError> {
        self.read(name, "a text", Value::as_str)
    }

    /// A list of texts; empty if it is absent.
    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>, PortError> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let texts = |value: &'a Value| value.as_array()?.iter().map(text).collect::<Option<Vec<String>>>();
        Ok(self.read(name, "a list of texts", texts)?.unwrap_or_default())
    }

    /// One of these words.
    pub(super) fn choice<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, PortError> {
        let chosen = |value: &Value| {
            let word = value.as_str()?;
            words.iter().find(|(known, _)| *known == word).map(|(_, choice)| *choice)
        };
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.read(name, &format!("one of {}", known.join(", ")), chosen)
    }

    /// Ends the object.
    ///
    /// # Errors
    /// It has a field that was not read.
    pub(super) fn end(self) -> Result<(), PortError> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(name) => Err(fatal(format!("unknown setting {}.{name}", self.path))),
        }
    }
}

/// The error for a value of another form.
pub(super) fn invalid(path: &str, value: &Value, expected: &str) -> PortError {
    fatal(format!("invalid {path} {value}: expected {expected}"))
}

/// The error for a value that tidewheel, or this release of it, cannot send.
pub(super) fn unsupported(path: &str, value: &str, reason: &str) -> PortError {
    fatal(format!("unsupported {path} {value:?}: {reason}"))
}

fn fatal(message: String) -> PortError {
    PortError::fatal(message).with_hint("correct the declaration of the index and run `tidewheel apply`")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn error_names_the_setting_its_value_and_the_expected_form() {
        let settings = json!({
            "m": "x", "ratio": true, "big": 4_294_967_296_u64, "on_disk": 1, "kind": "y", "words": [1], "inner": 7, "text": 8,
        });
        let mut object = Object::of("qdrant.hnsw", &settings).unwrap();
        let message = |error: PortError| error.message;
        for (found, expected) in [
            (object.number::<u64>("m").map(drop), "invalid qdrant.hnsw.m \"x\": expected a whole number"),
            (object.number::<u32>("big").map(drop), "invalid qdrant.hnsw.big 4294967296: expected a whole number"),
            (object.decimal("ratio").map(drop), "invalid qdrant.hnsw.ratio true: expected a number"),
            (object.flag("on_disk").map(drop), "invalid qdrant.hnsw.on_disk 1: expected true or false"),
            (
                object.choice("kind", &[("a", 1), ("b", 2)]).map(drop),
                "invalid qdrant.hnsw.kind \"y\": expected one of a, b",
            ),
            (object.texts("words").map(drop), "invalid qdrant.hnsw.words [1]: expected a list of texts"),
            (object.object("inner").map(drop), "invalid qdrant.hnsw.inner 7: expected a table"),
            (object.text("text").map(drop), "invalid qdrant.hnsw.text 8: expected a text"),
        ] {
            assert_eq!(found.map_err(message), Err(expected.to_owned()));
        }
        object.end().unwrap();
    }

    #[test]
    fn absent_and_null_fields_are_left_open_and_unknown_ones_are_errors() {
        let settings = json!({"m": null, "ef": 5});
        let mut object = Object::of("qdrant.hnsw", &settings).unwrap();
        assert_eq!(object.number::<u64>("m").unwrap(), None);
        assert_eq!(object.texts("words").unwrap(), Vec::<String>::new());
        let error = object.end().unwrap_err();
        assert_eq!(error.message, "unknown setting qdrant.hnsw.ef");
        assert!(error.hint.is_some());
    }
}
