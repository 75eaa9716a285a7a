//! Decodes change stream events from raw BSON.
//!
//! An event larger than a reply arrives as fragments, each with some of its fields; it is decoded when the last
//! fragment arrives, and only then does the position move past it.

use std::sync::Arc;

use tidewheel_core::change::Operation;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Readable, SourceEvent, SourceRow, Touched, Verdicts};
use tidewheel_core::version::ClusterTime;

use super::extjson::{self, Element, Elements, Form, Malformed};
use super::filters::Filters;
use super::keys::key_of;
use super::reduced::{self, REDUCED};
use super::selection::Selection;
use super::touched::{self, TOUCHED};

/// A decoded event.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Meaning {
    /// A change to emit.
    Change(SourceEvent),
    /// A collection was renamed.
    Renamed {
        /// The old name.
        from: Namespace,
        /// The new name.
        to: Namespace,
        /// The time of the rename.
        at: Moment,
    },
    /// The stream ends here and has to be reopened after this event.
    Invalidate,
    /// Ignored.
    Nothing,
}

/// A commit time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) time: ClusterTime,
    /// Milliseconds since the Unix epoch, by the server's clock.
    pub(super) wall: u64,
}

/// The relevant fields of an event, as raw BSON.
#[derive(Clone, Copy, Default)]
struct Fields<'a> {
    operation: Option<&'a str>,
    time: Option<u64>,
    wall: Option<u64>,
    namespace: Option<&'a [u8]>,
    to: Option<&'a [u8]>,
    key: Option<&'a [u8]>,
    document: Option<&'a [u8]>,
    /// The names of the fields that an update changed: see [`super::touched`].
    touched: Option<&'a [u8]>,
    /// Marks an event too large for MongoDB to deliver whole: see [`super::reduced`].
    reduced: Option<&'a [u8]>,
    /// Number of this fragment and number of fragments.
    fragment: Option<(i32, i32)>,
}

