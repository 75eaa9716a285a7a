//! Conversion of filters to protobuf.

use std::slice;

use prost_types::Timestamp;
use qdrant_client::qdrant as proto;
use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::{
    DatetimeRange, FieldCondition, GeoBoundingBox, GeoLineString, GeoPolygon, GeoRadius, HasIdCondition,
    HasVectorCondition, IsEmptyCondition, IsNullCondition, NestedCondition, RepeatedStrings, ValuesCount,
};
use tidewheel_core::filter::{
    BoundingBox, Bounds, Circle, Condition, Date, Field, Filter, GeoPoint, Match, MinShould, PointId, Polygon, Range,
    Scalar, Values,
};

use super::{numbers, request};

/// Converts a filter.
pub(super) fn to_proto(filter: &Filter) -> proto::Filter {
    let Filter { must, should, must_not, min_should } = filter;
    proto::Filter {
        must: conditions(must),
        should: conditions(should),
        must_not: conditions(must_not),
        min_should: min_should.as_ref().map(|MinShould { conditions: list, min_count }| proto::MinShould {
            conditions: conditions(list),
            min_count: *min_count,
        }),
    }
}

fn conditions(list: &[Condition]) -> Vec<proto::Condition> {
    list.iter().map(|item| proto::Condition { condition_one_of: Some(condition(item)) }).collect()
}

fn condition(condition: &Condition) -> ConditionOneOf {
    match condition {
        Condition::Field(inner) => field(inner),
        Condition::IsEmpty(key) => ConditionOneOf::IsEmpty(IsEmptyCondition { key: key.clone() }),
        Condition::IsNull(key) => ConditionOneOf::IsNull(IsNullCondition { key: key.clone() }),
        Condition::HasId(ids) => ConditionOneOf::HasId(HasIdCondition { has_id: ids.iter().map(point_id).collect() }),
        Condition::HasVector(name) => ConditionOneOf::HasVector(HasVectorCondition { has_vector: name.clone() }),
        Condition::Nested { key, filter } => {
            ConditionOneOf::Nested(NestedCondition { key: key.clone(), filter: Some(to_proto(filter)) })
        }
        Condition::Filter(filter) => ConditionOneOf::Filter(to_proto(filter)),
    }
}

fn field(field: &Field) -> ConditionOneOf {
    let Field { key, matches, range, values_count, bounding_box, circle, polygon, is_empty, is_null } = field;
    let bare = FieldCondition { key: key.clone(), ..FieldCondition::default() };
    let (range, datetime_range) = match range {
        None => (None, None),
        Some(Range::Numbers(bounds)) => (Some(number_range(bounds)), None),
        Some(Range::Dates(bounds)) => (None, Some(date_range(bounds))),
    };
    let condition = FieldCondition {
        r#match: matches.as_ref().and_then(value).map(|value| proto::Match { match_value: Some(value) }),
        range,
        datetime_range,
        values_count: values_count.as_ref().map(count),
        geo_bounding_box: bounding_box.as_ref().map(geo_bounding_box),
        geo_radius: circle.as_ref().map(geo_radius),
        geo_polygon: polygon.as_ref().map(geo_polygon),
        is_empty: *is_empty,
        is_null: *is_null,
        ..bare.clone()
    };
    match matches.as_ref().and_then(|matches| numeric(key, matches)) {
        None => ConditionOneOf::Field(condition),
        Some(numbers) if condition == bare => numbers,
        // Qdrant accepts a field that matches any of its comparisons.
        Some(numbers) => {
            let either = [numbers, ConditionOneOf::Field(condition)];
            let should = either.map(|condition| proto::Condition { condition_one_of: Some(condition) }).into();
            ConditionOneOf::Filter(proto::Filter { should, ..proto::Filter::default() })
        }
    }
}

