//! The subset of MongoDB queries that the fake source supports: `$and`, a field's value, `$gte` and `$lte` on a field,
//! and a random sample of documents.

use bson::{Bson, Document};
use tidewheel_core::error::PortError;
use tidewheel_core::ports::PortResult;

use super::order::{Id, same_type};

/// A part of a query.
#[derive(Clone, Debug)]
enum Condition {
    Is(String, Bson),
    From(String, Bson),
    To(String, Bson),
    /// `{"$expr": {"$lt": [{"$rand": {}}, share]}}`
    Share(f64),
}

/// A query: all of its conditions have to hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<Condition>);

impl Query {
    /// Fails for an invalid or unsupported query.
    pub(super) fn read(filter: &str) -> PortResult<Self> {
        let json: serde_json::Value =
            serde_json::from_str(filter).map_err(|_| PortError::fatal("invalid filter: expected a query"))?;
        match Bson::try_from(json) {
            Ok(Bson::Document(filter)) => {
                let mut query = Self::default();
                query.add(&filter).map(|()| query)
            }
            _ => Err(PortError::fatal("invalid filter: expected a query")),
        }
    }

    fn add(&mut self, filter: &Document) -> PortResult<()> {
        let unknown = || PortError::fatal(format!("unsupported query {filter}"));
        for (name, value) in filter {
            match (name.as_str(), value) {
                ("$and", Bson::Array(all)) => {
                    for part in all {
                        self.add(part.as_document().ok_or_else(unknown)?)?;
                    }
                }
                ("$expr", Bson::Document(expression)) => {
                    let [random, share] = &expression.get_array("$lt").map_err(|_| unknown())?[..] else {
                        return Err(unknown());
                    };
                    let random = random.as_document().is_some_and(|random| random.contains_key("$rand"));
                    self.0.push(Condition::Share(share.as_f64().filter(|_| random).ok_or_else(unknown)?));
                }
                (name, _) if name.starts_with('$') => return Err(unknown()),
                (name, Bson::Document(ends)) if ends.keys().any(|end| end.starts_with('$')) => {
                    for (end, bound) in ends {
                        self.0.push(match end.as_str() {
                            "$gte" => Condition::From(name.to_owned(), bound.clone()),
                            "$lte" => Condition::To(name.to_owned(), bound.clone()),
                            _ => return Err(unknown()),
                        });
                    }
                }
                (name, value) => self.0.push(Condition::Is(name.to_owned(), value.clone())),
            }
        }
        Ok(())
    }

    pub(super) fn matches(&self, document: &Document) -> bool {
        let of = |name: &str| document.get(name).cloned().map(Id);
        self.0.iter().all(|condition| match condition {
            Condition::Is(name, value) => document.get(name) == Some(value),
            // A bound of one type matches no value of another type.
            Condition::From(name, bound) => {
                of(name).is_some_and(|value| same_type(&value.0, bound) && value >= Id(bound.clone()))
            }
            Condition::To(name, bound) => {
                of(name).is_some_and(|value| same_type(&value.0, bound) && value <= Id(bound.clone()))
            }
            Condition::Share(share) => rand::random::<f64>() < *share,
        })
    }
}
