//! Filters: MongoDB queries in extended JSON, judged on raw BSON.

use bson::{Bson, Document, doc};
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{PortResult, SourceFilter, Verdicts};

use super::query::Query;

impl Query {
    /// Parses a filter.
    ///
    /// # Errors
    /// Fatal, with the name of what is invalid or unsupported.
    pub fn of(filter: &SourceFilter) -> PortResult<Self> {
        let query = document(filter)?;
        Self::parse(&query).map_err(|error| PortError::fatal(format!("invalid filter {}: {error}", filter.0)))
    }

    /// The projection that keeps everything on which the result depends.
    pub(super) fn projection(&self) -> Document {
        let mut projection = doc! { "_id": 1 };
        for path in self.paths() {
            let field = path.split_once('.').map_or(path.as_str(), |(field, _)| field);
            projection.insert(field, 1);
        }
        projection
    }
}

/// Parses a filter that the server evaluates: extended JSON of an object.
pub(super) fn document(SourceFilter(text): &SourceFilter) -> PortResult<Document> {
    let failed = |cause: &dyn std::fmt::Display| {
        PortError::fatal(format!("invalid filter {text}: expected a MongoDB query: {cause}"))
            .with_hint(r#"write the query as a JSON object, such as {"status": "open"}"#)
    };
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| failed(&error))?;
    match Bson::try_from(value).map_err(|error| failed(&error))? {
        Bson::Document(filter) => Ok(filter),
        _ => Err(failed(&"not an object")),
    }
}

/// The filters of a coverage, a scan or a lookup, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Filters(Vec<Query>);

impl Filters {
    pub(super) fn parse(filters: &[SourceFilter]) -> PortResult<Self> {
        filters.iter().map(Query::of).collect::<PortResult<_>>().map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The verdict of each filter on a document.
    pub(super) fn judge(&self, document: &[u8]) -> Verdicts {
        self.0.iter().map(|query| query.selects(document)).collect()
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::error::ErrorClass;

    use super::*;

    fn query(text: &str) -> PortResult<Query> {
        Query::of(&SourceFilter(text.to_owned()))
    }

    #[test]
    fn unsupported_filter_is_refused_by_name() {
        for (text, named) in [
            ("{", "expected a MongoDB query"),
            ("7", "not an object"),
            (r#"{"$where": "true"}"#, "$where"),
            (r#"{"$expr": {"$eq": ["$a", 1]}}"#, "$expr"),
            (r#"{"a": {"$near": [1, 2]}}"#, "$near"),
            (r#"{"a": {"$regex": "(?=x)"}}"#, "(?=x)"),
        ] {
            let error = query(text).unwrap_err();
            assert_eq!(error.class, ErrorClass::Fatal, "{error}");
            assert!(error.message.starts_with(&format!("invalid filter {text}: ")), "{error}");
            assert!(error.message.contains(named), "{error}");
        }
    }

    #[test]
    fn extended_json_becomes_bson() {
        let query = query(r#"{"at": {"$gte": {"$date": "2024-01-01T00:00:00Z"}}, "n": {"$numberLong": "7"}}"#).unwrap();
        let at = bson::DateTime::from_millis(1_704_067_200_000);
        assert!(query.selects(&doc! {"at": at, "n": 7.0}.to_vec().unwrap()));
        assert!(!query.selects(&doc! {"at": "2024-01-01T00:00:00Z", "n": 7.0}.to_vec().unwrap()));
    }

    #[test]
    fn paths_are_those_on_which_the_result_depends() {
        let text = r#"{
            "$comment": "x",
            "b.c": 1,
            "$or": [{"a": {"$not": {"$gt": 1}}}, {"$nor": [{"d.0.e": null}]}],
            "list": {"$elemMatch": {"inner": 1}},
            "b.d": {"$exists": false}
        }"#;
        let query = query(text).unwrap();
        assert_eq!(query.paths(), ["a", "b.c", "b.d", "d.0.e", "list"]);
        assert_eq!(query.projection(), doc! {"_id": 1, "a": 1, "b": 1, "d": 1, "list": 1});
        assert!(Query::parse(&doc! {}).unwrap().paths().is_empty());
    }

    #[test]
    fn verdicts_are_in_the_order_of_the_filters() {
        let filters = [r#"{"a": 1}"#, r#"{"a": 2}"#, "{}"].map(|text| SourceFilter(text.to_owned()));
        let filters = Filters::parse(&filters).unwrap();
        let verdicts = filters.judge(&doc! {"a": 2}.to_vec().unwrap());
        assert_eq!(verdicts, [false, true, true].into_iter().collect());
        assert!(Filters::default().judge(&doc! {}.to_vec().unwrap()).is_empty());
    }
}
