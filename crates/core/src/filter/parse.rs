//! Parses filters from the JSON form of Qdrant's REST API, which its documentation describes.
//!
//! Supports every documented condition; anything else is rejected with its path instead of ignored, because a filter
//! that silently matches more is worse than an error.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    BoundingBox, Bounds, Circle, Condition, Date, Field, Filter, GeoPoint, Match, MinShould, PointId, Polygon, Range,
    Scalar, Values,
};
use crate::error::PortError;
use crate::payload::plain;

type Parsed<T> = Result<T, PortError>;

impl Filter {
    /// Parses a filter in the JSON form of Qdrant's REST API.
    ///
    /// # Errors
    /// Poison, with the path of the invalid part.
    pub fn parse(json: &Value) -> Result<Self, PortError> {
        filter(json, "filter")
    }
}

fn filter(json: &Value, path: &str) -> Parsed<Filter> {
    let mut filter = Filter::default();
    for (name, value) in object(json, path)? {
        let at = format!("{path}.{name}");
        match name.as_str() {
            _ if value.is_null() => {}
            "must" => filter.must = conditions(value, &at)?,
            "should" => filter.should = conditions(value, &at)?,
            "must_not" => filter.must_not = conditions(value, &at)?,
            "min_should" => filter.min_should = Some(min_should(value, &at)?),
            _ => return Err(unknown(&at, "must, should, must_not or min_should")),
        }
    }
    Ok(filter)
}

/// A list of conditions, or a single one.
fn conditions(json: &Value, path: &str) -> Parsed<Vec<Condition>> {
    match json {
        Value::Array(items) => {
            items.iter().enumerate().map(|(at, item)| condition(item, &format!("{path}[{at}]"))).collect()
        }
        single => Ok(vec![condition(single, path)?]),
    }
}

fn min_should(json: &Value, path: &str) -> Parsed<MinShould> {
    let fields = only(json, path, &["conditions", "min_count"])?;
    Ok(MinShould {
        conditions: conditions(required(fields, "conditions", path)?, &format!("{path}.conditions"))?,
        min_count: unsigned(required(fields, "min_count", path)?, &format!("{path}.min_count"))?,
    })
}

fn condition(json: &Value, path: &str) -> Parsed<Condition> {
    let fields = object(json, path)?;
    if fields.contains_key("key") {
        field(fields, path).map(|field| Condition::Field(Box::new(field)))
    } else if let Some(inner) = fields.get("is_empty") {
        let _ = only(json, path, &["is_empty"])?;
        key(inner, &format!("{path}.is_empty")).map(Condition::IsEmpty)
    } else if let Some(inner) = fields.get("is_null") {
        let _ = only(json, path, &["is_null"])?;
        key(inner, &format!("{path}.is_null")).map(Condition::IsNull)
    } else if let Some(inner) = fields.get("has_id") {
        let _ = only(json, path, &["has_id"])?;
        list(inner, &format!("{path}.has_id"), point_id).map(Condition::HasId)
    } else if let Some(inner) = fields.get("has_vector") {
        let _ = only(json, path, &["has_vector"])?;
        text(inner, &format!("{path}.has_vector")).map(Condition::HasVector)
    } else if let Some(inner) = fields.get("nested") {
        let _ = only(json, path, &["nested"])?;
        nested(inner, &format!("{path}.nested"))
    } else if fields.keys().any(|name| matches!(name.as_str(), "must" | "should" | "must_not" | "min_should")) {
        filter(json, path).map(Condition::Filter)
    } else {
        Err(unknown(path, "a condition: key, is_empty, is_null, has_id, has_vector, nested, or a filter"))
    }
}

fn nested(json: &Value, path: &str) -> Parsed<Condition> {
    let fields = only(json, path, &["key", "filter"])?;
    let filter = filter(required(fields, "filter", path)?, &format!("{path}.filter"))?;
    Ok(Condition::Nested { key: key_of(fields, path)?, filter })
}

