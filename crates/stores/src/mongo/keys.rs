//! Keys and positions as text, and read back.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bson::{Bson, Document, RawDocumentBuf};
use tidewheel_core::error::PortError;
use tidewheel_core::key;

use super::extjson::{self, Element, Elements, Form, Malformed, UNMEASURED};

/// Stands before the byte of an escape while a key is read: no character of Unicode, so that hardly any text contains it.
const MARK: char = '\u{10FFFF}';

/// The [key](tidewheel_core::key) of a document with this `_id`.
pub(super) fn key_of(id: &Element<'_>) -> Result<String, Malformed> {
    let canonical = extjson::value(id, Form::Canonical)?;
    Ok(match key::canonical(&canonical) {
        std::borrow::Cow::Borrowed(_) => canonical,
        std::borrow::Cow::Owned(key) => key,
    })
}

/// An `_id` as BSON, byte by byte what the key stands for: its strings need not be UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawId {
    tag: u8,
    value: Vec<u8>,
}

impl RawId {
    /// The `_id` that this key stands for. MongoDB finds a number by its value, whatever its type.
    pub(super) fn parse(key: &str) -> Result<Self, PortError> {
        let is_exact = !key.contains("\\udc") && !key.contains(UNMEASURED);
        let id = parse_key(&if is_exact { key.into() } else { marked(key) })?;
        let bytes = bson::doc! { "_id": id }.to_vec().map_err(|error| unreadable(key, &error))?;
        let bytes = if is_exact { bytes } else { restored(&bytes).map_err(|error| unreadable(key, &error))? };
        // A length, the tag, the name with its zero, the value, and a zero.
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

    /// About how many bytes it takes in a command.
    pub(super) fn size(&self) -> usize {
        self.value.len() + 16
    }
}

/// The command with one more field, a document in BSON.
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

/// The key with each escape of a byte as [`MARK`] and the character of that number.
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
            // An escape of two characters, such as that of a backslash.
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

/// The document with the bytes that [`marked`] stands for.
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

/// The data of a binary value of subtype 2 without its inner length, if the element stands for one.
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

/// The value of this canonical extended JSON.
fn parse_key(key: &str) -> Result<Bson, PortError> {
    let value: serde_json::Value = serde_json::from_str(key).map_err(|error| unreadable(key, &error))?;
    Bson::try_from(value).map_err(|error| unreadable(key, &error))
}

fn unreadable(key: &str, error: &dyn std::fmt::Display) -> PortError {
    PortError::fatal(format!("invalid key {key}: expected canonical extended JSON: {error}"))
        .with_hint("a saved snapshot position is damaged: start the snapshot again")
}

/// The document that a resume token is.
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

    /// The key of a document, and the `_id` that is read back from it.
    fn there_and_back(document: &[u8]) -> (String, Vec<u8>) {
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
    fn keys_come_back_as_the_same_value() {
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
            let (key, back) = there_and_back(&document);
            assert_eq!(back, document, "{key}");
        }
        let long = bson::doc! {"_id": {"n": 7_i64}}.to_vec().unwrap();
        assert_eq!(there_and_back(&long).1, bson::doc! {"_id": {"n": 7_i32}}.to_vec().unwrap(), "the smallest type");
    }

    #[test]
    fn an_id_of_invalid_utf8_has_a_key_of_its_own() {
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
            let (key, back) = there_and_back(&with_string(text));
            assert_eq!(back, with_string(text), "{key}");
            assert!(keys.insert(key), "{text:?}");
        }
    }

    #[test]
    fn invalid_utf8_inside_a_compound_id_comes_back() {
        let mut inner = Builder::new();
        inner.add(STRING, b"caf\xe9", &[&2_i32.to_le_bytes()[..], b"\xe9\0"].concat());
        let mut list = Builder::new();
        list.add(STRING, b"0", &[&2_i32.to_le_bytes()[..], b"\x80\0"].concat());
        inner.add(ARRAY, b"list", &list.finish());
        let mut outer = Builder::new();
        outer.add(DOCUMENT, b"_id", &inner.finish());
        let document = outer.finish();
        assert_eq!(there_and_back(&document).1, document);
    }

    #[test]
    fn a_binary_id_without_its_inner_length_has_a_key_of_its_own() {
        let binary = |data: &[u8]| {
            let mut document = Builder::new();
            let length = i32::try_from(data.len()).unwrap();
            document.add(BINARY, b"_id", &[&length.to_le_bytes()[..], &[2], data].concat());
            document.finish()
        };
        let mut keys = std::collections::HashSet::new();
        for data in [&b""[..], b"abc", b"\x03\0\0\0abc", b"\x04\0\0\0abc", b"\xff\xff\xff\xff"] {
            let (key, back) = there_and_back(&binary(data));
            assert_eq!(back, binary(data), "{key}");
            assert!(keys.insert(key), "{data:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_of_a_string_come_back(text in prop::collection::vec(any::<u8>(), 0..40)) {
            let (key, back) = there_and_back(&with_string(&text));
            prop_assert_eq!(back, with_string(&text), "{}", key);
        }

        #[test]
        fn any_decimal_has_a_key(bits in any::<[u8; 16]>()) {
            let document = bson::doc! {"_id": bson::Decimal128::from_bytes(bits)}.to_vec().unwrap();
            let (key, back) = there_and_back(&document);
            let again = key_of(&super::super::event::id_of(&back).unwrap()).unwrap();
            prop_assert_eq!(key, again);
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "{", r#"{"$oid":"short"}"#] {
            assert!(RawId::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(parse_token("7"), None);
        assert!(parse_token(r#"{"_data":"8265"}"#).is_some());
    }
}
