//! Converts raw BSON to extended JSON text, in one pass without an intermediate value tree.
//!
//! Every document that the producer handles passes here, so this is the hot path. The text matches that of MongoDB's
//! own drivers (extended JSON v2), with these decisions where the format is ambiguous:
//!
//! - strings and names that are not UTF-8 do not fail, because one such document must neither be lost nor stop the
//!   stream: invalid bytes become U+FFFD, and in the canonical form escapes of lone surrogates that hold the exact
//!   bytes;
//! - a binary value of subtype 2 without its inner length does not fail either: all its bytes are data;
//! - a name that occurs twice in a document is written twice;
//! - `NaN` has no sign.

mod reader;
mod writer;

pub(crate) use reader::{Element, Elements, Kind};
pub(crate) use writer::UNMEASURED;

/// Invalid BSON: a length past the end, an unknown type, or excessive nesting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed BSON: {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// The form of extended JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Numbers are numbers and dates are text: for people and JSON parsers.
    Relaxed,
    /// Preserves every type: for identity.
    Canonical,
}

/// Converts a whole document.
pub(crate) fn document(bytes: &[u8], form: Form) -> Result<String, Malformed> {
    // Relaxed text of ordinary documents is about as long as the BSON.
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 4 + 16);
    writer::document(&mut out, bytes, form, 0)?;
    into_text(out)
}

/// Converts one value.
pub(crate) fn value(element: &Element<'_>, form: Form) -> Result<String, Malformed> {
    let mut out = Vec::with_capacity(element.value.len() + 32);
    writer::value(&mut out, element.kind, element.value, form, 0)?;
    into_text(out)
}

fn into_text(out: Vec<u8>) -> Result<String, Malformed> {
    String::from_utf8(out).map_err(|_| Malformed("text is not UTF-8"))
}

#[cfg(test)]
mod tests;
