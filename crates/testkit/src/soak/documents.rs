//! Generated documents: every kind of `_id`, texts of every length.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Decimal128, Document, Timestamp, doc};
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use super::endpoint::MARKER;

/// The indexed database.
pub(super) const DATABASE: &str = "soak";
/// Its indexed collections; the last one is small and is dropped from time to time.
pub(super) const COLLECTIONS: [&str; 4] = ["tickets", "notes", "things", "scratch"];
/// Index of the droppable collection in [`COLLECTIONS`].
pub(super) const SCRATCH: usize = 3;
/// With declared indexes, the database of one of the collections.
pub(super) const SECOND_DATABASE: &str = "crm";
/// Index of the collection in [`SECOND_DATABASE`] in [`COLLECTIONS`].
pub(super) const MOVED: usize = 2;
/// An indexed collection of documents whose `_id` is invalid UTF-8. Each has one chunk and a unique `serial`.
pub(super) const UNDECODABLE: &str = "undecodable";
/// A collection that must not be indexed.
pub(super) const FOREIGN: &str = "private";

const WORDS: [&str; 16] = [
    "parcel",
    "invoice",
    "customer",
    "delivery.",
    "telephone",
    "warehouse",
    "refund!",
    "Adresse",
    "größer",
    "日本語",
    "extraordinarily",
    "morning,",
    "contract",
    "a",
    "🙂",
    "line\n",
];

/// With declared indexes, the values of the field `status`, by which one of them filters.
pub(super) const STATUSES: [&str; 4] = ["open", "draft", "urgent", "closed"];

/// Every singleton `_id`: MongoDB compares numbers by value, so NaN is one of them.
pub(super) fn single_ids() -> Vec<Bson> {
    vec![
        Bson::Boolean(true),
        Bson::Boolean(false),
        Bson::Null,
        Bson::Double(f64::NAN),
        Bson::String(String::new()),
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Document(doc! {}),
    ]
}

/// Returns a new `_id` of any kind, unique per number.
pub(super) fn id(rng: &mut StdRng, number: i32) -> Bson {
    let wide = i64::from(number);
    match rng.random_range(0..14) {
        0..3 => Bson::Int32(number),
        3 => Bson::Int64(wide),
        4 => Bson::Int64(wide + (1 << 53)),
        5 => Bson::Double(f64::from(number)),
        6 => Bson::Double(f64::from(number) + 0.25),
        7 => Bson::String(format!("ticket/{number} \"ü\"")),
        8 => Bson::ObjectId(ObjectId::from_bytes(bytes(number))),
        9 => Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: bytes::<16>(number).into() }),
        10 => Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: bytes::<5>(number).into() }),
        // Before and after 1970.
        11 => Bson::DateTime(DateTime::from_millis((wide - 500) * 86_400_123)),
        12 => Bson::Document(doc! { "region": "eu", "number": number, "deep": { "flag": number % 2 == 0 } }),
        _ => match number % 2 {
            0 => Bson::Decimal128(format!("{number}.50").parse::<Decimal128>().expect("a number")),
            _ => Bson::Timestamp(Timestamp { time: number.unsigned_abs(), increment: 1 }),
        },
    }
}

/// Encodes the number in the last bytes of the array.
fn bytes<const LENGTH: usize>(number: i32) -> [u8; LENGTH] {
    let mut bytes = [0xa5; LENGTH];
    bytes[LENGTH - 4..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Returns the same `_id` as another number type: MongoDB compares numbers by value.
pub(super) fn twin(id: &Bson) -> Option<Bson> {
    match id {
        Bson::Int32(number) => Some(Bson::Int64(i64::from(*number))),
        Bson::Int64(number) => i32::try_from(*number).ok().map(|number| Bson::Double(f64::from(number))),
        #[expect(clippy::cast_possible_truncation, reason = "whole and small: see `id`")]
        Bson::Double(number) if number.fract() == 0.0 => Some(Bson::Int32(*number as i32)),
        _ => None,
    }
}

/// Field of documents that cannot be indexed.
pub(super) const POISON: &str = "poison";

/// The `_id` of poison of this kind.
pub(super) fn poison_id(hostile: Hostile, number: i32) -> String {
    format!("{POISON}/{}/{number}", if hostile == Hostile::Unembeddable { "text" } else { "deep" })
}

/// The explanation of a dead letter with this document, and the expected reasons; `None` if it is none of the poison.
/// Under faults the last attempt of several may remain without a response.
pub(super) fn expected_reasons(document: &str) -> Option<(&'static str, &'static [&'static str])> {
    if document.contains(&format!("{POISON}/text/")) {
        Some(("unembeddable text", &["returned 500", "no response from the embedder"]))
    } else if document.contains(&format!("{POISON}/deep/")) {
        Some(("nested too deep", &["levels of nested"]))
    } else {
        None
    }
}

/// The command that inserts a document with an invalid UTF-8 `_id`.
pub(super) fn undecodable(serial: i64) -> Vec<u8> {
    const PLACE: &str = "????";
    let document = doc! { "_id": format!("{PLACE}/{serial}"), "serial": serial, "subject": format!("Odd {serial}") };
    let command = doc! { "insert": UNDECODABLE, "documents": [document] };
    let mut bytes = command.to_vec().expect("a document");
    let at = bytes.windows(PLACE.len()).position(|window| window == PLACE.as_bytes()).expect("it is there");
    bytes[at..at + PLACE.len()].copy_from_slice(b"\xe8\xff/\xc3");
    bytes
}

/// Maximum nesting that Qdrant stores. MongoDB stores deeper documents.
const DEEPEST: usize = 120;

/// A kind of document that is hard to process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hostile {
    /// Nested up to Qdrant's limit.
    Deep,
    /// A large value outside all chunks, and a text of many chunks.
    Huge,
    /// Control characters, escape sequences and names that look like operators or paths.
    Strange,
    /// Nested deeper than Qdrant stores: has to be parked.
    Poison,
    /// A text for which the embedder answers 500: has to be parked.
    Unembeddable,
    /// An `_id` of invalid UTF-8, in a separate collection.
    Undecodable,
}

impl Hostile {
    pub(super) const ALL: [Self; 6] =
        [Self::Deep, Self::Huge, Self::Strange, Self::Poison, Self::Unembeddable, Self::Undecodable];

    /// Whether it cannot be indexed.
    pub(super) fn is_poison(self) -> bool {
        matches!(self, Self::Poison | Self::Unembeddable)
    }

    /// Its row in the report.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Deep => "insert deep",
            Self::Huge => "insert huge",
            Self::Strange => "insert strange",
            Self::Poison => "insert poison",
            Self::Unembeddable => "insert unembeddable",
            Self::Undecodable => "insert undecodable",
        }
    }
}

