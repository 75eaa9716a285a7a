//! Decodes change stream events from raw BSON.
//!
//! An event larger than a reply arrives as fragments, each with some of its fields; it is decoded when the last
//! fragment arrives, and only then does the position move past it.

use tidewheel_core::change::Operation;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Readable, SourceEvent, SourceRow};
use tidewheel_core::version::ClusterTime;

use super::extjson::{self, Element, Elements, Form, Malformed};
use super::keys::key_of;
use super::reduced::{self, REDUCED};

/// A decoded event.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Meaning {
    /// A change to emit.
    Change(SourceEvent),
    /// A collection was renamed.
    Renamed {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
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

    /// Interprets an event on this database. A router may report another name in the event: Atlas adds a prefix.
    fn meaning(&self, database: &str) -> Result<Meaning, Malformed> {
        let operation = match self.operation.ok_or(Malformed("event without operationType"))? {
            "insert" => Operation::Insert,
            "update" => Operation::Update,
            "replace" => Operation::Replace,
            "delete" => Operation::Delete,
            "drop" => Operation::Drop,
            "rename" => {
                let (from, to) = (collection(self.namespace)?, collection(self.to)?);
                return Ok(Meaning::Renamed { from: from.to_owned(), to: to.to_owned(), at: self.moment()? });
            }
            "invalidate" => return Ok(Meaning::Invalidate),
            _ => return Ok(Meaning::Nothing),
        };
        let namespace = Namespace::new(database, collection(self.namespace)?);
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
                }));
            }
            (None, None) => return Err(Malformed("event without documentKey")),
        };
        let id = id_of(document_key)?;
        Ok(Meaning::Change(SourceEvent {
            operation,
            namespace,
            key: key_of(&id)?,
            id: extjson::value(&id, Form::Relaxed)?,
            shard: shard_of(document_key)?,
            time: at.time,
            committed_at: at.wall,
            document: self.document.filter(|_| operation.has_document()).map(readable).or(too_large),
        }))
    }
}

/// The text of a document, or the reason why it is unreadable.
fn readable(document: &[u8]) -> Readable {
    extjson::document(document, Form::Relaxed).map_err(|error| error.to_string())
}

