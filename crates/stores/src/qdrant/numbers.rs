//! Numbers in filters, compared by value.
//!
//! Qdrant's `match` compares integers and does not match `3` with a stored `3.0`, while MongoDB and JSON have one kind
//! of number. A range from a number to itself compares by value. Ranges hold doubles, so integers that no double
//! represents are still matched as integers.

use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::{Condition, FieldCondition, Filter, Match, Range, RepeatedIntegers, ValuesCount};
use serde_json::Number;

/// The first integer from which doubles are no longer exact.
const EXACT: u64 = 1 << 53;

/// Matches a field with one of these numbers.
pub(super) fn any(key: &str, numbers: &[Number]) -> ConditionOneOf {
    let mut conditions: Vec<Condition> = numbers.iter().map(|number| of(equal(key, number))).collect();
    match conditions.len() {
        // A filter without conditions matches every point.
        0 => matched(key, MatchValue::Integers(RepeatedIntegers::default())),
        1 => conditions.remove(0).condition_one_of.expect("`equal` always sets a condition"),
        _ => ConditionOneOf::Filter(Filter { should: conditions, ..Filter::default() }),
    }
}

/// Matches a field with a value outside these numbers. Among several values Qdrant looks for one outside the list of
/// integers; a single one is compared by value.
pub(super) fn except(key: &str, numbers: &[Number]) -> ConditionOneOf {
    let integers = numbers.iter().filter_map(integer).collect();
    let other = || of(matched(key, MatchValue::ExceptIntegers(RepeatedIntegers { integers: Vec::clone(&integers) })));
    let several = FieldCondition {
        key: key.to_owned(),
        values_count: Some(ValuesCount { gte: Some(2), ..ValuesCount::default() }),
        ..FieldCondition::default()
    };
    let single = Filter { must: vec![other()], must_not: vec![of(any(key, numbers))], ..Filter::default() };
    let several = Filter { must: vec![other(), of(ConditionOneOf::Field(several))], ..Filter::default() };
    let should = vec![of(ConditionOneOf::Filter(single)), of(ConditionOneOf::Filter(several))];
    ConditionOneOf::Filter(Filter { should, ..Filter::default() })
}

fn of(condition: ConditionOneOf) -> Condition {
    Condition { condition_one_of: Some(condition) }
}

fn equal(key: &str, number: &Number) -> ConditionOneOf {
    match (number.as_i64(), number.as_f64()) {
        (Some(integer), _) if integer.unsigned_abs() >= EXACT => matched(key, MatchValue::Integer(integer)),
        (_, double) => {
            let range = Range { gte: double, lte: double, ..Range::default() };
            ConditionOneOf::Field(FieldCondition {
                key: key.to_owned(),
                range: Some(range),
                ..FieldCondition::default()
            })
        }
    }
}

/// The integer with this value, if any.
fn integer(number: &Number) -> Option<i64> {
    let whole = |double: &f64| double.fract() == 0.0 && double.abs() <= EXACT as f64;
    number.as_i64().or_else(|| number.as_f64().filter(whole).map(|double| double as i64))
}

fn matched(key: &str, value: MatchValue) -> ConditionOneOf {
    let value = Match { match_value: Some(value) };
    ConditionOneOf::Field(FieldCondition { key: key.to_owned(), r#match: Some(value), ..FieldCondition::default() })
}
