//! Parses queries. Each operator has a page below `reference/operator/query/` of the manual.

use bson::Document;

use super::compare::compare;
use super::matching::{Comparison, Condition, Test};
use super::number::Number;
use super::path::Path;
use super::pattern::Pattern;
use super::value::{Operand, Value, fields, find};
use crate::mongo::extjson::Kind;

/// Operators in the place of a field.
const LOGICAL: [&str; 4] = ["$and", "$comment", "$nor", "$or"];

/// Operators on the value of a field.
const FIELD: [&str; 17] = [
    "$all",
    "$elemMatch",
    "$eq",
    "$exists",
    "$gt",
    "$gte",
    "$in",
    "$lt",
    "$lte",
    "$mod",
    "$ne",
    "$nin",
    "$not",
    "$options",
    "$regex",
    "$size",
    "$type",
];

/// The limit on nested names and array elements of operators. The server has a limit too.
const MAX_DEPTH: usize = 100;

/// A query that is invalid or unsupported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// An operator that the server may support and this evaluation does not.
    #[error("unsupported query operator {operator} {}: expected one of {}", at(.path), .supported.join(", "))]
    UnsupportedOperator {
        /// Path of the document that contains the operator. Empty: the query itself.
        path: String,
        /// The operator.
        operator: String,
        /// The operators supported in its place.
        supported: &'static [&'static str],
    },
    /// An operand of a wrong type or value.
    #[error("invalid query {}: expected {expected}", at(.path))]
    InvalidOperand {
        /// Path of the operand. Empty: the query itself.
        path: String,
        /// The supported form.
        expected: &'static str,
    },
    /// A regular expression that the server and this evaluation might match differently.
    #[error("invalid regular expression {pattern:?} {}: {reason}", at(.path))]
    InvalidPattern {
        /// Path of the expression.
        path: String,
        /// The expression.
        pattern: String,
        /// The unsupported option or construct.
        reason: String,
    },
}

fn at(path: &str) -> String {
    if path.is_empty() { "at the top level".to_owned() } else { format!("at {path:?}") }
}

/// A place in the query.
#[derive(Clone, Debug)]
struct Place {
    path: String,
    depth: usize,
}

impl Place {
    fn inside(&self, name: &str) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { path, depth: self.depth + 1 }
    }

    fn expected(&self, expected: &'static str) -> QueryError {
        QueryError::InvalidOperand { path: self.path.clone(), expected }
    }

    fn unsupported(&self, operator: &str, supported: &'static [&'static str]) -> QueryError {
        QueryError::UnsupportedOperator { path: self.path.clone(), operator: operator.to_owned(), supported }
    }
}

/// Parses the filter document of `find`.
pub(super) fn query(filter: &Document) -> Result<Condition, QueryError> {
    let place = Place { path: String::new(), depth: 0 };
    let bytes = filter.to_vec().map_err(|_| place.expected("a document that can be encoded as BSON"))?;
    document(&bytes, &place)
}

/// A query: fields and logical operators, all of which have to match.
fn document(bytes: &[u8], place: &Place) -> Result<Condition, QueryError> {
    if place.depth > MAX_DEPTH {
        return Err(place.expected("a nesting depth of at most 100"));
    }
    let mut conditions = Vec::new();
    for (name, value) in fields(bytes) {
        let name = utf8(name);
        let inside = place.inside(name);
        match name {
            "$and" => conditions.push(Condition::All(queries(value, &inside)?)),
            "$or" => conditions.push(Condition::Any(queries(value, &inside)?)),
            "$nor" => conditions.push(Condition::Nor(queries(value, &inside)?)),
            "$comment" => {}
            operator if operator.starts_with('$') => return Err(place.unsupported(operator, &LOGICAL)),
            name => {
                let path = Path::parse(name).ok_or_else(|| inside.expected("a path without empty names"))?;
                if has_operators(value) {
                    conditions.extend(operators(value.bytes, &path, &inside)?);
                } else {
                    conditions.push(Condition::Field(path, equality(value, &inside)?));
                }
            }
        }
    }
    Ok(Condition::All(conditions))
}

