use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, DbPointer, Decimal128, Document, JavaScriptCodeWithScope, Regex, Timestamp, doc};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn both(document: &Document) -> (String, String) {
    let bytes = document.to_vec().unwrap();
    (super::document(&bytes, Form::Relaxed).unwrap(), super::document(&bytes, Form::Canonical).unwrap())
}

fn regex(pattern: &str, options: &str) -> Bson {
    Bson::RegularExpression(Regex {
        pattern: pattern.to_owned().try_into().unwrap(),
        options: options.to_owned().try_into().unwrap(),
    })
}

#[test]
fn every_type_has_relaxed_and_canonical_form() {
    let uuid = Binary { subtype: BinarySubtype::Uuid, bytes: (0..16).collect() };
    let old = Binary { subtype: BinarySubtype::BinaryOld, bytes: vec![1, 2] };
    let table: Vec<(Bson, &str, &str)> = vec![
        (Bson::Double(1.0), "1.0", r#"{"$numberDouble":"1.0"}"#),
        (Bson::Double(-0.0), "-0.0", r#"{"$numberDouble":"-0.0"}"#),
        (Bson::Double(0.1), "0.1", r#"{"$numberDouble":"0.1"}"#),
        (Bson::Double(f64::NAN), r#"{"$numberDouble":"NaN"}"#, r#"{"$numberDouble":"NaN"}"#),
        (Bson::Double(-f64::NAN), r#"{"$numberDouble":"NaN"}"#, r#"{"$numberDouble":"NaN"}"#),
        (Bson::Double(f64::INFINITY), r#"{"$numberDouble":"Infinity"}"#, r#"{"$numberDouble":"Infinity"}"#),
        (Bson::Double(f64::NEG_INFINITY), r#"{"$numberDouble":"-Infinity"}"#, r#"{"$numberDouble":"-Infinity"}"#),
        (Bson::Int32(-7), "-7", r#"{"$numberInt":"-7"}"#),
        (Bson::Int64(i64::MIN), "-9223372036854775808", r#"{"$numberLong":"-9223372036854775808"}"#),
        (Bson::Boolean(true), "true", "true"),
        (Bson::Boolean(false), "false", "false"),
        (Bson::Null, "null", "null"),
        (Bson::String("a\"\\\n\u{1}ü😀\0".into()), r#""a\"\\\n\u0001ü😀\u0000""#, r#""a\"\\\n\u0001ü😀\u0000""#),
        (
            Bson::ObjectId(ObjectId::parse_str("65f000000000000000000001").unwrap()),
            r#"{"$oid":"65f000000000000000000001"}"#,
            r#"{"$oid":"65f000000000000000000001"}"#,
        ),
        (
            Bson::DateTime(DateTime::from_millis(0)),
            r#"{"$date":"1970-01-01T00:00:00Z"}"#,
            r#"{"$date":{"$numberLong":"0"}}"#,
        ),
        (
            Bson::DateTime(DateTime::from_millis(951_782_400_050)),
            r#"{"$date":"2000-02-29T00:00:00.05Z"}"#,
            r#"{"$date":{"$numberLong":"951782400050"}}"#,
        ),
        (
            Bson::DateTime(DateTime::from_millis(253_402_300_799_999)),
            r#"{"$date":"9999-12-31T23:59:59.999Z"}"#,
            r#"{"$date":{"$numberLong":"253402300799999"}}"#,
        ),
        (
            Bson::DateTime(DateTime::from_millis(253_402_300_800_000)),
            r#"{"$date":{"$numberLong":"253402300800000"}}"#,
            r#"{"$date":{"$numberLong":"253402300800000"}}"#,
        ),
        (
            Bson::DateTime(DateTime::from_millis(-1)),
            r#"{"$date":{"$numberLong":"-1"}}"#,
            r#"{"$date":{"$numberLong":"-1"}}"#,
        ),
        (
            Bson::Binary(uuid),
            r#"{"$binary":{"base64":"AAECAwQFBgcICQoLDA0ODw==","subType":"04"}}"#,
            r#"{"$binary":{"base64":"AAECAwQFBgcICQoLDA0ODw==","subType":"04"}}"#,
        ),
        (
            Bson::Binary(old),
            r#"{"$binary":{"base64":"AQI=","subType":"02"}}"#,
            r#"{"$binary":{"base64":"AQI=","subType":"02"}}"#,
        ),
        (
            Bson::Decimal128("9.990".parse::<Decimal128>().unwrap()),
            r#"{"$numberDecimal":"9.990"}"#,
            r#"{"$numberDecimal":"9.990"}"#,
        ),
        (
            regex("^a\"", "xi"),
            r#"{"$regularExpression":{"pattern":"^a\"","options":"ix"}}"#,
            r#"{"$regularExpression":{"pattern":"^a\"","options":"ix"}}"#,
        ),
        (
            Bson::Timestamp(Timestamp { time: 7, increment: 9 }),
            r#"{"$timestamp":{"t":7,"i":9}}"#,
            r#"{"$timestamp":{"t":7,"i":9}}"#,
        ),
        (Bson::MinKey, r#"{"$minKey":1}"#, r#"{"$minKey":1}"#),
        (Bson::MaxKey, r#"{"$maxKey":1}"#, r#"{"$maxKey":1}"#),
        (Bson::Undefined, r#"{"$undefined":true}"#, r#"{"$undefined":true}"#),
        (Bson::Symbol("s".into()), r#"{"$symbol":"s"}"#, r#"{"$symbol":"s"}"#),
        (Bson::JavaScriptCode("f()".into()), r#"{"$code":"f()"}"#, r#"{"$code":"f()"}"#),
        (
            Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code: "f()".into(), scope: doc! {"a": 1} }),
            r#"{"$code":"f()","$scope":{"a":1}}"#,
            r#"{"$code":"f()","$scope":{"a":{"$numberInt":"1"}}}"#,
        ),
        (Bson::Document(doc! {}), "{}", "{}"),
        (
            Bson::Array(vec![Bson::Int32(1), Bson::Document(doc! {"b": [2_i64]})]),
            r#"[1,{"b":[2]}]"#,
            r#"[{"$numberInt":"1"},{"b":[{"$numberLong":"2"}]}]"#,
        ),
    ];
    for (bson, relaxed, canonical) in table {
        let document = doc! {"a b": bson};
        let wanted = (format!(r#"{{"a b":{relaxed}}}"#), format!(r#"{{"a b":{canonical}}}"#));
        assert_eq!(both(&document), wanted);
        let bytes = document.to_vec().unwrap();
        let element = Elements::new(&bytes).unwrap().find("a b").unwrap().unwrap();
        assert_eq!(value(&element, Form::Canonical).unwrap(), canonical);
        assert_eq!(value(&element, Form::Relaxed).unwrap(), relaxed);
    }
}

#[test]
fn db_pointer_matches_driver_output() {
    // The driver has no constructor for one, but reads it.
    let json = serde_json::json!({"$dbPointer": {"$ref": "shop.tickets", "$id": {"$oid": "65f000000000000000000001"}}});
    let pointer = Bson::try_from(json.clone()).unwrap();
    assert!(matches!(pointer, Bson::DbPointer(DbPointer { .. })));
    let (relaxed, canonical) = both(&doc! {"p": pointer});
    assert_eq!(serde_json::from_str::<Value>(&relaxed).unwrap(), serde_json::json!({"p": json}));
    assert_eq!(relaxed, canonical);
}

#[test]
fn invalid_utf8_is_replaced_and_duplicate_names_are_kept() {
    let mut bytes = doc! {"name": "abc", "a": 1, "b": 2}.to_vec().unwrap();
    let at = bytes.windows(3).position(|window| window == b"abc").unwrap();
    bytes[at + 1] = 0xFF;
    let at = bytes.windows(4).position(|window| window == b"name").unwrap();
    bytes[at] = 0xC3;
    let at = bytes.windows(2).position(|window| window == b"b\0").unwrap();
    bytes[at] = b'a';
    assert_eq!(document(&bytes, Form::Relaxed).unwrap(), "{\"\u{fffd}ame\":\"a\u{fffd}c\",\"a\":1,\"a\":2}");
}

#[test]
fn excessive_nesting_is_an_error() {
    let mut deep = doc! {};
    for _ in 0..300 {
        deep = doc! {"a": deep};
    }
    assert_eq!(document(&deep.to_vec().unwrap(), Form::Relaxed), Err(Malformed("nesting too deep")));
}

fn scalars() -> impl Strategy<Value = Bson> {
    prop_oneof![
        any::<f64>().prop_map(Bson::Double),
        any::<u64>().prop_map(|bits| Bson::Double(f64::from_bits(bits))),
        any::<i32>().prop_map(|number| Bson::Double(f64::from(number))),
        any::<String>().prop_map(Bson::String),
        any::<bool>().prop_map(Bson::Boolean),
        Just(Bson::Null),
        Just(Bson::MinKey),
        Just(Bson::MaxKey),
        Just(Bson::Undefined),
        any::<i32>().prop_map(Bson::Int32),
        any::<i64>().prop_map(Bson::Int64),
        any::<[u8; 12]>().prop_map(|bytes| Bson::ObjectId(ObjectId::from_bytes(bytes))),
        any::<[u8; 16]>().prop_map(|bytes| Bson::Decimal128(Decimal128::from_bytes(bytes))),
        any::<i64>().prop_map(|millis| Bson::DateTime(DateTime::from_millis(millis))),
        (-1_000_000_000_i64..260_000_000_000_000).prop_map(|millis| Bson::DateTime(DateTime::from_millis(millis))),
        any::<(u32, u32)>().prop_map(|(time, increment)| Bson::Timestamp(Timestamp { time, increment })),
        (any::<u8>(), any::<Vec<u8>>())
            .prop_map(|(subtype, bytes)| Bson::Binary(Binary { subtype: BinarySubtype::from(subtype), bytes })),
        ("[^\0]*", "[a-z]{0,5}").prop_map(|(pattern, options)| regex(&pattern, &options)),
        any::<String>().prop_map(Bson::Symbol),
        any::<String>().prop_map(Bson::JavaScriptCode),
    ]
}

fn names() -> impl Strategy<Value = String> {
    // The driver's own text of a field whose name starts with a dollar cannot be compared: it is ambiguous.
    "[^\0$][^\0]{0,8}".prop_map(|name| name)
}

fn values() -> impl Strategy<Value = Bson> {
    scalars().prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Bson::Array),
            prop::collection::vec((names(), inner.clone()), 0..6)
                .prop_map(|fields| Bson::Document(fields.into_iter().collect())),
            (any::<String>(), prop::collection::vec((names(), inner), 0..3)).prop_map(|(code, fields)| {
                Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code, scope: fields.into_iter().collect() })
            }),
        ]
    })
}

/// Removes the intended difference from the driver: the sign of NaN.
fn like_ours(value: Value) -> Value {
    match value {
        Value::Array(values) => values.into_iter().map(like_ours).collect(),
        Value::Object(fields) => match fields.get("$numberDouble").and_then(Value::as_str) {
            Some("-NaN") => serde_json::json!({"$numberDouble": "NaN"}),
            _ => fields.into_iter().map(|(name, value)| (name, like_ours(value))).collect(),
        },
        other => other,
    }
}

/// Replaces values that the driver gets wrong: it writes the canonical form of a subnormal number as a plain number,
/// and a date after the year 9999 as its last nanosecond.
fn comparable(value: Bson) -> Bson {
    match value {
        Bson::Double(number) if number.is_subnormal() => Bson::Double(0.0),
        Bson::DateTime(date) if date.timestamp_millis() >= 253_402_300_800_000 => Bson::DateTime(DateTime::MIN),
        Bson::Array(values) => values.into_iter().map(comparable).collect::<Vec<_>>().into(),
        Bson::Document(fields) => {
            Bson::Document(fields.into_iter().map(|(name, value)| (name, comparable(value))).collect())
        }
        Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code, scope }) => {
            let scope = scope.into_iter().map(|(name, value)| (name, comparable(value))).collect();
            Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code, scope })
        }
        other => other,
    }
}

proptest! {
    #[test]
    fn output_matches_the_driver(value in values()) {
        let document = doc! {"v": comparable(value)};
        let (relaxed, canonical) = both(&document);
        let document = Bson::Document(document);
        prop_assert_eq!(
            serde_json::from_str::<Value>(&relaxed).unwrap(),
            like_ours(document.clone().into_relaxed_extjson())
        );
        prop_assert_eq!(canonical, like_ours(document.into_canonical_extjson()).to_string());
    }

    #[test]
    fn double_round_trips(bits in any::<u64>()) {
        let number = f64::from_bits(bits);
        prop_assume!(number.is_finite());
        let (relaxed, canonical) = both(&doc! {"v": number});
        let read: Value = serde_json::from_str(&relaxed).unwrap();
        prop_assert_eq!(read["v"].as_f64().unwrap().to_bits(), bits);
        let read: Value = serde_json::from_str(&canonical).unwrap();
        prop_assert_eq!(read["v"]["$numberDouble"].as_str().unwrap().parse::<f64>().unwrap().to_bits(), bits);
    }

    #[test]
    fn canonical_value_round_trips(value in values()) {
        let bytes = doc! {"v": comparable(value)}.to_vec().unwrap();
        let text = document(&bytes, Form::Canonical).unwrap();
        let read = Bson::try_from(serde_json::from_str::<Value>(&text).unwrap()).unwrap();
        let again = document(&read.as_document().unwrap().to_vec().unwrap(), Form::Canonical).unwrap();
        prop_assert_eq!(again, text);
    }

    #[test]
    fn corrupt_bson_never_panics(value in values(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = doc! {"v": value, "w": "text"}.to_vec().unwrap();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for form in [Form::Relaxed, Form::Canonical] {
            if let Ok(text) = document(&bytes, form) {
                let braces = (text.chars().next(), text.chars().next_back());
                prop_assert_eq!(braces, (Some('{'), Some('}')));
            }
        }
    }
}
