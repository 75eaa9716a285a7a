//! Templates over the fields of a document.
//!
//! Guarantees:
//! - an invalid template is an error before a document is read, and a failing one affects one document;
//! - time, memory and the size of the result are bounded;
//! - a document without any of the fields that a template reads renders no text.

use std::borrow::Cow;

use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};
use tidewheel_core::error::PortError;
use tidewheel_core::paths;

use super::filters;

/// Fuel of a template per document. The engine charges one unit for each instruction and for every 64 bytes that a
/// template creates or reads: about a quarter of a second, and 256 MB in all. The largest documents need a tenth of it
/// for each pass over their text.
const FUEL: u64 = 4_000_000;

/// Maximum size of a rendered text in bytes: twice the size of the largest document.
const LONGEST_TEXT: usize = 32 << 20;

/// A compiled template.
#[derive(Debug)]
pub(super) struct Template {
    /// The setting that holds it: its name in messages.
    setting: &'static str,
    environment: Box<Environment<'static>>,
    /// The paths of the fields that it reads.
    read: Vec<String>,
}

impl Template {
    /// Compiles the template of a setting; fatal if it is invalid.
    pub(super) fn new(setting: &'static str, template: &str) -> Result<Self, PortError> {
        let mut environment = Environment::new();
        // A missing field renders as an empty text at any depth.
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.set_fuel(Some(FUEL));
        filters::add(&mut environment);
        environment.add_template_owned(setting, template.to_owned()).map_err(|error| {
            PortError::fatal(format!("invalid {setting}: {error}")).with_hint(
                "see https://docs.rs/minijinja for the syntax, for example {{ subject }} {{ customer.name }}",
            )
        })?;
        filters::check(&environment, template)
            .map_err(|error| PortError::fatal(format!("invalid {setting}: {error}")))?;
        let read = environment.get_template(setting).map(|template| template.undeclared_variables(true));
        let read = read.unwrap_or_default().into_iter().collect();
        Ok(Self { setting, environment: Box::new(environment), read })
    }

    /// Renders a document in plain JSON, without white space at both ends.
    ///
    /// # Errors
    /// Poison if the template fails on this document.
    pub(super) fn render(&self, document: &Map<String, Value>) -> Result<String, PortError> {
        // The literal text of the template is not text of the document.
        if !self.read.is_empty() && !has_any(document, &self.read) {
            return Ok(String::new());
        }
        let setting = self.setting;
        let template = self.environment.get_template(setting);
        let text = template
            .and_then(|template| template.render(Serde(&*without_nulls(document))))
            .map_err(|error| PortError::poison(failure(setting, &error)))?;
        match text.len() {
            0..=LONGEST_TEXT => Ok(text.trim().to_owned()),
            bytes => Err(PortError::poison(format!(
                "{setting} renders {bytes} bytes for this document, maximum {LONGEST_TEXT}"
            ))),
        }
    }
}

fn failure(setting: &str, error: &Error) -> String {
    if error.kind() == ErrorKind::OutOfFuel {
        let megabytes = FUEL * 64 / 1_000_000;
        return format!(
            "{setting} exceeds the limit of {FUEL} steps or {megabytes} MB of intermediate text for this document"
        );
    }
    format!("{setting} fails on this document: {error}")
}

/// Whether any of these paths of a template has a value. The last segment of a path may be a method.
fn has_any(document: &Map<String, Value>, read: &[String]) -> bool {
    fn is_scalar(value: &Value) -> bool {
        match value {
            Value::Null | Value::Object(_) => false,
            Value::String(text) => !text.trim().is_empty(),
            Value::Array(items) => items.iter().any(is_scalar),
            Value::Bool(_) | Value::Number(_) => true,
        }
    }
    fn is_something(value: &Value) -> bool {
        match value {
            Value::Array(items) => items.iter().any(is_something),
            Value::Object(fields) => fields.values().any(is_something),
            scalar => is_scalar(scalar),
        }
    }
    read.iter().any(|path| {
        let owner = |(dot, _): (usize, &str)| paths::values(document, &path[..dot]).into_iter().any(is_scalar);
        paths::values(document, path).into_iter().any(is_something) || path.match_indices('.').any(owner)
    })
}

/// The document without nulls: templates treat null as missing.
fn without_nulls(document: &Map<String, Value>) -> Cow<'_, Map<String, Value>> {
    fn has_null(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Array(items) => items.iter().any(has_null),
            Value::Object(fields) => fields.values().any(has_null),
            _ => false,
        }
    }
    fn remove_nulls(value: &mut Value) {
        match value {
            Value::Array(items) => {
                items.retain(|item| !item.is_null());
                items.iter_mut().for_each(remove_nulls);
            }
            Value::Object(fields) => remove_nulls_in(fields),
            _ => {}
        }
    }
    fn remove_nulls_in(fields: &mut Map<String, Value>) {
        fields.retain(|_, value| !value.is_null());
        fields.values_mut().for_each(remove_nulls);
    }
    let mut document = Cow::Borrowed(document);
    if document.values().any(has_null) {
        remove_nulls_in(document.to_mut());
    }
    document
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidewheel_core::error::ErrorClass;

    use super::*;

    fn prefix(template: &str) -> Template {
        Template::new("chunk.prefix", template).unwrap()
    }

    fn fields(document: Value) -> Map<String, Value> {
        let Value::Object(fields) = document else { panic!("not a document") };
        fields
    }

    #[test]
    fn errors_name_the_setting() {
        let invalid = Template::new("chunk.prefix", "{{ subject").unwrap_err();
        assert_eq!(invalid.class, ErrorClass::Fatal);
        assert!(invalid.message.starts_with("invalid chunk.prefix: "), "{}", invalid.message);
        let failing = prefix("{{ subject + 1 }}").render(&fields(json!({"subject": "text"}))).unwrap_err();
        assert_eq!(failing.class, ErrorClass::Poison);
        assert!(failing.message.starts_with("chunk.prefix fails on this document: "), "{}", failing.message);
        let endless = prefix("{% for a in range(n) %}{% for b in range(n) %}x{% endfor %}{% endfor %}");
        let endless = endless.render(&fields(json!({"n": 9_000}))).unwrap_err();
        assert!(endless.message.starts_with("chunk.prefix exceeds the limit of 4000000 steps"), "{}", endless.message);
    }

    #[test]
    fn rendered_text_has_no_white_space_at_its_ends() {
        let template = prefix(" {{ subject }}\n{{ customer.name }}\n");
        assert_eq!(
            template.render(&fields(json!({"subject": "Late", "customer": {"name": "Ada"}}))).unwrap(),
            "Late\nAda"
        );
        assert_eq!(template.render(&fields(json!({"subject": "Late"}))).unwrap(), "Late");
        assert_eq!(template.render(&fields(json!({"other": "Late"}))).unwrap(), "");
    }
}
