//! Conversion of filters from Qdrant's documented JSON form to protobuf.
//!
//! Supports every documented filter; anything else is rejected with its path instead of ignored, because a filter that
//! silently matches more is worse than an error.

use prost_types::Timestamp;
use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::{
    Condition, DatetimeRange, FieldCondition, Filter, GeoBoundingBox, GeoLineString, GeoPoint, GeoPolygon, GeoRadius,
    HasIdCondition, HasVectorCondition, IsEmptyCondition, IsNullCondition, Match, MinShould, NestedCondition, PointId,
    Range, RepeatedStrings, ValuesCount,
};
use serde_json::{Map, Number, Value};
use tidewheel_core::error::PortError;
use tidewheel_core::payload::plain;

use super::numbers;

type Parsed<T> = Result<T, PortError>;

/// Parses a filter.
///
/// # Errors
/// Poison, with the path of the invalid part.
pub(super) fn parse(json: &Value) -> Parsed<Filter> {
    filter(json, "filter")
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
    let kind = if fields.contains_key("key") {
        field(fields, path)?
    } else if let Some(inner) = fields.get("is_empty") {
        let _ = only(json, path, &["is_empty"])?;
        ConditionOneOf::IsEmpty(IsEmptyCondition { key: key(inner, &format!("{path}.is_empty"))? })
    } else if let Some(inner) = fields.get("is_null") {
        let _ = only(json, path, &["is_null"])?;
        ConditionOneOf::IsNull(IsNullCondition { key: key(inner, &format!("{path}.is_null"))? })
    } else if let Some(inner) = fields.get("has_id") {
        let _ = only(json, path, &["has_id"])?;
        ConditionOneOf::HasId(HasIdCondition { has_id: list(inner, &format!("{path}.has_id"), point_id)? })
    } else if let Some(inner) = fields.get("has_vector") {
        let _ = only(json, path, &["has_vector"])?;
        ConditionOneOf::HasVector(HasVectorCondition { has_vector: text(inner, &format!("{path}.has_vector"))? })
    } else if let Some(inner) = fields.get("nested") {
        let _ = only(json, path, &["nested"])?;
        ConditionOneOf::Nested(nested(inner, &format!("{path}.nested"))?)
    } else if fields.keys().any(|name| matches!(name.as_str(), "must" | "should" | "must_not" | "min_should")) {
        ConditionOneOf::Filter(filter(json, path)?)
    } else {
        return Err(unknown(path, "a condition: key, is_empty, is_null, has_id, has_vector, nested, or a filter"));
    };
    Ok(Condition { condition_one_of: Some(kind) })
}

fn nested(json: &Value, path: &str) -> Parsed<NestedCondition> {
    let fields = only(json, path, &["key", "filter"])?;
    let inner = filter(required(fields, "filter", path)?, &format!("{path}.filter"))?;
    Ok(NestedCondition { key: key_of(fields, path)?, filter: Some(inner) })
}

fn field(fields: &Map<String, Value>, path: &str) -> Parsed<ConditionOneOf> {
    let mut condition = FieldCondition { key: key_of(fields, path)?, ..FieldCondition::default() };
    let (mut given, mut numbers) = (0, None);
    for (name, value) in fields.iter().filter(|(name, value)| *name != "key" && !value.is_null()) {
        let at = format!("{path}.{name}");
        given += 1;
        match name.as_str() {
            "match" => match match_value(value, &at)? {
                Matching::Value(value) => condition.r#match = Some(Match { match_value: Some(value) }),
                Matching::Numbers(list) => numbers = Some(numbers::any(&condition.key, &list)),
                Matching::ExceptNumbers(list) => numbers = Some(numbers::except(&condition.key, &list)),
            },
            "range" => range(value, &at, &mut condition)?,
            "values_count" => condition.values_count = Some(values_count(value, &at)?),
            "geo_bounding_box" => condition.geo_bounding_box = Some(bounding_box(value, &at)?),
            "geo_radius" => condition.geo_radius = Some(radius(value, &at)?),
            "geo_polygon" => condition.geo_polygon = Some(polygon(value, &at)?),
            "is_empty" => condition.is_empty = Some(boolean(value, &at)?),
            "is_null" => condition.is_null = Some(boolean(value, &at)?),
            _ => {
                let known =
                    "match, range, values_count, geo_bounding_box, geo_radius, geo_polygon, is_empty or is_null";
                return Err(unknown(&at, known));
            }
        }
    }
    match (given, numbers) {
        (0, _) => Err(unknown(path, "a comparison: match, range, …")),
        (_, None) => Ok(ConditionOneOf::Field(condition)),
        (1, Some(numbers)) => Ok(numbers),
        // Qdrant accepts a field that matches any of its comparisons.
        (_, Some(numbers)) => {
            let either = [numbers, ConditionOneOf::Field(condition)];
            let should = either.map(|condition| Condition { condition_one_of: Some(condition) }).into();
            Ok(ConditionOneOf::Filter(Filter { should, ..Filter::default() }))
        }
    }
}