/// The operand of a logical operator.
fn queries(value: Value<'_>, place: &Place) -> Result<Vec<Condition>, QueryError> {
    let expected = || place.expected("a nonempty array of documents");
    let queries = elements(value).filter(|queries| !queries.is_empty()).ok_or_else(expected)?;
    let parse = |(at, query): (usize, Value<'_>)| match query.kind {
        Kind::Document => document(query.bytes, &place.inside(&at.to_string())),
        _ => Err(expected()),
    };
    queries.into_iter().enumerate().map(parse).collect()
}

/// Whether a value consists of operators: a document whose first name starts with `$`, except a DBRef.
fn has_operators(value: Value<'_>) -> bool {
    first_operator(value).is_some() && !is_reference(value)
}

/// The first name, if the value is a document and the name starts with `$`.
fn first_operator(value: Value<'_>) -> Option<&str> {
    let first = (value.kind == Kind::Document).then(|| fields(value.bytes).next()).flatten();
    first.map(|(name, _)| utf8(name)).filter(|name| name.starts_with('$'))
}

/// Whether a document is a DBRef (manual: "Database References").
fn is_reference(value: Value<'_>) -> bool {
    let is_text = |field: Option<Value<'_>>| field.is_some_and(|field| field.kind == Kind::String);
    let database = find(value.bytes, "$db");
    is_text(find(value.bytes, "$ref"))
        && find(value.bytes, "$id").is_some()
        && (database.is_none() || is_text(database))
}

/// `{field: value}`
fn equality(value: Value<'_>, place: &Place) -> Result<Test, QueryError> {
    match value.kind {
        Kind::Regex => Ok(Test::Matches(regex(value, place)?)),
        _ => comparison(Comparison::Equal, value, place),
    }
}

/// The operators on one field.
fn operators(bytes: &[u8], path: &Path, place: &Place) -> Result<Vec<Condition>, QueryError> {
    if place.depth > MAX_DEPTH {
        return Err(place.expected("a nesting depth of at most 100"));
    }
    let mut conditions = Vec::new();
    for (name, value) in fields(bytes) {
        let name = utf8(name);
        let inside = place.inside(name);
        let field = |test| Condition::Field(path.clone(), test);
        conditions.push(match name {
            "$eq" => field(comparison(Comparison::Equal, value, &inside)?),
            "$gt" => field(ordering(Comparison::Greater, value, &inside)?),
            "$gte" => field(ordering(Comparison::GreaterOrEqual, value, &inside)?),
            "$lt" => field(ordering(Comparison::Less, value, &inside)?),
            "$lte" => field(ordering(Comparison::LessOrEqual, value, &inside)?),
            "$ne" => field(ordering(Comparison::Equal, value, &inside)?).not(),
            "$in" => field(one_of(value, &inside)?),
            "$nin" => field(one_of(value, &inside)?).not(),
            "$exists" if is_true(value, &inside)? => field(Test::Exists),
            "$exists" => field(Test::Exists).not(),
            "$type" => field(Test::Type(types(value, &inside)?)),
            "$size" => field(Test::Size(size(value, &inside)?)),
            "$all" => all(value, path, &inside)?,
            "$elemMatch" => field(element(value, &inside)?),
            "$mod" => field(modulo(value, &inside)?),
            "$regex" => field(Test::Matches(regex_with_options(value, bytes, place)?)),
            "$options" if find(bytes, "$regex").is_some() => continue,
            "$options" => return Err(inside.expected("$regex beside it")),
            "$not" => negation(value, path, &inside)?,
            operator => return Err(place.unsupported(operator, &FIELD)),
        });
    }
    Ok(conditions)
}

fn comparison(comparison: Comparison, value: Value<'_>, place: &Place) -> Result<Test, QueryError> {
    match value.kind {
        Kind::Undefined => Err(place.expected("a value other than undefined")),
        _ => Ok(Test::Compare(comparison, value.into())),
    }
}

/// A comparison for which the server rejects regular expressions.
fn ordering(operator: Comparison, value: Value<'_>, place: &Place) -> Result<Test, QueryError> {
    match value.kind {
        Kind::Regex => Err(place.expected("a value other than a regular expression")),
        _ => comparison(operator, value, place),
    }
}

