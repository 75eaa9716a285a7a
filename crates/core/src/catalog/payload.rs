//! Which fields of a document its points carry.

use serde_json::{Map, Value};

use super::declaration::PayloadDeclaration;
use crate::paths;

impl PayloadDeclaration {
    /// Returns the fields of a document that its points carry, without the others and with their new names. A renamed
    /// field is at the top, and replaces a field of that name; the values of a path through an array become an array.
    pub fn select(&self, mut document: Map<String, Value>) -> Map<String, Value> {
        if self.include.is_empty() && self.exclude.is_empty() && self.rename.is_empty() {
            return document;
        }
        let id = document.shift_remove_entry("_id");
        if !self.include.is_empty() {
            document = paths::keep(document, &self.include);
        }
        for path in &self.exclude {
            paths::remove(&mut document, path);
        }
        let renamed: Vec<(&String, Value)> =
            self.rename.iter().filter_map(|(path, name)| Some((name, paths::value(&document, path)?))).collect();
        if !renamed.is_empty() {
            for path in self.rename.keys() {
                paths::remove(&mut document, path);
            }
            for (name, value) in renamed {
                document.shift_remove(name);
                document.insert(name.clone(), value);
            }
        }
        id.into_iter().chain(document).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn select(declaration: &PayloadDeclaration, document: Value) -> Value {
        let Value::Object(document) = document else { unreachable!() };
        Value::Object(declaration.select(document))
    }

    fn fields(include: &[&str], exclude: &[&str]) -> PayloadDeclaration {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        PayloadDeclaration { include: names(include), exclude: names(exclude), ..PayloadDeclaration::default() }
    }

    fn renamed(names: &[(&str, &str)]) -> PayloadDeclaration {
        let rename = names.iter().map(|(path, name)| ((*path).to_owned(), (*name).to_owned())).collect();
        PayloadDeclaration { rename, ..PayloadDeclaration::default() }
    }

    #[test]
    fn fields_are_included_and_excluded_but_the_id_stays() {
        let document = json!({"_id": {"a": 1, "secret": 2}, "a": 1, "b": 2, "c": 3});
        let names = |include: &[&str], exclude: &[&str]| {
            let selected = select(&fields(include, exclude), document.clone());
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
            select(&fields(&[], &["customer.ssn", "orders.card"]), document.clone()),
            json!({"_id": 1, "customer": {"name": "Ada"}, "orders": [{"total": 1}, {"total": 2}]})
        );
        assert_eq!(
            select(&fields(&["customer", "orders.total"], &["customer.ssn"]), document),
            json!({"_id": 1, "customer": {"name": "Ada"}, "orders": [{"total": 1}, {"total": 2}]})
        );
    }

    #[test]
    fn renamed_fields_move_to_the_top_and_replace_a_field_of_that_name() {
        let document = json!({
            "_id": 1,
            "customer": {"name": "Ada", "age": 36},
            "orders": [{"total": 1}, {"total": 2}],
            "state": "open",
        });
        assert_eq!(
            select(&renamed(&[("customer.name", "customer"), ("orders.total", "totals")]), document.clone()),
            json!({"_id": 1, "customer": "Ada", "orders": [{}, {}], "state": "open", "totals": [1, 2]})
        );
        let single = select(&renamed(&[("orders.total", "totals")]), json!({"_id": 1, "orders": [{"total": 3}]}));
        assert_eq!(single, json!({"_id": 1, "orders": [{}], "totals": [3]}), "an array, whatever its length");
        let swapped = renamed(&[("customer", "state"), ("state", "customer")]);
        let swapped = select(&swapped, document.clone());
        assert_eq!((&swapped["customer"], &swapped["state"]), (&json!("open"), &json!({"name": "Ada", "age": 36})));
        assert_eq!(select(&renamed(&[("missing", "state")]), document.clone()), document);
    }

    #[test]
    fn excluded_field_is_not_renamed() {
        let declaration = PayloadDeclaration { exclude: vec!["secret".into()], ..renamed(&[("secret", "known")]) };
        assert_eq!(select(&declaration, json!({"_id": 1, "secret": 2, "a": 3})), json!({"_id": 1, "a": 3}));
    }
}
