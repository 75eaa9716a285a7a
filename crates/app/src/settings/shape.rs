//! The form of structured values, and their validation.
//!
//! A valid value has one spelling: it has no nulls, and a name of a type is a table with `type`. Every unknown and every invalid
//! field is reported, with its full name.

use serde_json::{Map, Value as Json};

use super::error::Problem;
use super::names::nearest_of;
use super::origin::Origin;
use super::value::{is_line, is_path, shown_text};

/// The form of a structured value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// True or false.
    Flag,
    /// An integer of at least this value.
    Count(u64),
    /// A number between these percentages of 1.
    Between(u32, u32),
    /// A number of at least 0.
    Amount,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A non-empty single-line string.
    Line,
    /// A list of non-empty single-line strings.
    Lines,
    /// The first of these that the value has.
    Either(&'static [Self]),
    /// A table with any of these fields.
    Table(&'static [Field]),
    /// A table with exactly one of these fields.
    OneOf(&'static [Field]),
    /// A table with `type`, which is the name of one of these, and the fields of that one's [`Self::Table`]; or the name alone.
    Typed(&'static [Field]),
    /// A table from field paths to values of this form.
    Paths(&'static Self),
    /// Not a setting: tidewheel decides it.
    Reserved,
}

/// A field of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    name: &'static str,
    shape: Shape,
    required: bool,
}

/// An optional field.
pub(super) const fn field(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, required: false }
}

/// A required field.
pub(super) const fn required(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, required: true }
}

/// Where a value is from, and where its problems go.
pub(super) struct Report<'a> {
    pub(super) origin: &'a Origin,
    pub(super) problems: &'a mut Vec<Problem>,
}

impl Report<'_> {
    fn invalid(&mut self, key: &str, given: &Json, expected: String) {
        let (key, given, origin) = (key.to_owned(), shown(given), self.origin.clone());
        self.problems.push(Problem::Invalid { key, given, origin, expected });
    }

    fn unknown(&mut self, table: &str, name: &str, fields: &[Field]) {
        let hint = match nearest_of(name, fields.iter().map(|field| field.name)) {
            Some(nearest) => format!("did you mean `{table}.{nearest}`?"),
            None => format!("expected one of {}", names(fields)),
        };
        self.problems.push(Problem::Unknown { name: format!("{table}.{name}"), origin: self.origin.clone(), hint });
    }
}

/// Formats an invalid value for a message, redacted if it may contain a secret.
fn shown(value: &Json) -> String {
    match value {
        Json::String(text) => shown_text(text),
        Json::Array(_) => "(array)".into(),
        Json::Object(_) => "(table)".into(),
        scalar => scalar.to_string(),
    }
}

