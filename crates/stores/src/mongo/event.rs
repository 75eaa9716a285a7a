//! Events of a change stream, from raw BSON.
//!
//! An event that is larger than a reply arrives as fragments, each with some of its fields; it is read from all of
//! them at once when the last is there, and only then does the position move past it.

use tidewheel_core::change::Operation;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::SourceEvent;
use tidewheel_core::version::ClusterTime;

use super::extjson::{self, Element, Elements, Form, Malformed};

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

    fn meaning(&self) -> Result<Meaning, Malformed> {
        let operation = match self.operation.ok_or(Malformed("an event without operationType"))? {
            "insert" => Operation::Insert,
            "update" => Operation::Update,
            "replace" => Operation::Replace,
            "delete" => Operation::Delete,
            "drop" => Operation::Drop,
            "rename" => {
                let (_, from) = names(self.namespace)?;
                let (_, to) = names(self.to)?;
                return Ok(Meaning::Renamed { from: from.to_owned(), to: to.to_owned(), at: self.moment()? });
            }
            "invalidate" => return Ok(Meaning::Invalidate),
            _ => return Ok(Meaning::Nothing),
        };
        let (database, collection) = names(self.namespace)?;
        let namespace = Namespace::new(database, collection);
        let at = self.moment()?;
        if operation == Operation::Drop {
            return Ok(Meaning::Change(dropped(namespace, at)));
        }
        let id = id_of(self.key.ok_or(Malformed("an event without documentKey"))?)?;
        Ok(Meaning::Change(SourceEvent {
            operation,
            namespace,
            key: extjson::value(&id, Form::Canonical)?,
            id: extjson::value(&id, Form::Relaxed)?,
            time: at.time,
            committed_at: at.wall,
            document: match self.document {
                Some(document) if operation.has_document() => Some(extjson::document(document, Form::Relaxed)?),
                _ => None,
            },
        }))
    }
}

fn names(namespace: Option<&[u8]>) -> Result<(&str, &str), Malformed> {
    let elements = Elements::new(namespace.ok_or(Malformed("an event without ns"))?)?;
    let text = |name| Ok(elements.clone().find(name)?.and_then(|element| element.text()));
    text("db")?.zip(text("coll")?).ok_or(Malformed("an event whose ns does not name a collection"))
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

/// Reads events one after the other and puts fragments together.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The fragments of the event that is not complete yet.
    fragments: Vec<Vec<u8>>,
}

impl Decoder {
    /// What the event means; `None` if more of its fragments are to come.
    pub(super) fn read(&mut self, event: &[u8]) -> Result<Option<Meaning>, Malformed> {
        let mut fields = Fields::default();
        fields.read(event)?;
        let Some((fragment, of)) = fields.fragment else {
            if self.fragments.is_empty() {
                return fields.meaning().map(Some);
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
        fields.meaning().map(Some)
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
        Decoder::default().read(&event.to_vec().unwrap()).unwrap().unwrap()
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
                key: r#"{"$numberLong":"5"}"#.into(),
                id: "5".into(),
                time: ClusterTime { seconds: 100, increment: 7 },
                committed_at: 100_250,
                document: Some(r#"{"_id":5,"a":"x"}"#.into()),
            }
        );
        assert_eq!(token(&event.to_vec().unwrap()).unwrap(), r#"{"_data":"82"}"#);
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
        let mut decoder = Decoder::default();
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
        assert_eq!(change.document.as_deref(), Some(r#"{"_id":1}"#));
        assert!(!decoder.inside_an_event());
    }

    #[test]
    fn a_missing_fragment_is_noticed() {
        let fragment = |number: i32| doc! {"_id": {"_data": "1"}, "splitEvent": {"fragment": number, "of": 3}};
        let mut decoder = Decoder::default();
        assert!(decoder.read(&fragment(2).to_vec().unwrap()).is_err());
        assert_eq!(decoder.read(&fragment(1).to_vec().unwrap()), Ok(None));
        assert!(decoder.inside_an_event());
        assert!(decoder.read(&fragment(3).to_vec().unwrap()).is_err());
    }
}