/// The value to match; `None` for numbers, which [`numeric`] converts.
fn value(matches: &Match) -> Option<MatchValue> {
    Some(match matches {
        Match::Value(Scalar::Keyword(text)) => MatchValue::Keyword(text.clone()),
        Match::Value(Scalar::Boolean(value)) => MatchValue::Boolean(*value),
        Match::Any(Values::Keywords(list)) => MatchValue::Keywords(RepeatedStrings { strings: list.clone() }),
        Match::Except(Values::Keywords(list)) => MatchValue::ExceptKeywords(RepeatedStrings { strings: list.clone() }),
        Match::Text(text) => MatchValue::Text(text.clone()),
        Match::TextAny(text) => MatchValue::TextAny(text.clone()),
        Match::Phrase(text) => MatchValue::Phrase(text.clone()),
        Match::Prefix(text) => MatchValue::Prefix(text.clone()),
        Match::Value(Scalar::Number(_)) | Match::Any(Values::Numbers(_)) | Match::Except(Values::Numbers(_)) => {
            return None;
        }
    })
}

/// The condition that matches numbers by value; `None` for other values.
fn numeric(key: &str, matches: &Match) -> Option<ConditionOneOf> {
    match matches {
        Match::Value(Scalar::Number(number)) => Some(numbers::any(key, slice::from_ref(number))),
        Match::Any(Values::Numbers(list)) => Some(numbers::any(key, list)),
        Match::Except(Values::Numbers(list)) => Some(numbers::except(key, list)),
        _ => None,
    }
}

fn number_range(bounds: &Bounds<f64>) -> proto::Range {
    let Bounds { lt, lte, gt, gte } = *bounds;
    proto::Range { lt, gt, gte, lte }
}

fn date_range(bounds: &Bounds<Date>) -> DatetimeRange {
    let at = |date: Option<Date>| date.map(|Date { seconds, nanos }| Timestamp { seconds, nanos: nanos as i32 });
    DatetimeRange { lt: at(bounds.lt), gt: at(bounds.gt), gte: at(bounds.gte), lte: at(bounds.lte) }
}

fn count(bounds: &Bounds<u64>) -> ValuesCount {
    let Bounds { lt, lte, gt, gte } = *bounds;
    ValuesCount { lt, gt, gte, lte }
}

fn geo_bounding_box(area: &BoundingBox) -> GeoBoundingBox {
    GeoBoundingBox { top_left: Some(geo_point(&area.top_left)), bottom_right: Some(geo_point(&area.bottom_right)) }
}

fn geo_radius(area: &Circle) -> GeoRadius {
    GeoRadius { center: Some(geo_point(&area.center)), radius: area.radius as f32 }
}

fn geo_polygon(area: &Polygon) -> GeoPolygon {
    let line = |points: &Vec<GeoPoint>| GeoLineString { points: points.iter().map(geo_point).collect() };
    GeoPolygon { exterior: Some(line(&area.exterior)), interiors: area.interiors.iter().map(line).collect() }
}

fn geo_point(point: &GeoPoint) -> proto::GeoPoint {
    let GeoPoint { lon, lat } = *point;
    proto::GeoPoint { lon, lat }
}

