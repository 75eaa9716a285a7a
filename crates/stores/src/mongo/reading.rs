//! Interpretations of an `_id` typed by a person.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, UuidRepresentation, doc};
use tidewheel_core::ports::IdReading;
use uuid::Uuid;

use super::event::id_of;
use super::extjson::{self, Form};
use super::keys::key_of;

/// Every plausible interpretation of a text, the likeliest first: extended JSON, an ObjectId of 24 hexadecimal digits,
/// a UUID and its legacy byte orders, a number, and the text itself.
pub fn id_readings(text: &str) -> Vec<IdReading> {
    let mut values: Vec<(&'static str, Bson)> = Vec::new();
    let text = text.trim();
    if text.starts_with(['{', '"'])
        && let Ok(value) = serde_json::from_str::<serde_json::Value>(text)
        && let Ok(value) = Bson::try_from(value)
    {
        values.push((kind(&value), value));
    }
    if let Ok(id) = ObjectId::parse_str(text) {
        values.push(("ObjectId", Bson::ObjectId(id)));
    }
    if text.contains('-')
        && let Ok(uuid) = Uuid::parse_str(text)
    {
        let uuid = bson::Uuid::from_bytes(uuid.into_bytes());
        // Drivers before subtype 4 wrote the same UUID in three byte orders.
        for (kind, representation) in [
            ("UUID", UuidRepresentation::Standard),
            ("legacy UUID (Python)", UuidRepresentation::PythonLegacy),
            ("legacy UUID (C#)", UuidRepresentation::CSharpLegacy),
            ("legacy UUID (Java)", UuidRepresentation::JavaLegacy),
        ] {
            values.push((kind, Bson::Binary(Binary::from_uuid_with_representation(uuid, representation))));
        }
    }
    // MongoDB treats equal numbers as the same `_id`, regardless of type.
    if let Ok(number) = text.parse::<i64>() {
        values.push(("number", Bson::Int64(number)));
    }
    if text.starts_with(|first: char| first.is_ascii_digit() || first == '-')
        && let Ok(number) = text.parse::<f64>()
    {
        values.push(("number", Bson::Double(number)));
        if let Ok(exact) = text.parse::<bson::Decimal128>() {
            values.push(("decimal", Bson::Decimal128(exact)));
        }
    }
    match text {
        "true" => values.push(("boolean", Bson::Boolean(true))),
        "false" => values.push(("boolean", Bson::Boolean(false))),
        "null" => values.push(("null", Bson::Null)),
        _ => {}
    }
    values.push(("text", Bson::String(text.to_owned())));
    let mut readings: Vec<IdReading> = Vec::new();
    for (kind, value) in values {
        if let Some(reading) = reading(kind, value)
            && !readings.iter().any(|other| other.key == reading.key)
        {
            readings.push(reading);
        }
    }
    readings
}

fn reading(kind: &'static str, value: Bson) -> Option<IdReading> {
    let bytes = doc! { "_id": value }.to_vec().ok()?;
    let element = id_of(&bytes).ok()?;
    Some(IdReading { kind, key: key_of(&element).ok()?, id: extjson::value(&element, Form::Relaxed).ok()? })
}

fn kind(value: &Bson) -> &'static str {
    match value {
        Bson::ObjectId(_) => "ObjectId",
        Bson::Binary(binary) if binary.subtype == BinarySubtype::Uuid => "UUID",
        Bson::Binary(binary) if binary.subtype == BinarySubtype::UuidOld => "legacy UUID",
        Bson::Binary(_) => "binary",
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) => "number",
        Bson::Decimal128(_) => "decimal",
        Bson::DateTime(_) => "date",
        Bson::String(_) => "text",
        _ => "extended JSON",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<(&'static str, String)> {
        id_readings(text).into_iter().map(|reading| (reading.kind, reading.key)).collect()
    }

    #[test]
    fn typed_ids_yield_plausible_readings() {
        assert_eq!(
            keys("65f000000000000000000001"),
            [
                ("ObjectId", r#"{"$oid":"65f000000000000000000001"}"#.into()),
                ("text", r#""65f000000000000000000001""#.to_owned())
            ]
        );
        for number in ["7", "7.0", "07", "7.00"] {
            let text = format!("\"{number}\"");
            assert_eq!(keys(number), [("number", r#"{"$numberInt":"7"}"#.to_owned()), ("text", text)]);
        }
        assert_eq!(
            keys("0.1"),
            [
                ("number", r#"{"$numberDouble":"0.1"}"#.to_owned()),
                ("decimal", r#"{"$numberDecimal":"0.1"}"#.into()),
                ("text", r#""0.1""#.into())
            ]
        );
        let uuid = keys("00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(uuid[0], ("UUID", r#"{"$binary":{"base64":"AAECAwQFBgcICQoLDA0ODw==","subType":"04"}}"#.into()));
        let legacy: Vec<_> = uuid[1..4].iter().map(|(kind, key)| (*kind, key.as_str())).collect();
        assert_eq!(
            legacy,
            [
                ("legacy UUID (Python)", r#"{"$binary":{"base64":"AAECAwQFBgcICQoLDA0ODw==","subType":"03"}}"#),
                ("legacy UUID (C#)", r#"{"$binary":{"base64":"AwIBAAUEBwYICQoLDA0ODw==","subType":"03"}}"#),
                ("legacy UUID (Java)", r#"{"$binary":{"base64":"BwYFBAMCAQAPDg0MCwoJCA==","subType":"03"}}"#),
            ]
        );
        assert_eq!(keys("inf"), [("text", r#""inf""#.to_owned())]);
        assert_eq!(keys("true")[0], ("boolean", "true".to_owned()));
    }

    #[test]
    fn extended_json_ids_are_unambiguous() {
        assert_eq!(keys(r#"{"$numberLong":"7"}"#)[0], ("number", r#"{"$numberInt":"7"}"#.to_owned()));
        let legacy = r#"{"$binary":{"base64":"AAECAwQFBgcICQoLDA0ODw==","subType":"03"}}"#;
        assert_eq!(keys(legacy)[0], ("legacy UUID", legacy.to_owned()));
        assert_eq!(keys(r#""7""#)[0], ("text", r#""7""#.to_owned()));
        assert_eq!(keys(r#"{"a":1}"#)[0], ("extended JSON", r#"{"a":{"$numberInt":"1"}}"#.to_owned()));
        assert_eq!(keys("{broken").len(), 1, "it may be a text");
    }
}
