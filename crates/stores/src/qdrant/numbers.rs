//! Numbers in filters, compared by value.
//!
//! Qdrant's `match` compares integers and finds no `3` in a stored `3.0`, while MongoDB and JSON know one kind of
//! number. A range from a number to itself compares by value. Ranges are of doubles, so integers that no double holds
//! are still matched as integers.

use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::{Condition, FieldCondition, Filter, Match, Range, RepeatedIntegers, ValuesCount};
use serde_json::Number;

/// From here on not every integer is a double.
const EXACT: u64 = 1 << 53;

/// The field has one of these numbers.
pub(super) fn any(key: &str, numbers: &[Number]) -> ConditionOneOf {
    let mut conditions: Vec<Condition> = numbers.iter().map(|number| of(equal(key, number))).collect();
    match conditions.len() {
        1 => conditions.remove(0).condition_one_of.expect("it was made with a condition"),
        _ => ConditionOneOf::Filter(Filter { should: conditions, ..Filter::default() }),
    }
}

/// The field has a value that is none of these numbers. Of several values Qdrant looks for one that is no integer of
/// the list; a single one is compared by value.
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

/// The integer that has this value.
fn integer(number: &Number) -> Option<i64> {
    let whole = |double: &f64| double.fract() == 0.0 && double.abs() <= EXACT as f64;
    number.as_i64().or_else(|| number.as_f64().filter(whole).map(|double| double as i64))
}

fn matched(key: &str, value: MatchValue) -> ConditionOneOf {
    let value = Match { match_value: Some(value) };
    ConditionOneOf::Field(FieldCondition { key: key.to_owned(), r#match: Some(value), ..FieldCondition::default() })
}
