//! Random queries on random documents, evaluated by mongod and by [`Query`].
//!
//! Seeds are fixed; `SEED=7` in the environment replaces them. A failure prints the seed, and for each difference the
//! query and the smallest document that is selected by one of the two only.

use std::collections::BTreeSet;

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, JavaScriptCodeWithScope, RawDocumentBuf, Regex, Timestamp, doc};
use futures::TryStreamExt;
use mongodb::Collection;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tidewheel_stores::mongo::Query;

use super::server::TestMongo;

const DOCUMENTS: i32 = 200;
const QUERIES: usize = 300;

/// Names of fields. Two of them are also indexes of arrays.
const NAMES: [&str; 5] = ["a", "b", "c", "0", "1"];

const TYPES: [&str; 22] = [
    "double",
    "string",
    "object",
    "array",
    "binData",
    "undefined",
    "objectId",
    "bool",
    "date",
    "null",
    "regex",
    "dbPointer",
    "javascript",
    "symbol",
    "javascriptWithScope",
    "int",
    "timestamp",
    "long",
    "decimal",
    "minKey",
    "maxKey",
    "number",
];

/// Parts of patterns: constructs that PCRE and the `regex` crate share, and some that they treat differently.
const PATTERN_PARTS: [&str; 48] = [
    "a", "b", "k", "K", "s", "ß", "1", "_", " ", "#", "&", "]", "}", "-", ".", r"\.", r"\<", r"\n", r"\x41", r"\w",
    r"\W", r"\d", r"\D", r"\s", r"\S", r"\b", "[ab]", "[^a]", "[^k]", "[a-k]", r"[\d_-]", r"[^\w]", "[]a]", "[[&&~~]",
    "(a|b)", "(?:ab)", "(", ")", "^", "$", r"\A", r"\z", "|", "*", "+", "?", "{1,2}", "{0,1}?",
];

const CHARACTERS: [&str; 24] = [
    "a", "b", "k", "s", "A", "B", "K", "S", "ß", "ẞ", "\u{17F}", "\u{212A}", "1", "٣", "_", ".", "\n", "\n", " ",
    "\u{B}", "\u{A0}", "<", "&", "]",
];

fn pick<T: Clone>(random: &mut StdRng, choices: &[T]) -> T {
    choices.choose(random).expect("choices").clone()
}

fn regex(pattern: &str, options: &str) -> Bson {
    let (pattern, options) = (pattern.to_owned().try_into().unwrap(), options.to_owned().try_into().unwrap());
    Bson::RegularExpression(Regex { pattern, options })
}

fn decimals() -> Vec<Bson> {
    let texts = [
        "1",
        "1.0",
        "0.1",
        "2.5",
        "7.9",
        "-0",
        "0E+100",
        "5E+2",
        "NaN",
        "Infinity",
        "-Infinity",
        "1E+6144",
        "1E-6176",
        "9007199254740993",
        "9223372036854775807",
        "0.1000000000000000055511151231257827",
    ];
    texts.iter().map(|text| Bson::Decimal128(text.parse().unwrap())).collect()
}

fn numbers() -> Vec<Bson> {
    let integers = [0, 1, 2, 5, 7, -1].map(Bson::Int32);
    let longs = [1, 2, 5, -7, (1 << 53) + 1, i64::MAX, i64::MIN].map(Bson::Int64);
    let two_to_63 = 9_223_372_036_854_775_808.0;
    let doubles = [
        1.0,
        2.5,
        -0.0,
        0.1,
        -7.9,
        1e300,
        5e-324,
        9_007_199_254_740_992.0,
        two_to_63,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ]
    .map(Bson::Double);
    [&integers[..], &longs, &doubles, &decimals()].concat()
}

