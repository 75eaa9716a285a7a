//! Raw BSON to extended JSON text, in one pass and without a value tree in between.
//!
//! Every document that the producer handles passes here, so this is the hot path. The text is the same as the one
//! that MongoDB's own drivers write (extended JSON v2), with these decisions where the format leaves room:
//!
//! - strings and names that are not UTF-8 do not fail, for one such document must neither be lost nor stop the stream: they get
//!   U+FFFD in place of what cannot be read, and in the canonical form the exact bytes as escapes of lone surrogates;
//! - nor does a binary value of subtype 2 without its inner length: its data is all that there is;
//! - a name that occurs twice in a document is written twice;
//! - `NaN` has no sign.

mod reader;
mod writer;

pub(crate) use reader::{Element, Elements};
pub(crate) use writer::UNMEASURED;

/// Bytes that are not BSON: a length runs past the end, a type does not exist, or the nesting has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed BSON: {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Which of the two forms of extended JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Numbers are numbers and dates are text: for people and for what reads JSON.
    Relaxed,
    /// Every type is told apart: for identity.
    Canonical,
}

/// The text of a whole document.
pub(crate) fn document(bytes: &[u8], form: Form) -> Result<String, Malformed> {
    // Relaxed text of ordinary documents is about as long as the BSON; names and punctuation make up for the rest.
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 4 + 16);
    writer::document(&mut out, bytes, form, 0)?;
    into_text(out)
}

/// The text of one value.
pub(crate) fn value(element: &Element<'_>, form: Form) -> Result<String, Malformed> {
    let mut out = Vec::with_capacity(element.value.len() + 32);
    writer::value(&mut out, element.kind, element.value, form, 0)?;
    into_text(out)
}

fn into_text(out: Vec<u8>) -> Result<String, Malformed> {
    String::from_utf8(out).map_err(|_| Malformed("a text is not UTF-8"))
}

#[cfg(test)]
mod tests;
