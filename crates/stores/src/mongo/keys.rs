//! Conversion of keys and resume tokens to and from text.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bson::{Bson, Document, RawDocumentBuf};
use tidewheel_core::error::PortError;
use tidewheel_core::key;

use super::extjson::{self, Element, Elements, Form, Malformed, UNMEASURED};

/// Precedes the byte of an escape while a key is parsed: a Unicode noncharacter, which hardly any text contains.
const MARK: char = '\u{10FFFF}';

/// The [key](tidewheel_core::key) of a document with this `_id`.
pub(super) fn key_of(id: &Element<'_>) -> Result<String, Malformed> {
    let canonical = extjson::value(id, Form::Canonical)?;
    Ok(match key::canonical(&canonical) {
        std::borrow::Cow::Borrowed(_) => canonical,
        std::borrow::Cow::Owned(key) => key,
    })
}

/// The exact BSON of an `_id`: its strings may be invalid UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawId {
    tag: u8,
    value: Vec<u8>,
}

impl RawId {
    /// Parses a key. MongoDB matches a number by value, regardless of its type.
    pub(super) fn parse(key: &str) -> Result<Self, PortError> {
        let is_exact = !key.contains("\\udc") && !key.contains(UNMEASURED);
        let id = parse_key(&if is_exact { key.into() } else { marked(key) })?;
        let bytes = bson::doc! { "_id": id }.to_vec().map_err(|error| unreadable(key, &error))?;
        let bytes = if is_exact { bytes } else { restored(&bytes).map_err(|error| unreadable(key, &error))? };
        // Layout: length, tag, name with its zero, value, zero.
        let (tag, value) = (bytes[4], bytes[9..bytes.len() - 1].to_vec());
        Ok(Self { tag, value })
    }

    /// `{_id: {$in: […]}}`
    pub(super) fn any_of(ids: &[Self]) -> Vec<u8> {
        let mut list = Builder::new();
        for (at, id) in ids.iter().enumerate() {
            list.add(id.tag, at.to_string().as_bytes(), &id.value);
        }
        let mut one_of = Builder::new();
        one_of.add(ARRAY, b"$in", &list.finish());
        let mut filter = Builder::new();
        filter.add(DOCUMENT, b"_id", &one_of.finish());
        filter.finish()
    }

    /// `{_id: …}`
    pub(super) fn alone(&self) -> Vec<u8> {
        let mut document = Builder::new();
        document.add(self.tag, b"_id", &self.value);
        document.finish()
    }

    /// Approximate bytes in a command.
    pub(super) fn size(&self) -> usize {
        self.value.len() + 16
    }
}

/// `{$and: […]}` of raw BSON documents.
pub(super) fn all_of(conditions: &[&[u8]]) -> Vec<u8> {
    let mut list = Builder::new();
    for (at, condition) in conditions.iter().enumerate() {
        list.add(DOCUMENT, at.to_string().as_bytes(), condition);
    }
    let mut all = Builder::new();
    all.add(ARRAY, b"$and", &list.finish());
    all.finish()
}

/// Adds a raw BSON document as a field to the command.
pub(super) fn with_field(
    command: &Document,
    name: &str,
    document: &[u8],
) -> Result<RawDocumentBuf, bson::error::Error> {
    let bytes = command.to_vec()?;
    let mut all = Builder { bytes: bytes[..bytes.len() - 1].to_vec() };
    all.add(DOCUMENT, name.as_bytes(), document);
    RawDocumentBuf::from_bytes(all.finish())
}

const STRING: u8 = 0x02;
const DOCUMENT: u8 = 0x03;
const ARRAY: u8 = 0x04;
const BINARY: u8 = 0x05;

/// Writes BSON element by element.
struct Builder {
    bytes: Vec<u8>,
}

impl Builder {
    fn new() -> Self {
        Self { bytes: vec![0; 4] }
    }

    fn add(&mut self, tag: u8, name: &[u8], value: &[u8]) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.bytes.extend_from_slice(value);
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.push(0);
        let length = i32::try_from(self.bytes.len()).unwrap_or(i32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_le_bytes());
        self.bytes
    }
}