fn collection(namespace: Option<&[u8]>) -> Result<&str, Malformed> {
    let elements = Elements::new(namespace.ok_or(Malformed("event without ns"))?)?;
    let collection = elements.find("coll")?.and_then(|element| element.text());
    collection.ok_or(Malformed("event without a collection in ns"))
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

/// Decodes a document read by a scan.
pub(super) fn row_of(document: &[u8]) -> Result<SourceRow, Malformed> {
    let id = id_of(document)?;
    Ok(SourceRow { key: key_of(&id)?, id: extjson::value(&id, Form::Relaxed)?, document: readable(document) })
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
    /// The database whose events are read.
    database: String,
    /// Fragments of the incomplete event.
    fragments: Vec<Vec<u8>>,
    /// Whether an event was reduced since the last call of [`Self::take_reduced`].
    reduced: bool,
}

impl Decoder {
    pub(super) fn new(database: &str) -> Self {
        Self { database: database.to_owned(), fragments: Vec::new(), reduced: false }
    }

    /// Decodes an event; `None` if more of its fragments follow.
    pub(super) fn read(&mut self, event: &[u8]) -> Result<Option<Meaning>, Malformed> {
        let mut fields = Fields::default();
        fields.read(event)?;
        self.reduced |= fields.reduced.is_some();
        let Some((fragment, of)) = fields.fragment else {
            if self.fragments.is_empty() {
                return fields.meaning(&self.database).map(Some);
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
        fields.meaning(&self.database).map(Some)
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
mod tests {
    use bson::{Document, Timestamp, doc};

    use super::*;

    const AT: Timestamp = Timestamp { time: 100, increment: 7 };

    fn read(event: &Document) -> Meaning {
        Decoder::new("shop").read(&event.to_vec().unwrap()).unwrap().unwrap()
    }

    fn change(event: &Document) -> SourceEvent {
        match read(event) {
            Meaning::Change(change) => change,
            other => panic!("{other:?}"),
        }
    }

    fn ns() -> Document {
        doc! {"db": "shop", "coll": "tickets"}
    }

    #[test]
    fn insert_event_carries_its_document() {
        let event = doc! {
            "_id": {"_data": "82"}, "operationType": "insert", "clusterTime": AT,
            "wallTime": bson::DateTime::from_millis(100_250), "fullDocument": {"_id": 5_i64, "a": "x"}, "ns": ns(),
            "documentKey": {"shard": "s", "_id": 5_i64},
        };
        assert_eq!(
            change(&event),
            SourceEvent {
                operation: Operation::Insert,
                namespace: Namespace::new("shop", "tickets"),
                key: r#"{"$numberInt":"5"}"#.into(),
                id: "5".into(),
                shard: r#"shard="s";"#.into(),
                time: ClusterTime { seconds: 100, increment: 7 },
                committed_at: 100_250,
                document: Some(Ok(r#"{"_id":5,"a":"x"}"#.into())),
            }
        );
        assert_eq!(token(&event.to_vec().unwrap()).unwrap(), r#"{"_data":"82"}"#);
    }

    #[test]
    fn prefixed_database_name_does_not_change_namespace() {
        // Atlas prefixes the database name with the tenant name in some events.
        for database in ["shop", "5f2b_shop", "", "other"] {
            let ns = doc! {"db": database, "coll": "tickets"};
            let event = doc! {
                "_id": {"_data": "82"}, "operationType": "delete", "clusterTime": AT, "ns": ns.clone(), "documentKey": {"_id": 1},
            };
            assert_eq!(change(&event).namespace, Namespace::new("shop", "tickets"));
            let drop = doc! {"_id": {"_data": "82"}, "operationType": "drop", "clusterTime": AT, "ns": ns};
            assert_eq!(change(&drop).namespace, Namespace::new("shop", "tickets"));
        }
    }

    #[test]
    fn event_with_malformed_document_keeps_its_key() {
        let mut event = doc! {
            "_id": {"_data": "82"}, "operationType": "insert", "clusterTime": AT, "fullDocument": {"_id": 1, "x": true},
            "ns": ns(), "documentKey": {"_id": 1},
        }
        .to_vec()
        .unwrap();
        let at = event.windows(3).position(|bytes| bytes == b"\x08x\0").unwrap();
        event[at] = 0x42;
        let Ok(Some(Meaning::Change(change))) = Decoder::new("shop").read(&event) else { panic!("no event") };
        assert_eq!(change.key, r#"{"$numberInt":"1"}"#);
        assert!(change.document.unwrap().unwrap_err().contains("malformed BSON"));
    }

    #[test]
    fn update_of_deleted_document_has_no_document() {
        let event = doc! {
            "_id": {"_data": "82"}, "operationType": "update", "clusterTime": AT, "fullDocument": null, "ns": ns(),
            "documentKey": {"_id": "k"},
        };
        let change = change(&event);
        assert_eq!((change.operation, change.document), (Operation::Update, None));
        assert_eq!(change.committed_at, 100_000, "without a wall clock, the cluster time's seconds");
    }

    #[test]
    fn drop_rename_and_invalidate_events_are_decoded() {
        let drop = doc! {"_id": {"_data": "82"}, "operationType": "drop", "clusterTime": AT, "ns": ns()};
        assert_eq!(change(&drop).operation, Operation::Drop);
        let rename = doc! {
            "_id": {"_data": "82"}, "operationType": "rename", "clusterTime": AT, "ns": ns(),
            "to": {"db": "shop", "coll": "old"},
        };
        assert!(matches!(read(&rename), Meaning::Renamed { from, to, .. } if from == "tickets" && to == "old"));
        let whole =
            doc! {"_id": {"_data": "82"}, "operationType": "dropDatabase", "clusterTime": AT, "ns": {"db": "shop"}};
        assert_eq!(read(&whole), Meaning::Nothing);
        let invalidate = doc! {"_id": {"_data": "82"}, "operationType": "invalidate", "clusterTime": AT};
        assert_eq!(read(&invalidate), Meaning::Invalidate);
    }

    #[test]
    fn fragments_are_reassembled_into_one_event() {
        let mut decoder = Decoder::new("shop");
        let first = doc! {
            "_id": {"_data": "1"}, "splitEvent": {"fragment": 1, "of": 3}, "operationType": "update",
            "clusterTime": AT, "ns": ns(),
        };
        let second = doc! {"_id": {"_data": "2"}, "splitEvent": {"fragment": 2, "of": 3}, "documentKey": {"_id": 1}};
        let third = doc! {"_id": {"_data": "3"}, "splitEvent": {"fragment": 3, "of": 3}, "fullDocument": {"_id": 1}};
        let mut read = |event: &Document| decoder.read(&event.to_vec().unwrap());
        assert_eq!(read(&first), Ok(None));
        assert_eq!(read(&second), Ok(None));
        let Ok(Some(Meaning::Change(change))) = read(&third) else { panic!("no event") };
        assert_eq!(change.document, Some(Ok(r#"{"_id":1}"#.into())));
        assert!(!decoder.inside_an_event());
    }

    #[test]
    fn missing_fragment_is_an_error() {
        let fragment = |number: i32| doc! {"_id": {"_data": "1"}, "splitEvent": {"fragment": number, "of": 3}};
        let mut decoder = Decoder::new("shop");
        assert!(decoder.read(&fragment(2).to_vec().unwrap()).is_err());
        assert_eq!(decoder.read(&fragment(1).to_vec().unwrap()), Ok(None));
        assert!(decoder.inside_an_event());
        assert!(decoder.read(&fragment(3).to_vec().unwrap()).is_err());
    }
}