/// Makes a document hostile.
pub(super) fn make_hostile(document: &mut Document, hostile: Hostile, rng: &mut StdRng, serial: u64) {
    match hostile {
        Hostile::Deep => {
            let depth = rng.random_range(33..=DEEPEST - 1);
            document.insert("body", nested(rng, depth));
        }
        Hostile::Huge => {
            let bytes = vec![0x5a; rng.random_range(100_000..600_000)];
            document.insert("blob", Binary { subtype: BinarySubtype::Generic, bytes });
            let paragraphs: Vec<String> = (0..4).map(|_| text(rng, Length::Long, serial)).collect();
            document.insert("content", paragraphs.join("\n"));
        }
        Hostile::Strange => {
            document
                .insert("content", format!("\u{1b}]52;c;c29haw==\u{7} {serial} \u{1b}[2J\u{0}\u{9b}31m \u{202e}txet"));
            document.insert("", "a field without a name");
            document.insert("$set", doc! { "a.b": serial.to_string(), "": [Bson::Null, 1] });
        }
        Hostile::Poison => {
            document.insert(POISON, true);
            document.insert("body", nested(rng, DEEPEST + 30));
        }
        Hostile::Unembeddable => {
            document.insert(POISON, true);
            document.insert("content", format!("{MARKER} {serial}"));
        }
        // See `undecodable`.
        Hostile::Undecodable => {}
    }
}

/// Builds nested objects and arrays with this many levels.
fn nested(rng: &mut StdRng, levels: usize) -> Bson {
    (0..levels).fold(Bson::String("core".to_owned()), |inner, _| {
        if rng.random_bool(0.3) { Bson::Array(vec![inner]) } else { Bson::Document(doc! { "c": inner }) }
    })
}

/// Length of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// One chunk, or no text at all.
    Short,
    /// Several chunks.
    Long,
    /// Random: mostly short.
    Any,
}

/// Returns a unique text.
pub(super) fn text(rng: &mut StdRng, length: Length, serial: u64) -> String {
    let words = match length {
        Length::Short => rng.random_range(0..10),
        Length::Long => rng.random_range(60..250),
        Length::Any if rng.random_bool(0.2) => rng.random_range(30..120),
        Length::Any => rng.random_range(0..25),
    };
    if words == 0 {
        return String::new();
    }
    let words: Vec<&str> = (0..words).map(|_| *WORDS.choose(rng).expect("there are words")).collect();
    format!("No. {serial}: {}", words.join(" "))
}

/// Returns a complete document.
pub(super) fn document(rng: &mut StdRng, id: Bson, serial: u64) -> Document {
    let number = i64::try_from(serial).unwrap_or_default();
    let mut document = doc! {
        "_id": id,
        "subject": format!("Ticket {serial}"),
        "content": text(rng, Length::Any, serial),
        "serial": number,
        "date": DateTime::from_millis(1_700_000_000_000 + number),
        "customer": { "name": format!("Customer {}", serial % 50), "tiers": [1, 2.5, Bson::Null] },
    };
    if rng.random_bool(0.1) {
        document.insert("_tidewheel", "a field of the user's own");
    }
    if rng.random_bool(0.1) {
        document.remove("subject");
        document.insert("content", Bson::Null);
    }
    document
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn ids_cover_all_kinds_and_are_unique() {
        let mut rng = StdRng::seed_from_u64(1);
        let ids: Vec<Bson> = (0..2_000).map(|number| id(&mut rng, number)).collect();
        let kinds: HashSet<_> = ids.iter().map(|id| format!("{:?}", id.element_type())).collect();
        assert_eq!(kinds.len(), 10);
        let written: HashSet<_> = ids.iter().chain(&single_ids()).map(ToString::to_string).collect();
        assert_eq!(written.len(), 2_000 + single_ids().len());
        assert_eq!(twin(&Bson::Double(7.0)), Some(Bson::Int32(7)));
        assert_eq!(twin(&Bson::Double(7.25)), None);
    }
}