/// Replaces each byte escape of the key by [`MARK`] and the character of that number.
fn marked(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    let mut rest = key;
    while let Some(first) = rest.chars().next() {
        let byte = rest.strip_prefix("\\udc").and_then(|hex| u8::from_str_radix(hex.get(..2)?, 16).ok());
        let taken = match (first, byte) {
            ('\\', Some(byte)) => {
                out.extend([MARK, char::from(byte)]);
                6
            }
            // A two-character escape, such as an escaped backslash.
            ('\\', None) => {
                let taken = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                out.push_str(&rest[..taken]);
                taken
            }
            (MARK, _) => {
                out.extend([MARK, 'x']);
                first.len_utf8()
            }
            (other, _) => {
                out.push(other);
                other.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    out
}

/// Restores the bytes that [`marked`] encoded.
fn restored(document: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut out = Builder::new();
    let mut elements = Elements::new(document)?;
    while let Some(element) = elements.next()? {
        let name = unmarked(element.name);
        if let Some(text) = element.string() {
            let mut text = unmarked(text);
            text.push(0);
            let length = i32::try_from(text.len()).unwrap_or(i32::MAX);
            out.add(STRING, &name, &[&length.to_le_bytes()[..], &text].concat());
        } else if let Some(data) = unmeasured(&element)? {
            let length = i32::try_from(data.len()).unwrap_or(i32::MAX);
            out.add(BINARY, &name, &[&length.to_le_bytes()[..], &[2], &data].concat());
        } else if let Some(inner) = element.document() {
            out.add(element.tag, &name, &restored(inner)?);
        } else {
            out.add(element.tag, &name, element.value);
        }
    }
    Ok(out.finish())
}

/// The data of a binary value of subtype 2 without inner length, if the element encodes one.
fn unmeasured(element: &Element<'_>) -> Result<Option<Vec<u8>>, Malformed> {
    let Some(outer) = element.document() else { return Ok(None) };
    let Some(inner) = Elements::new(outer)?.find(UNMEASURED)?.and_then(|inner| inner.document()) else {
        return Ok(None);
    };
    let data = Elements::new(inner)?.find("base64")?.and_then(|data| data.text());
    Ok(data.and_then(|data| BASE64_STANDARD.decode(data).ok()))
}

fn unmarked(text: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(text) else { return text.to_vec() };
    let mut out = Vec::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let marked = if character == MARK { characters.next() } else { None };
        match marked.map(u32::from) {
            Some(byte @ 0x80..=0xFF) => out.extend(u8::try_from(byte)),
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out
}

/// Parses canonical extended JSON.
fn parse_key(key: &str) -> Result<Bson, PortError> {
    let value: serde_json::Value = serde_json::from_str(key).map_err(|error| unreadable(key, &error))?;
    Bson::try_from(value).map_err(|error| unreadable(key, &error))
}

fn unreadable(key: &str, error: &dyn std::fmt::Display) -> PortError {
    PortError::fatal(format!("invalid key {key}: expected canonical extended JSON: {error}"))
        .with_hint("the saved snapshot position is damaged: restart the snapshot")
}

/// Parses a resume token, which is a document.
pub(super) fn parse_token(token: &str) -> Option<Document> {
    match parse_key(token).ok()? {
        Bson::Document(document) => Some(document),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The key of a document, and the `_id` parsed from it.
    fn round_trip(document: &[u8]) -> (String, Vec<u8>) {
        let id = super::super::event::id_of(document).unwrap();
        let key = key_of(&id).unwrap();
        let back = RawId::parse(&key).unwrap().alone();
        (key, back)
    }

    fn with_string(text: &[u8]) -> Vec<u8> {
        let length = i32::try_from(text.len() + 1).unwrap();
        let mut document = Builder::new();
        document.add(STRING, b"_id", &[&length.to_le_bytes()[..], text, &[0]].concat());
        document.finish()
    }

    #[test]
    fn conditions_are_joined() {
        let conditions = [bson::doc! { "a": 1 }, bson::doc! { "b": { "$gt": 2 } }];
        let bytes = conditions.clone().map(|condition| condition.to_vec().unwrap());
        let all = all_of(&[&bytes[0], &bytes[1]]);
        assert_eq!(all, bson::doc! { "$and": conditions.to_vec() }.to_vec().unwrap());
    }

    #[test]
    fn keys_round_trip() {
        let keys = [
            Bson::Int32(1),
            Bson::Int64(1 << 40),
            Bson::Double(1.5),
            Bson::Double(f64::NEG_INFINITY),
            Bson::String("1".into()),
            Bson::String("\u{10FFFF}\u{FFFD}\\udcff".into()),
            Bson::Null,
            Bson::Boolean(true),
            Bson::DateTime(bson::DateTime::from_millis(-62_135_596_800_000)),
            Bson::ObjectId(bson::oid::ObjectId::from_bytes([7; 12])),
            Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![9; 16] }),
            Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::UuidOld, bytes: vec![9; 16] }),
            Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::BinaryOld, bytes: vec![9; 3] }),
            Bson::Document(bson::doc! {"b": 1_i64 << 40, "a": {"c": 1.5}}),
            Bson::Decimal128("0.1".parse().unwrap()),
            Bson::Decimal128("1E+6144".parse().unwrap()),
        ];
        for id in keys {
            let document = bson::doc! {"_id": id}.to_vec().unwrap();
            let (key, back) = round_trip(&document);
            assert_eq!(back, document, "{key}");
        }
        let long = bson::doc! {"_id": {"n": 7_i64}}.to_vec().unwrap();
        assert_eq!(round_trip(&long).1, bson::doc! {"_id": {"n": 7_i32}}.to_vec().unwrap(), "the smallest type");
    }

    #[test]
    fn invalid_utf8_ids_have_distinct_keys() {
        let texts: [&[u8]; 7] = [
            b"caf\xe9",
            b"caf\xe8",
            "caf\u{FFFD}".as_bytes(),
            b"caf\\udce9",
            b"\xff\xfe",
            b"\xc3",
            "\u{10FFFF}\u{e9}".as_bytes(),
        ];
        let mut keys = std::collections::HashSet::new();
        for text in texts {
            let (key, back) = round_trip(&with_string(text));
            assert_eq!(back, with_string(text), "{key}");
            assert!(keys.insert(key), "{text:?}");
        }
    }

    #[test]
    fn invalid_utf8_in_compound_id_round_trips() {
        let mut inner = Builder::new();
        inner.add(STRING, b"caf\xe9", &[&2_i32.to_le_bytes()[..], b"\xe9\0"].concat());
        let mut list = Builder::new();
        list.add(STRING, b"0", &[&2_i32.to_le_bytes()[..], b"\x80\0"].concat());
        inner.add(ARRAY, b"list", &list.finish());
        let mut outer = Builder::new();
        outer.add(DOCUMENT, b"_id", &inner.finish());
        let document = outer.finish();
        assert_eq!(round_trip(&document).1, document);
    }

    #[test]
    fn binary_ids_without_inner_length_have_distinct_keys() {
        let binary = |data: &[u8]| {
            let mut document = Builder::new();
            let length = i32::try_from(data.len()).unwrap();
            document.add(BINARY, b"_id", &[&length.to_le_bytes()[..], &[2], data].concat());
            document.finish()
        };
        let mut keys = std::collections::HashSet::new();
        for data in [&b""[..], b"abc", b"\x03\0\0\0abc", b"\x04\0\0\0abc", b"\xff\xff\xff\xff"] {
            let (key, back) = round_trip(&binary(data));
            assert_eq!(back, binary(data), "{key}");
            assert!(keys.insert(key), "{data:?}");
        }
    }

    proptest! {
        #[test]
        fn any_string_bytes_round_trip(text in prop::collection::vec(any::<u8>(), 0..40)) {
            let (key, back) = round_trip(&with_string(&text));
            prop_assert_eq!(back, with_string(&text), "{}", key);
        }

        #[test]
        fn any_decimal_has_a_stable_key(bits in any::<[u8; 16]>()) {
            let document = bson::doc! {"_id": bson::Decimal128::from_bytes(bits)}.to_vec().unwrap();
            let (key, back) = round_trip(&document);
            let again = key_of(&super::super::event::id_of(&back).unwrap()).unwrap();
            prop_assert_eq!(key, again);
        }
    }

    #[test]
    fn invalid_keys_are_rejected() {
        for text in ["", "{", r#"{"$oid":"short"}"#] {
            assert!(RawId::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(parse_token("7"), None);
        assert!(parse_token(r#"{"_data":"8265"}"#).is_some());
    }
}