fn field(fields: &Map<String, Value>, path: &str) -> Parsed<Field> {
    let mut field = Field { key: key_of(fields, path)?, ..Field::default() };
    let mut compared = false;
    for (name, value) in fields.iter().filter(|(name, value)| *name != "key" && !value.is_null()) {
        let at = format!("{path}.{name}");
        compared = true;
        match name.as_str() {
            "match" => field.matches = Some(matching(value, &at)?),
            "range" => field.range = Some(range(value, &at)?),
            "values_count" => field.values_count = Some(limits(&bounds(value, &at)?, &at, unsigned)?),
            "geo_bounding_box" => field.bounding_box = Some(bounding_box(value, &at)?),
            "geo_radius" => field.circle = Some(circle(value, &at)?),
            "geo_polygon" => field.polygon = Some(polygon(value, &at)?),
            "is_empty" => field.is_empty = Some(boolean(value, &at)?),
            "is_null" => field.is_null = Some(boolean(value, &at)?),
            _ => {
                let known =
                    "match, range, values_count, geo_bounding_box, geo_radius, geo_polygon, is_empty or is_null";
                return Err(unknown(&at, known));
            }
        }
    }
    if compared { Ok(field) } else { Err(unknown(path, "a comparison: match, range, …")) }
}

fn matching(json: &Value, path: &str) -> Parsed<Match> {
    let fields = object(json, path)?;
    let mut entries = fields.iter();
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        return Err(unknown(path, "exactly one of value, any, except, text, text_any, phrase or prefix"));
    };
    let at = format!("{path}.{name}");
    // Converts MongoDB types in extended JSON to their payload form: a legacy UUID, for example.
    let value = &plain(value.clone());
    Ok(match name.as_str() {
        "value" => Match::Value(scalar(value, &at)?),
        "any" => Match::Any(values(value, &at)?),
        "except" => Match::Except(values(value, &at)?),
        "text" => Match::Text(text(value, &at)?),
        "text_any" => Match::TextAny(text(value, &at)?),
        "phrase" => Match::Phrase(text(value, &at)?),
        "prefix" => Match::Prefix(text(value, &at)?),
        _ => return Err(unknown(&at, "value, any, except, text, text_any, phrase or prefix")),
    })
}

fn scalar(json: &Value, path: &str) -> Parsed<Scalar> {
    match json {
        Value::String(text) => Ok(Scalar::Keyword(text.clone())),
        Value::Bool(value) => Ok(Scalar::Boolean(*value)),
        Value::Number(number) => Ok(Scalar::Number(number.clone())),
        _ => Err(unknown(path, "a string, a boolean or a number")),
    }
}

/// The first item determines the type of all.
fn values(json: &Value, path: &str) -> Parsed<Values> {
    if json.get(0).is_some_and(Value::is_number) {
        let number = |value: &Value, path: &str| match value {
            Value::Number(number) => Ok(number.clone()),
            _ => Err(unknown(path, "a number")),
        };
        list(json, path, number).map(Values::Numbers)
    } else {
        list(json, path, text).map(Values::Keywords)
    }
}

/// String bounds make a range of dates, others one of numbers.
fn range(json: &Value, path: &str) -> Parsed<Range> {
    let bounds = bounds(json, path)?;
    if bounds.values().any(Value::is_string) {
        limits(&bounds, path, date).map(Range::Dates)
    } else {
        limits(&bounds, path, number).map(Range::Numbers)
    }
}

