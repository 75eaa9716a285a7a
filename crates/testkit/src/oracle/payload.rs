//! Checks whether a payload is the plain JSON form of a document, from the contract and BSON alone.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bson::spec::BinarySubtype;
use bson::{Bson, Document};
use serde_json::{Map, Value};

/// Fails with the first differing path. A point that need not be `complete` may omit large values that it lists as
/// omitted; `…` marks an incomplete list, and then any large value except `_id` may be missing.
pub(super) fn compare(document: &Document, payload: &Map<String, Value>, complete: bool) -> Result<(), String> {
    let omitted = payload.get("_tidewheel").and_then(|reserved| reserved.get("omitted"));
    if complete && omitted.is_some() {
        return Err("a point that carries all fields omits values".to_owned());
    }
    let omitted: Vec<&str> =
        omitted.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let many = document.to_vec().is_ok_and(|bytes| bytes.len() > MANY);
    let may_lack = |path: &str, value: &Bson| {
        let large = size(value) > LARGE || many;
        path != "_id" && large && (omitted.contains(&path) || omitted.contains(&"…") || part_of(path, &omitted))
    };
    fields(document, payload, "", &may_lack)
}

/// Smaller values are never omitted, unless the document has many.
const LARGE: usize = 4_000;
const MANY: usize = 12_000;

fn size(value: &Bson) -> usize {
    bson::doc! {"": value.clone()}.to_vec().map_or(0, |bytes| bytes.len())
}