impl<'a> Fields<'a> {
    fn read(&mut self, event: &'a [u8]) -> Result<(), Malformed> {
        let mut elements = Elements::new(event)?;
        while let Some(element) = elements.next()? {
            match element.name {
                b"operationType" => self.operation = element.text(),
                b"clusterTime" => self.time = element.eight_bytes(),
                b"wallTime" => self.wall = element.eight_bytes(),
                b"ns" => self.namespace = element.document(),
                b"to" => self.to = element.document(),
                b"documentKey" => self.key = element.document(),
                // Null for an update whose document was gone at lookup.
                b"fullDocument" => self.document = element.document(),
                TOUCHED => self.touched = element.document(),
                REDUCED => self.reduced = element.document(),
                b"splitEvent" => {
                    let split = Elements::new(element.document().ok_or(Malformed("splitEvent is not a document"))?)?;
                    let number = |name| Ok(split.clone().find(name)?.and_then(|element| element.int32()));
                    self.fragment = number("fragment")?.zip(number("of")?);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn moment(&self) -> Result<Moment, Malformed> {
        let time = self.time.ok_or(Malformed("event without clusterTime"))?;
        let seconds = (time >> 32) as u32;
        // Servers before 6.0 do not send the wall clock; the cluster time holds its seconds.
        let wall = self.wall.unwrap_or(u64::from(seconds) * 1_000);
        Ok(Moment { time: ClusterTime { seconds, increment: time as u32 }, wall })
    }

    /// Interprets an event of this selection.
    fn meaning(&self, selection: &Selection) -> Result<Meaning, Malformed> {
        let operation = match self.operation.ok_or(Malformed("event without operationType"))? {
            "insert" => Operation::Insert,
            "update" => Operation::Update,
            "replace" => Operation::Replace,
            "delete" => Operation::Delete,
            "drop" => Operation::Drop,
            "rename" => {
                let (from, to) = (namespace(self.namespace, selection)?, namespace(self.to, selection)?);
                return Ok(Meaning::Renamed { from, to, at: self.moment()? });
            }
            "invalidate" => return Ok(Meaning::Invalidate),
            _ => return Ok(Meaning::Nothing),
        };
        let namespace = namespace(self.namespace, selection)?;
        let at = self.moment()?;
        if operation == Operation::Drop {
            return Ok(Meaning::Change(dropped(namespace, at)));
        }
        let too_large = self.reduced.filter(|_| operation.has_document()).map(|_| Err(reduced::TOO_LARGE.to_owned()));
        let document_key = match (self.key, self.reduced) {
            (Some(document_key), _) => document_key,
            // A document with such an `_id` is not in the index, so there is nothing to remove.
            (None, Some(_)) if operation == Operation::Delete => return Ok(Meaning::Nothing),
            (None, Some(left_out)) => {
                let key = reduced::key(left_out)?;
                return Ok(Meaning::Change(SourceEvent {
                    operation,
                    namespace,
                    id: key.clone(),
                    key,
                    shard: String::new(),
                    time: at.time,
                    committed_at: at.wall,
                    document: too_large,
                    verdicts: Verdicts::default(),
                    touched: Touched::All,
                }));
            }
            (None, None) => return Err(Malformed("event without documentKey")),
        };
        let (id, shard) = (id_of(document_key)?, shard_of(document_key)?);
        let document = self.document.filter(|_| operation.has_document());
        let (document, verdicts) = document.map(|document| judged(document, selection.filters())).unzip();
        Ok(Meaning::Change(SourceEvent {
            operation,
            namespace,
            key: key_of(&id)?,
            id: extjson::value(&id, Form::Relaxed)?,
            time: at.time,
            committed_at: at.wall,
            document: document.or(too_large),
            verdicts: verdicts.unwrap_or_default(),
            touched: self.touched(operation, &shard),
            shard,
        }))
    }

    /// The paths that the event changed, of a document with these fields in its key beside `_id`.
    fn touched(&self, operation: Operation, shard: &str) -> Touched {
        match operation {
            // A change of the shard key inserts a document that existed on another shard.
            Operation::Insert if shard.is_empty() => Touched::Nothing,
            Operation::Update => self.touched.map_or(Touched::All, touched::paths),
            _ => Touched::All,
        }
    }
}

/// The text of a document, or the reason why it is unreadable, and the verdicts on it.
fn judged(document: &[u8], filters: &Filters) -> (Readable, Verdicts) {
    match extjson::document(document, Form::Relaxed) {
        Ok(text) => (Ok(text), filters.judge(document)),
        Err(error) => (Err(error.to_string()), Verdicts::default()),
    }
}

/// The namespace in an event.
fn namespace(names: Option<&[u8]>, selection: &Selection) -> Result<Namespace, Malformed> {
    let elements = Elements::new(names.ok_or(Malformed("event without ns"))?)?;
    let name = |name| Ok::<_, Malformed>(elements.clone().find(name)?.and_then(|element| element.text()));
    let collection = name("coll")?.ok_or(Malformed("event without a collection in ns"))?;
    let database = selection.database(name("db")?.unwrap_or_default());
    if database.is_empty() {
        return Err(Malformed("event without a database in ns"));
    }
    Ok(Namespace::new(database, collection))
}

/// The fields of a document key beside `_id`.
fn shard_of(document_key: &[u8]) -> Result<String, Malformed> {
    let mut elements = Elements::new(document_key)?;
    let mut shard = String::new();
    while let Some(element) = elements.next()? {
        if element.name != b"_id" {
            shard += &format!("{}={};", String::from_utf8_lossy(element.name), key_of(&element)?);
        }
    }
    Ok(shard)
}

/// Decodes a document read by a scan or a lookup.
pub(super) fn row_of(bytes: &[u8], filters: &Filters) -> Result<SourceRow, Malformed> {
    let id = id_of(bytes)?;
    let (document, verdicts) = judged(bytes, filters);
    Ok(SourceRow { key: key_of(&id)?, id: extjson::value(&id, Form::Relaxed)?, document, verdicts })
}

/// The `_id` of a document or a document key.
pub(super) fn id_of(document: &[u8]) -> Result<Element<'_>, Malformed> {
    Elements::new(document)?.find("_id")?.ok_or(Malformed("document without _id"))
}

/// The event for a dropped collection.
pub(super) fn dropped(namespace: Namespace, at: Moment) -> SourceEvent {
    SourceEvent {
        operation: Operation::Drop,
        namespace,
        key: String::new(),
        id: String::new(),
        shard: String::new(),
        time: at.time,
        committed_at: at.wall,
        document: None,
        verdicts: Verdicts::default(),
        touched: Touched::All,
    }
}

/// The resume token of an event, as text.
pub(super) fn token(event: &[u8]) -> Result<String, Malformed> {
    let id = id_of(event)?;
    extjson::value(&id, Form::Canonical)
}

/// Approximate size in bytes of an event's resume token.
pub(super) fn token_size(event: &[u8]) -> Result<usize, Malformed> {
    Ok(id_of(event)?.value.len())
}

/// Decodes events in order and reassembles fragments.
#[derive(Debug)]
pub(super) struct Decoder {
    /// The selection whose events are read.
    selection: Arc<Selection>,
    /// Fragments of the incomplete event.
    fragments: Vec<Vec<u8>>,
    /// Whether an event was reduced since the last call of [`Self::take_reduced`].
    reduced: bool,
}

impl Decoder {
    pub(super) fn new(selection: Arc<Selection>) -> Self {
        Self { selection, fragments: Vec::new(), reduced: false }
    }

    /// Decodes an event; `None` if more of its fragments follow.
    pub(super) fn read(&mut self, event: &[u8]) -> Result<Option<Meaning>, Malformed> {
        let mut fields = Fields::default();
        fields.read(event)?;
        self.reduced |= fields.reduced.is_some();
        let Some((fragment, of)) = fields.fragment else {
            if self.fragments.is_empty() {
                return fields.meaning(&self.selection).map(Some);
            }
            return Err(Malformed("event starts before the last fragment of the previous one"));
        };
        if usize::try_from(fragment).ok() != Some(self.fragments.len() + 1) {
            return Err(Malformed("missing event fragment"));
        }
        if fragment < of {
            self.fragments.push(event.to_vec());
            return Ok(None);
        }
        let fragments = std::mem::take(&mut self.fragments);
        let mut fields = Fields::default();
        for fragment in fragments.iter().map(Vec::as_slice).chain([event]) {
            fields.read(fragment)?;
        }
        fields.meaning(&self.selection).map(Some)
    }

    /// Returns whether an event was reduced since the last call.
    pub(super) fn take_reduced(&mut self) -> bool {
        std::mem::take(&mut self.reduced)
    }

    /// Whether an event is incomplete; the position must not move then.
    pub(super) fn inside_an_event(&self) -> bool {
        !self.fragments.is_empty()
    }
}

#[cfg(test)]
mod tests;