/// The bounds of a range without nulls, which Qdrant's own clients write too.
fn bounds(json: &Value, path: &str) -> Parsed<Map<String, Value>> {
    let fields = only(json, path, &["lt", "gt", "gte", "lte"])?;
    Ok(fields.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn limits<T>(bounds: &Map<String, Value>, path: &str, read: fn(&Value, &str) -> Parsed<T>) -> Parsed<Bounds<T>> {
    let at = |name: &str| bounds.get(name).map(|value| read(value, &format!("{path}.{name}"))).transpose();
    Ok(Bounds { lt: at("lt")?, gt: at("gt")?, gte: at("gte")?, lte: at("lte")? })
}

fn bounding_box(json: &Value, path: &str) -> Parsed<BoundingBox> {
    let fields = only(json, path, &["top_left", "bottom_right"])?;
    let corner = |name: &str| geo_point(required(fields, name, path)?, &format!("{path}.{name}"));
    Ok(BoundingBox { top_left: corner("top_left")?, bottom_right: corner("bottom_right")? })
}

fn circle(json: &Value, path: &str) -> Parsed<Circle> {
    let fields = only(json, path, &["center", "radius"])?;
    Ok(Circle {
        center: geo_point(required(fields, "center", path)?, &format!("{path}.center"))?,
        radius: number(required(fields, "radius", path)?, &format!("{path}.radius"))?,
    })
}

fn polygon(json: &Value, path: &str) -> Parsed<Polygon> {
    let fields = only(json, path, &["exterior", "interiors"])?;
    let interiors = fields.get("interiors").filter(|value| !value.is_null());
    Ok(Polygon {
        exterior: line(required(fields, "exterior", path)?, &format!("{path}.exterior"))?,
        interiors: interiors
            .map(|value| list(value, &format!("{path}.interiors"), line))
            .transpose()?
            .unwrap_or_default(),
    })
}

fn line(json: &Value, path: &str) -> Parsed<Vec<GeoPoint>> {
    let fields = only(json, path, &["points"])?;
    list(required(fields, "points", path)?, &format!("{path}.points"), geo_point)
}

fn geo_point(json: &Value, path: &str) -> Parsed<GeoPoint> {
    let fields = only(json, path, &["lon", "lat"])?;
    let degrees = |name: &str| number(required(fields, name, path)?, &format!("{path}.{name}"));
    Ok(GeoPoint { lon: degrees("lon")?, lat: degrees("lat")? })
}

fn point_id(json: &Value, path: &str) -> Parsed<PointId> {
    match json {
        Value::String(text) => Uuid::parse_str(text).map(PointId::Uuid).map_err(|_| unknown(path, "a UUID")),
        other => unsigned(other, path).map(PointId::Number),
    }
}

fn key(json: &Value, path: &str) -> Parsed<String> {
    key_of(only(json, path, &["key"])?, path)
}

fn key_of(fields: &Map<String, Value>, path: &str) -> Parsed<String> {
    text(required(fields, "key", path)?, &format!("{path}.key"))
}

fn object<'a>(json: &'a Value, path: &str) -> Parsed<&'a Map<String, Value>> {
    json.as_object().ok_or_else(|| unknown(path, "an object"))
}

/// An object with only these fields.
fn only<'a>(json: &'a Value, path: &str, known: &[&str]) -> Parsed<&'a Map<String, Value>> {
    let fields = object(json, path)?;
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(unknown(&format!("{path}.{name}"), &known.join(", "))),
        None => Ok(fields),
    }
}

fn required<'a>(fields: &'a Map<String, Value>, name: &str, path: &str) -> Parsed<&'a Value> {
    fields.get(name).ok_or_else(|| unknown(path, &format!("a field {name:?}")))
}

fn list<T>(json: &Value, path: &str, item: impl Fn(&Value, &str) -> Parsed<T>) -> Parsed<Vec<T>> {
    let items = json.as_array().ok_or_else(|| unknown(path, "a list"))?;
    items.iter().enumerate().map(|(at, value)| item(value, &format!("{path}[{at}]"))).collect()
}

fn text(json: &Value, path: &str) -> Parsed<String> {
    json.as_str().map(str::to_owned).ok_or_else(|| unknown(path, "a string"))
}

fn number(json: &Value, path: &str) -> Parsed<f64> {
    json.as_f64().ok_or_else(|| unknown(path, "a number"))
}

fn date(json: &Value, path: &str) -> Parsed<Date> {
    json.as_str().and_then(Date::parse).ok_or_else(|| unknown(path, "a date in RFC 3339, such as 2024-03-12T10:00:00Z"))
}

fn unsigned(json: &Value, path: &str) -> Parsed<u64> {
    json.as_u64().ok_or_else(|| unknown(path, "a non-negative integer"))
}

fn boolean(json: &Value, path: &str) -> Parsed<bool> {
    json.as_bool().ok_or_else(|| unknown(path, "true or false"))
}

fn unknown(path: &str, expected: &str) -> PortError {
    PortError::poison(format!("invalid filter at {path}: expected {expected}"))
        .with_hint("write the filter in the JSON form of Qdrant's REST API")
}
