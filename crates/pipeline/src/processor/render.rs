//! Renders the text of a document for semantic search.

use std::borrow::Cow;

use serde_json::{Map, Value};
use tidewheel_core::error::PortError;
use tidewheel_core::paths;

use super::options::{SettingNames, TextOptions};
use super::template::Template;

/// Renders documents to text.
#[derive(Debug)]
pub struct Renderer {
    kind: Kind,
    /// Paths that are excluded when every string is rendered.
    excluded: Vec<String>,
}

#[derive(Debug)]
enum Kind {
    Template(Template),
    Fields(Vec<String>),
    EveryString,
}

impl Renderer {
    /// Creates a renderer for these settings; fatal if the template is invalid. Messages name the settings of the short
    /// form.
    pub fn new(options: &TextOptions) -> Result<Self, PortError> {
        Self::named(options, &SettingNames::SHORT_FORM)
    }

    /// Like [`Self::new`]; messages name these settings.
    pub(super) fn named(options: &TextOptions, names: &SettingNames) -> Result<Self, PortError> {
        if let Some(template) = &options.template {
            return Ok(Self { kind: Kind::Template(Template::new(names.template, template)?), excluded: Vec::new() });
        }
        let kind = if options.fields.is_empty() { Kind::EveryString } else { Kind::Fields(options.fields.clone()) };
        Ok(Self { kind, excluded: options.exclude.clone() })
    }

    /// Whether the time to render depends on more than the size of the document.
    pub(super) fn computes(&self) -> bool {
        matches!(self.kind, Kind::Template(..))
    }

    /// Returns the text of a document in plain JSON. Missing, null and empty fields are skipped; the text may be empty.
    ///
    /// # Errors
    ///
    /// Poison if the template fails on this document.
    pub fn render(&self, document: &Map<String, Value>) -> Result<String, PortError> {
        match &self.kind {
            Kind::Template(template) => template.render(document),
            Kind::Fields(fields) => {
                let mut lines = Vec::new();
                for value in fields.iter().flat_map(|field| paths::values(document, field)) {
                    texts(value, true, &mut lines);
                }
                Ok(if lines.is_empty() { self.every_string(document) } else { lines.join("\n") })
            }
            Kind::EveryString => Ok(self.every_string(document)),
        }
    }

    fn every_string(&self, document: &Map<String, Value>) -> String {
        let mut document = Cow::Borrowed(document);
        for path in &self.excluded {
            paths::remove(document.to_mut(), path);
        }
        let mut lines = Vec::new();
        for (_, value) in document.iter().filter(|(name, _)| *name != "_id") {
            texts(value, false, &mut lines);
        }
        lines.join("\n")
    }
}

