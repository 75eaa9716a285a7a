//! The text of a document, rendered without tidewheel's renderer.

use bson::{Bson, Document};

use super::paths;

/// The text that the default settings embed: `subject` and `content`, each omitted if blank. For
/// [`Oracle::with_text`](super::Oracle::with_text).
pub fn text_of(document: &Document) -> String {
    let lines: Vec<&str> = ["subject", "content"]
        .into_iter()
        .filter_map(|field| document.get(field).and_then(Bson::as_str))
        .filter(|text| !text.trim().is_empty())
        .collect();
    lines.join("\n")
}

/// Returns the lines of these fields; of a document without any of them, every string except those of `_id` and of
/// the excluded fields. Other types that have a text, such as dates, have none here.
pub(super) fn of_fields(document: &Document, fields: &[String], excluded: &[String]) -> String {
    let mut lines = Vec::new();
    for value in fields.iter().filter_map(|field| paths::get(document, field)) {
        collect(value, true, &mut lines);
    }
    if lines.is_empty() {
        let mut rest = document.clone();
        for path in excluded.iter().map(String::as_str).chain(["_id"]) {
            paths::remove(&mut rest, path);
        }
        collect(&Bson::Document(rest), false, &mut lines);
    }
    lines.join("\n")
}

/// Appends the strings in a value, and with `scalars` the integers and booleans.
fn collect(value: &Bson, scalars: bool, lines: &mut Vec<String>) {
    match value {
        Bson::Array(values) => values.iter().for_each(|value| collect(value, scalars, lines)),
        Bson::Document(document) => document.values().for_each(|value| collect(value, scalars, lines)),
        Bson::String(_) => lines.extend(word(value)),
        _ if scalars => lines.extend(word(value)),
        _ => {}
    }
}

/// A string that is not blank, an integer or a boolean as text.
fn word(value: &Bson) -> Option<String> {
    match value {
        Bson::String(text) if !text.trim().is_empty() => Some(text.clone()),
        Bson::Int32(number) => Some(number.to_string()),
        Bson::Int64(number) => Some(number.to_string()),
        Bson::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A template of literal text and fields: `{{ customer.name }}`. It has neither filters nor statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(String),
}

impl Template {
    /// Parses a template; the error names what is unsupported.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once("{{") {
            let (field, after) = after.split_once("}}").ok_or_else(|| format!("unclosed field in {text:?}"))?;
            let field = field.trim();
            let is_path = field.chars().all(|letter| letter.is_ascii_alphanumeric() || "_.".contains(letter));
            if field.is_empty() || !is_path {
                return Err(format!("unsupported expression {field:?} in a template"));
            }
            parts.push(Part::Literal(literal.to_owned()));
            parts.push(Part::Field(field.to_owned()));
            rest = after;
        }
        parts.push(Part::Literal(rest.to_owned()));
        let has_more = |part: &Part| matches!(part, Part::Literal(text) if text.contains("{%") || text.contains("{#"));
        if parts.iter().any(has_more) {
            return Err(format!("unsupported statement in the template {text:?}"));
        }
        Ok(Self(parts))
    }

    /// The text of a document, without white space at its ends; empty for a document without any of the fields.
    pub(super) fn render(&self, document: &Document) -> String {
        let mut text = String::new();
        let mut has_fields = false;
        for part in &self.0 {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Field(path) => {
                    let word = paths::get(document, path).and_then(word);
                    has_fields |= word.is_some();
                    text.push_str(&word.unwrap_or_default());
                }
            }
        }
        if has_fields { text.trim().to_owned() } else { String::new() }
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn fields_are_joined_and_a_document_without_them_has_every_string() {
        let document = doc! {"_id": "x", "title": "Late", "tags": ["a", " ", "b"], "n": 3, "customer": {"ssn": "1"}};
        let of = |fields: &[&str]| of_fields(&document, &names(fields), &names(&["customer.ssn"]));
        assert_eq!(of(&["title", "tags", "n", "missing"]), "Late\na\nb\n3");
        assert_eq!(of(&["missing"]), "Late\na\nb");
        assert_eq!(of(&["customer.ssn"]), "1");
    }

    #[test]
    fn template_renders_fields_between_literals() {
        let template = Template::parse("{{ subject }}:\n{{customer.name}} ").unwrap();
        assert_eq!(template.render(&doc! {"subject": "Late", "customer": {"name": "Ada"}}), "Late:\nAda");
        assert_eq!(template.render(&doc! {"subject": "Late"}), "Late:");
        assert_eq!(template.render(&doc! {"subject": " ", "other": "text"}), "");
        for unsupported in ["{{ subject | striptags }}", "{{ subject", "{% if a %}{{ a }}{% endif %}", "{{ }}"] {
            assert!(Template::parse(unsupported).is_err(), "{unsupported}");
        }
    }
}
