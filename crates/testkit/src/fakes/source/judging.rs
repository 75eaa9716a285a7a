//! The conditions of a feed, a scan or a lookup, evaluated as in the real adapter.

use bson::{Bson, Document, RawDocumentBuf};
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Judged, PortResult, SourceFilter, Verdicts};
use tidewheel_stores::mongo::Query;

/// Filters that are judged, and a condition on what is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Judge {
    filters: Vec<Query>,
    pushed: Vec<Pushed>,
}

/// A part of a pushed condition; all parts have to hold.
#[derive(Clone, Debug)]
enum Pushed {
    Query(Query),
    /// A random sample: `{"$expr": {"$lt": [{"$rand": {}}, share]}}`.
    Share(f64),
}

impl Judge {
    /// Fails for an invalid or unsupported condition.
    pub(super) fn new(judged: &Judged) -> PortResult<Self> {
        let mut judge = Self::of(&judged.filters)?;
        if let Some(SourceFilter(text)) = &judged.pushed {
            let wrong = || PortError::fatal(format!("invalid filter {text}: expected a query"));
            let json: serde_json::Value = serde_json::from_str(text).map_err(|_| wrong())?;
            match Bson::try_from(json) {
                Ok(Bson::Document(condition)) => judge.push(&condition)?,
                _ => return Err(wrong()),
            }
        }
        Ok(judge)
    }

    /// Judges these filters, and reads everything.
    pub(super) fn of(filters: &[SourceFilter]) -> PortResult<Self> {
        let filters = filters.iter().map(Query::of).collect::<PortResult<_>>()?;
        Ok(Self { filters, pushed: Vec::new() })
    }

    fn push(&mut self, condition: &Document) -> PortResult<()> {
        let invalid = |cause: &dyn std::fmt::Display| PortError::fatal(format!("invalid filter {condition}: {cause}"));
        if let (1, Ok(parts)) = (condition.len(), condition.get_array("$and")) {
            for part in parts {
                self.push(part.as_document().ok_or_else(|| invalid(&"expected documents in $and"))?)?;
            }
            return Ok(());
        }
        self.pushed.push(match share(condition) {
            Some(share) => Pushed::Share(share),
            None => Pushed::Query(Query::parse(condition).map_err(|error| invalid(&error))?),
        });
        Ok(())
    }

    /// Whether there are filters to judge.
    pub(super) fn has_filters(&self) -> bool {
        !self.filters.is_empty()
    }

    /// The verdict of each filter.
    pub(super) fn verdicts(&self, document: &Document) -> Verdicts {
        self.filters.iter().map(|query| matches(query, document)).collect()
    }

    /// Whether the document is read.
    pub(super) fn admits(&self, document: &Document) -> bool {
        self.pushed.iter().all(|pushed| match pushed {
            Pushed::Query(query) => matches(query, document),
            Pushed::Share(share) => rand::random::<f64>() < *share,
        })
    }
}

/// Whether the query selects the document.
pub(super) fn matches(query: &Query, document: &Document) -> bool {
    query.matches(&RawDocumentBuf::try_from(document).expect("a document that can be encoded as BSON"))
}

fn share(condition: &Document) -> Option<f64> {
    let [random, share] = condition.get_document("$expr").ok()?.get_array("$lt").ok()?.as_slice() else { return None };
    random.as_document()?.contains_key("$rand").then(|| share.as_f64())?
}