fn scalars(has_undefined: bool) -> Vec<Bson> {
    let binary = |subtype, bytes: &[u8]| Bson::Binary(Binary { subtype, bytes: bytes.to_vec() });
    let scoped = |scope| Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code: "f".into(), scope });
    let mut scalars: Vec<Bson> = ["", "a", "ab", "A", "b\n", "ß", "x.y", "a\0b"].map(Bson::from).into();
    scalars.extend([Bson::Null, Bson::Null, true.into(), false.into(), Bson::MinKey, Bson::MaxKey]);
    scalars.extend([0, 1].map(|last| Bson::ObjectId(ObjectId::from_bytes([last; 12]))));
    scalars.extend([0, -1, 1 << 40].map(|millis| Bson::DateTime(DateTime::from_millis(millis))));
    scalars.extend([1, 4_000_000_000].map(|time| Bson::Timestamp(Timestamp { time, increment: 1 })));
    scalars.extend([regex("a", ""), regex("^a", "i")]);
    scalars.extend([
        binary(BinarySubtype::Generic, b""),
        binary(BinarySubtype::Generic, b"ab"),
        binary(BinarySubtype::Generic, b"b"),
        binary(BinarySubtype::Md5, b"ab"),
        binary(BinarySubtype::BinaryOld, b"ab"),
    ]);
    scalars.extend([Bson::JavaScriptCode("f".into()), Bson::JavaScriptCode("g".into()), Bson::Symbol("a".into())]);
    scalars.extend([scoped(doc! {"x": 1}), scoped(doc! {"x": 2})]);
    if has_undefined {
        scalars.push(Bson::Undefined);
    }
    scalars
}

/// Produces documents and queries.
struct Generator {
    random: StdRng,
    numbers: Vec<Bson>,
    scalars: Vec<Bson>,
}

impl Generator {
    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn value(&mut self, depth: usize) -> Bson {
        match self.random.random_range(0..100) {
            0..22 if depth > 0 => {
                let length = self.random.random_range(0..4);
                Bson::Array((0..length).map(|_| self.value(depth - 1)).collect())
            }
            22..40 if depth > 0 => {
                let length = self.random.random_range(0..4);
                Bson::Document(self.fields(length, depth - 1))
            }
            0..75 => pick(&mut self.random, &self.numbers),
            _ => pick(&mut self.random, &self.scalars),
        }
    }

    fn fields(&mut self, length: usize, depth: usize) -> Document {
        let mut fields = Document::new();
        for _ in 0..length {
            let name = pick(&mut self.random, &NAMES);
            fields.insert(name, self.value(depth));
        }
        fields
    }

    fn document(&mut self, id: i32) -> Document {
        let mut document = doc! {"_id": id};
        for name in &NAMES[..3] {
            if self.chance(80) {
                document.insert(*name, self.value(3));
            }
        }
        document
    }

    fn path(&mut self) -> String {
        let mut path = pick(&mut self.random, &NAMES[..3]).to_owned();
        for _ in 0..pick(&mut self.random, &[0, 0, 0, 1, 1, 2, 3]) {
            path.push('.');
            path.push_str(pick(&mut self.random, &NAMES));
        }
        path
    }

    /// A value, usually one that occurs in the documents.
    fn operand(&mut self, documents: &[Document]) -> Bson {
        let mut value = self.value(2);
        if self.chance(60) {
            value = Bson::Document(pick(&mut self.random, documents));
            for _ in 0..self.random.random_range(1..4) {
                let inner: Vec<Bson> = match &value {
                    Bson::Document(fields) => {
                        fields.iter().filter(|(name, _)| *name != "_id").map(|(_, inner)| inner.clone()).collect()
                    }
                    Bson::Array(elements) => elements.clone(),
                    _ => break,
                };
                if !inner.is_empty() {
                    value = pick(&mut self.random, &inner);
                }
            }
        }
        // The server rejects it as an operand.
        if value == Bson::Undefined { Bson::Null } else { value }
    }

    fn operands(&mut self, documents: &[Document]) -> Bson {
        let length = self.random.random_range(0..4);
        Bson::Array((0..length).map(|_| self.operand(documents)).collect())
    }

    /// An operand of `$ne`, `$gt` and so on.
    fn comparable(&mut self, documents: &[Document]) -> Bson {
        match self.operand(documents) {
            Bson::RegularExpression(_) => Bson::Int32(1),
            operand => operand,
        }
    }

    fn type_operand(&mut self) -> Bson {
        if self.chance(60) {
            return pick(&mut self.random, &TYPES).into();
        }
        let numbers = [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, -1, 127].map(Bson::Int32);
        match self.random.random_range(0..10) {
            0 => Bson::Double(16.0),
            1 => Bson::Int64(2),
            _ => pick(&mut self.random, &numbers),
        }
    }

