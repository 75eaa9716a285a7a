//! Values that a dotted path denotes in a document.

use std::fmt;

use super::value::{Value, fields, find};
use crate::mongo::extjson::Kind;

/// A dotted path. Empty for conditions that apply to an array element itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Path(Vec<String>);

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// How a path that ends at an array continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    /// It denotes each element, then the array (manual: "Query an Array for an Element").
    Elements,
    /// It denotes the array only, as for `$size` and `$elemMatch`.
    Array,
}

/// A test of one denoted value; `None` is a missing field.
type Test<'a> = &'a dyn Fn(Option<Value<'_>>) -> bool;

impl Path {
    /// Parses a path. `None` if a name is empty: the server then gives arrays a meaning that the manual does not define.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let names: Vec<String> = text.split('.').map(str::to_owned).collect();
        names.iter().all(|name| !name.is_empty()).then_some(Self(names))
    }

    /// Whether a denoted value passes the test.
    pub(super) fn any(&self, document: &[u8], leaf: Leaf, test: Test<'_>) -> bool {
        in_document(document, &self.0, leaf, test)
    }
}

fn in_document(document: &[u8], names: &[String], leaf: Leaf, test: Test<'_>) -> bool {
    let Some((name, rest)) = names.split_first() else { return false };
    match find(document, name) {
        Some(Value { kind: Kind::Array, bytes }) => in_array(bytes, rest, leaf, test),
        Some(Value { kind: Kind::Document, bytes }) if !rest.is_empty() => in_document(bytes, rest, leaf, test),
        found if rest.is_empty() => test(found),
        // The value has no fields.
        _ => test(None),
    }
}

/// Continues a path in an array. A name denotes fields of the documents in it, and if it is a number, also the element
/// at that index (manual: "Query on Embedded/Nested Documents" and "Use the Array Index to Query for a Field").
///
/// Observed: elements that are not documents denote nothing, not even a missing field, so that `{"a.b": null}` does not
/// match `{a: [1]}`. Nested arrays are entered only by index, and an array at an index is not expanded to its elements.
fn in_array(array: &[u8], names: &[String], leaf: Leaf, test: Test<'_>) -> bool {
    let Some((name, rest)) = names.split_first() else {
        let whole = Value { kind: Kind::Array, bytes: array };
        let has_element = || fields(array).any(|(_, element)| test(Some(element)));
        return (leaf == Leaf::Elements && has_element()) || test(Some(whole));
    };
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    fields(array).any(|(index, element)| {
        let at_index = is_number && index == name.as_bytes();
        match element.kind {
            Kind::Document if in_document(element.bytes, names, leaf, test) => true,
            _ if !at_index => false,
            _ if rest.is_empty() => test(Some(element)),
            Kind::Document => in_document(element.bytes, rest, leaf, test),
            Kind::Array => in_array(element.bytes, rest, leaf, test),
            _ => false,
        }
    })
}
