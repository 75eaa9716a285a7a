//! Encoding of records as fields of Redis stream entries.
//!
//! All fields are text readable in `redis-cli`, except vectors: these are little-endian `f32`, because as decimal text
//! they would be four times the size and dominate the cost of both streams.
//!
//! Each entry carries its format. A reader ignores unknown fields, so a release that only adds fields keeps the format; a
//! release whose entries an earlier one would misread raises it. Entries without a format have format 1: the releases
//! before the field wrote them.
//!
//! An entry that names targets has format 2. One that names none is written byte for byte as the releases before there
//! were targets wrote it.

mod letters;
mod reader;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use tidewheel_core::catalog::TargetId;
use tidewheel_core::change::{Change, Route, Stamp};
use tidewheel_core::embedded::{Embedded, Target, Vectors};
use tidewheel_core::ports::RecordError;

pub use letters::{ABOUT, encode_parked, found, letter};

use reader::{Reader, invalid};

/// The newest format that this release reads. It writes entries that name targets in this format.
pub const FORMAT: u32 = 2;

/// The format of entries that name no targets.
pub const PLAIN_FORMAT: u32 = 1;

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
        let mut fields = encode_change(self, if self.route == Route::Plain { PLAIN_FORMAT } else { FORMAT });
        add_route(&mut fields, &self.route);
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

/// Encodes a change without its route.
fn encode_change(change: &Change, format: u32) -> Fields<'_> {
    let mut fields: Fields<'_> = vec![
        ("format", owned(&format)),
        ("operation", Cow::Borrowed(change.operation.as_str().as_bytes())),
        ("namespace", Cow::Borrowed(change.namespace.as_str().as_bytes())),
        ("id", Cow::Borrowed(change.id.as_bytes())),
        ("key", Cow::Borrowed(change.key.as_bytes())),
        ("version", owned(&change.version)),
        ("committed_at", owned(&change.committed_at)),
    ];
    if let Some(document) = &change.document {
        fields.push(("document", Cow::Borrowed(document.as_bytes())));
    }
    fields
}

fn add_route(fields: &mut Fields<'_>, route: &Route) {
    if let Some(stamp) = route.stamp() {
        fields.push(("catalog", owned(&stamp.catalog)));
        fields.push(("targets", Cow::Owned(write_targets(&stamp.targets))));
        if !stamp.leaves.is_empty() {
            fields.push(("leaves", Cow::Owned(write_targets(&stamp.leaves))));
        }
    }
}

/// Encodes a list of targets, as the fields `targets` and `leaves` hold it.
pub fn write_targets(targets: &[TargetId]) -> Vec<u8> {
    serde_json::to_vec(targets).expect("a list of strings is JSON")
}

fn owned<'a>(value: &impl ToString) -> Cow<'a, [u8]> {
    Cow::Owned(value.to_string().into_bytes())
}

impl Record for Embedded {
    fn encode(&self) -> Fields<'_> {
        let plain = self.target.is_none() && self.change.route == Route::Plain;
        let mut fields = encode_change(&self.change, if plain { PLAIN_FORMAT } else { FORMAT });
        match &self.target {
            Some(target) => {
                fields.push(("catalog", owned(&target.catalog)));
                fields.push(("index", Cow::Borrowed(target.id.index.as_str().as_bytes())));
                fields.push(("generation", owned(&target.id.generation)));
                fields.push(("made", owned(&target.made)));
            }
            None => add_route(&mut fields, &self.change.route),
        }
        if !self.prefix.is_empty() {
            fields.push(("prefix", Cow::Borrowed(self.prefix.as_bytes())));
        }
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
        let target = match change.route.stamp() {
            Some(Stamp { catalog, targets, .. }) if reader.has("index") => {
                let id = targets.first().cloned().ok_or(RecordError::Missing("index"))?;
                Some(Target { catalog: *catalog, id, made: reader.parse("made")? })
            }
            _ => None,
        };
        if !change.operation.has_document() {
            return Ok(Self { target, ..Self::without_vectors(change) });
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
            target,
            prefix: reader.text_optional("prefix")?.unwrap_or_default(),
        })
    }
}