/// The value that a field is matched against.
#[derive(Debug, PartialEq)]
enum Matching {
    Value(MatchValue),
    Numbers(Vec<Number>),
    ExceptNumbers(Vec<Number>),
}

fn match_value(json: &Value, path: &str) -> Parsed<Matching> {
    let fields = object(json, path)?;
    let mut entries = fields.iter();
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        return Err(unknown(path, "exactly one of value, any, except, text, text_any, phrase or prefix"));
    };
    let at = format!("{path}.{name}");
    // Converts MongoDB types in extended JSON to their payload form: a legacy UUID, for example.
    let value = &plain(value.clone());
    Ok(Matching::Value(match name.as_str() {
        "value" => match value {
            Value::String(text) => MatchValue::Keyword(text.clone()),
            Value::Bool(value) => MatchValue::Boolean(*value),
            Value::Number(number) => return Ok(Matching::Numbers(vec![number.clone()])),
            _ => return Err(unknown(&at, "a string, a boolean or a number")),
        },
        "any" => return any(value, &at, MatchValue::Keywords, Matching::Numbers),
        "except" => return any(value, &at, MatchValue::ExceptKeywords, Matching::ExceptNumbers),
        "text" => MatchValue::Text(text(value, &at)?),
        "text_any" => MatchValue::TextAny(text(value, &at)?),
        "phrase" => MatchValue::Phrase(text(value, &at)?),
        "prefix" => MatchValue::Prefix(text(value, &at)?),
        _ => return Err(unknown(&at, "value, any, except, text, text_any, phrase or prefix")),
    }))
}

fn any(
    json: &Value,
    path: &str,
    keywords: fn(RepeatedStrings) -> MatchValue,
    numbers: fn(Vec<Number>) -> Matching,
) -> Parsed<Matching> {
    if json.get(0).is_some_and(Value::is_number) {
        let number = |value: &Value, path: &str| match value {
            Value::Number(number) => Ok(number.clone()),
            _ => Err(unknown(path, "a number")),
        };
        Ok(numbers(list(json, path, number)?))
    } else {
        Ok(Matching::Value(keywords(RepeatedStrings { strings: list(json, path, text)? })))
    }
}

/// String bounds make a range of dates, others one of numbers.
fn range(json: &Value, path: &str, condition: &mut FieldCondition) -> Parsed<()> {
    let bounds = bounds(json, path)?;
    if bounds.values().any(Value::is_string) {
        let at = |name| bound(&bounds, name, path, date);
        condition.datetime_range =
            Some(DatetimeRange { lt: at("lt")?, gt: at("gt")?, gte: at("gte")?, lte: at("lte")? });
    } else {
        let at = |name| bound(&bounds, name, path, number);
        condition.range = Some(Range { lt: at("lt")?, gt: at("gt")?, gte: at("gte")?, lte: at("lte")? });
    }
    Ok(())
}

fn values_count(json: &Value, path: &str) -> Parsed<ValuesCount> {
    let bounds = bounds(json, path)?;
    let at = |name| bound(&bounds, name, path, unsigned);
    Ok(ValuesCount { lt: at("lt")?, gt: at("gt")?, gte: at("gte")?, lte: at("lte")? })
}