fn negation(value: Value<'_>, path: &Path, place: &Place) -> Result<Condition, QueryError> {
    Ok(match value.kind {
        Kind::Regex => Condition::Field(path.clone(), Test::Matches(regex(value, place)?)).not(),
        Kind::Document if fields(value.bytes).next().is_some() => {
            Condition::All(operators(value.bytes, path, place)?).not()
        }
        _ => return Err(place.expected("a regular expression or a document of operators")),
    })
}

/// The operand of `$in` and `$nin`.
fn one_of(value: Value<'_>, place: &Place) -> Result<Test, QueryError> {
    let listed = elements(value).ok_or_else(|| place.expected("an array"))?;
    let (mut values, mut patterns) = (Vec::<Operand>::new(), Vec::new());
    for value in listed {
        match value.kind {
            Kind::Regex => patterns.push(regex(value, place)?),
            Kind::Undefined => return Err(place.expected("values other than undefined")),
            _ if has_operators(value) => return Err(place.expected("values without operators")),
            _ => values.push(value.into()),
        }
    }
    values.sort_by(|left, right| compare(left.value(), right.value()));
    Ok(Test::In { values, patterns })
}

/// The operand of `$exists`.
fn is_true(value: Value<'_>, place: &Place) -> Result<bool, QueryError> {
    match (value.kind, Number::of(value)) {
        (Kind::Boolean, _) => Ok(value.bytes != [0]),
        (_, Some(number)) => Ok(number.compare(Number::Integer(0)).is_ne()),
        _ => Err(place.expected("true or false")),
    }
}

/// The operand of `$type`: names, numbers, or an array of them.
fn types(value: Value<'_>, place: &Place) -> Result<Vec<Kind>, QueryError> {
    let expected = || place.expected("names or numbers of BSON types");
    let listed = elements(value).unwrap_or_else(|| vec![value]);
    let mut kinds: Vec<Kind> = Vec::new();
    for value in &listed {
        let name = match value.kind {
            Kind::String => Some(utf8(value.text())),
            _ => None,
        };
        let number = Number::of(*value).and_then(Number::integer);
        let named: &[Kind] = match (name, number) {
            (Some("double"), _) | (_, Some(1)) => &[Kind::Double],
            (Some("string"), _) | (_, Some(2)) => &[Kind::String],
            (Some("object"), _) | (_, Some(3)) => &[Kind::Document],
            (Some("array"), _) | (_, Some(4)) => &[Kind::Array],
            (Some("binData"), _) | (_, Some(5)) => &[Kind::Binary],
            (Some("undefined"), _) | (_, Some(6)) => &[Kind::Undefined],
            (Some("objectId"), _) | (_, Some(7)) => &[Kind::ObjectId],
            (Some("bool"), _) | (_, Some(8)) => &[Kind::Boolean],
            (Some("date"), _) | (_, Some(9)) => &[Kind::DateTime],
            (Some("null"), _) | (_, Some(10)) => &[Kind::Null],
            (Some("regex"), _) | (_, Some(11)) => &[Kind::Regex],
            (Some("dbPointer"), _) | (_, Some(12)) => &[Kind::DbPointer],
            (Some("javascript"), _) | (_, Some(13)) => &[Kind::Code],
            (Some("symbol"), _) | (_, Some(14)) => &[Kind::Symbol],
            (Some("javascriptWithScope"), _) | (_, Some(15)) => &[Kind::CodeWithScope],
            (Some("int"), _) | (_, Some(16)) => &[Kind::Int32],
            (Some("timestamp"), _) | (_, Some(17)) => &[Kind::Timestamp],
            (Some("long"), _) | (_, Some(18)) => &[Kind::Int64],
            (Some("decimal"), _) | (_, Some(19)) => &[Kind::Decimal128],
            (Some("minKey"), _) | (_, Some(-1)) => &[Kind::MinKey],
            (Some("maxKey"), _) | (_, Some(127)) => &[Kind::MaxKey],
            (Some("number"), _) => &[Kind::Double, Kind::Int32, Kind::Int64, Kind::Decimal128],
            _ => return Err(expected()),
        };
        kinds.extend_from_slice(named);
    }
    if kinds.is_empty() { Err(expected()) } else { Ok(kinds) }
}

fn size(value: Value<'_>, place: &Place) -> Result<usize, QueryError> {
    let size = Number::of(value).and_then(Number::integer).and_then(|size| usize::try_from(size).ok());
    size.ok_or_else(|| place.expected("an integer that is not negative"))
}