    fn add_operator(&mut self, to: &mut Document, documents: &[Document], depth: usize) {
        let (name, operand): (&str, Bson) = match self.random.random_range(0..18) {
            0 => ("$eq", self.operand(documents)),
            1 => ("$ne", self.comparable(documents)),
            2..6 => (pick(&mut self.random, &["$gt", "$gte", "$lt", "$lte"]), self.comparable(documents)),
            6..9 => (pick(&mut self.random, &["$in", "$nin"]), self.operands(documents)),
            9 => ("$exists", self.chance(50).into()),
            10 => {
                let several = [self.type_operand(), self.type_operand()];
                ("$type", if self.chance(30) { several.to_vec().into() } else { several[0].clone() })
            }
            11 => {
                let mut sizes = [0, 1, 2, 3].map(Bson::Int32).to_vec();
                sizes.extend([Bson::Double(2.0), Bson::Int64(1)]);
                ("$size", pick(&mut self.random, &sizes))
            }
            12 => {
                let divisors = [Bson::Int32(2), Bson::Int32(3), Bson::Int32(-3), Bson::Double(2.7), Bson::Int64(4)];
                let remainders = [Bson::Int32(0), Bson::Int32(1), Bson::Int32(-1), Bson::Double(1.5)];
                let (divisor, remainder) = (pick(&mut self.random, &divisors), pick(&mut self.random, &remainders));
                ("$mod", vec![divisor, remainder].into())
            }
            13 => {
                if self.chance(40) {
                    to.insert("$options", pick(&mut self.random, &["i", "s", "si"]));
                }
                let patterns = ["a", "^a", "b$", ".", "^$", r"^\w+$", "a|b", "[^a]", r"x\.y"];
                ("$regex", pick(&mut self.random, &patterns).into())
            }
            14 if depth > 0 && self.chance(30) => {
                let elements: Vec<Bson> =
                    (0..2).map(|_| doc! {"$elemMatch": self.element(documents, depth - 1)}.into()).collect();
                ("$all", elements.into())
            }
            14 => ("$all", self.operands(documents)),
            15 | 16 if depth > 0 => ("$elemMatch", self.element(documents, depth - 1).into()),
            17 if depth > 0 && self.chance(10) => ("$not", regex("a", "")),
            17 if depth > 0 => ("$not", self.operators(documents, depth - 1).into()),
            _ => ("$exists", true.into()),
        };
        to.insert(name, operand);
    }

    fn operators(&mut self, documents: &[Document], depth: usize) -> Document {
        let mut operators = Document::new();
        for _ in 0..pick(&mut self.random, &[1, 1, 2]) {
            self.add_operator(&mut operators, documents, depth);
        }
        operators
    }

    /// An operand of `$elemMatch`.
    fn element(&mut self, documents: &[Document], depth: usize) -> Document {
        if self.chance(50) { self.operators(documents, depth) } else { self.query(documents, depth) }
    }

    fn query(&mut self, documents: &[Document], depth: usize) -> Document {
        let mut query = Document::new();
        for _ in 0..pick(&mut self.random, &[1, 1, 1, 2]) {
            if depth > 0 && self.chance(20) {
                let length = self.random.random_range(1..4);
                let queries: Vec<Document> = (0..length).map(|_| self.query(documents, depth - 1)).collect();
                query.insert(pick(&mut self.random, &["$and", "$or", "$nor"]), queries);
            } else if self.chance(30) {
                query.insert(self.path(), self.operand(documents));
            } else {
                query.insert(self.path(), self.operators(documents, depth));
            }
        }
        query
    }

    fn pattern_query(&mut self) -> Document {
        let parts = self.random.random_range(0..6);
        let pattern: String = (0..parts).map(|_| pick(&mut self.random, &PATTERN_PARTS)).collect();
        doc! {"a": {"$regex": pattern, "$options": pick(&mut self.random, &["", "", "i", "m", "s", "x", "im", "ix"])}}
    }

    fn text(&mut self) -> String {
        let length = self.random.random_range(0..5);
        (0..length).map(|_| pick(&mut self.random, &CHARACTERS)).collect()
    }
}

/// These seeds; with `SEED=7` in the environment only that one.
fn seeds() -> Vec<u64> {
    let chosen = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    chosen.map_or(vec![1, 2], |seed| vec![seed])
}