/// Appends the texts in `value`: strings, those in arrays and objects, and, with `scalars`, numbers and booleans.
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
        TextOptions { fields: names.iter().map(|name| (*name).to_owned()).collect(), ..TextOptions::default() }
    }

    #[test]
    fn fields_are_joined_by_newlines_and_missing_ones_skipped() {
        let document = json!({"subject": "Late", "content": " ", "tags": ["a", "b"], "customer": {"name": "Ada"}, "n": 3, "a.b": "dot"});
        let text = |names: &[&str]| render(&fields(names), document.clone()).unwrap();
        assert_eq!(text(&["subject", "content", "missing"]), "Late");
        assert_eq!(text(&["customer.name", "tags", "n"]), "Ada\na\nb\n3");
        assert_eq!(text(&["a.b"]), "dot");
    }

    #[test]
    fn fields_are_read_through_arrays() {
        let document = json!({"comments": [{"text": "one"}, {"text": null}, {"text": "two"}], "items": [{"name": "a"}, {"name": "b"}]});
        let text = |names: &[&str]| render(&fields(names), document.clone()).unwrap();
        assert_eq!(text(&["comments.text"]), "one\ntwo");
        assert_eq!(text(&["items.1.name"]), "b");
    }

    #[test]
    fn document_without_any_selected_field_renders_every_string_not_excluded() {
        let options = TextOptions {
            fields: vec!["subject".into(), "content".into()],
            exclude: vec!["customer.ssn".into(), "notes.author".into()],
            ..TextOptions::default()
        };
        let rest = json!({
            "_id": "x", "customer": {"name": "Ada", "ssn": "078-05-1120"}, "notes": [{"text": "late", "author": "eve"}],
        });
        for nothing in [json!({}), json!({"subject": null}), json!({"subject": " ", "content": []})] {
            let mut document = nothing.clone();
            document.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            assert_eq!(render(&options, document).unwrap(), "Ada\nlate", "{nothing}");
        }
        let every = TextOptions { fields: Vec::new(), ..options };
        assert_eq!(render(&every, rest).unwrap(), "Ada\nlate");
    }

    #[test]
    fn without_selected_fields_every_string_except_the_id_is_rendered() {
        let document = json!({"_id": "x", "a": "one", "b": {"c": ["two", 3]}, "d": null});
        assert_eq!(render(&TextOptions::default(), document).unwrap(), "one\ntwo");
    }

    #[test]
    fn template_reads_fields_and_renders_missing_ones_as_empty() {
        let options = TextOptions {
            template: Some(
                "{{ subject }}: {{ customer.name }}{{ customer.address.city }}{% for t in tags %} #{{ t }}{% endfor %}"
                    .into(),
            ),
            fields: vec!["ignored".into()],
            ..TextOptions::default()
        };
        let text = render(&options, json!({"subject": "Late <b>", "customer": {"name": "Ada"}, "tags": ["x", "y"]}));
        assert_eq!(text.unwrap(), "Late <b>: Ada #x #y");
    }

    #[test]
    fn template_treats_null_as_missing() {
        let template = |text: &str| TextOptions { template: Some(text.into()), ..TextOptions::default() };
        let document = json!({
            "subject": "Late", "content": null, "tags": ["x", null], "customer": {"name": null, "city": "Bath"},
        });
        for (text, expected) in [
            ("{{ subject }}: {{ content }}", "Late:"),
            ("{{ subject }}{% if content is defined %} has content{% endif %}", "Late"),
            ("{{ subject }} {{ content | default('nothing') }}", "Late nothing"),
            ("{{ subject }}{% for t in tags %} #{{ t }}{% endfor %}", "Late #x"),
            ("{{ customer.name }}{{ customer.city }}", "Bath"),
            ("{{ tags | join(', ') }}", "x"),
        ] {
            let rendered = render(&template(text), document.clone()).unwrap();
            assert_eq!(rendered, expected, "{text}");
        }
    }

    #[test]
    fn template_without_any_of_its_fields_renders_no_text() {
        let options = TextOptions {
            template: Some(
                "Ticket: {{ subject }} by {{ customer.name }}{% for c in comments %} {{ c.text }}{% endfor %}".into(),
            ),
            ..TextOptions::default()
        };
        for document in [
            json!({}),
            json!({"_id": 7, "other": "text"}),
            json!({"subject": null, "customer": {"name": ""}, "comments": []}),
            json!({"customer": {"city": "Bath"}}),
        ] {
            assert_eq!(render(&options, document.clone()).unwrap(), "", "{document}");
        }
        assert_eq!(render(&options, json!({"comments": [{"text": "x"}]})).unwrap(), "Ticket:  by  x");
        let method = TextOptions { template: Some("{{ subject.upper() }}".into()), ..TextOptions::default() };
        assert!(render(&method, json!({"subject": "Late"})).is_err());
        let constant = TextOptions { template: Some("always".into()), ..TextOptions::default() };
        assert_eq!(render(&constant, json!({})).unwrap(), "always");
    }

    #[test]
    fn template_that_exceeds_its_fuel_is_poison() {
        let nested = "{% for a in range(n) %}{% for b in range(n) %}{% for c in range(n) %}x{% endfor %}{% endfor %}{% endfor %}";
        for template in [
            nested,
            // Without output: instructions alone.
            "{% for a in range(n) %}{% for b in range(n) %}{% for c in range(n) %}{% endfor %}{% endfor %}{% endfor %}",
            "{{ 'x' * (n * n * n) }}",
            "{% set ns = namespace(t='xxxxxxxx') %}{% for i in range(n) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t | length }}",
            "{{ text | indent(n * n * n) }}",
            "{{ text | replace('', text * n) | replace('x', text * n) | length }}",
            "{% for a in [[1] * n] * n recursive %}{% if a is iterable %}{{ loop([a] * n) }}{% endif %}{% endfor %}",
            "{% set t %}{% for a in range(n) %}{% for b in range(n) %}{{ text * 100 }}{% endfor %}{% endfor %}{% endset %}{{ t | length }}",
            "{{ ([text] * (n * n)) | join(text * n) }}",
        ] {
            let options = TextOptions { template: Some(template.into()), ..TextOptions::default() };
            let error = render(&options, json!({"n": 9_000, "text": "xy\n".repeat(1_000)})).expect_err(template);
            assert_eq!(error.class, tidewheel_core::error::ErrorClass::Poison, "{template}");
            assert!(error.message.contains("documents.template"), "{template}: {}", error.message);
        }
        let options = TextOptions { template: Some(nested.into()), ..TextOptions::default() };
        let error = render(&options, json!({"n": 9_000})).unwrap_err();
        assert!(error.message.contains("4000000 steps"), "{}", error.message);
        assert_eq!(render(&options, json!({"n": 3})).unwrap().len(), 27);
    }

    #[test]
    fn template_renders_the_largest_documents() {
        let text = "The parcel has not arrived. ".repeat((15 << 20) / 28);
        let options = TextOptions {
            template: Some("{{ subject | upper }}\n{{ content | replace('\t', ' ') | trim }}".into()),
            ..TextOptions::default()
        };
        let rendered = render(&options, json!({"subject": "late", "content": text})).unwrap();
        assert_eq!(rendered.len(), "LATE\n".len() + text.trim().len());
    }

    #[test]
    fn template_strips_markup_of_the_largest_documents() {
        let sentence = "The parcel has not arrived. ";
        let text = sentence.repeat((15 << 20) / sentence.len());
        for filter in ["striptags", "markdown", "striptags | truncate(100000)"] {
            let options =
                TextOptions { template: Some(format!("{{{{ content | {filter} }}}}")), ..TextOptions::default() };
            let rendered = render(&options, json!({"content": text})).expect(filter);
            assert!(rendered.starts_with(sentence), "{filter}");
        }
    }

    #[test]
    fn markup_that_takes_too_much_memory_or_time_is_poison() {
        for content in ["*a".repeat(2 << 20), format!("{}a{}", "- ".repeat(50_000), "\nb".repeat(50_000))] {
            let options = TextOptions { template: Some("{{ content | markdown }}".into()), ..TextOptions::default() };
            let error = render(&options, json!({"content": content})).unwrap_err();
            assert_eq!(error.class, tidewheel_core::error::ErrorClass::Poison);
            assert!(error.message.contains("4000000 steps"), "{}", error.message);
        }
    }

    #[test]
    fn unknown_filter_is_fatal_before_a_document_is_read() {
        let unknown =
            TextOptions { template: Some("{% if a %}{{ b | strip }}{% endif %}".into()), ..TextOptions::default() };
        let error = Renderer::new(&unknown).unwrap_err();
        assert_eq!(error.class, tidewheel_core::error::ErrorClass::Fatal);
        let expected = "invalid documents.template: unknown filter \"strip\": expected one of abs, ";
        assert!(error.message.starts_with(expected), "{}", error.message);
        assert!(error.message.contains("striptags"), "{}", error.message);
    }

    #[test]
    fn template_formats_dates_of_documents() {
        let options = TextOptions {
            template: Some("{{ at | date('%-d %B %Y') }}: {{ html | striptags }}{{ missing | date }}".into()),
            ..TextOptions::default()
        };
        let document = json!({"at": "2024-03-01T09:05:00.5Z", "html": "<p>Late &amp; lost</p>"});
        assert_eq!(render(&options, document).unwrap(), "1 March 2024: Late & lost");
        let error = render(&options, json!({"at": "soon"})).unwrap_err();
        assert_eq!(error.class, tidewheel_core::error::ErrorClass::Poison);
        assert!(error.message.contains("date: invalid date \"soon\""), "{}", error.message);
    }

    #[test]
    fn invalid_template_is_fatal_and_failing_template_is_poison() {
        let broken = TextOptions { template: Some("{{ subject".into()), ..TextOptions::default() };
        let error = Renderer::new(&broken).unwrap_err();
        assert_eq!(error.class, tidewheel_core::error::ErrorClass::Fatal);
        let failing = TextOptions { template: Some("{{ subject + 1 }}".into()), ..TextOptions::default() };
        let error = render(&failing, json!({"subject": "text"})).unwrap_err();
        assert_eq!(error.class, tidewheel_core::error::ErrorClass::Poison);
    }
}
