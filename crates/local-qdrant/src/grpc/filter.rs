//! Converts filters and orderings from protobuf to the engine.

use std::str::FromStr;

use qdrant_client::qdrant::{self as proto, condition::ConditionOneOf, r#match::MatchValue};
use qdrant_edge::external::ordered_float::OrderedFloat;
use qdrant_edge::{
    Condition, DateTimeWrapper, Direction, FieldCondition, Filter, GeoBoundingBox, GeoPoint, GeoRadius, HasIdCondition,
    HasVectorCondition, IsEmptyCondition, IsNullCondition, Match, MatchExcept, MatchPhrase, MatchText, MatchTextAny,
    MinShould, OrderBy, Range, RangeInterface, StartFrom, ValueVariants, ValuesCount,
};

use super::super::error::ApiError;
use super::super::write::Selector;
use super::value::{ids_in, path_in, required};

type Result<T> = std::result::Result<T, ApiError>;

fn bad(reason: impl Into<String>) -> ApiError {
    ApiError::BadInput(reason.into())
}

/// Converts an optional filter.
pub(super) fn filter_in(filter: Option<proto::Filter>) -> Result<Option<Filter>> {
    filter.map(convert).transpose()
}

/// Converts a selection of points by id or by filter.
pub(super) fn selector_in(selector: Option<proto::PointsSelector>) -> Result<Selector> {
    use proto::points_selector::PointsSelectorOneOf as O;
    match required(selector.and_then(|selector| selector.points_selector_one_of), "PointsSelector")? {
        O::Points(points) => Ok(Selector::Ids(ids_in(points.ids)?)),
        O::Filter(filter) => Ok(Selector::Filter(convert(filter)?)),
    }
}

fn convert(filter: proto::Filter) -> Result<Filter> {
    let min_should = filter
        .min_should
        .map(|min| {
            let min_count = count(min.min_count);
            Ok::<_, ApiError>(MinShould { conditions: conditions(min.conditions)?.unwrap_or_default(), min_count })
        })
        .transpose()?;
    Ok(Filter {
        should: conditions(filter.should)?,
        min_should,
        must: conditions(filter.must)?,
        must_not: conditions(filter.must_not)?,
    })
}

/// Converts conditions; an empty list becomes `None`.
fn conditions(list: Vec<proto::Condition>) -> Result<Option<Vec<Condition>>> {
    if list.is_empty() {
        return Ok(None);
    }
    list.into_iter().map(condition).collect::<Result<_>>().map(Some)
}

fn condition(condition: proto::Condition) -> Result<Condition> {
    Ok(match required(condition.condition_one_of, "condition")? {
        ConditionOneOf::Field(field) => Condition::Field(field_condition(field)?),
        ConditionOneOf::IsEmpty(empty) => Condition::IsEmpty(IsEmptyCondition::from(path_in(&empty.key)?)),
        ConditionOneOf::IsNull(null) => Condition::IsNull(IsNullCondition::from(path_in(&null.key)?)),
        ConditionOneOf::HasId(has) => Condition::HasId(ids_in(has.has_id)?.into_iter().collect::<HasIdCondition>()),
        ConditionOneOf::Filter(filter) => Condition::Filter(convert(filter)?),
        ConditionOneOf::Nested(nested) => {
            let filter = convert(required(nested.filter, "nested filter")?)?;
            Condition::new_nested(path_in(&nested.key)?, filter)
        }
        ConditionOneOf::HasVector(has) => Condition::HasVector(HasVectorCondition::from(has.has_vector)),
        ConditionOneOf::Slice(_) => return Err(ApiError::Unsupported("the slice condition".to_owned())),
    })
}

fn field_condition(field: proto::FieldCondition) -> Result<FieldCondition> {
    let range = match (field.range, field.datetime_range) {
        (Some(_), Some(_)) => return Err(bad("Only one of `range` and `datetime_range` can be specified")),
        (Some(range), None) => Some(RangeInterface::Float(Range {
            lt: range.lt.map(OrderedFloat),
            gt: range.gt.map(OrderedFloat),
            gte: range.gte.map(OrderedFloat),
            lte: range.lte.map(OrderedFloat),
        })),
        (None, Some(range)) => Some(RangeInterface::DateTime(Range {
            lt: range.lt.map(timestamp).transpose()?,
            gt: range.gt.map(timestamp).transpose()?,
            gte: range.gte.map(timestamp).transpose()?,
            lte: range.lte.map(timestamp).transpose()?,
        })),
        (None, None) => None,
    };
    if field.geo_polygon.is_some() {
        return Err(ApiError::Unsupported("the geo_polygon condition".to_owned()));
    }
    let converted = FieldCondition {
        key: path_in(&field.key)?,
        r#match: field.r#match.map(match_in).transpose()?,
        range,
        geo_bounding_box: field.geo_bounding_box.map(bounding_box).transpose()?,
        geo_radius: field.geo_radius.map(radius).transpose()?,
        geo_polygon: None,
        values_count: field.values_count.map(|values| ValuesCount {
            lt: values.lt.map(count),
            gt: values.gt.map(count),
            gte: values.gte.map(count),
            lte: values.lte.map(count),
        }),
        is_empty: field.is_empty,
        is_null: field.is_null,
    };
    if converted.all_fields_none() {
        return Err(bad(format!("At least one field condition must be specified for `{}`", field.key)));
    }
    Ok(converted)
}

fn match_in(value: proto::Match) -> Result<Match> {
    Ok(match required(value.match_value, "match value")? {
        MatchValue::Keyword(keyword) => Match::from(ValueVariants::String(keyword)),
        MatchValue::Integer(integer) => Match::from(ValueVariants::Integer(integer)),
        MatchValue::Boolean(flag) => Match::from(ValueVariants::Bool(flag)),
        MatchValue::Text(text) => Match::Text(MatchText { text }),
        MatchValue::Phrase(phrase) => Match::Phrase(MatchPhrase { phrase }),
        MatchValue::TextAny(text_any) => Match::TextAny(MatchTextAny { text_any }),
        MatchValue::Keywords(keywords) => Match::from(keywords.strings),
        MatchValue::Integers(integers) => Match::from(integers.integers),
        MatchValue::ExceptKeywords(keywords) => Match::Except(MatchExcept::from(keywords.strings)),
        MatchValue::ExceptIntegers(integers) => Match::Except(MatchExcept::from(integers.integers)),
        MatchValue::Prefix(_) => return Err(ApiError::Unsupported("matching by prefix".to_owned())),
        MatchValue::Substring(_) => return Err(ApiError::Unsupported("matching by substring".to_owned())),
    })
}

fn count(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn geo_point(point: Option<proto::GeoPoint>) -> Result<GeoPoint> {
    let point = required(point, "geo point")?;
    if !(-180.0..=180.0).contains(&point.lon) || !(-90.0..=90.0).contains(&point.lat) {
        return Err(bad(format!("Wrong geo point: lon {}, lat {}", point.lon, point.lat)));
    }
    Ok(GeoPoint { lon: OrderedFloat(point.lon), lat: OrderedFloat(point.lat) })
}

fn bounding_box(geo: proto::GeoBoundingBox) -> Result<GeoBoundingBox> {
    Ok(GeoBoundingBox { top_left: geo_point(geo.top_left)?, bottom_right: geo_point(geo.bottom_right)? })
}

fn radius(geo: proto::GeoRadius) -> Result<GeoRadius> {
    Ok(GeoRadius { center: geo_point(geo.center)?, radius: OrderedFloat(f64::from(geo.radius)) })
}

fn timestamp(timestamp: prost_types::Timestamp) -> Result<DateTimeWrapper> {
    datetime(&timestamp.to_string())
}

fn datetime(text: &str) -> Result<DateTimeWrapper> {
    DateTimeWrapper::from_str(text).map_err(|error| bad(format!("Unable to parse datetime `{text}`: {error}")))
}

pub(super) fn order_by_in(order: proto::OrderBy) -> Result<OrderBy> {
    use proto::start_from::Value;
    let direction = order.direction.map(|direction| match proto::Direction::try_from(direction) {
        Ok(proto::Direction::Desc) => Direction::Desc,
        Ok(proto::Direction::Asc) | Err(_) => Direction::Asc,
    });
    let start_from = match order.start_from.and_then(|start| start.value) {
        None => None,
        Some(Value::Float(float)) => Some(StartFrom::Float(float)),
        Some(Value::Integer(integer)) => Some(StartFrom::Integer(integer)),
        Some(Value::Timestamp(moment)) => Some(StartFrom::Datetime(timestamp(moment)?)),
        Some(Value::Datetime(text)) => Some(StartFrom::Datetime(datetime(&text)?)),
    };
    Ok(OrderBy { key: path_in(&order.key)?, direction, start_from })
}

#[cfg(test)]
mod tests {
    use qdrant_client::qdrant::{DatetimeRange, HasIdCondition as HasId};
    use serde_json::json;

    use super::*;

    #[test]
    fn protobuf_filter_equals_its_json_form() {
        let field = |key: &str| proto::FieldCondition { key: key.to_owned(), ..proto::FieldCondition::default() };
        let one = |condition| proto::Condition { condition_one_of: Some(condition) };
        let keyword = proto::Match { match_value: Some(MatchValue::Keyword("red".to_owned())) };
        let seconds = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let filter = proto::Filter {
            should: vec![
                one(ConditionOneOf::HasId(HasId { has_id: vec![proto::PointId::from(7)] })),
                one(ConditionOneOf::IsEmpty(proto::IsEmptyCondition { key: "a.b".to_owned() })),
            ],
            must: vec![
                one(ConditionOneOf::Field(proto::FieldCondition { r#match: Some(keyword), ..field("color") })),
                one(ConditionOneOf::Field(proto::FieldCondition {
                    range: Some(proto::Range { lt: Some(5.0), gte: Some(1.0), ..proto::Range::default() }),
                    ..field("n")
                })),
                one(ConditionOneOf::Field(proto::FieldCondition {
                    datetime_range: Some(DatetimeRange { gt: seconds(1_700_000_000), ..DatetimeRange::default() }),
                    ..field("when")
                })),
            ],
            must_not: vec![one(ConditionOneOf::Filter(proto::Filter::default()))],
            min_should: None,
        };
        let expected: Filter = serde_json::from_value(json!({
            "should": [{"has_id": [7]}, {"is_empty": {"key": "a.b"}}],
            "must": [
                {"key": "color", "match": {"value": "red"}},
                {"key": "n", "range": {"lt": 5.0, "gte": 1.0}},
                {"key": "when", "range": {"gt": "2023-11-14T22:13:20Z"}},
            ],
            "must_not": [{}],
        }))
        .unwrap();
        assert_eq!(filter_in(Some(filter)).unwrap(), Some(expected));
    }

    #[test]
    fn unsupported_match_and_empty_condition_are_rejected() {
        let prefix = proto::Match { match_value: Some(MatchValue::Prefix("re".to_owned())) };
        let field = proto::FieldCondition { key: "a".to_owned(), r#match: Some(prefix), ..Default::default() };
        assert!(matches!(field_condition(field), Err(ApiError::Unsupported(_))));
        let empty = proto::FieldCondition { key: "a".to_owned(), ..Default::default() };
        assert!(matches!(field_condition(empty), Err(ApiError::BadInput(_))));
    }
}