/// The bounds of a range without nulls, which Qdrant's own clients write too.
fn bounds(json: &Value, path: &str) -> Parsed<Map<String, Value>> {
    let fields = only(json, path, &["lt", "gt", "gte", "lte"])?;
    Ok(fields.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn bound<T>(
    bounds: &Map<String, Value>,
    name: &str,
    path: &str,
    read: fn(&Value, &str) -> Parsed<T>,
) -> Parsed<Option<T>> {
    bounds.get(name).map(|value| read(value, &format!("{path}.{name}"))).transpose()
}

fn bounding_box(json: &Value, path: &str) -> Parsed<GeoBoundingBox> {
    let fields = only(json, path, &["top_left", "bottom_right"])?;
    let corner = |name: &str| geo_point(required(fields, name, path)?, &format!("{path}.{name}")).map(Some);
    Ok(GeoBoundingBox { top_left: corner("top_left")?, bottom_right: corner("bottom_right")? })
}

fn radius(json: &Value, path: &str) -> Parsed<GeoRadius> {
    let fields = only(json, path, &["center", "radius"])?;
    Ok(GeoRadius {
        center: Some(geo_point(required(fields, "center", path)?, &format!("{path}.center"))?),
        radius: number(required(fields, "radius", path)?, &format!("{path}.radius"))? as f32,
    })
}

fn polygon(json: &Value, path: &str) -> Parsed<GeoPolygon> {
    let fields = only(json, path, &["exterior", "interiors"])?;
    let interiors = fields.get("interiors").filter(|value| !value.is_null());
    Ok(GeoPolygon {
        exterior: Some(line(required(fields, "exterior", path)?, &format!("{path}.exterior"))?),
        interiors: interiors
            .map(|value| list(value, &format!("{path}.interiors"), line))
            .transpose()?
            .unwrap_or_default(),
    })
}

fn line(json: &Value, path: &str) -> Parsed<GeoLineString> {
    let fields = only(json, path, &["points"])?;
    Ok(GeoLineString { points: list(required(fields, "points", path)?, &format!("{path}.points"), geo_point)? })
}

fn geo_point(json: &Value, path: &str) -> Parsed<GeoPoint> {
    let fields = only(json, path, &["lon", "lat"])?;
    let degrees = |name: &str| number(required(fields, name, path)?, &format!("{path}.{name}"));
    Ok(GeoPoint { lon: degrees("lon")?, lat: degrees("lat")? })
}

fn point_id(json: &Value, path: &str) -> Parsed<PointId> {
    let id = match json {
        Value::String(text) => PointIdOptions::Uuid(text.clone()),
        other => PointIdOptions::Num(unsigned(other, path)?),
    };
    Ok(PointId { point_id_options: Some(id) })
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

fn date(json: &Value, path: &str) -> Parsed<Timestamp> {
    json.as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| unknown(path, "a date in RFC 3339, such as 2024-03-12T10:00:00Z"))
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidewheel_core::error::ErrorClass;

    use super::*;

    fn field_of(json: &Value) -> FieldCondition {
        let mut filter = parse(&json!({ "must": [json] })).unwrap();
        match filter.must.remove(0).condition_one_of {
            Some(ConditionOneOf::Field(field)) => field,
            other => panic!("{other:?} is not a field condition"),
        }
    }

    #[test]
    fn filter_supports_every_kind_of_match() {
        let strings = || RepeatedStrings { strings: vec!["a".into(), "b".into()] };
        for (json, value) in [
            (json!({"value": "a"}), MatchValue::Keyword("a".into())),
            (json!({"value": 9_007_199_254_740_993_i64}), MatchValue::Integer(9_007_199_254_740_993)),
            (json!({"value": true}), MatchValue::Boolean(true)),
            (json!({"any": ["a", "b"]}), MatchValue::Keywords(strings())),
            (json!({"except": ["a", "b"]}), MatchValue::ExceptKeywords(strings())),
            (json!({"text": "a b"}), MatchValue::Text("a b".into())),
            (json!({"text_any": "a b"}), MatchValue::TextAny("a b".into())),
            (json!({"phrase": "a b"}), MatchValue::Phrase("a b".into())),
            (json!({"prefix": "a"}), MatchValue::Prefix("a".into())),
        ] {
            let field = field_of(&json!({"key": "city", "match": json}));
            assert_eq!((field.key.as_str(), field.r#match.unwrap().match_value), ("city", Some(value)));
        }
    }

    #[test]
    fn filter_ranges_hold_numbers_or_dates() {
        let numbers = field_of(&json!({"key": "price", "range": {"gt": 1, "lte": 2.5, "lt": null}}));
        assert_eq!(numbers.range, Some(Range { gt: Some(1.0), lte: Some(2.5), ..Range::default() }));
        let dates = field_of(&json!({"key": "at", "range": {"gte": "1970-01-01T00:01:00Z", "lt": "1970-01-02"}}));
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        assert_eq!(
            dates.datetime_range,
            Some(DatetimeRange { gte: at(60), lt: at(86_400), ..DatetimeRange::default() })
        );
    }

    #[test]
    fn mongodb_types_match_their_payload_form() {
        let legacy = json!({"$binary": {"base64": "AAECAwQFBgcICQoLDA0ODw==", "subType": "03"}});
        for (value, plain) in [
            (legacy.clone(), "AAECAwQFBgcICQoLDA0ODw=="),
            (json!({"$uuid": "00010203-0405-0607-0809-0a0b0c0d0e0f"}), "00010203-0405-0607-0809-0a0b0c0d0e0f"),
            (json!({"$oid": "65f000000000000000000001"}), "65f000000000000000000001"),
        ] {
            let found = match_value(&json!({"value": value}), "match").unwrap();
            assert_eq!(found, Matching::Value(MatchValue::Keyword(plain.to_owned())));
        }
        let any = match_value(&json!({"any": [legacy, "b"]}), "match").unwrap();
        let Matching::Value(MatchValue::Keywords(any)) = any else { panic!("not a list of strings") };
        assert_eq!(any.strings, ["AAECAwQFBgcICQoLDA0ODw==", "b"]);
    }

    #[test]
    fn filters_nest_and_accept_a_single_condition() {
        let filter = parse(&json!({
            "should": [{"must": {"is_null": {"key": "a"}}}, {"has_id": [1, "0764ca76-b32e-56b6-a89f-522bf42e2798"]}],
            "must_not": {"is_empty": {"key": "b"}},
            "must": [{"nested": {"key": "diet", "filter": {"must": [{"key": "food", "match": {"value": "meat"}}]}}}],
            "min_should": {"conditions": [{"key": "tags", "values_count": {"gte": 2}}], "min_count": 1},
        }))
        .unwrap();
        assert_eq!((filter.should.len(), filter.must_not.len(), filter.must.len()), (2, 1, 1));
        assert!(matches!(filter.should[0].condition_one_of, Some(ConditionOneOf::Filter(_))));
        assert!(
            matches!(&filter.should[1].condition_one_of, Some(ConditionOneOf::HasId(ids)) if ids.has_id.len() == 2)
        );
        assert!(matches!(filter.must_not[0].condition_one_of, Some(ConditionOneOf::IsEmpty(_))));
        assert!(matches!(filter.must[0].condition_one_of, Some(ConditionOneOf::Nested(_))));
        assert_eq!(filter.min_should.unwrap().min_count, 1);
    }

    #[test]
    fn filter_supports_geo_conditions() {
        let point = json!({"lon": 13.4, "lat": 52.5});
        let circle = field_of(&json!({"key": "at", "geo_radius": {"center": point, "radius": 1000}}));
        assert_eq!(circle.geo_radius.unwrap().radius, 1000.0);
        let corners = field_of(&json!({"key": "at", "geo_bounding_box": {"top_left": point, "bottom_right": point}}));
        assert_eq!(corners.geo_bounding_box.unwrap().top_left, Some(GeoPoint { lon: 13.4, lat: 52.5 }));
        let ring = json!({"points": [point, point, point]});
        let area = field_of(&json!({"key": "at", "geo_polygon": {"exterior": ring, "interiors": [ring]}}));
        assert_eq!(area.geo_polygon.unwrap().interiors.len(), 1);
    }

    #[test]
    fn invalid_filter_error_names_path() {
        for (json, path) in [
            (json!([]), "filter"),
            (json!({"must": [{"key": "a"}]}), "filter.must[0]"),
            (json!({"most": []}), "filter.most"),
            (json!({"must": [{"key": "a", "match": {"valeu": 1}}]}), "filter.must[0].match.valeu"),
            (json!({"must": [{"key": "a", "match": {"value": null}}]}), "filter.must[0].match.value"),
            (json!({"must": [{"key": "a", "match": {"any": [1, "a"]}}]}), "filter.must[0].match.any[1]"),
            (json!({"must": [{"key": "a", "match": {"any": ["a", 1]}}]}), "filter.must[0].match.any[1]"),
            (json!({"must": [{"key": "a", "range": {"from": 1}}]}), "filter.must[0].range.from"),
            (json!({"must": [{"key": "a", "range": {"gt": "soon"}}]}), "filter.must[0].range.gt"),
            (json!({"should": [{"must_not": [{"has": 1}]}]}), "filter.should[0].must_not[0]"),
            (json!({"must": [{"is_null": {"key": "a"}, "other": 1}]}), "filter.must[0].other"),
            (json!({"must": [{"nested": {"key": "a"}}]}), "filter.must[0].nested"),
        ] {
            let error = parse(&json).unwrap_err();
            assert_eq!(error.class, ErrorClass::Poison);
            assert!(error.message.contains(&format!("at {path}:")), "{error}");
        }
    }
}