async fn generator(mongo: &TestMongo, seed: u64) -> Generator {
    let command = doc! {"buildInfo": 1};
    let build = mongo.client.database("admin").run_command(command).await.expect("a version");
    let version = build.get_array("versionArray").expect("a version")[0].as_i32();
    // From MongoDB 8.0 on, null does not match undefined.
    let has_undefined = version.is_some_and(|major| major < 8);
    Generator { random: StdRng::seed_from_u64(seed), numbers: numbers(), scalars: scalars(has_undefined) }
}

fn json(document: &Document) -> String {
    Bson::Document(document.clone()).into_canonical_extjson().to_string()
}

async fn found(collection: &Collection<RawDocumentBuf>, query: &Document) -> mongodb::error::Result<BTreeSet<i32>> {
    let cursor = collection.find(query.clone()).projection(doc! {"_id": 1}).batch_size(1_000).await?;
    let rows: Vec<RawDocumentBuf> = cursor.try_collect().await?;
    Ok(rows.iter().map(|row| row.get_i32("_id").expect("an _id")).collect())
}

/// Asserts that mongod and [`Query`] select the same documents, whose `_id`s are their positions. Returns the number of
/// supported queries and of selected documents.
async fn assert_same(mongo: &TestMongo, seed: u64, documents: &[Document], queries: &[Document]) -> (usize, usize) {
    let name = format!("seed_{seed}");
    let collection = mongo.client.database(&mongo.database).collection::<RawDocumentBuf>(&name);
    let raw: Vec<RawDocumentBuf> = documents.iter().map(|document| document.try_into().expect("BSON")).collect();
    collection.insert_many(&raw).await.expect("documents");
    let (mut supported, mut selections, mut differences) = (0, 0, Vec::new());
    for query in queries {
        let Ok(parsed) = Query::parse(query) else { continue };
        supported += 1;
        let expected = match found(&collection, query).await {
            Ok(expected) => expected,
            Err(error) => {
                differences.push(format!("query {}\nmongod rejects it: {error}", json(query)));
                continue;
            }
        };
        selections += expected.len();
        let selected: BTreeSet<i32> =
            (0..).zip(&raw).filter(|(_, document)| parsed.matches(document)).map(|(id, _)| id).collect();
        let size = |id: &&i32| raw[**id as usize].as_bytes().len();
        if let Some(id) = selected.symmetric_difference(&expected).min_by_key(size) {
            let (document, by_mongod) = (json(&documents[*id as usize]), expected.contains(id));
            differences.push(format!("query {}\ndocument {document}\nmongod selects it: {by_mongod}", json(query)));
        }
    }
    differences.sort_by_key(String::len);
    let smallest = &differences[..differences.len().min(5)];
    assert!(differences.is_empty(), "SEED={seed}: {} differences:\n{}", differences.len(), smallest.join("\n\n"));
    (supported, selections)
}

#[tokio::test]
async fn query_selects_the_documents_that_mongod_finds() {
    let mongo = TestMongo::start().await;
    for seed in seeds() {
        let mut generator = generator(&mongo, seed).await;
        let documents: Vec<Document> = (0..DOCUMENTS).map(|id| generator.document(id)).collect();
        let queries: Vec<Document> = (0..QUERIES).map(|_| generator.query(&documents, 2)).collect();
        for query in &queries {
            Query::parse(query).unwrap_or_else(|error| panic!("SEED={seed}: {}: {error}", json(query)));
        }
        let (_, selections) = assert_same(&mongo, seed, &documents, &queries).await;
        let pairs = QUERIES * documents.len();
        assert!((pairs / 50..pairs / 2).contains(&selections), "SEED={seed}: {selections} of {pairs} pairs match");
    }
}

#[tokio::test]
async fn regex_selects_the_strings_that_mongod_finds() {
    let mongo = TestMongo::start().await;
    for seed in seeds() {
        let mut generator = generator(&mongo, seed).await;
        let documents: Vec<Document> = (0..DOCUMENTS).map(|id| doc! {"_id": id, "a": generator.text()}).collect();
        let queries: Vec<Document> = (0..QUERIES).map(|_| generator.pattern_query()).collect();
        let (supported, selections) = assert_same(&mongo, seed, &documents, &queries).await;
        assert!(supported > QUERIES / 4 && selections > 0, "SEED={seed}: {supported} of {QUERIES} are supported");
    }
}
