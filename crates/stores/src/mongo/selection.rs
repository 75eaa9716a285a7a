//! The selection of collections to index.

use bson::{Bson, Document, Regex, doc};
use tidewheel_core::error::PortError;

use super::server::{Kind, Listed};

/// Unused event fields. Omitting them also keeps an update of a document of nearly 16 MB below the reply limit: the
/// event would hold the new fields twice.
const UNREAD: [&str; 4] = ["updateDescription", "lsid", "txnNumber", "collectionUUID"];

/// A selection of collections, by name or pattern, in one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    database: String,
    /// Sorted and deduplicated, so that the order in the settings does not matter. Empty: every collection.
    patterns: Vec<String>,
}

impl Selection {
    pub(super) fn new(database: &str, collections: &[String]) -> Result<Self, PortError> {
        if database.is_empty() || database.contains(['/', '\\', '.', ' ', '"', '$', '*', '<', '>', ':', '|', '?', '\0'])
        {
            return Err(PortError::fatal(format!("invalid mongodb.database {database:?}: expected a database name"))
                .with_hint("set mongodb.database to the database to index"));
        }
        for name in collections {
            if name.is_empty() || name.contains(['$', '\0']) || name.starts_with("system.") {
                return Err(PortError::fatal(format!(
                    "invalid mongodb.collection {name:?}: expected a collection name"
                ))
                .with_hint("set mongodb.collection to names like \"tickets\" or patterns like \"orders_*\""));
            }
        }
        let mut patterns = collections.to_vec();
        patterns.sort_unstable();
        patterns.dedup();
        if patterns.iter().any(|pattern| pattern == "*") {
            patterns.clear();
        }
        Ok(Self { database: database.to_owned(), patterns })
    }

    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// Whether this collection is selected.
    pub(super) fn contains(&self, collection: &str) -> bool {
        !collection.starts_with("system.")
            && (self.patterns.is_empty() || self.patterns.iter().any(|pattern| matches(pattern, collection)))
    }

    /// Whether any collection is selected by name.
    pub(super) fn names_collections(&self) -> bool {
        self.patterns.iter().any(|pattern| !pattern.contains('*'))
    }

    /// Fails if a view or a time series is selected by name. Patterns exclude them.
    pub(super) fn check(&self, listed: &[Listed]) -> Result<(), PortError> {
        let named = |name: &String| self.patterns.contains(name);
        for Listed { name, kind } in listed.iter().filter(|listed| named(&listed.name)) {
            let (what, hint) = match kind {
                Kind::Collection => continue,
                Kind::View => ("a view", "set mongodb.collection to the collection that the view reads"),
                Kind::TimeSeries => (
                    "a time-series collection",
                    "copy its documents into an ordinary collection, with $merge for example, and select that",
                ),
            };
            let database = &self.database;
            return Err(
                PortError::fatal(format!("{database}.{name} is {what}, which has no change stream")).with_hint(hint)
            );
        }
        Ok(())
    }

    /// The stages that follow `$changeStream`.
    pub(super) fn pipeline(&self) -> Vec<Document> {
        let mut stages = Vec::new();
        if !self.patterns.is_empty() {
            let names = self.patterns.iter().map(|pattern| bson_pattern(pattern)).collect::<Vec<_>>();
            stages.push(doc! { "$match": { "$or": [
                { "ns.coll": { "$in": names.clone() } },
                { "operationType": "rename", "to.coll": { "$in": names } },
                // It has no collection, and ends the stream.
                { "operationType": "invalidate" },
            ] } });
        }
        stages.push(doc! { "$unset": UNREAD.to_vec() });
        stages
    }

    /// A stable identity: equal for equal selections, different for different ones.
    pub(super) fn identity(&self) -> String {
        match self.patterns.as_slice() {
            [] => format!("{}.*", self.database),
            patterns => format!("{}{patterns:?}", self.database),
        }
    }
}

/// Converts a name to a string, a pattern to a regular expression, which `$in` supports too.
fn bson_pattern(pattern: &str) -> Bson {
    if !pattern.contains('*') {
        return Bson::String(pattern.to_owned());
    }
    let escaped: String = pattern
        .chars()
        .map(|character| match character {
            '*' => ".*".to_owned(),
            word if word.is_alphanumeric() || word == '_' => word.to_string(),
            other => format!("\\{other}"),
        })
        .collect();
    // `\z` instead of `$`, which also matches before a line break; `s` makes the dot match one.
    let pattern = format!("^{escaped}\\z").try_into().expect("a collection's name holds no zero");
    let options = "s".to_owned().try_into().expect("it holds no zero");
    Bson::RegularExpression(Regex { pattern, options })
}

/// Whether `name` matches `pattern`; `*` matches any sequence of characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(names: &[&str]) -> Selection {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        Selection::new("shop", &names).unwrap()
    }

    #[test]
    fn names_and_patterns_select_collections() {
        let table = [
            ("orders", "orders", true),
            ("orders", "orders2", false),
            ("orders", "my_orders", false),
            ("orders_*", "orders_", true),
            ("orders_*", "orders_eu", true),
            ("orders_*", "ordersXeu", false),
            ("*_eu", "orders_eu", true),
            ("*_eu", "orders_eu_old", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "ac", false),
            ("ab*ba", "aba", false),
            ("a.b", "a.b", true),
            ("a.*", "aXb", false),
        ];
        for (pattern, name, wanted) in table {
            assert_eq!(selection(&[pattern]).contains(name), wanted, "{pattern} {name}");
        }
        assert!(selection(&[]).contains("anything"));
        assert!(!selection(&[]).contains("system.profile"));
        assert!(!selection(&["*"]).contains("system.views"));
    }

    #[test]
    fn pattern_becomes_an_anchored_regex() {
        let Bson::RegularExpression(regex) = bson_pattern("eu.orders_*") else { panic!("not an expression") };
        assert_eq!(regex.pattern.as_str(), "^eu\\.orders_.*\\z");
        assert_eq!(bson_pattern("orders"), Bson::String("orders".into()));
    }

    #[test]
    fn identity_ignores_order_and_duplicates() {
        assert_eq!(selection(&["b", "a", "b"]).identity(), selection(&["a", "b"]).identity());
        assert_ne!(selection(&["a"]).identity(), selection(&["a", "b"]).identity());
        assert_eq!(selection(&["a", "*"]).identity(), selection(&[]).identity());
        assert_eq!(selection(&["tickets"]).identity(), r#"shop["tickets"]"#);
    }

    #[test]
    fn views_are_rejected_by_name_and_excluded_from_patterns() {
        let listed = |name: &str, kind| [Listed { name: name.into(), kind }];
        for kind in [Kind::View, Kind::TimeSeries] {
            let error = selection(&["open_*", "open"]).check(&listed("open", kind)).unwrap_err();
            assert!(error.message.contains("shop.open is a"), "{error}");
            assert!(error.hint.is_some());
            assert!(selection(&["open_*"]).check(&listed("open_tickets", kind)).is_ok());
            assert!(selection(&[]).check(&listed("open", kind)).is_ok());
        }
        assert!(selection(&["open"]).check(&listed("open", Kind::Collection)).is_ok());
        assert!(selection(&["open"]).names_collections() && !selection(&["o*"]).names_collections());
    }

    #[test]
    fn invalid_names_are_rejected() {
        for database in ["", "a.b", "a b", "$x"] {
            assert!(Selection::new(database, &[]).is_err(), "{database:?}");
        }
        for collection in ["", "a$b", "system.users"] {
            assert!(Selection::new("shop", &[collection.to_owned()]).is_err(), "{collection:?}");
        }
    }
}
