//! Order and equality of values (manual: "Comparison/Sort Order").

use std::cmp::Ordering;

use super::number::Number;
use super::value::{Value, fields};
use crate::mongo::extjson::Kind;

/// A group of types whose values are compared with each other, in the order of the groups. Comparison operators match
/// only values of the operand's group (manual: "Type Bracketing").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bracket {
    MinKey,
    /// A missing field, or the deprecated type.
    Undefined,
    Null,
    Number,
    String,
    Document,
    Array,
    Binary,
    ObjectId,
    Boolean,
    Date,
    Timestamp,
    Regex,
    DbPointer,
    Code,
    CodeWithScope,
    MaxKey,
}

impl Bracket {
    pub(super) fn of(value: Value<'_>) -> Self {
        match value.kind {
            Kind::MinKey => Self::MinKey,
            Kind::Undefined => Self::Undefined,
            Kind::Null => Self::Null,
            Kind::Double | Kind::Int32 | Kind::Int64 | Kind::Decimal128 => Self::Number,
            Kind::String | Kind::Symbol => Self::String,
            Kind::Document => Self::Document,
            Kind::Array => Self::Array,
            Kind::Binary => Self::Binary,
            Kind::ObjectId => Self::ObjectId,
            Kind::Boolean => Self::Boolean,
            Kind::DateTime => Self::Date,
            Kind::Timestamp => Self::Timestamp,
            Kind::Regex => Self::Regex,
            Kind::DbPointer => Self::DbPointer,
            Kind::Code => Self::Code,
            Kind::CodeWithScope => Self::CodeWithScope,
            Kind::MaxKey => Self::MaxKey,
        }
    }
}

/// The total order of values. `NaN` equals `NaN` and is less than every other number.
pub(super) fn compare(left: Value<'_>, right: Value<'_>) -> Ordering {
    let bracket = Bracket::of(left);
    bracket.cmp(&Bracket::of(right)).then_with(|| within(bracket, left, right))
}

/// Compares two values of one bracket.
fn within(bracket: Bracket, left: Value<'_>, right: Value<'_>) -> Ordering {
    match bracket {
        Bracket::MinKey | Bracket::Undefined | Bracket::Null | Bracket::MaxKey => Ordering::Equal,
        Bracket::Number => match (Number::of(left), Number::of(right)) {
            (Some(left), Some(right)) => left.compare(right),
            _ => Ordering::Equal,
        },
        // Binary comparison: there is no collation.
        Bracket::String | Bracket::Code => left.text().cmp(right.text()),
        Bracket::Document | Bracket::Array => documents(left.bytes, right.bytes),
        // By length, then subtype, then data. The subtype follows the four bytes of the length.
        Bracket::Binary => {
            let (left, right) = (left.bytes, right.bytes);
            left.len().cmp(&right.len()).then_with(|| left.get(4..).cmp(&right.get(4..)))
        }
        Bracket::ObjectId | Bracket::Boolean => left.bytes.cmp(right.bytes),
        Bracket::Date => i64::from_le_bytes(left.fixed()).cmp(&i64::from_le_bytes(right.fixed())),
        // Seconds are the upper half.
        Bracket::Timestamp => u64::from_le_bytes(left.fixed()).cmp(&u64::from_le_bytes(right.fixed())),
        Bracket::Regex => left.regex().cmp(&right.regex()),
        // Observed: by length, then by bytes.
        Bracket::DbPointer => left.bytes.len().cmp(&right.bytes.len()).then_with(|| left.bytes.cmp(right.bytes)),
        Bracket::CodeWithScope => {
            let ((left, left_scope), (right, right_scope)) = (left.code_with_scope(), right.code_with_scope());
            left.cmp(right).then_with(|| documents(left_scope, right_scope))
        }
    }
}

/// Compares documents or arrays field by field: by type, then name, then value. Of two that are equal so far, the
/// shorter one is less (manual: "Objects").
fn documents(left: &[u8], right: &[u8]) -> Ordering {
    let (mut left, mut right) = (fields(left), fields(right));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some((left_name, left)), Some((right_name, right))) => {
                let bracket = Bracket::of(left);
                let order = bracket
                    .cmp(&Bracket::of(right))
                    .then_with(|| left_name.cmp(right_name))
                    .then_with(|| within(bracket, left, right));
                if order.is_ne() {
                    return order;
                }
            }
        }
    }
}
