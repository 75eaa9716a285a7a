//! Dotted paths into plain JSON, such as `customer.name`, with MongoDB's array semantics.
//!
//! `comments.text` is the `text` of every element of `comments`, `items.0.name` the `name` of the first one. A field
//! whose name contains a dot matches by its full name too.

use serde_json::{Map, Value};

/// Returns the values at a path, in document order.
pub fn values<'a>(document: &'a Map<String, Value>, path: &str) -> Vec<&'a Value> {
    found(document, path).values
}

/// Returns a copy of the value at a path; `None` if there is none. The values of a path through all elements of an array
/// become an array, also a single one, so that their number does not decide the type of the result.
pub fn value(document: &Map<String, Value>, path: &str) -> Option<Value> {
    let Found { values, in_elements } = found(document, path);
    match values.as_slice() {
        [] => None,
        [value] if !in_elements => Some((*value).clone()),
        values => Some(values.iter().copied().cloned().collect()),
    }
}

/// The values at a path.
#[derive(Default)]
struct Found<'a> {
    values: Vec<&'a Value>,
    /// Whether the path leads to some of them through all elements of an array.
    in_elements: bool,
}

fn found<'a>(document: &'a Map<String, Value>, path: &str) -> Found<'a> {
    let mut found = Found::default();
    in_object(document, path, &mut found);
    found
}

fn in_object<'a>(fields: &'a Map<String, Value>, path: &str, found: &mut Found<'a>) {
    for (name, rest) in heads(path) {
        match (fields.get(name), rest) {
            (Some(value), None) => found.values.push(value),
            (Some(value), Some(rest)) => in_value(value, rest, found),
            (None, _) => {}
        }
    }
}

fn in_value<'a>(value: &'a Value, path: &str, found: &mut Found<'a>) {
    match value {
        Value::Object(fields) => in_object(fields, path, found),
        Value::Array(items) => {
            match element(path, items.len()) {
                Some((at, None)) => found.values.push(&items[at]),
                Some((at, Some(rest))) => in_value(&items[at], rest, found),
                None => {}
            }
            let before = found.values.len();
            items.iter().for_each(|item| in_value(item, path, found));
            found.in_elements |= found.values.len() > before;
        }
        _ => {}
    }
}

/// Removes the values at a path. A removed array element becomes null, so that the others keep their indexes.
pub fn remove(document: &mut Map<String, Value>, path: &str) {
    for (name, rest) in heads(path) {
        match rest {
            None => {
                document.shift_remove(name);
            }
            Some(rest) => {
                if let Some(value) = document.get_mut(name) {
                    remove_in(value, rest);
                }
            }
        }
    }
}

fn remove_in(value: &mut Value, path: &str) {
    match value {
        Value::Object(fields) => remove(fields, path),
        Value::Array(items) => {
            match element(path, items.len()) {
                Some((at, None)) => items[at] = Value::Null,
                Some((at, Some(rest))) => remove_in(&mut items[at], rest),
                None => {}
            }
            items.iter_mut().for_each(|item| remove_in(item, path));
        }
        _ => {}
    }
}

/// Returns the document reduced to these paths, with their enclosing objects and arrays.
pub fn keep<P: AsRef<str>>(document: Map<String, Value>, paths: &[P]) -> Map<String, Value> {
    let paths: Vec<&str> = paths.iter().map(AsRef::as_ref).collect();
    keep_in_object(document, &paths)
}

fn keep_in_object(fields: Map<String, Value>, paths: &[&str]) -> Map<String, Value> {
    let kept = fields.into_iter().filter_map(|(name, value)| {
        if paths.contains(&name.as_str()) {
            return Some((name, value));
        }
        let rests: Vec<&str> =
            paths.iter().filter_map(|path| path.strip_prefix(name.as_str())?.strip_prefix('.')).collect();
        let value = if rests.is_empty() { None } else { keep_in(value, &rests) };
        Some((name, value?))
    });
    kept.collect()
}

fn keep_in(value: Value, paths: &[&str]) -> Option<Value> {
    match value {
        Value::Object(fields) => Some(Value::Object(keep_in_object(fields, paths))),
        Value::Array(items) => {
            let length = items.len();
            let picks = |path: &str| element(path, usize::MAX).is_some();
            let kept = items.into_iter().enumerate().filter_map(|(at, item)| {
                let mut rests = paths.to_vec();
                for path in paths {
                    match element(path, length) {
                        Some((index, None)) if index == at => return Some(item),
                        Some((index, Some(rest))) if index == at => rests.push(rest),
                        _ => {}
                    }
                }
                // If all paths select elements by index, the other elements are dropped.
                let unwanted = rests.len() == paths.len() && paths.iter().all(|path| picks(path));
                if unwanted { None } else { keep_in(item, &rests) }
            });
            Some(Value::Array(kept.collect()))
        }
        _ => None,
    }
}

