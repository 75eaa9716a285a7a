//! Walks the elements of a BSON document (bsonspec.org, version 1.1) without copying or decoding their values.

use super::Malformed;

/// The type of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Double,
    String,
    Document,
    Array,
    Binary,
    Undefined,
    ObjectId,
    Boolean,
    DateTime,
    Null,
    Regex,
    DbPointer,
    Code,
    Symbol,
    CodeWithScope,
    Int32,
    Timestamp,
    Int64,
    Decimal128,
    MaxKey,
    MinKey,
}

impl Kind {
    fn of(tag: u8) -> Option<Self> {
        Some(match tag {
            0x01 => Self::Double,
            0x02 => Self::String,
            0x03 => Self::Document,
            0x04 => Self::Array,
            0x05 => Self::Binary,
            0x06 => Self::Undefined,
            0x07 => Self::ObjectId,
            0x08 => Self::Boolean,
            0x09 => Self::DateTime,
            0x0A => Self::Null,
            0x0B => Self::Regex,
            0x0C => Self::DbPointer,
            0x0D => Self::Code,
            0x0E => Self::Symbol,
            0x0F => Self::CodeWithScope,
            0x10 => Self::Int32,
            0x11 => Self::Timestamp,
            0x12 => Self::Int64,
            0x13 => Self::Decimal128,
            0x7F => Self::MaxKey,
            0xFF => Self::MinKey,
            _ => return None,
        })
    }

    /// Size in bytes of the value at the start of `rest`.
    fn size(self, rest: &[u8]) -> Result<usize, Malformed> {
        Ok(match self {
            Self::Undefined | Self::Null | Self::MaxKey | Self::MinKey => 0,
            Self::Boolean => 1,
            Self::Int32 => 4,
            Self::Double | Self::DateTime | Self::Timestamp | Self::Int64 => 8,
            Self::ObjectId => 12,
            Self::Decimal128 => 16,
            // Their length includes itself.
            Self::Document | Self::Array | Self::CodeWithScope => length(rest)?,
            Self::String | Self::Code | Self::Symbol => length(rest)?.saturating_add(4),
            Self::Binary => length(rest)?.saturating_add(5),
            Self::DbPointer => length(rest)?.saturating_add(16),
            Self::Regex => {
                let pattern = terminated(rest)?.len() + 1;
                pattern + terminated(&rest[pattern..])?.len() + 1
            }
        })
    }
}

/// One name and value of a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) kind: Kind,
    /// The type byte.
    pub(crate) tag: u8,
    /// The name, possibly invalid UTF-8.
    pub(crate) name: &'a [u8],
    /// The value's bytes, with the length that its type requires.
    pub(crate) value: &'a [u8],
}

impl<'a> Element<'a> {
    /// The text of a string, if it is one and UTF-8.
    pub(crate) fn text(&self) -> Option<&'a str> {
        self.string().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The bytes of a string, if it is one.
    pub(crate) fn string(&self) -> Option<&'a [u8]> {
        if self.kind == Kind::String { string(self.value).ok() } else { None }
    }

    /// The number, if it is a 64-bit integer, a date or a timestamp.
    pub(crate) fn eight_bytes(&self) -> Option<u64> {
        matches!(self.kind, Kind::Int64 | Kind::DateTime | Kind::Timestamp)
            .then(|| self.value.try_into().ok().map(u64::from_le_bytes))
            .flatten()
    }

    /// The number, if it is a 32-bit integer.
    pub(crate) fn int32(&self) -> Option<i32> {
        (self.kind == Kind::Int32).then(|| self.value.try_into().ok().map(i32::from_le_bytes)).flatten()
    }

    /// The bytes of a document or an array, if it is one.
    pub(crate) fn document(&self) -> Option<&'a [u8]> {
        matches!(self.kind, Kind::Document | Kind::Array).then_some(self.value)
    }
}

/// The elements of a document or an array, in order.
#[derive(Clone, Debug)]
pub(crate) struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    /// Opens a document that fills `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes.split_last() {
            Some((0, rest)) if rest.len() >= 4 && length(rest)? == bytes.len() => Ok(Self { rest: &rest[4..] }),
            _ => Err(Malformed("document length mismatch")),
        }
    }

    /// Whether all elements are read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next element; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Element<'a>>, Malformed> {
        let Some((tag, rest)) = self.rest.split_first() else { return Ok(None) };
        let kind = Kind::of(*tag).ok_or(Malformed("unknown element type"))?;
        let name = terminated(rest)?;
        let rest = &rest[name.len() + 1..];
        let size = kind.size(rest)?;
        if size > rest.len() {
            return Err(Malformed("value exceeds its document"));
        }
        let (value, rest) = rest.split_at(size);
        self.rest = rest;
        Ok(Some(Element { kind, tag: *tag, name, value }))
    }

    /// The first element with this name.
    pub(crate) fn find(mut self, name: &str) -> Result<Option<Element<'a>>, Malformed> {
        while let Some(element) = self.next()? {
            if element.name == name.as_bytes() {
                return Ok(Some(element));
            }
        }
        Ok(None)
    }
}

/// The bytes of a string: between its length and its final zero.
pub(super) fn string(value: &[u8]) -> Result<&[u8], Malformed> {
    match value.get(4..) {
        Some([text @ .., 0]) => Ok(text),
        _ => Err(Malformed("unterminated string")),
    }
}

/// The bytes before the first zero.
pub(super) fn terminated(bytes: &[u8]) -> Result<&[u8], Malformed> {
    bytes.iter().position(|byte| *byte == 0).map(|end| &bytes[..end]).ok_or(Malformed("unterminated name"))
}

/// The 32-bit length at the start.
pub(super) fn length(bytes: &[u8]) -> Result<usize, Malformed> {
    bytes
        .first_chunk()
        .and_then(|four| usize::try_from(i32::from_le_bytes(*four)).ok())
        .ok_or(Malformed("missing or negative length"))
}
