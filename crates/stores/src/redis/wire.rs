//! Encoding of records as fields of Redis stream entries.
//!
//! All fields are text readable in `redis-cli`, except vectors: these are little-endian `f32`, because as decimal text
//! they would be four times the size and dominate the cost of both streams.
//!
//! Each entry carries its format. A reader ignores unknown fields, so a release that only adds fields keeps the format; a
//! release whose entries an earlier one would misread raises it. Entries without a format have format 1: the releases
//! before the field wrote them.

use std::borrow::Cow;

use tidewheel_core::change::{Change, Operation};
use tidewheel_core::embedded::{Embedded, Vectors};
use tidewheel_core::identity::Namespace;
use tidewheel_core::key;
use tidewheel_core::ports::{EntryId, EntryState, FoundEntry, Letter, ParkedChange, ParkedReason, RecordError};
use tidewheel_core::stage::Stage;

use super::keys::RAW;

/// The format that this release writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// Fields of an entry to write.
pub type Fields<'a> = Vec<(&'static str, Cow<'a, [u8]>)>;

/// Fields of an entry as read, in entry order.
pub type RawFields = Vec<(Vec<u8>, Vec<u8>)>;

/// A record that is stored as one stream entry.
pub trait Record: Sized + Send + Sync + 'static {
    /// Encodes this record as fields.
    fn encode(&self) -> Fields<'_>;

    /// Decodes a record from fields. Unknown fields are ignored, so that a newer writer may add some.
    fn decode(fields: RawFields) -> Result<Self, RecordError>;
}

impl Record for Change {
    fn encode(&self) -> Fields<'_> {
        let mut fields: Fields<'_> = vec![
            ("format", Cow::Owned(FORMAT.to_string().into_bytes())),
            ("operation", Cow::Borrowed(self.operation.as_str().as_bytes())),
            ("namespace", Cow::Borrowed(self.namespace.as_str().as_bytes())),
            ("id", Cow::Borrowed(self.id.as_bytes())),
            ("key", Cow::Borrowed(self.key.as_bytes())),
            ("version", Cow::Owned(self.version.to_string().into_bytes())),
            ("committed_at", Cow::Owned(self.committed_at.to_string().into_bytes())),
        ];
        if let Some(document) = &self.document {
            fields.push(("document", Cow::Borrowed(document.as_bytes())));
        }
        fields
    }

    fn decode(fields: RawFields) -> Result<Self, RecordError> {
        let mut reader = Reader(fields);
        let change = reader.change()?;
        if change.operation.has_document() && change.document.is_none() {
            return Err(RecordError::Missing("document"));
        }
        Ok(change)
    }
}

/// Decodes a change that the producer parked: it has no document, even if its operation has one.
fn decode_parked(fields: RawFields) -> Result<Change, RecordError> {
    Reader(fields).change()
}

/// Fields appended to a parked entry, in order.
pub const ABOUT: [&str; 5] = ["stream", "entry", "reason", "attempts", "parked_at"];

/// Encodes the dead letter of a change that cannot be appended, as parsed by [`letter`].
pub fn encode_parked(parked: &ParkedChange, parked_at: u64) -> Fields<'_> {
    let mut fields = parked.change.encode();
    let about = [RAW.to_owned(), EntryId::zero().0, parked.reason.clone(), "1".to_owned(), parked_at.to_string()];
    fields.extend(ABOUT.into_iter().zip(about).map(|(name, value)| (name, Cow::Owned(value.into_bytes()))));
    fields
}

/// Parses a parked entry of `stage`. Missing fields stay empty, so that an operator can still inspect the entry.
pub fn letter(stage: Stage, id: EntryId, fields: RawFields) -> Letter {
    let text = |name: &str| {
        let value = fields.iter().rev().find(|(field, _)| field == name.as_bytes());
        value.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    };
    let (stream, entry, reason) = (text("stream"), EntryId(text("entry")), text("reason"));
    let (attempts, parked_at) = (text("attempts").parse().unwrap_or(0), text("parked_at").parse().unwrap_or(0));
    let former = !key::is_canonical(&text("key"));
    let record = match stage {
        Stage::Raw => decode_parked(fields).map(Embedded::without_vectors),
        Stage::Embedded => Embedded::decode(fields),
    };
    let reread = record
        .as_ref()
        .is_ok_and(|record| record.change.operation.has_document() && (former || record.change.document.is_none()));
    Letter { id, stream, entry, reason, attempts, parked_at, record, reread }
}

/// Fields of every change; the other fields of an entry describe its embedding.
const OF_CHANGE: [&str; 8] = ["format", "operation", "namespace", "id", "key", "version", "committed_at", "document"];