/// All ways to split a path into a leading field name and the rest.
fn heads(path: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let dots = path.match_indices('.').map(|(at, _)| (&path[..at], Some(&path[at + 1..])));
    dots.chain(std::iter::once((path, None)))
}

/// Splits a path into a leading index of an existing element and the rest.
fn element(path: &str, length: usize) -> Option<(usize, Option<&str>)> {
    let (index, rest) = match path.split_once('.') {
        Some((index, rest)) => (index, Some(rest)),
        None => (path, None),
    };
    let digits = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    let at = digits.then(|| index.parse().ok()).flatten()?;
    (at < length).then_some((at, rest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Map<String, Value> {
        let Value::Object(document) = json!({
            "_id": 1,
            "title": "Late",
            "customer": {"name": "Ada", "ssn": "078-05-1120", "address": {"city": "Bath"}},
            "comments": [{"text": "one", "by": {"ssn": "1"}}, {"by": {"ssn": "2"}}, "bare", {"text": "two"}],
            "matrix": [[{"x": 1}], [{"x": 2}]],
            "tags": ["a", "b"],
            "a.b": "dotted",
        }) else {
            unreachable!()
        };
        document
    }

    #[test]
    fn path_traverses_objects_arrays_and_indexes() {
        let document = document();
        for (path, expected) in [
            ("title", json!(["Late"])),
            ("customer.address.city", json!(["Bath"])),
            ("comments.text", json!(["one", "two"])),
            ("comments.by.ssn", json!(["1", "2"])),
            ("comments.0.text", json!(["one"])),
            ("comments.7.text", json!([])),
            ("tags.1", json!(["b"])),
            ("matrix.x", json!([1, 2])),
            ("matrix.0.0.x", json!([1])),
            ("a.b", json!(["dotted"])),
            ("customer.missing.deep", json!([])),
            ("title.deep", json!([])),
            ("", json!([])),
        ] {
            assert_eq!(json!(values(&document, path)), expected, "{path}");
        }
    }

    #[test]
    fn value_of_a_path_through_elements_is_an_array() {
        let document = document();
        for (path, expected) in [
            ("title", Some(json!("Late"))),
            ("customer.address", Some(json!({"city": "Bath"}))),
            ("tags", Some(json!(["a", "b"]))),
            ("tags.1", Some(json!("b"))),
            ("comments.0.text", Some(json!("one"))),
            ("comments.text", Some(json!(["one", "two"]))),
            ("matrix.0.0.x", Some(json!(1))),
            ("a.b", Some(json!("dotted"))),
            ("comments.7.text", None),
            ("customer.missing", None),
        ] {
            assert_eq!(value(&document, path), expected, "{path}");
        }
        let Value::Object(single) = json!({"orders": [{"total": 1}], "none": []}) else { unreachable!() };
        assert_eq!(value(&single, "orders.total"), Some(json!([1])));
        assert_eq!(value(&single, "none.total"), None);
    }

    #[test]
    fn removed_path_leaves_everything_else() {
        let removed = |path: &str| {
            let mut document = document();
            remove(&mut document, path);
            document
        };
        assert_eq!(removed("customer.ssn")["customer"], json!({"name": "Ada", "address": {"city": "Bath"}}));
        assert_eq!(
            removed("comments.by.ssn")["comments"],
            json!([{"text": "one", "by": {}}, {"by": {}}, "bare", {"text": "two"}])
        );
        assert_eq!(removed("comments.0.by")["comments"][0], json!({"text": "one"}));
        assert_eq!(removed("comments.0.by")["comments"][1], json!({"by": {"ssn": "2"}}));
        assert_eq!(removed("tags.0")["tags"], json!([null, "b"]));
        assert_eq!(removed("matrix.x")["matrix"], json!([[{}], [{}]]));
        assert!(!removed("a.b").contains_key("a.b"));
        assert_eq!(removed("customer.missing.deep"), document());
    }

    #[test]
    fn keep_returns_paths_with_enclosing_objects_only() {
        let kept = |paths: &[&str]| Value::Object(keep(document(), paths));
        assert_eq!(kept(&["title", "customer.name"]), json!({"title": "Late", "customer": {"name": "Ada"}}));
        assert_eq!(kept(&["comments.text"]), json!({"comments": [{"text": "one"}, {}, {"text": "two"}]}));
        assert_eq!(kept(&["comments.3"]), json!({"comments": [{"text": "two"}]}));
        assert_eq!(kept(&["comments.0.text"]), json!({"comments": [{"text": "one"}]}));
        assert_eq!(kept(&["matrix.x"]), json!({"matrix": [[{"x": 1}], [{"x": 2}]]}));
        assert_eq!(kept(&["a.b", "title.deep"]), json!({"a.b": "dotted"}));
        assert_eq!(kept(&["customer", "customer.name"])["customer"], document()["customer"]);
    }
}
