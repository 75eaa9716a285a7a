use serde_json::{Value, json};

use super::*;
use crate::error::ErrorClass;

fn field_of(json: &Value) -> Field {
    let mut filter = Filter::parse(&json!({ "must": [json] })).unwrap();
    match filter.must.remove(0) {
        Condition::Field(field) => *field,
        other => panic!("{other:?} is not a field condition"),
    }
}

#[test]
fn filter_supports_every_kind_of_match() {
    let keywords = || Values::Keywords(vec!["a".into(), "b".into()]);
    let numbers = || Values::Numbers(vec![Number::from(1), Number::from_f64(2.5).unwrap()]);
    for (json, expected) in [
        (json!({"value": "a"}), Match::Value(Scalar::Keyword("a".into()))),
        (json!({"value": 9_007_199_254_740_993_i64}), Match::Value(Scalar::Number(9_007_199_254_740_993_i64.into()))),
        (json!({"value": true}), Match::Value(Scalar::Boolean(true))),
        (json!({"any": ["a", "b"]}), Match::Any(keywords())),
        (json!({"any": [1, 2.5]}), Match::Any(numbers())),
        (json!({"any": []}), Match::Any(Values::Keywords(Vec::new()))),
        (json!({"except": ["a", "b"]}), Match::Except(keywords())),
        (json!({"except": [1, 2.5]}), Match::Except(numbers())),
        (json!({"text": "a b"}), Match::Text("a b".into())),
        (json!({"text_any": "a b"}), Match::TextAny("a b".into())),
        (json!({"phrase": "a b"}), Match::Phrase("a b".into())),
        (json!({"prefix": "a"}), Match::Prefix("a".into())),
    ] {
        let field = field_of(&json!({"key": "city", "match": json}));
        assert_eq!(field, Field { key: "city".into(), matches: Some(expected), ..Field::default() });
    }
}

#[test]
fn filter_ranges_hold_numbers_or_dates() {
    let numbers = field_of(&json!({"key": "price", "range": {"gt": 1, "lte": 2.5, "lt": null}}));
    let bounds = Bounds { gt: Some(1.0), lte: Some(2.5), ..Bounds::default() };
    assert_eq!(numbers.range, Some(Range::Numbers(bounds)));
    let dates = field_of(&json!({"key": "at", "range": {"gte": "1970-01-01T00:01:00Z", "lt": "1970-01-02"}}));
    let at = |seconds| Some(Date { seconds, nanos: 0 });
    let bounds = Bounds { gte: at(60), lt: at(86_400), ..Bounds::default() };
    assert_eq!(dates.range, Some(Range::Dates(bounds)));
}

#[test]
fn mongodb_types_match_their_payload_form() {
    let legacy = json!({"$binary": {"base64": "AAECAwQFBgcICQoLDA0ODw==", "subType": "03"}});
    for (value, plain) in [
        (legacy.clone(), "AAECAwQFBgcICQoLDA0ODw=="),
        (json!({"$uuid": "00010203-0405-0607-0809-0a0b0c0d0e0f"}), "00010203-0405-0607-0809-0a0b0c0d0e0f"),
        (json!({"$oid": "65f000000000000000000001"}), "65f000000000000000000001"),
    ] {
        let field = field_of(&json!({"key": "id", "match": {"value": value}}));
        assert_eq!(field.matches, Some(Match::Value(Scalar::Keyword(plain.to_owned()))));
    }
    let field = field_of(&json!({"key": "id", "match": {"any": [legacy, "b"]}}));
    let keywords = Values::Keywords(vec!["AAECAwQFBgcICQoLDA0ODw==".into(), "b".into()]);
    assert_eq!(field.matches, Some(Match::Any(keywords)));
}

#[test]
fn filters_nest_and_accept_a_single_condition() {
    let filter = Filter::parse(&json!({
        "should": [{"must": {"is_null": {"key": "a"}}}, {"has_id": [1, "0764ca76-b32e-56b6-a89f-522bf42e2798"]}],
        "must_not": {"is_empty": {"key": "b"}},
        "must": [
            {"nested": {"key": "diet", "filter": {"must": [{"key": "food", "match": {"value": "meat"}}]}}},
            {"has_vector": "image"},
        ],
        "min_should": {"conditions": [{"key": "tags", "values_count": {"gte": 2}}], "min_count": 1},
    }))
    .unwrap();
    let meat = Condition::matches("food", Match::Value(Scalar::Keyword("meat".into())));
    let null = Filter { must: vec![Condition::IsNull("a".into())], ..Filter::default() };
    let uuid = Uuid::from_u128(0x0764_ca76_b32e_56b6_a89f_522b_f42e_2798);
    let values_count = Some(Bounds { gte: Some(2), ..Bounds::default() });
    let tags = Field { key: "tags".into(), values_count, ..Field::default() };
    let expected = Filter {
        should: vec![Condition::Filter(null), Condition::HasId(vec![PointId::Number(1), PointId::Uuid(uuid)])],
        must_not: vec![Condition::IsEmpty("b".into())],
        must: vec![
            Condition::Nested { key: "diet".into(), filter: Filter { must: vec![meat], ..Filter::default() } },
            Condition::HasVector("image".into()),
        ],
        min_should: Some(MinShould { conditions: vec![Condition::Field(Box::new(tags))], min_count: 1 }),
    };
    assert_eq!(filter, expected);
}

#[test]
fn filter_supports_geo_conditions() {
    let (json, point) = (json!({"lon": 13.4, "lat": 52.5}), GeoPoint { lon: 13.4, lat: 52.5 });
    let near = field_of(&json!({"key": "at", "geo_radius": {"center": json, "radius": 1000}}));
    assert_eq!(near.circle, Some(Circle { center: point, radius: 1000.0 }));
    let corners = field_of(&json!({"key": "at", "geo_bounding_box": {"top_left": json, "bottom_right": json}}));
    assert_eq!(corners.bounding_box, Some(BoundingBox { top_left: point, bottom_right: point }));
    let ring = json!({"points": [json, json, json]});
    let area = field_of(&json!({"key": "at", "geo_polygon": {"exterior": ring, "interiors": [ring]}}));
    let ring = vec![point; 3];
    assert_eq!(area.polygon, Some(Polygon { exterior: ring.clone(), interiors: vec![ring] }));
}

#[test]
fn field_may_have_several_comparisons() {
    let field = field_of(&json!({"key": "a", "match": {"value": 1}, "is_empty": true, "is_null": false}));
    let one = Some(Match::Value(Scalar::Number(1.into())));
    let expected =
        Field { key: "a".into(), matches: one, is_empty: Some(true), is_null: Some(false), ..Field::default() };
    assert_eq!(field, expected);
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
        (json!({"must": [{"has_id": [1, "a"]}]}), "filter.must[0].has_id[1]"),
    ] {
        let error = Filter::parse(&json).unwrap_err();
        assert_eq!(error.class, ErrorClass::Poison);
        assert!(error.message.contains(&format!("at {path}:")), "{error}");
    }
}

#[test]
fn bounds_contain_values_between_them() {
    let contained = |bounds: Bounds<u64>| (0..6).filter(|value| bounds.contains(value)).collect::<Vec<_>>();
    assert_eq!(contained(Bounds::default()), [0, 1, 2, 3, 4, 5]);
    assert_eq!(contained(Bounds { gt: Some(1), lt: Some(4), ..Bounds::default() }), [2, 3]);
    assert_eq!(contained(Bounds { gte: Some(1), lte: Some(4), ..Bounds::default() }), [1, 2, 3, 4]);
}
