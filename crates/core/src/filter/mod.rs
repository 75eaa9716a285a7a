//! Filters of a search: conditions on the payloads and ids of points.
//!
//! [`Filter::parse`] reads the JSON form that users write. An adapter converts a [`Filter`] for its server.

mod date;
mod parse;
#[cfg(test)]
mod tests;

use serde_json::Number;
use uuid::Uuid;

pub use date::Date;

/// Selects the points for which every part holds. An empty part holds for every point.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// All of these conditions hold.
    pub must: Vec<Condition>,
    /// At least one of these conditions holds.
    pub should: Vec<Condition>,
    /// None of these conditions holds.
    pub must_not: Vec<Condition>,
    /// A minimum number of these conditions holds.
    pub min_should: Option<MinShould>,
}

/// Conditions of which a minimum number holds.
#[derive(Clone, Debug, PartialEq)]
pub struct MinShould {
    /// The conditions.
    pub conditions: Vec<Condition>,
    /// The minimum.
    pub min_count: u64,
}

/// A condition on a point.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// A payload field passes a comparison.
    Field(Box<Field>),
    /// The payload field with this key is missing, null or an empty list.
    IsEmpty(String),
    /// The payload field with this key exists and is null.
    IsNull(String),
    /// The point has one of these ids.
    HasId(Vec<PointId>),
    /// The point has the vector of this name.
    HasVector(String),
    /// One object of a list passes the whole filter.
    Nested {
        /// The key of the list.
        key: String,
        /// The filter, whose keys start at the object.
        filter: Filter,
    },
    /// The point passes this filter.
    Filter(Filter),
}

impl Condition {
    /// A payload field has this value.
    pub fn matches(key: impl Into<String>, value: Match) -> Self {
        Self::Field(Box::new(Field { key: key.into(), matches: Some(value), ..Field::default() }))
    }
}

/// Comparisons of a payload field, of which one holds. At least one is set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Field {
    /// The path of the field, with dots between names.
    pub key: String,
    /// A value matches.
    pub matches: Option<Match>,
    /// A value is in the range.
    pub range: Option<Range>,
    /// The number of values is within the bounds.
    pub values_count: Option<Bounds<u64>>,
    /// A location is in the box.
    pub bounding_box: Option<BoundingBox>,
    /// A location is in the circle.
    pub circle: Option<Circle>,
    /// A location is in the polygon.
    pub polygon: Option<Polygon>,
    /// The field is empty, or is not.
    pub is_empty: Option<bool>,
    /// The field is null, or is not.
    pub is_null: Option<bool>,
}

/// The values that a field matches.
#[derive(Clone, Debug, PartialEq)]
pub enum Match {
    /// This value.
    Value(Scalar),
    /// One of these values.
    Any(Values),
    /// Any value except these.
    Except(Values),
    /// A text with all of these words; without a text index, a text that contains this one.
    Text(String),
    /// A text with one of these words.
    TextAny(String),
    /// A text with these words in this order.
    Phrase(String),
    /// A string with this prefix.
    Prefix(String),
}

/// A value to match.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// A string.
    Keyword(String),
    /// A boolean.
    Boolean(bool),
    /// A number, compared by value: `3` matches `3.0`.
    Number(Number),
}

/// Values of one type to match.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Strings.
    Keywords(Vec<String>),
    /// Numbers, compared by value.
    Numbers(Vec<Number>),
}

/// A range of values of one type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// Numbers.
    Numbers(Bounds<f64>),
    /// Dates.
    Dates(Bounds<Date>),
}

/// Bounds, of which each is optional.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds<T> {
    /// Values are less than this one.
    pub lt: Option<T>,
    /// Values are less than this one or equal.
    pub lte: Option<T>,
    /// Values are greater than this one.
    pub gt: Option<T>,
    /// Values are greater than this one or equal.
    pub gte: Option<T>,
}

impl<T: PartialOrd> Bounds<T> {
    /// Whether the value is within the bounds.
    pub fn contains(&self, value: &T) -> bool {
        self.lt.as_ref().is_none_or(|bound| value < bound)
            && self.lte.as_ref().is_none_or(|bound| value <= bound)
            && self.gt.as_ref().is_none_or(|bound| value > bound)
            && self.gte.as_ref().is_none_or(|bound| value >= bound)
    }
}

/// A location, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeoPoint {
    /// Longitude.
    pub lon: f64,
    /// Latitude.
    pub lat: f64,
}

/// An area between two meridians and two parallels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoundingBox {
    /// The north-west corner.
    pub top_left: GeoPoint,
    /// The south-east corner.
    pub bottom_right: GeoPoint,
}

/// A circle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Circle {
    /// The center.
    pub center: GeoPoint,
    /// The radius, in meters.
    pub radius: f64,
}

/// A polygon with holes.
#[derive(Clone, Debug, PartialEq)]
pub struct Polygon {
    /// The boundary. Its first point is also its last.
    pub exterior: Vec<GeoPoint>,
    /// The boundaries of the holes.
    pub interiors: Vec<Vec<GeoPoint>>,
}

/// The id of a point. Points of other writers may have numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PointId {
    /// A number.
    Number(u64),
    /// A UUID.
    Uuid(Uuid),
}