fn point_id(id: &PointId) -> proto::PointId {
    match id {
        PointId::Number(number) => proto::PointId { point_id_options: Some(PointIdOptions::Num(*number)) },
        PointId::Uuid(uuid) => request::id(*uuid),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn converted(json: &Value) -> proto::Filter {
        to_proto(&Filter::parse(json).unwrap())
    }

    fn condition_of(json: &Value) -> ConditionOneOf {
        converted(&json!({ "must": [json] })).must.remove(0).condition_one_of.unwrap()
    }

    fn field_of(json: &Value) -> FieldCondition {
        match condition_of(json) {
            ConditionOneOf::Field(field) => field,
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
        assert_eq!(numbers.range, Some(proto::Range { gt: Some(1.0), lte: Some(2.5), ..proto::Range::default() }));
        let dates = field_of(&json!({"key": "at", "range": {"gte": "1970-01-01T00:01:00Z", "lt": "1970-01-02"}}));
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        assert_eq!(
            dates.datetime_range,
            Some(DatetimeRange { gte: at(60), lt: at(86_400), ..DatetimeRange::default() })
        );
    }

    #[test]
    fn filters_nest() {
        let filter = converted(&json!({
            "should": [{"must": {"is_null": {"key": "a"}}}, {"has_id": [1, "0764ca76-b32e-56b6-a89f-522bf42e2798"]}],
            "must_not": {"is_empty": {"key": "b"}},
            "must": [
                {"nested": {"key": "diet", "filter": {"must": [{"key": "food", "match": {"value": "meat"}}]}}},
                {"has_vector": "image"},
            ],
            "min_should": {"conditions": [{"key": "tags", "values_count": {"gte": 2}}], "min_count": 1},
        }));
        assert_eq!((filter.should.len(), filter.must_not.len(), filter.must.len()), (2, 1, 2));
        assert!(matches!(filter.should[0].condition_one_of, Some(ConditionOneOf::Filter(_))));
        let Some(ConditionOneOf::HasId(ids)) = &filter.should[1].condition_one_of else { panic!("not ids") };
        let ids: Vec<_> = ids.has_id.iter().filter_map(|id| id.point_id_options.clone()).collect();
        let uuid = PointIdOptions::Uuid("0764ca76-b32e-56b6-a89f-522bf42e2798".into());
        assert_eq!(ids, [PointIdOptions::Num(1), uuid]);
        assert!(matches!(filter.must_not[0].condition_one_of, Some(ConditionOneOf::IsEmpty(_))));
        assert!(matches!(filter.must[0].condition_one_of, Some(ConditionOneOf::Nested(_))));
        assert!(matches!(filter.must[1].condition_one_of, Some(ConditionOneOf::HasVector(_))));
        let min_should = filter.min_should.unwrap();
        assert_eq!((min_should.conditions.len(), min_should.min_count), (1, 1));
    }

    #[test]
    fn filter_supports_geo_conditions() {
        let point = json!({"lon": 13.4, "lat": 52.5});
        let circle = field_of(&json!({"key": "at", "geo_radius": {"center": point, "radius": 1000}}));
        assert_eq!(circle.geo_radius.unwrap().radius, 1000.0);
        let corners = field_of(&json!({"key": "at", "geo_bounding_box": {"top_left": point, "bottom_right": point}}));
        assert_eq!(corners.geo_bounding_box.unwrap().top_left, Some(proto::GeoPoint { lon: 13.4, lat: 52.5 }));
        let ring = json!({"points": [point, point, point]});
        let area = field_of(&json!({"key": "at", "geo_polygon": {"exterior": ring, "interiors": [ring]}}));
        assert_eq!(area.geo_polygon.unwrap().interiors.len(), 1);
    }

    #[test]
    fn numbers_beside_another_comparison_are_an_alternative() {
        let alone = condition_of(&json!({"key": "n", "match": {"value": 3}}));
        let beside = condition_of(&json!({"key": "n", "match": {"value": 3}, "is_null": true}));
        let ConditionOneOf::Filter(either) = beside else { panic!("not a filter") };
        let null = FieldCondition { key: "n".into(), is_null: Some(true), ..FieldCondition::default() };
        let expected = [alone, ConditionOneOf::Field(null)];
        assert_eq!(either.should, expected.map(|condition| proto::Condition { condition_one_of: Some(condition) }));
    }

    #[test]
    fn empty_list_of_numbers_matches_nothing() {
        let none = Condition::matches("n", Match::Any(Values::Numbers(Vec::new())));
        let ConditionOneOf::Field(field) = condition(&none) else { panic!("not a field condition") };
        assert_eq!(field.r#match.unwrap().match_value, Some(MatchValue::Integers(proto::RepeatedIntegers::default())));
    }

    proptest! {
        #[test]
        fn dates_are_parsed_like_protobuf_timestamps(
            text in r"([+-]?[0-9]{4,6})-(0[0-9]|1[0-3])-[0-3][0-9]([Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{0,11})?( ?([Zz]|[+-][0-2][0-9](:?[0-6][0-9])?))?)?"
        ) {
            let expected = text.parse::<Timestamp>().ok();
            let bounds = Bounds { lt: Date::parse(&text), ..Bounds::default() };
            prop_assert_eq!(date_range(&bounds).lt, expected);
        }
    }
}
