//! Excerpts: the fields that the points of a long document carry.
//!
//! The first point carries all fields. The others omit values above 4 KiB, because a document of n bytes has about n /
//! 1,000 chunks: with all fields on each, its points would take n² / 1,000 bytes. Small fields stay on every point, so
//! that filters work on all chunks.

use serde_json::{Map, Value};

/// Maximum size in bytes of a value on points other than the first.
pub const LARGE_VALUE: usize = 4 << 10;

/// Maximum size in bytes of the fields on points other than the first; the smallest values are kept.
pub const EXCERPT: usize = 16 << 10;

/// Field of `_tidewheel` that lists the omitted fields; absent on a point with all fields.
pub const OMITTED: &str = "omitted";

/// Maximum number and length of names in [`OMITTED`]. Others are written as [`MORE`].
const NAMES: usize = 32;
const LONGEST_NAME: usize = 128;

/// Placeholder for omitted fields that are not listed.
pub const MORE: &str = "…";

/// The fields on every point but the first.
#[derive(Clone, Debug, PartialEq)]
pub struct Excerpt {
    /// The kept fields, in document order.
    pub fields: Map<String, Value>,
    /// Dotted paths of the omitted fields.
    pub omitted: Vec<String>,
}

/// Returns the excerpt of these fields; `None` if it contains all of them. Depends on names and values alone, not on
/// their order. Always includes `_id`. Arrays are kept or omitted as a whole.
pub fn excerpt(fields: &Map<String, Value>) -> Option<Excerpt> {
    let mut leaves = Vec::new();
    collect(fields, &mut Vec::new(), &mut leaves);
    leaves.sort_by(|a, b| (a.bytes, &a.path).cmp(&(b.bytes, &b.path)));
    let mut room = EXCERPT;
    let mut omitted: Vec<&[&str]> = Vec::new();
    for leaf in leaves.iter().filter(|leaf| leaf.path.first() != Some(&"_id")) {
        match room.checked_sub(leaf.bytes).filter(|_| leaf.bytes <= LARGE_VALUE) {
            Some(rest) => room = rest,
            None => omitted.push(&leaf.path),
        }
    }
    if omitted.is_empty() {
        return None;
    }
    omitted.sort_unstable();
    let kept = without(fields, &mut Vec::new(), &omitted);
    Some(Excerpt { fields: kept, omitted: named(&omitted) })
}

/// A value other than an object, or an empty object.
struct Leaf<'a> {
    path: Vec<&'a str>,
    bytes: usize,
}

fn collect<'a>(fields: &'a Map<String, Value>, path: &mut Vec<&'a str>, leaves: &mut Vec<Leaf<'a>>) {
    for (name, value) in fields {
        path.push(name);
        match value {
            Value::Object(inner) if !inner.is_empty() => collect(inner, path, leaves),
            value => {
                let bytes = path.iter().map(|name| name.len() + 4).sum::<usize>() + size(value);
                leaves.push(Leaf { path: path.clone(), bytes });
            }
        }
        path.pop();
    }
}

/// The fields without these leaves, whose paths are sorted. Objects that become empty are removed.
fn without<'a>(fields: &'a Map<String, Value>, path: &mut Vec<&'a str>, omitted: &[&[&'a str]]) -> Map<String, Value> {
    let mut kept = Map::new();
    for (name, value) in fields {
        path.push(name);
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                let inner = without(inner, path, omitted);
                if !inner.is_empty() {
                    kept.insert(name.clone(), Value::Object(inner));
                }
            }
            value if omitted.binary_search(&path.as_slice()).is_err() => {
                kept.insert(name.clone(), value.clone());
            }
            _ => {}
        }
        path.pop();
    }
    kept
}

fn named(omitted: &[&[&str]]) -> Vec<String> {
    let all = omitted.iter().map(|path| path.join("."));
    let mut names: Vec<String> = all.filter(|name| name.len() <= LONGEST_NAME).take(NAMES).collect();
    if names.len() < omitted.len() {
        names.push(MORE.to_owned());
    }
    names
}

/// Approximate size of a value in bytes.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(|value| 4 + size(value)).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| 4 + name.len() + size(value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Map<String, Value> {
        let Value::Object(fields) = value else { panic!("not an object") };
        fields
    }

    #[test]
    fn small_documents_are_kept_unchanged() {
        assert_eq!(excerpt(&fields(json!({"_id": 1, "subject": "Late", "tags": ["a", {"b": 1}], "empty": {}}))), None);
        assert_eq!(excerpt(&Map::new()), None);
        assert_eq!(excerpt(&fields(json!({"_id": "x".repeat(10_000)}))), None);
    }

    #[test]
    fn large_values_are_omitted_at_any_depth() {
        let (large, list) = ("x".repeat(5_000), vec!["item"; 1_000]);
        let document = json!({
            "_id": 1, "subject": "Late", "content": large, "lines": list,
            "customer": {"name": "Ada", "notes": large, "address": {"city": "Zürich"}},
            "attachment": {"bytes": large},
        });
        let found = excerpt(&fields(document)).unwrap();
        let kept = json!({"_id": 1, "subject": "Late", "customer": {"name": "Ada", "address": {"city": "Zürich"}}});
        assert_eq!(Value::Object(found.fields), kept);
        assert_eq!(found.omitted, ["attachment.bytes", "content", "customer.notes", "lines"]);
    }

    #[test]
    fn smallest_values_are_kept_up_to_the_limit() {
        let mut document = fields(json!({"_id": 1, "state": "open"}));
        for number in 0..100 {
            document.insert(format!("part{number:03}"), json!("x".repeat(3_000)));
        }
        let found = excerpt(&document).unwrap();
        assert_eq!(found.fields.keys().take(3).collect::<Vec<_>>(), ["_id", "state", "part000"]);
        assert_eq!(found.fields.len(), 2 + 5);
        assert_eq!((found.omitted.len(), found.omitted.last().unwrap().as_str()), (NAMES + 1, MORE));
    }

    proptest! {
        #[test]
        fn excerpt_is_bounded_and_independent_of_field_order(
            lengths in prop::collection::vec((0usize..6_000, 0usize..3), 0..40),
            shuffle in any::<prop::sample::Index>(),
        ) {
            let entries: Vec<_> = lengths.iter().enumerate().map(|(number, (length, depth))| {
                let value = (0..*depth).fold(json!("x".repeat(*length)), |value, level| json!({format!("l{level}"): value}));
                (format!("field{number}"), value)
            }).collect();
            let document: Map<String, Value> = entries.iter().cloned().collect();
            let mut rotated = entries;
            if !rotated.is_empty() {
                let by = shuffle.index(rotated.len());
                rotated.rotate_left(by);
            }
            let rotated: Map<String, Value> = rotated.into_iter().collect();
            let (found, other) = (excerpt(&document), excerpt(&rotated));
            prop_assert_eq!(&found, &other);
            let Some(found) = found else { return Ok(()) };
            prop_assert!(size(&Value::Object(found.fields.clone())) <= EXCERPT);
            for (name, value) in &found.fields {
                prop_assert_eq!(Some(value), document.get(name));
            }
        }
    }
}
