//! Events of a change stream, from raw BSON.
//!
//! An event that is larger than a reply arrives as fragments, each with some of its fields; it is read from all of
//! them at once when the last is there, and only then does the position move past it.

use tidewheel_core::change::Operation;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Readable, SourceEvent, SourceRow};
use tidewheel_core::version::ClusterTime;

use super::extjson::{self, Element, Elements, Form, Malformed};
use super::keys::key_of;
use super::reduced::{self, REDUCED};

/// What one event means for us.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Meaning {
    /// A change to hand on.
    Change(SourceEvent),
    /// A collection was renamed.
    Renamed {
        /// What it was called.
        from: String,
        /// What it is called now.
        to: String,
        /// When.
        at: Moment,
    },
    /// The stream ends here and has to be opened again behind this event.
    Invalidate,
    /// Of no interest.
    Nothing,
}

/// When something was committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) time: ClusterTime,
    /// Milliseconds since the Unix epoch, by the server's clock.
    pub(super) wall: u64,
}

/// The fields of an event that matter, still as BSON.
#[derive(Clone, Copy, Default)]
struct Fields<'a> {
    operation: Option<&'a str>,
    time: Option<u64>,
    wall: Option<u64>,
    namespace: Option<&'a [u8]>,
    to: Option<&'a [u8]>,
    key: Option<&'a [u8]>,
    document: Option<&'a [u8]>,
    /// What was left out of an event that MongoDB could not deliver whole: see [`super::reduced`].
    reduced: Option<&'a [u8]>,
    /// Number of this fragment and of all.
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
                // It is null for an update whose document was gone when the server looked it up.
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
        let time = self.time.ok_or(Malformed("an event without clusterTime"))?;
        let seconds = (time >> 32) as u32;
        // Servers before 6.0 do not tell the wall clock; the cluster time has its seconds.
        let wall = self.wall.unwrap_or(u64::from(seconds) * 1_000);
        Ok(Moment { time: ClusterTime { seconds, increment: time as u32 }, wall })
    }

    /// The meaning of an event on this database. A router may say another name in the event: Atlas puts its own before it.
    fn meaning(&self, database: &str) -> Result<Meaning, Malformed> {
        let operation = match self.operation.ok_or(Malformed("an event without operationType"))? {
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
            // A document with such an `_id` is not in the index, and nothing of it has to be removed.
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
            (None, None) => return Err(Malformed("an event without documentKey")),
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

/// The text of a document, or why there is none.
fn readable(document: &[u8]) -> Readable {
    extjson::document(document, Form::Relaxed).map_err(|error| error.to_string())
}

fn collection(namespace: Option<&[u8]>) -> Result<&str, Malformed> {
    let elements = Elements::new(namespace.ok_or(Malformed("an event without ns"))?)?;
    let collection = elements.find("coll")?.and_then(|element| element.text());
    collection.ok_or(Malformed("an event whose ns does not name a collection"))
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

/// A document that a scan has read.
pub(super) fn row_of(document: &[u8]) -> Result<SourceRow, Malformed> {
    let id = id_of(document)?;
    Ok(SourceRow { key: key_of(&id)?, id: extjson::value(&id, Form::Relaxed)?, document: readable(document) })
}

/// The `_id` of a document or a document key.
pub(super) fn id_of(document: &[u8]) -> Result<Element<'_>, Malformed> {
    Elements::new(document)?.find("_id")?.ok_or(Malformed("a document without _id"))
}

/// The end of a collection.
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

/// The position of an event, as text.
pub(super) fn token(event: &[u8]) -> Result<String, Malformed> {
    let id = id_of(event)?;
    extjson::value(&id, Form::Canonical)
}

/// About how many bytes the position of an event has.
pub(super) fn token_size(event: &[u8]) -> Result<usize, Malformed> {
    Ok(id_of(event)?.value.len())
}

/// Reads events one after the other and puts fragments together.
#[derive(Debug)]
pub(super) struct Decoder {
    /// The database whose events are read.
    database: String,
    /// The fragments of the event that is not complete yet.
    fragments: Vec<Vec<u8>>,
    /// Whether an event was reduced since this was last asked.
    reduced: bool,
}

impl Decoder {
    pub(super) fn new(database: &str) -> Self {
        Self { database: database.to_owned(), fragments: Vec::new(), reduced: false }
    }

    /// What the event means; `None` if more of its fragments are to come.
    pub(super) fn read(&mut self, event: &[u8]) -> Result<Option<Meaning>, Malformed> {
        let mut fields = Fields::default();
        fields.read(event)?;
        self.reduced |= fields.reduced.is_some();
        let Some((fragment, of)) = fields.fragment else {
            if self.fragments.is_empty() {
                return fields.meaning(&self.database).map(Some);
            }
            return Err(Malformed("an event begins before the last fragment of the one before"));
        };
        if usize::try_from(fragment).ok() != Some(self.fragments.len() + 1) {
            return Err(Malformed("a fragment of an event is missing"));
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

    /// Whether an event was reduced since the last call.
    pub(super) fn has_met_a_reduced_event(&mut self) -> bool {
        std::mem::take(&mut self.reduced)
    }

    /// Whether an event is incomplete, so that the position must not move.
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
    fn an_insert_has_its_document() {
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
    fn a_prefixed_database_in_an_event_does_not_change_the_namespace() {
        // Atlas puts the name of the tenant before that of the database in some events.
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
    fn a_document_that_cannot_be_read_still_has_its_key() {
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
    fn an_update_of_a_document_that_is_gone_has_none() {
        let event = doc! {
            "_id": {"_data": "82"}, "operationType": "update", "clusterTime": AT, "fullDocument": null, "ns": ns(),
            "documentKey": {"_id": "k"},
        };
        let change = change(&event);
        assert_eq!((change.operation, change.document), (Operation::Update, None));
        assert_eq!(change.committed_at, 100_000, "without a wall clock, the cluster time's seconds");
    }

    #[test]
    fn the_end_of_a_collection() {
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
    fn fragments_become_one_event() {
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
    fn a_missing_fragment_is_noticed() {
        let fragment = |number: i32| doc! {"_id": {"_data": "1"}, "splitEvent": {"fragment": number, "of": 3}};
        let mut decoder = Decoder::new("shop");
        assert!(decoder.read(&fragment(2).to_vec().unwrap()).is_err());
        assert_eq!(decoder.read(&fragment(1).to_vec().unwrap()), Ok(None));
        assert!(decoder.inside_an_event());
        assert!(decoder.read(&fragment(3).to_vec().unwrap()).is_err());
    }
}
