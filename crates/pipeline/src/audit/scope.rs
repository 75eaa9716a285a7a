//! The scope of an audit.

use serde_json::Value;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::SourceFilter;

/// The scope of an audit.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// These collections; empty for all selected ones.
    pub namespaces: Vec<Namespace>,
    /// Sampling ratio from 0 to 1, applied at random on both sides.
    pub share: Option<f64>,
    /// Only documents with an `_id` in this range.
    pub range: Option<Range>,
}

/// A range of `_id`s, both ends included, in canonical extended JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The lower end.
    pub from: Option<String>,
    /// The upper end.
    pub to: Option<String>,
}

impl Scope {
    /// The filter of this scope, a MongoDB query in extended JSON.
    pub(super) fn filter(&self) -> Option<SourceFilter> {
        let mut conditions = Vec::new();
        if let Some(range) = &self.range {
            let ends = [("$gte", &range.from), ("$lte", &range.to)];
            let ends = ends.into_iter().filter_map(|(name, end)| Some(format!(r#""{name}": {}"#, end.as_ref()?)));
            conditions.push(format!(r#"{{"_id": {{{}}}}}"#, ends.collect::<Vec<_>>().join(", ")));
        }
        if let Some(share) = self.share {
            conditions.push(format!(r#"{{"$expr": {{"$lt": [{{"$rand": {{}}}}, {{"$numberDouble": "{share}"}}]}}}}"#));
        }
        (!conditions.is_empty()).then(|| SourceFilter(format!(r#"{{"$and": [{}]}}"#, conditions.join(", "))))
    }

    /// Whether a point's document is in scope.
    pub(super) fn contains(&self, namespace: &Namespace, key: &str) -> bool {
        let named = self.namespaces.is_empty() || self.namespaces.contains(namespace);
        named && self.range.as_ref().is_none_or(|range| range.contains(key))
    }
}

impl Range {
    /// Whether a key is in the range, compared like in MongoDB within the type of the ends. Types whose text does not
    /// reveal their order are never in the range.
    fn contains(&self, key: &str) -> bool {
        let Some(key) = Order::of(key) else { return false };
        let bound = |end: &Option<String>, wanted: std::cmp::Ordering| {
            end.as_ref().is_none_or(|end| {
                let order = Order::of(end).and_then(|end| key.compare(&end));
                order.is_some_and(|order| order == wanted || order.is_eq())
            })
        };
        bound(&self.from, std::cmp::Ordering::Greater) && bound(&self.to, std::cmp::Ordering::Less)
    }
}

/// A key in a form that is comparable within its type.
enum Order {
    Number(f64),
    Text(String),
    Typed(String, String),
}

impl Order {
    fn of(key: &str) -> Option<Self> {
        match serde_json::from_str(key).ok()? {
            Value::String(text) => Some(Self::Text(text)),
            Value::Object(typed) => {
                let (name, value) = typed.iter().next()?;
                let text = value.as_str();
                match (name.as_str(), text) {
                    ("$numberInt" | "$numberLong" | "$numberDouble", Some(text)) => {
                        Some(Self::Number(text.parse().ok()?))
                    }
                    ("$oid", Some(text)) => Some(Self::Typed(name.clone(), text.to_owned())),
                    ("$date", _) => Some(Self::Number(value.get("$numberLong")?.as_str()?.parse().ok()?)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn compare(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.partial_cmp(b),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Typed(a, x), Self::Typed(b, y)) if a == b => Some(x.cmp(y)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_becomes_a_mongodb_query() {
        assert_eq!(Scope::default().filter(), None);
        let range = Range { from: Some(r#"{"$numberInt":"7"}"#.into()), to: Some(r#"{"$numberInt":"9"}"#.into()) };
        let scope = Scope { range: Some(range), share: Some(0.5), ..Scope::default() };
        let filter: Value = serde_json::from_str(&scope.filter().unwrap().0).unwrap();
        assert_eq!(filter["$and"][0]["_id"]["$lte"]["$numberInt"], "9");
        assert_eq!(filter["$and"][1]["$expr"]["$lt"][1]["$numberDouble"], "0.5");
    }

    #[test]
    fn range_contains_keys_of_its_type() {
        let int = |number: i32| format!(r#"{{"$numberInt":"{number}"}}"#);
        let range = Range { from: Some(int(-2)), to: Some(int(10)) };
        assert!([-2, 3, 10].into_iter().all(|number| range.contains(&int(number))));
        assert!(![-3, 11].into_iter().any(|number| range.contains(&int(number))));
        assert!(range.contains(r#"{"$numberDouble":"9.5"}"#) && !range.contains(r#""3""#));
        let oid = |end: &str| format!(r#"{{"$oid":"65f0000000000000000000{end}"}}"#);
        let range = Range { from: Some(oid("10")), to: None };
        assert!(range.contains(&oid("1f")) && !range.contains(&oid("0f")));
    }
}