/// Parses an entry for an operator, whether it can be decoded or not.
pub fn found(id: EntryId, state: EntryState, fields: RawFields) -> FoundEntry {
    let text = |name: &str| {
        let value = fields.iter().find(|(field, _)| field == name.as_bytes());
        value.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    let parked = text("reason").map(|reason| ParkedReason {
        reason,
        parked_at: text("parked_at").and_then(|at| at.parse().ok()).unwrap_or(0),
    });
    let chunks = text("chunks").map(|chunks| {
        let chunks: Result<Vec<serde::de::IgnoredAny>, _> = serde_json::from_str(&chunks);
        chunks.map_or(0, |chunks| chunks.len())
    });
    let others = fields.iter().filter_map(|(name, value)| {
        let name = String::from_utf8_lossy(name);
        let of_embedding =
            !OF_CHANGE.contains(&&*name) && !ABOUT.contains(&&*name) && !["chunks", "vectors"].contains(&&*name);
        of_embedding.then(|| (name.into_owned(), String::from_utf8_lossy(value).into_owned()))
    });
    FoundEntry {
        namespace: text("namespace").unwrap_or_default(),
        key: text("key").unwrap_or_default(),
        is_drop: text("operation").as_deref() == Some(Operation::Drop.as_str()),
        chunks,
        embedding: others.collect(),
        change: if parked.is_some() { decode_parked(fields) } else { Change::decode(fields) },
        id,
        state,
        parked,
    }
}

impl Record for Embedded {
    fn encode(&self) -> Fields<'_> {
        let mut fields = self.change.encode();
        if !self.chunks.is_empty() {
            fields.push(("model", Cow::Borrowed(self.model.as_bytes())));
            fields.push(("revision", Cow::Borrowed(self.revision.as_bytes())));
            fields.push(("dimension", Cow::Owned(self.vectors.dimension().to_string().into_bytes())));
            let chunks = serde_json::to_vec(&self.chunks).expect("a list of strings is JSON");
            fields.push(("chunks", Cow::Owned(chunks)));
            let vectors = self.vectors.values().iter().flat_map(|value| value.to_le_bytes()).collect();
            fields.push(("vectors", Cow::Owned(vectors)));
            if self.unchanged {
                fields.push(("unchanged", Cow::Borrowed(b"1")));
            }
        }
        fields
    }

    fn decode(fields: RawFields) -> Result<Self, RecordError> {
        let mut reader = Reader(fields);
        let change = reader.change()?;
        if !change.operation.has_document() {
            return Ok(Self::without_vectors(change));
        }
        if change.document.is_none() {
            return Err(RecordError::Missing("document"));
        }
        let chunks: Vec<String> =
            serde_json::from_slice(&reader.take("chunks")?).map_err(|error| invalid("chunks", &error))?;
        let dimension = reader.parse("dimension")?;
        let bytes = reader.take("vectors")?;
        let (numbers, rest) = bytes.as_chunks::<4>();
        let vectors = Vectors::new(dimension, numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
            .filter(|vectors| rest.is_empty() && vectors.len() == chunks.len())
            .ok_or_else(|| {
                let (expected, found) = (chunks.len(), bytes.len());
                invalid(
                    "vectors",
                    &format!("expected {expected} vectors of dimension {dimension}, found {found} bytes"),
                )
            })?;
        Ok(Self {
            change,
            model: reader.text("model")?,
            // Records of earlier versions have no revision, so they match no other record.
            revision: reader.text_optional("revision")?.unwrap_or_default(),
            chunks,
            vectors,
            unchanged: reader.take_optional("unchanged").is_some(),
        })
    }
}

fn invalid(field: &'static str, cause: &(impl ToString + ?Sized)) -> RecordError {
    RecordError::Invalid { field, cause: cause.to_string() }
}

struct Reader(RawFields);

impl Reader {
    fn take_optional(&mut self, field: &'static str) -> Option<Vec<u8>> {
        let (_, value) = self.0.iter_mut().find(|(name, _)| name == field.as_bytes())?;
        Some(std::mem::take(value))
    }

    fn take(&mut self, field: &'static str) -> Result<Vec<u8>, RecordError> {
        self.take_optional(field).ok_or(RecordError::Missing(field))
    }

    fn text(&mut self, field: &'static str) -> Result<String, RecordError> {
        self.text_optional(field)?.ok_or(RecordError::Missing(field))
    }

    fn text_optional(&mut self, field: &'static str) -> Result<Option<String>, RecordError> {
        let text = self.take_optional(field).map(String::from_utf8).transpose();
        text.map_err(|error| invalid(field, &error))
    }

    fn parse<T: std::str::FromStr<Err: ToString>>(&mut self, field: &'static str) -> Result<T, RecordError> {
        self.text(field)?.parse().map_err(|error: T::Err| invalid(field, &error))
    }

    fn change(&mut self) -> Result<Change, RecordError> {
        if let Some(format) = self.text_optional("format")? {
            let found = format.parse::<u32>().map_err(|error| invalid("format", &error))?;
            if found > FORMAT {
                return Err(RecordError::Newer { found, supported: FORMAT });
            }
        }
        let operation: Operation = self.parse("operation")?;
        let namespace = self.text("namespace")?;
        let document = if operation.has_document() { self.text_optional("document")? } else { None };
        Ok(Change {
            operation,
            namespace: Namespace::parse(&namespace).ok_or_else(|| invalid("namespace", &format!("{namespace:?}")))?,
            id: self.text("id")?,
            // Entries written by an earlier release have keys of an earlier form.
            key: key::canonical(&self.text("key")?).into_owned(),
            version: self.parse("version")?,
            committed_at: self.parse("committed_at")?,
            document,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidewheel_core::version::{ClusterTime, Version};

    use super::*;

    fn as_read(fields: Fields<'_>) -> RawFields {
        fields.into_iter().map(|(name, value)| (name.as_bytes().to_vec(), value.into_owned())).collect()
    }

    fn change(operation: Operation, document: &str) -> Change {
        Change {
            operation,
            namespace: Namespace::new("shop", "tickets"),
            key: r#"{"$numberInt":"7"}"#.into(),
            id: "7".into(),
            version: Version {
                epoch: 0,
                time: ClusterTime { seconds: 1_700_000_000, increment: 3 },
                ordinal: 1,
                replay: 0,
            },
            committed_at: 1_700_000_000_123,
            document: operation.has_document().then(|| document.to_owned()),
        }
    }

    proptest! {
        #[test]
        fn records_round_trip(
            document in ".*",
            chunks in prop::collection::vec(".*", 1..5),
            seed in any::<f32>(),
            operation in prop::sample::select(&Operation::ALL[..]),
        ) {
            let change = change(operation, &document);
            prop_assert_eq!(Change::decode(as_read(change.encode())), Ok(change.clone()));
            let embedded = if operation.has_document() {
                let values = (0..chunks.len() * 3).map(|i| i as f32 + seed.abs().min(1e6)).collect();
                Embedded {
                    change,
                    model: "hash:3".into(),
                    revision: "1".into(),
                    vectors: Vectors::new(3, values).unwrap(),
                    unchanged: chunks.len() == 1,
                    chunks,
                }
            } else {
                Embedded::without_vectors(change)
            };
            prop_assert_eq!(Embedded::decode(as_read(embedded.encode())), Ok(embedded));
        }
    }

    #[test]
    fn entry_of_an_earlier_release_is_decoded_with_the_current_key() {
        let keys = [(r#"{"$numberLong":"7"}"#, r#"{"$numberInt":"7"}"#), ("\"7\"", "\"7\"")];
        for (former, present) in keys {
            let old = Change { key: former.into(), ..change(Operation::Insert, "{}") };
            assert_eq!(Change::decode(as_read(old.encode())).unwrap().key, present);
            let old = Embedded::without_vectors(Change { key: former.into(), ..change(Operation::Delete, "") });
            assert_eq!(Embedded::decode(as_read(old.encode())).unwrap().change.key, present);
        }
    }

    #[test]
    fn entry_without_format_is_decoded_and_newer_format_is_rejected() {
        let change = change(Operation::Insert, "{}");
        let mut fields = as_read(change.encode());
        let format = fields.iter().position(|(name, _)| name == b"format").unwrap();
        for newer in [FORMAT + 1, u32::MAX] {
            fields[format].1 = newer.to_string().into();
            let error = Change::decode(fields.clone()).unwrap_err();
            assert_eq!(error, RecordError::Newer { found: newer, supported: FORMAT });
            assert_eq!(decode_parked(fields.clone()), Err(error.clone()));
            assert_eq!(Embedded::decode(fields.clone()), Err(error));
        }
        fields.remove(format);
        assert_eq!(Change::decode(fields), Ok(change));
    }

    #[test]
    fn parked_change_decodes_without_document() {
        let parked = Change { document: None, ..change(Operation::Insert, "{}") };
        assert_eq!(decode_parked(as_read(parked.encode())), Ok(parked.clone()));
        assert_eq!(Change::decode(as_read(parked.encode())), Err(RecordError::Missing("document")));
        let embedded = Embedded::without_vectors(parked);
        assert_eq!(Embedded::decode(as_read(embedded.encode())), Err(RecordError::Missing("document")));
    }

    #[test]
    fn invalid_entry_error_names_the_field() {
        let good = as_read(change(Operation::Insert, "{}").encode());
        for (field, value) in
            [("operation", "explode"), ("namespace", "shop"), ("version", "1.2"), ("committed_at", "soon")]
        {
            let mut fields = good.clone();
            fields.iter_mut().find(|(name, _)| name == field.as_bytes()).unwrap().1 = value.into();
            assert!(Change::decode(fields).unwrap_err().to_string().contains(field));
            let without = good.iter().filter(|(name, _)| name != field.as_bytes()).cloned().collect();
            assert!(matches!(Change::decode(without), Err(RecordError::Missing(name)) if name == field));
        }
    }

    #[test]
    fn vectors_that_do_not_match_the_chunks_are_rejected() {
        let embedded = Embedded {
            change: change(Operation::Insert, "{}"),
            model: "hash:2".into(),
            chunks: vec!["a".into(), "b".into()],
            vectors: Vectors::new(2, vec![0.0; 4]).unwrap(),
            ..Embedded::without_vectors(change(Operation::Delete, ""))
        };
        let mut fields = as_read(embedded.encode());
        fields.iter_mut().find(|(name, _)| name == b"vectors").unwrap().1.truncate(12);
        let error = Embedded::decode(fields).unwrap_err().to_string();
        assert!(error.contains("expected 2 vectors of dimension 2, found 12 bytes"), "{error}");
    }
}
