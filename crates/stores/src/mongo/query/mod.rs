//! Evaluation of a MongoDB query, the filter document of `find`, on a document outside the server.
//!
//! A query selects exactly the documents that `find` returns without a collation. [`Query::parse`] rejects every operator
//! and every construct of a regular expression that it does not support, so that a parsed query never selects other
//! documents than the server. `tests/mongo/query.rs` compares both on random documents and queries.
//!
//! Rules come from the MongoDB manual (<https://www.mongodb.com/docs/manual/>), and their sources are named beside them:
//!
//! | file | rules | page of the manual |
//! |---|---|---|
//! | `parse.rs` | operators and their operands | `reference/operator/query/` and the page of each operator |
//! | `matching.rs` | operators on one value | the same pages; `tutorial/query-for-null-fields/` |
//! | `path.rs` | dotted paths, arrays | `tutorial/query-arrays/`, `tutorial/query-array-of-documents/` |
//! | `compare.rs` | order and equality of values | `reference/bson-type-comparison-order/` |
//! | `number.rs` | order of numbers of different types | the same page, "Numeric Types" |
//! | `pattern.rs` | regular expressions | `reference/operator/query/regex/`; the manual pages of PCRE |
//!
//! Where the manual is silent, the rule is the observed behaviour of mongod 6.0, and the comment says so.
//!
//! Two rules depend on the version of the server. `null` also matches values of the deprecated type `undefined`, as it
//! does up to MongoDB 7.0; from 8.0 on the server does not match them. Case-insensitive expressions fold letters by the
//! Unicode version of the `regex` crate.

mod compare;
mod matching;
mod number;
mod parse;
mod path;
mod pattern;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use bson::{Document, RawDocument};

use matching::Condition;
pub use parse::QueryError;

/// A parsed query.
#[derive(Clone, Debug)]
pub struct Query(Condition);

impl Query {
    /// Parses the filter document of `find`. `{}` matches every document.
    ///
    /// # Errors
    /// The query is invalid, or the server supports it and this module does not. The error names the path and the
    /// operator.
    pub fn parse(filter: &Document) -> Result<Self, QueryError> {
        parse::query(filter).map(Self)
    }

    /// Whether the query selects the document. Fields after malformed BSON, which MongoDB does not store, count as
    /// missing.
    #[must_use]
    pub fn matches(&self, document: &RawDocument) -> bool {
        self.selects(document.as_bytes())
    }

    /// Like [`Self::matches`], for bytes that need not be a document: nothing can be read from others.
    pub(super) fn selects(&self, document: &[u8]) -> bool {
        self.0.matches(document)
    }

    /// The dotted paths of the fields on which the result depends, sorted. A path ends at an array whose elements
    /// `$elemMatch` tests.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = BTreeSet::new();
        self.0.paths(&mut paths);
        paths.into_iter().collect()
    }
}
