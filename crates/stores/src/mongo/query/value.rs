//! Values as BSON bytes, so that documents with invalid UTF-8 are compared as the server compares them.

use crate::mongo::extjson::{Element, Elements, Kind};

/// A value in a document or a query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    pub(super) kind: Kind,
    pub(super) bytes: &'a [u8],
}

impl<'a> From<Element<'a>> for Value<'a> {
    fn from(element: Element<'a>) -> Self {
        Self { kind: element.kind, bytes: element.value }
    }
}

impl<'a> Value<'a> {
    /// The bytes of a value of fixed size.
    pub(super) fn fixed<const SIZE: usize>(self) -> [u8; SIZE] {
        self.bytes.try_into().unwrap_or([0; SIZE])
    }

    /// The bytes of a string, a symbol or JavaScript code.
    pub(super) fn text(self) -> &'a [u8] {
        text(self.bytes)
    }

    /// Pattern and options of a regular expression.
    pub(super) fn regex(self) -> (&'a [u8], &'a [u8]) {
        let mut parts = self.bytes.split(|byte| *byte == 0);
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    }

    /// Code and scope of JavaScript code with scope.
    pub(super) fn code_with_scope(self) -> (&'a [u8], &'a [u8]) {
        // Layout: total length, length of the code with its zero, code, zero, scope.
        let rest = self.bytes.get(4..).unwrap_or_default();
        let length = rest.first_chunk().map_or(0, |four| usize::try_from(i32::from_le_bytes(*four)).unwrap_or(0));
        let (code, scope) = rest.split_at_checked(length.saturating_add(4)).unwrap_or_default();
        (text(code), scope)
    }
}

/// The bytes between a length and the final zero.
fn text(bytes: &[u8]) -> &[u8] {
    match bytes.get(4..) {
        Some([text @ .., 0]) => text,
        _ => &[],
    }
}

/// An owned value of a query.
#[derive(Clone, Debug)]
pub(super) struct Operand {
    kind: Kind,
    bytes: Vec<u8>,
}

impl Operand {
    pub(super) fn value(&self) -> Value<'_> {
        Value { kind: self.kind, bytes: &self.bytes }
    }
}

impl From<Value<'_>> for Operand {
    fn from(value: Value<'_>) -> Self {
        Self { kind: value.kind, bytes: value.bytes.to_vec() }
    }
}

/// Names and values of a document or an array, in order, up to the first malformed one.
pub(super) fn fields(document: &[u8]) -> Fields<'_> {
    Fields(Elements::new(document).ok())
}

/// See [`fields`].
pub(super) struct Fields<'a>(Option<Elements<'a>>);

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let element = self.0.as_mut()?.next().ok().flatten()?;
        Some((element.name, element.into()))
    }
}

/// The first field with this name: MongoDB stores documents in which a name occurs twice.
pub(super) fn find<'a>(document: &'a [u8], name: &str) -> Option<Value<'a>> {
    fields(document).find(|(other, _)| *other == name.as_bytes()).map(|(_, value)| value)
}
