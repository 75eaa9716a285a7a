//! Conditions, and operators on one value.

use std::collections::BTreeSet;

use super::compare::{Bracket, compare};
use super::number::Number;
use super::path::{Leaf, Path};
use super::pattern::Pattern;
use super::value::{Operand, Value, fields};
use crate::mongo::extjson::Kind;

/// A condition on a document.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    /// `$and`, and the fields of a query.
    All(Vec<Self>),
    /// `$or`. Without conditions it matches nothing.
    Any(Vec<Self>),
    /// `$nor`, `$not`, and the negated operators: they match unless a condition does, also if the field is missing.
    Nor(Vec<Self>),
    /// A value at the path passes the test.
    Field(Path, Test),
}

impl Condition {
    pub(super) fn not(self) -> Self {
        Self::Nor(vec![self])
    }

    pub(super) fn matches(&self, document: &[u8]) -> bool {
        match self {
            Self::All(conditions) => conditions.iter().all(|condition| condition.matches(document)),
            Self::Any(conditions) => conditions.iter().any(|condition| condition.matches(document)),
            Self::Nor(conditions) => !conditions.iter().any(|condition| condition.matches(document)),
            Self::Field(path, test) => path.any(document, test.leaf(), &|value| test.accepts(value)),
        }
    }

    /// Adds the paths of its fields.
    pub(super) fn paths(&self, paths: &mut BTreeSet<String>) {
        match self {
            Self::All(conditions) | Self::Any(conditions) | Self::Nor(conditions) => {
                conditions.iter().for_each(|condition| condition.paths(paths));
            }
            Self::Field(path, _) => {
                paths.insert(path.to_string());
            }
        }
    }

    /// Applies the condition to an array element instead of the values at its paths. Observed: nested arrays are not
    /// expanded.
    fn accepts(&self, element: Value<'_>) -> bool {
        match self {
            Self::All(conditions) => conditions.iter().all(|condition| condition.accepts(element)),
            Self::Any(conditions) => conditions.iter().any(|condition| condition.accepts(element)),
            Self::Nor(conditions) => !conditions.iter().any(|condition| condition.accepts(element)),
            Self::Field(_, test) => test.accepts(Some(element)),
        }
    }
}

/// A comparison operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// An operator on one value.
#[derive(Clone, Debug)]
pub(super) enum Test {
    /// `$eq`, `$gt`, `$gte`, `$lt` or `$lte`. The operand is not `undefined`.
    Compare(Comparison, Operand),
    /// `$in`.
    In {
        /// Sorted.
        values: Vec<Operand>,
        patterns: Vec<Pattern>,
    },
    /// `$exists: true`.
    Exists,
    /// `$type`.
    Type(Vec<Kind>),
    /// `$size`.
    Size(usize),
    /// `$mod`. The divisor is not zero.
    Mod { divisor: i64, remainder: i64 },
    /// `$regex`.
    Matches(Pattern),
    /// `$elemMatch` with operators.
    Element(Box<Condition>),
    /// `$elemMatch` with a query.
    ElementDocument(Box<Condition>),
}

impl Test {
    fn leaf(&self) -> Leaf {
        match self {
            Self::Size(_) | Self::Element(_) | Self::ElementDocument(_) => Leaf::Array,
            _ => Leaf::Elements,
        }
    }

    /// Applies the operator. `None` is a missing field.
    fn accepts(&self, value: Option<Value<'_>>) -> bool {
        match (self, value) {
            (Self::Compare(comparison, operand), value) => comparison.holds(value, operand.value()),
            (Self::In { values, patterns }, value) => is_in(value, values, patterns),
            (_, None) => false,
            (Self::Exists, Some(_)) => true,
            (Self::Type(kinds), Some(value)) => kinds.contains(&value.kind),
            (Self::Size(size), Some(value)) => value.kind == Kind::Array && fields(value.bytes).count() == *size,
            // Fractions are rounded towards zero, and what then exceeds 64 bits does not match (manual: "$mod").
            (Self::Mod { divisor, remainder }, Some(value)) => Number::of(value)
                .and_then(Number::truncated)
                .is_some_and(|dividend| dividend.wrapping_rem(*divisor) == *remainder),
            (Self::Matches(pattern), Some(value)) => pattern.matches(value),
            (Self::Element(condition), Some(value)) => {
                value.kind == Kind::Array && fields(value.bytes).any(|(_, element)| condition.accepts(element))
            }
            // Observed: an array in the array is a document whose names are its indexes.
            (Self::ElementDocument(condition), Some(value)) => {
                value.kind == Kind::Array
                    && fields(value.bytes).any(|(_, element)| {
                        matches!(element.kind, Kind::Document | Kind::Array) && condition.matches(element.bytes)
                    })
            }
        }
    }
}

impl Comparison {
    fn holds(self, value: Option<Value<'_>>, operand: Value<'_>) -> bool {
        let includes_equal = matches!(self, Self::Equal | Self::GreaterOrEqual | Self::LessOrEqual);
        let (own, other) = (value.map_or(Bracket::Undefined, Bracket::of), Bracket::of(operand));
        let Some(value) = value.filter(|_| own == other) else {
            return match other {
                // A missing field equals null (manual: "Query for Null or Missing Fields").
                Bracket::Null => own == Bracket::Undefined && includes_equal,
                // Every value, also a missing one, is between them.
                Bracket::MinKey => matches!(self, Self::Greater | Self::GreaterOrEqual),
                Bracket::MaxKey => matches!(self, Self::Less | Self::LessOrEqual),
                _ => false,
            };
        };
        // Observed: `NaN` is neither less nor greater than a number.
        let is_nan = |value| Number::of(value).is_some_and(Number::is_nan);
        match (is_nan(value), is_nan(operand)) {
            (false, false) => {}
            (left, right) => return left && right && includes_equal,
        }
        let order = compare(value, operand);
        match self {
            Self::Equal => order.is_eq(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
        }
    }
}

fn is_in(value: Option<Value<'_>>, values: &[Operand], patterns: &[Pattern]) -> bool {
    let Some(value) = value.filter(|value| value.kind != Kind::Undefined) else {
        return values.iter().any(|operand| operand.value().kind == Kind::Null);
    };
    values.binary_search_by(|operand| compare(operand.value(), value)).is_ok()
        || patterns.iter().any(|pattern| pattern.matches(value))
}