impl Shape {
    /// Describes the expected form, for error messages.
    pub(crate) fn expected(self) -> String {
        match self {
            Self::Flag => "true or false".into(),
            Self::Count(0) => "an integer".into(),
            Self::Count(least) => format!("an integer of at least {least}"),
            Self::Between(from, to) => format!("a number from {} to {}", of_percent(from), of_percent(to)),
            Self::Amount => "a number of at least 0".into(),
            Self::Word(words) => {
                format!("one of {}", words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", "))
            }
            Self::Line => "a non-empty single-line string".into(),
            Self::Lines => "a list of non-empty single-line strings".into(),
            Self::Either(shapes) => shapes.iter().map(|shape| shape.expected()).collect::<Vec<_>>().join(", or "),
            Self::Table(fields) => format!("a table with any of {}", names(fields)),
            Self::OneOf(fields) => format!("a table with exactly one of {}", names(fields)),
            Self::Typed(cases) => format!("one of {}, or a table with `type` and options", names(cases)),
            Self::Paths(shape) => format!("a table from field paths to values, each {}", shape.expected()),
            Self::Reserved => "no value: tidewheel sets it".into(),
        }
    }

    /// Validates a value, and returns it in its only spelling. `at` is its full name. Adds every problem.
    pub(super) fn read(self, value: &Json, at: &str, report: &mut Report<'_>) -> Option<Json> {
        let is_text = |value: &Json| value.as_str().is_some_and(|text| is_line(text) && !text.trim().is_empty());
        let valid = match (self, value) {
            (Self::Flag, value) => value.is_boolean(),
            (Self::Count(least), value) => value.as_u64().is_some_and(|count| count >= least),
            (Self::Between(from, to), value) => {
                value.as_f64().is_some_and(|number| (of_percent(from)..=of_percent(to)).contains(&number))
            }
            (Self::Amount, value) => value.as_f64().is_some_and(|number| number >= 0.0),
            (Self::Word(words), value) => value.as_str().is_some_and(|word| words.contains(&word)),
            (Self::Line, value) => is_text(value),
            (Self::Lines, value) => value.as_array().is_some_and(|items| items.iter().all(is_text)),
            (Self::Either(shapes), value) => return self.read_either(shapes, value, at, report),
            (Self::Table(fields), Json::Object(given)) => return read_table(fields, given, at, report),
            (Self::OneOf(fields), Json::Object(given)) => {
                let read = read_table(fields, given, at, report)?;
                if read.as_object().is_some_and(|read| read.len() == 1) {
                    return Some(read);
                }
                false
            }
            (Self::Typed(cases), Json::String(name)) => {
                if let Some(shape) = case(cases, name) {
                    return shape.read_typed(name, &Map::new(), at, report);
                }
                false
            }
            (Self::Typed(cases), Json::Object(given)) => match given.get("type") {
                Some(Json::String(name)) if case(cases, name).is_some() => {
                    let shape = case(cases, name)?;
                    let mut options = given.clone();
                    options.shift_remove("type");
                    return shape.read_typed(name, &options, at, report);
                }
                Some(other) => {
                    report.invalid(&format!("{at}.type"), other, format!("one of {}", names(cases)));
                    return None;
                }
                None => false,
            },
            (Self::Paths(shape), Json::Object(given)) => return shape.read_paths(given, at, report),
            (Self::Table(_) | Self::OneOf(_) | Self::Typed(_) | Self::Paths(_) | Self::Reserved, _) => false,
        };
        if valid {
            return Some(value.clone());
        }
        report.invalid(at, value, self.expected());
        None
    }

    fn read_either(self, shapes: &[Self], value: &Json, at: &str, report: &mut Report<'_>) -> Option<Json> {
        for shape in shapes {
            let mut problems = Vec::new();
            let read = shape.read(value, at, &mut Report { origin: report.origin, problems: &mut problems });
            if read.is_some() {
                return read;
            }
            // Only a table can have been meant as this table.
            if value.is_object() && matches!(shape, Self::Table(_)) {
                report.problems.extend(problems);
                return None;
            }
        }
        report.invalid(at, value, self.expected());
        None
    }

    /// Reads the options of a named case.
    fn read_typed(self, name: &str, options: &Map<String, Json>, at: &str, report: &mut Report<'_>) -> Option<Json> {
        let Self::Table(fields) = self else { return None };
        let Json::Object(options) = read_table(fields, options, at, report)? else { return None };
        let mut typed = Map::new();
        typed.insert("type".into(), name.into());
        typed.extend(options);
        Some(Json::Object(typed))
    }

    /// Reads a table from paths to values of this form.
    fn read_paths(self, given: &Map<String, Json>, at: &str, report: &mut Report<'_>) -> Option<Json> {
        let before = report.problems.len();
        let mut read = Map::new();
        for (path, value) in given.iter().filter(|(_, value)| !value.is_null()) {
            // Qdrant writes `items[].name` for the elements of an array.
            if !is_path(&path.replace("[]", "")) {
                report.invalid(at, &Json::String(path.clone()), "field paths such as \"customer.name\"".into());
            } else if let Some(value) = self.read(value, &format!("{at}.{path}"), report) {
                read.insert(path.clone(), value);
            }
        }
        (report.problems.len() == before).then_some(Json::Object(read))
    }
}

fn read_table(fields: &[Field], given: &Map<String, Json>, at: &str, report: &mut Report<'_>) -> Option<Json> {
    let before = report.problems.len();
    let mut read = Map::new();
    for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
        match fields.iter().find(|field| field.name == name) {
            Some(field) => {
                if let Some(value) = field.shape.read(value, &format!("{at}.{name}"), report) {
                    read.insert(name.clone(), value);
                }
            }
            None => report.unknown(at, name, fields),
        }
    }
    for field in fields.iter().filter(|field| field.required && given.get(field.name).is_none_or(Json::is_null)) {
        report.invalid(at, &Json::Object(given.clone()), format!("a table with `{}`", field.name));
    }
    (report.problems.len() == before).then_some(Json::Object(read))
}

/// The form of the case with this name.
fn case(cases: &[Field], name: &str) -> Option<Shape> {
    cases.iter().find(|case| case.name == name).map(|case| case.shape)
}

fn names(fields: &[Field]) -> String {
    let settable = fields.iter().filter(|field| field.shape != Shape::Reserved);
    settable.map(|field| field.name).collect::<Vec<_>>().join(", ")
}

