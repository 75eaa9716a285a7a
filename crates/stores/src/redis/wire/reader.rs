//! Decoding of an entry's fields.

use std::str::FromStr;

use tidewheel_core::catalog::{IndexName, TargetId};
use tidewheel_core::change::{Change, Operation, Route, Stamp};
use tidewheel_core::identity::Namespace;
use tidewheel_core::key;
use tidewheel_core::ports::RecordError;

use super::{FORMAT, RawFields};

pub(super) fn invalid(field: &'static str, cause: &(impl ToString + ?Sized)) -> RecordError {
    RecordError::Invalid { field, cause: cause.to_string() }
}

/// The fields of an entry. A value is taken once, and moved out.
pub(super) struct Reader(pub(super) RawFields);

impl Reader {
    /// Whether there is a field of this name, taken or not.
    pub(super) fn has(&self, field: &str) -> bool {
        self.0.iter().any(|(name, _)| name == field.as_bytes())
    }

    pub(super) fn take_optional(&mut self, field: &'static str) -> Option<Vec<u8>> {
        let (_, value) = self.0.iter_mut().find(|(name, _)| name == field.as_bytes())?;
        Some(std::mem::take(value))
    }

    pub(super) fn take(&mut self, field: &'static str) -> Result<Vec<u8>, RecordError> {
        self.take_optional(field).ok_or(RecordError::Missing(field))
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<String, RecordError> {
        self.text_optional(field)?.ok_or(RecordError::Missing(field))
    }

    pub(super) fn text_optional(&mut self, field: &'static str) -> Result<Option<String>, RecordError> {
        let text = self.take_optional(field).map(String::from_utf8).transpose();
        text.map_err(|error| invalid(field, &error))
    }

    pub(super) fn parse<T: FromStr<Err: ToString>>(&mut self, field: &'static str) -> Result<T, RecordError> {
        self.text(field)?.parse().map_err(|error: T::Err| invalid(field, &error))
    }

    pub(super) fn parse_optional<T: FromStr<Err: ToString>>(
        &mut self,
        field: &'static str,
    ) -> Result<Option<T>, RecordError> {
        let value = self.text_optional(field)?.map(|text| text.parse::<T>());
        value.transpose().map_err(|error: T::Err| invalid(field, &error))
    }

    /// The targets in a field; none without it.
    fn targets(&mut self, field: &'static str) -> Result<Vec<TargetId>, RecordError> {
        let targets = self.take_optional(field).map(|json| serde_json::from_slice(&json)).transpose();
        Ok(targets.map_err(|error| invalid(field, &error))?.unwrap_or_default())
    }

    /// The route of an entry of stage 1; of stage 2, the one target of the record.
    fn route(&mut self) -> Result<Route, RecordError> {
        let Some(catalog) = self.parse_optional("catalog")? else { return Ok(Route::Plain) };
        let Some(index) = self.text_optional("index")? else {
            let (targets, leaves) = (self.targets("targets")?, self.targets("leaves")?);
            return Ok(Stamp { catalog, targets, leaves }.into());
        };
        let target = IndexName::of_collection(&index).target(self.parse("generation")?);
        Ok(Stamp { catalog, targets: vec![target], leaves: Vec::new() }.into())
    }

    pub(super) fn change(&mut self) -> Result<Change, RecordError> {
        if let Some(format) = self.text_optional("format")? {
            let found = format.parse::<u32>().map_err(|error| invalid("format", &error))?;
            if found > FORMAT {
                return Err(RecordError::Newer { found, supported: FORMAT });
            }
        }
        let operation: Operation = self.parse("operation")?;
        let namespace = self.text("namespace")?;
        let route = self.route()?;
        let document = if operation.has_document() { self.text_optional("document")? } else { None };
        Ok(Change {
            operation,
            namespace: Namespace::parse(&namespace).ok_or_else(|| invalid("namespace", &format!("{namespace:?}")))?,
            id: self.text("id")?,
            // Entries written by an earlier release have keys of an earlier form.
            key: key::canonical(&self.text("key")?).into_owned(),
            version: self.parse("version")?,
            committed_at: self.parse("committed_at")?,
            document,
            route,
        })
    }
}
