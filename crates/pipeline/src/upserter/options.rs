//! Resolved settings of the upserter.

use serde_json::{Map, Value};

use crate::consumer::ConsumerOptions;
use crate::parking::OnDeadLetter;

/// What the upserter writes.
#[derive(Clone, Debug)]
pub struct UpserterOptions {
    /// How entries are taken from stage 2.
    pub consumer: ConsumerOptions,
    /// Which fields of a document its points carry.
    pub payload: PayloadOptions,
    /// What a parked change does to the version in the index.
    pub on_dead_letter: OnDeadLetter,
}

/// Which fields of a document its points carry. `_id` always stays.
#[derive(Clone, Debug, Default)]
pub struct PayloadOptions {
    /// Only these top-level fields; empty for all.
    pub include: Vec<String>,
    /// Not these, even if they are included.
    pub exclude: Vec<String>,
}

impl PayloadOptions {
    /// Leaves out what is not wanted.
    pub fn select(&self, mut document: Map<String, Value>) -> Map<String, Value> {
        if !self.include.is_empty() || !self.exclude.is_empty() {
            document.retain(|name, _| {
                let included = self.include.is_empty() || self.include.iter().any(|wanted| wanted == name);
                name == "_id" || (included && !self.exclude.iter().any(|unwanted| unwanted == name))
            });
        }
        document
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_included_and_excluded_but_the_id_stays() {
        let select = |include: &[&str], exclude: &[&str]| {
            let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let options = PayloadOptions { include: names(include), exclude: names(exclude) };
            let document = ["_id", "a", "b", "c"].map(|name| (name.to_owned(), Value::Null)).into_iter().collect();
            options.select(document).keys().cloned().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(select(&[], &[]), "_id a b c");
        assert_eq!(select(&["a", "b"], &["b", "_id"]), "_id a");
        assert_eq!(select(&[], &["c"]), "_id a b");
    }
}