fn of_percent(percent: u32) -> f64 {
    f64::from(percent) / 100.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SHAPE: Shape = Shape::Table(&[
        field("on", Shape::Flag),
        field("count", Shape::Count(2)),
        field("share", Shape::Between(50, 100)),
        field(
            "kind",
            Shape::Typed(&[
                field("keyword", Shape::Table(&[field("is_tenant", Shape::Flag)])),
                field("text", Shape::Table(&[required("language", Shape::Line)])),
            ]),
        ),
        field("one", Shape::OneOf(&[field("a", Shape::Amount), field("b", Shape::Amount)])),
        field("threads", Shape::Either(&[Shape::Count(0), Shape::Word(&["auto"])])),
        field("names", Shape::Paths(&Shape::Line)),
        field("words", Shape::Either(&[Shape::Line, Shape::Table(&[field("custom", Shape::Lines)])])),
        field("size", Shape::Reserved),
    ]);

    fn read(value: &Json) -> Result<Json, Vec<String>> {
        let mut problems = Vec::new();
        let read = SHAPE.read(value, "t", &mut Report { origin: &Origin::Default, problems: &mut problems });
        assert_eq!(read.is_some(), problems.is_empty(), "{value}");
        read.ok_or_else(|| problems.iter().map(|problem| format!("{problem} → {}", problem.hint())).collect())
    }

    #[test]
    fn valid_value_gets_its_only_spelling() {
        for (given, expected) in [
            (json!({}), json!({})),
            (json!({"on": true, "count": null}), json!({"on": true})),
            (json!({"count": 2, "share": 0.5}), json!({"count": 2, "share": 0.5})),
            (json!({"share": 1}), json!({"share": 1})),
            (json!({"kind": "keyword"}), json!({"kind": {"type": "keyword"}})),
            (
                json!({"kind": {"is_tenant": true, "type": "keyword"}}),
                json!({"kind": {"type": "keyword", "is_tenant": true}}),
            ),
            (json!({"one": {"a": 1.5, "b": null}}), json!({"one": {"a": 1.5}})),
            (json!({"threads": "auto"}), json!({"threads": "auto"})),
            (json!({"threads": 4}), json!({"threads": 4})),
            (json!({"names": {"a.b": "c", "items[].d": "e"}}), json!({"names": {"a.b": "c", "items[].d": "e"}})),
            (json!({"words": {"custom": ["the"]}}), json!({"words": {"custom": ["the"]}})),
        ] {
            assert_eq!(read(&given), Ok(expected));
        }
    }

    #[test]
    fn every_problem_has_the_full_name_and_the_expected_form() {
        for (given, expected) in [
            (json!("x"), vec!["invalid t \"x\" (default): expected a table with any of on, count, share, kind"]),
            (json!({"on": 1}), vec!["invalid t.on 1 (default): expected true or false"]),
            (
                json!({"count": 1, "share": 0.4}),
                vec![
                    "invalid t.count 1 (default): expected an integer of at least 2",
                    "invalid t.share 0.4 (default): expected a number from 0.5 to 1",
                ],
            ),
            (
                json!({"kind": "keywort"}),
                vec!["invalid t.kind \"keywort\" (default): expected one of keyword, text, or"],
            ),
            (
                json!({"kind": {"is_tenant": true}}),
                vec!["invalid t.kind (table) (default): expected one of keyword, text"],
            ),
            (json!({"kind": {"type": 3}}), vec!["invalid t.kind.type 3 (default): expected one of keyword, text"]),
            (json!({"kind": "text"}), vec!["invalid t.kind (table) (default): expected a table with `language`"]),
            (
                json!({"kind": {"type": "keyword", "is_tenat": true}}),
                vec!["unknown setting `t.kind.is_tenat` (default) → did you mean `t.kind.is_tenant`?"],
            ),
            (
                json!({"kind": {"type": "keyword", "zzz": true}}),
                vec!["unknown setting `t.kind.zzz` (default) → expected one of is_tenant"],
            ),
            (json!({"one": {}}), vec!["invalid t.one (table) (default): expected a table with exactly one of a, b"]),
            (
                json!({"one": {"a": 1, "b": 1}}),
                vec!["invalid t.one (table) (default): expected a table with exactly one of a, b"],
            ),
            (
                json!({"threads": "all"}),
                vec!["invalid t.threads \"all\" (default): expected an integer, or one of \"auto\""],
            ),
            (json!({"names": {"a..b": "c"}}), vec!["invalid t.names \"a..b\" (default): expected field paths"]),
            (
                json!({"names": {"a": ["c"]}}),
                vec!["invalid t.names.a (array) (default): expected a non-empty single-line"],
            ),
            (json!({"words": {"costum": []}}), vec!["unknown setting `t.words.costum` (default) → did you mean"]),
            (json!({"size": 3}), vec!["invalid t.size 3 (default): expected no value: tidewheel sets it"]),
        ] {
            let found = read(&given).unwrap_err();
            assert_eq!(found.len(), expected.len(), "{given}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with(expected), "{given}: {found}");
            }
        }
    }

    #[test]
    fn invalid_value_that_may_be_a_secret_is_redacted() {
        let found = read(&json!({"on": "redis://:hunter2@cache"})).unwrap_err();
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
}
