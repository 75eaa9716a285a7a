//! Resolved settings of the upserter.

use serde_json::{Map, Value};
use tidewheel_core::paths;

use crate::consumer::ConsumerOptions;
use crate::parking::OnDeadLetter;

/// Settings of the upserter.
#[derive(Clone, Debug)]
pub struct UpserterOptions {
    /// How entries are consumed from stage 2.
    pub consumer: ConsumerOptions,
    /// The fields of a document that its points carry.
    pub payload: PayloadOptions,
    /// Effect of a parked change on the indexed version.
    pub on_dead_letter: OnDeadLetter,
}

/// The fields of a document that its points carry, as [`paths`]. `_id` always stays whole.
#[derive(Clone, Debug, Default)]
pub struct PayloadOptions {
    /// Include only these paths; empty for all.
    pub include: Vec<String>,
    /// Exclude these paths, even if included.
    pub exclude: Vec<String>,
}

impl PayloadOptions {
    /// Returns the document without the fields that its points do not carry.
    pub fn select(&self, mut document: Map<String, Value>) -> Map<String, Value> {
        if self.include.is_empty() && self.exclude.is_empty() {
            return document;
        }
        let id = document.shift_remove_entry("_id");
        if !self.include.is_empty() {
            document = paths::keep(document, &self.include);
        }
        for path in &self.exclude {
            paths::remove(&mut document, path);
        }
        id.into_iter().chain(document).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn select(include: &[&str], exclude: &[&str], document: Value) -> Value {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let options = PayloadOptions { include: names(include), exclude: names(exclude) };
        let Value::Object(document) = document else { unreachable!() };
        Value::Object(options.select(document))
    }

    #[test]
    fn fields_are_included_and_excluded_but_the_id_stays() {
        let document = json!({"_id": {"a": 1, "secret": 2}, "a": 1, "b": 2, "c": 3});
        let names = |include: &[&str], exclude: &[&str]| {
            let selected = select(include, exclude, document.clone());
            assert_eq!(selected["_id"], document["_id"]);
            selected.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(&[], &[]), "_id a b c");
        assert_eq!(names(&["a", "b"], &["b", "_id"]), "_id a");
        assert_eq!(names(&[], &["c", "_id.secret"]), "_id a b");
    }

    #[test]
    fn dotted_paths_are_included_and_excluded_through_arrays() {
        let document = json!({
            "_id": 1,
            "customer": {"name": "Ada", "ssn": "078-05-1120"},
            "orders": [{"total": 1, "card": "4111"}, {"total": 2, "card": {"number": "4222"}}],
        });
        assert_eq!(
            select(&[], &["customer.ssn", "orders.card"], document.clone()),
            json!({"_id": 1, "customer": {"name": "Ada"}, "orders": [{"total": 1}, {"total": 2}]})
        );
        assert_eq!(
            select(&["customer", "orders.total"], &["customer.ssn"], document),
            json!({"_id": 1, "customer": {"name": "Ada"}, "orders": [{"total": 1}, {"total": 2}]})
        );
    }
}
