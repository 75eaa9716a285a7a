//! The text of a document: what of it is searched by meaning.

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value};
use tidewheel_core::error::PortError;

use super::options::TextOptions;

const TEMPLATE: &str = "documents.template";

/// Renders documents to text.
#[derive(Debug)]
pub struct Renderer(Kind);

#[derive(Debug)]
enum Kind {
    Template(Box<Environment<'static>>),
    Fields(Vec<Vec<String>>),
    EveryString,
}

impl Renderer {
    /// A renderer for these settings; fatal if the template cannot be parsed.
    pub fn new(options: &TextOptions) -> Result<Self, PortError> {
        if let Some(template) = &options.template {
            let mut environment = Environment::new();
            // A field that a document lacks is an empty text, however deep it lies.
            environment.set_undefined_behavior(UndefinedBehavior::Chainable);
            environment.add_template_owned(TEMPLATE, template.clone()).map_err(|error| {
                PortError::fatal(format!("the template in documents.template cannot be parsed: {error}")).with_hint(
                    "see https://docs.rs/minijinja for the syntax, for example {{ subject }} {{ customer.name }}",
                )
            })?;
            return Ok(Self(Kind::Template(Box::new(environment))));
        }
        if options.fields.is_empty() {
            return Ok(Self(Kind::EveryString));
        }
        Ok(Self(Kind::Fields(
            options.fields.iter().map(|field| field.split('.').map(str::to_owned).collect()).collect(),
        )))
    }

    /// The text of a document in plain JSON. Missing and empty fields are left out; the text may be empty. Poison if the
    /// template fails on this document.
    pub fn render(&self, document: &Map<String, Value>) -> Result<String, PortError> {
        match &self.0 {
            Kind::Template(environment) => environment
                .get_template(TEMPLATE)
                .and_then(|template| template.render(Serde(document)))
                .map(|text| text.trim().to_owned())
                .map_err(|error| PortError::poison(format!("documents.template fails on this document: {error}"))),
            Kind::Fields(paths) => {
                let mut lines = Vec::new();
                for path in paths {
                    if let Some(value) = lookup(document, path) {
                        texts(value, true, &mut lines);
                    }
                }
                Ok(lines.join("\n"))
            }
            Kind::EveryString => {
                let mut lines = Vec::new();
                for (name, value) in document {
                    if name != "_id" {
                        texts(value, false, &mut lines);
                    }
                }
                Ok(lines.join("\n"))
            }
        }
    }
}

/// The value at a path of names; a name with dots in it that exists as it is written is found too.
fn lookup<'a>(document: &'a Map<String, Value>, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    match (document.get(first), rest) {
        (Some(value), []) => Some(value),
        (Some(Value::Object(inner)), rest) => lookup(inner, rest),
        _ => document.get(&path.join(".")),
    }
}

/// Appends the texts in `value`: strings, those in arrays and objects, and, of a field that was asked for by name,
/// numbers and booleans too.
fn texts(value: &Value, scalars: bool, lines: &mut Vec<String>) {
    match value {
        Value::String(text) if !text.trim().is_empty() => lines.push(text.clone()),
        Value::Number(number) if scalars => lines.push(number.to_string()),
        Value::Bool(flag) if scalars => lines.push(flag.to_string()),
        Value::Array(values) => values.iter().for_each(|value| texts(value, scalars, lines)),
        Value::Object(fields) => fields.values().for_each(|value| texts(value, scalars, lines)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(options: &TextOptions, document: Value) -> Result<String, PortError> {
        let Value::Object(document) = document else { panic!("not a document") };
        Renderer::new(options).unwrap().render(&document)
    }

    fn fields(names: &[&str]) -> TextOptions {
        TextOptions { template: None, fields: names.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[test]
    fn fields_are_joined_by_newlines_and_missing_ones_left_out() {
        let document = json!({"subject": "Late", "content": " ", "tags": ["a", "b"], "customer": {"name": "Ada"}, "n": 3, "a.b": "dot"});
        let text = |names: &[&str]| render(&fields(names), document.clone()).unwrap();
        assert_eq!(text(&["subject", "content", "missing"]), "Late");
        assert_eq!(text(&["customer.name", "tags", "n"]), "Ada\na\nb\n3");
        assert_eq!(text(&["customer.missing.deep"]), "");
        assert_eq!(text(&["a.b"]), "dot");
    }

    #[test]
    fn without_fields_every_string_counts_but_the_id() {
        let document = json!({"_id": "x", "a": "one", "b": {"c": ["two", 3]}, "d": null});
        assert_eq!(render(&TextOptions::default(), document).unwrap(), "one\ntwo");
    }

    #[test]
    fn a_template_sees_the_fields_and_missing_ones_are_empty() {
        let options = TextOptions {
            template: Some(
                "{{ subject }}: {{ customer.name }}{{ customer.address.city }}{% for t in tags %} #{{ t }}{% endfor %}"
                    .into(),
            ),
            fields: vec!["ignored".into()],
        };
        let text = render(&options, json!({"subject": "Late <b>", "customer": {"name": "Ada"}, "tags": ["x", "y"]}));
        assert_eq!(text.unwrap(), "Late <b>: Ada #x #y");
        assert_eq!(render(&options, json!({})).unwrap(), ":");
    }

    #[test]
    fn a_broken_template_is_fatal_and_one_that_fails_is_poison() {
        let broken = TextOptions { template: Some("{{ subject".into()), fields: vec![] };
        let error = Renderer::new(&broken).unwrap_err();
        assert_eq!(error.class, tidewheel_core::error::ErrorClass::Fatal);
        let failing = TextOptions { template: Some("{{ subject + 1 }}".into()), fields: vec![] };
        let error = render(&failing, json!({"subject": "text"})).unwrap_err();
        assert_eq!(error.class, tidewheel_core::error::ErrorClass::Poison);
    }
}