/// `$all`: the field equals each value, or contains an element that matches each `$elemMatch`.
fn all(value: Value<'_>, path: &Path, place: &Place) -> Result<Condition, QueryError> {
    let listed = elements(value).ok_or_else(|| place.expected("an array"))?;
    let are_elements = listed.first().and_then(|first| first_operator(*first)) == Some("$elemMatch");
    let parse = |(at, value): (usize, Value<'_>)| -> Result<Condition, QueryError> {
        let inside = place.inside(&at.to_string());
        let test = if are_elements {
            let mut inner = fields(value.bytes);
            match (first_operator(value), inner.next(), inner.next()) {
                (Some("$elemMatch"), Some((_, query)), None) => element(query, &inside.inside("$elemMatch"))?,
                _ => return Err(inside.expected("$elemMatch only, as in the first element")),
            }
        } else if has_operators(value) {
            return Err(inside.expected("a value, or $elemMatch in all elements"));
        } else {
            equality(value, &inside)?
        };
        Ok(Condition::Field(path.clone(), test))
    };
    let conditions = listed.into_iter().enumerate().map(parse).collect::<Result<Vec<Condition>, QueryError>>()?;
    // An empty array matches nothing (manual: "$all").
    Ok(if conditions.is_empty() { Condition::Any(conditions) } else { Condition::All(conditions) })
}

/// The operand of `$elemMatch`: operators on the element, or a query on the fields of a document.
fn element(value: Value<'_>, place: &Place) -> Result<Test, QueryError> {
    if value.kind != Kind::Document {
        return Err(place.expected("a document"));
    }
    Ok(match first_operator(value) {
        Some(first) if !LOGICAL.contains(&first) => {
            Test::Element(Box::new(Condition::All(operators(value.bytes, &Path::default(), place)?)))
        }
        _ => Test::ElementDocument(Box::new(document(value.bytes, place)?)),
    })
}

/// The operand of `$mod`. Fractions are rounded towards zero.
fn modulo(value: Value<'_>, place: &Place) -> Result<Test, QueryError> {
    let numbers: Option<Vec<i64>> = elements(value)
        .and_then(|numbers| numbers.into_iter().map(|number| Number::of(number).and_then(Number::truncated)).collect());
    match numbers.as_deref() {
        Some(&[divisor, remainder]) if divisor != 0 => Ok(Test::Mod { divisor, remainder }),
        _ => Err(place.expected("an array of a divisor other than 0 and a remainder, both finite")),
    }
}

/// A regular expression as a value.
fn regex(value: Value<'_>, place: &Place) -> Result<Pattern, QueryError> {
    let (pattern, options) = value.regex();
    compiled(utf8(pattern), utf8(options), place)
}

/// `$regex`, and `$options` beside it.
fn regex_with_options(value: Value<'_>, beside: &[u8], place: &Place) -> Result<Pattern, QueryError> {
    let options = match find(beside, "$options") {
        Some(options) if options.kind == Kind::String => Some(utf8(options.text())),
        Some(_) => return Err(place.inside("$options").expected("a string")),
        None => None,
    };
    let place = place.inside("$regex");
    match (value.kind, options) {
        (Kind::String, options) => compiled(utf8(value.text()), options.unwrap_or_default(), &place),
        (Kind::Regex, None) => regex(value, &place),
        (Kind::Regex, Some(options)) => match value.regex() {
            (pattern, []) => compiled(utf8(pattern), options, &place),
            _ => Err(place.expected("options either in $regex or in $options")),
        },
        _ => Err(place.expected("a string or a regular expression")),
    }
}

fn compiled(pattern: &str, options: &str, place: &Place) -> Result<Pattern, QueryError> {
    if pattern.contains('\0') {
        return Err(place.expected("a pattern without NUL"));
    }
    let failed = |reason| QueryError::InvalidPattern { path: place.path.clone(), pattern: pattern.to_owned(), reason };
    Pattern::new(pattern, options).map_err(failed)
}

/// The elements of an array; `None` if the value is not one.
fn elements(value: Value<'_>) -> Option<Vec<Value<'_>>> {
    (value.kind == Kind::Array).then(|| fields(value.bytes).map(|(_, element)| element).collect())
}

/// Text of the query, which is UTF-8 because it was a [`Document`].
fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