/// Whether everything below the path is listed as omitted: then the object is missing too.
fn part_of(path: &str, omitted: &[&str]) -> bool {
    omitted.iter().any(|name| name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

type MayLack<'a> = &'a dyn Fn(&str, &Bson) -> bool;

fn fields(document: &Document, json: &Map<String, Value>, path: &str, may_lack: MayLack<'_>) -> Result<(), String> {
    // At the top level this name is reserved for tidewheel, regardless of the document.
    let ours = |name: &str| path.is_empty() && name == "_tidewheel";
    for (name, value) in document.iter().filter(|(name, _)| !ours(name)) {
        let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match json.get(name) {
            Some(found) => same(value, found, &at, may_lack)?,
            None if may_lack(&at, value) => {}
            None => return Err(format!("{at} is missing")),
        }
    }
    match json.keys().find(|name| !ours(name) && !document.contains_key(name)) {
        Some(name) => Err(format!("{path}.{name} is not in the document")),
        None => Ok(()),
    }
}

fn same(bson: &Bson, json: &Value, path: &str, may_lack: MayLack<'_>) -> Result<(), String> {
    let is = |equal: bool| if equal { Ok(()) } else { Err(format!("{path} is {json}, expected {bson}")) };
    match bson {
        Bson::Document(document) => match json.as_object() {
            Some(json) => fields(document, json, path, may_lack),
            None => is(false),
        },
        Bson::Array(values) => match json.as_array().filter(|found| found.len() == values.len()) {
            Some(found) => values
                .iter()
                .zip(found)
                .enumerate()
                .try_for_each(|(at, (value, found))| same(value, found, &format!("{path}[{at}]"), may_lack)),
            None => is(false),
        },
        Bson::Null => is(json.is_null()),
        Bson::Boolean(value) => is(json.as_bool() == Some(*value)),
        Bson::Int32(value) => is(json.as_i64() == Some(i64::from(*value))),
        Bson::Int64(value) => is(json.as_i64() == Some(*value)),
        Bson::Double(value) if !value.is_finite() => is(json.is_null()),
        Bson::Double(value) => is(json.is_f64() && json.as_f64() == Some(*value)),
        Bson::String(text) | Bson::Symbol(text) => is(json.as_str() == Some(text)),
        Bson::ObjectId(id) => is(json.as_str() == Some(&id.to_hex())),
        Bson::Decimal128(number) => is(json.as_str() == Some(&number.to_string())),
        Bson::DateTime(time) => is(json.as_str().and_then(millis) == Some(time.timestamp_millis())),
        Bson::Binary(binary) => {
            let expected = match (binary.subtype, uuid::Uuid::from_slice(&binary.bytes)) {
                (BinarySubtype::Uuid, Ok(uuid)) => uuid.to_string(),
                _ => BASE64_STANDARD.encode(&binary.bytes),
            };
            is(json.as_str() == Some(&expected))
        }
        // Values without a plain form stay extended JSON.
        other => is(*json == other.clone().into_relaxed_extjson()),
    }
}

/// Parses an RFC 3339 time in UTC to milliseconds since the Unix epoch, with years of any length.
///
/// Converts the date year by year, unlike the code under test.
fn millis(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (negative, date) = date.strip_prefix('-').map_or((false, date), |date| (true, date));
    let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let year = if negative { -year } else { year };
    let leap = |year: i64| year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
    // Whole cycles of 400 years first, so that distant years are fast.
    let cycles = (year - 1970).div_euclid(400);
    let years = 1970..year - cycles * 400;
    let mut days = cycles * 146_097 + years.map(|year| 365 + i64::from(leap(year))).sum::<i64>();
    let lengths = [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    days += lengths.iter().take(usize::try_from(month).ok()?.checked_sub(1)?).sum::<i64>() + day - 1;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut clock = clock.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let fraction: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000 + fraction)
}

#[cfg(test)]
mod tests {
    use bson::oid::ObjectId;
    use bson::{Binary, DateTime, doc};
    use serde_json::json;

    use super::*;

    #[test]
    fn millis_parses_rfc3339() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2000-02-29T00:00:00Z", 951_782_400_000),
            ("2024-03-12T10:00:00.5Z", 1_710_237_600_500),
            ("0001-01-01T00:00:00Z", -62_135_596_800_000),
            ("10000-01-01T00:00:00Z", 253_402_300_800_000),
            ("-0001-01-01T00:00:00Z", -62_198_755_200_000),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
        assert_eq!(millis("yesterday"), None);
    }

    #[test]
    fn later_point_may_omit_only_listed_large_values() {
        let large = "x".repeat(5_000);
        let document =
            doc! {"_id": 1, "state": "open", "content": &large, "a": {"notes": &large, "b": 1}, "c": {"d": &large}};
        let reserved = json!({"omitted": ["a.notes", "c.d", "content"]});
        let payload = json!({"_id": 1, "state": "open", "a": {"b": 1}, "_tidewheel": reserved});
        let Value::Object(payload) = payload else { unreachable!("it is an object") };
        assert_eq!(compare(&document, &payload, false), Ok(()));
        assert!(compare(&document, &payload, true).is_err());
        let mut unnamed = payload.clone();
        unnamed.insert("_tidewheel".to_owned(), json!({"omitted": ["content"]}));
        assert!(compare(&document, &unnamed, false).unwrap_err().contains("a.notes"));
        let mut small = payload;
        small.remove("_id");
        assert!(compare(&document, &small, false).unwrap_err().contains("_id"));
    }

    #[test]
    fn every_type_matches_its_plain_json_form() {
        let document = doc! {
            "_id": ObjectId::from_bytes([7; 12]), "int": 1, "long": 2_i64, "double": 0.5, "nan": f64::NAN,
            "text": "ü", "list": [1, { "a": Bson::Null }], "yes": true,
            "at": DateTime::from_millis(1_710_237_600_500),
            "uuid": Binary { subtype: BinarySubtype::Uuid, bytes: (0..16).collect() },
            "bytes": Binary { subtype: BinarySubtype::Generic, bytes: vec![0, 1, 2] },
            "price": "9.99".parse::<bson::Decimal128>().unwrap(), "_tidewheel": "mine",
        };
        let payload = json!({
            "_id": "070707070707070707070707", "int": 1, "long": 2, "double": 0.5, "nan": null,
            "text": "ü", "list": [1, {"a": null}], "yes": true, "at": "2024-03-12T10:00:00.5Z",
            "uuid": "00010203-0405-0607-0809-0a0b0c0d0e0f", "bytes": "AAEC", "price": "9.99",
            "_tidewheel": {"key": "…"},
        });
        let Value::Object(payload) = payload else { unreachable!("it is an object") };
        assert_eq!(compare(&document, &payload, true), Ok(()));
        for (name, wrong) in [
            ("_id", json!("x")),
            ("int", json!(1.0)),
            ("double", json!(0.25)),
            ("nan", json!(0)),
            ("list", json!([1, {"a": null, "b": 1}])),
            ("at", json!("2024-03-12T10:00:00Z")),
            ("bytes", json!("AAED")),
            ("price", json!(9.99)),
        ] {
            let mut other = payload.clone();
            other.insert(name.to_owned(), wrong);
            assert!(compare(&document, &other, true).unwrap_err().contains(name), "{name}");
            other.remove(name);
            assert!(compare(&document, &other, true).unwrap_err().contains("missing"), "{name}");
        }
        let mut other = payload.clone();
        other.insert("more".to_owned(), json!(1));
        assert!(compare(&document, &other, true).unwrap_err().contains("more"));
    }
}
