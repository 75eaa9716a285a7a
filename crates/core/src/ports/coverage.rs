//! The part of the source that is read, and a source restricted to it.

use std::sync::Arc;

use super::PortResult;
use super::source::{Feed, FeedError, Judged, Scan, Source, SourceFilter, SourceRow, StartAt};
use crate::catalog::Selector;
use crate::identity::Namespace;
use crate::version::ClusterTime;

/// The collections that a change stream covers, and the conditions that it judges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// The selected collections: the union of these.
    pub selectors: Vec<Selector>,
    /// The conditions, without duplicates. Their places are the numbers of the [`Verdicts`](super::Verdicts).
    pub filters: Vec<SourceFilter>,
}

impl Coverage {
    /// All documents of these collections.
    pub fn of(selector: Selector) -> Self {
        Self { selectors: vec![selector], filters: Vec::new() }
    }

    /// Whether this collection is covered.
    pub fn covers(&self, namespace: &Namespace) -> bool {
        self.selectors.iter().any(|selector| selector.covers(namespace))
    }

    /// Whether any collection of this one's database may be covered.
    pub fn reaches_database_of(&self, namespace: &Namespace) -> bool {
        let mut inclusions = self.selectors.iter().flat_map(Selector::inclusions);
        inclusions.any(|pattern| pattern.database.matches(namespace.database()))
    }
}

/// A source restricted to a coverage. Cheap to clone.
#[derive(Clone)]
pub struct Covered {
    /// The source.
    pub source: Arc<dyn Source>,
    /// The part of it that is read.
    pub coverage: Arc<Coverage>,
}

impl Covered {
    /// Restricts the source to the coverage.
    pub fn new(source: Arc<dyn Source>, coverage: Coverage) -> Self {
        Self { source, coverage: Arc::new(coverage) }
    }

    /// Restricts the source to all documents of these collections.
    pub fn by(source: Arc<dyn Source>, selector: Selector) -> Self {
        Self::new(source, Coverage::of(selector))
    }

    /// [`Source::now`].
    pub async fn now(&self) -> PortResult<ClusterTime> {
        self.source.now().await
    }

    /// [`Source::scope`] of the coverage.
    pub fn scope(&self) -> String {
        self.source.scope(&self.coverage)
    }

    /// [`Source::open`] for the coverage.
    pub async fn open(&self, start: StartAt) -> Result<Box<dyn Feed>, FeedError> {
        self.source.open(&self.coverage, start).await
    }

    /// [`Source::open_narrow`] for the coverage.
    pub async fn open_narrow(&self, start: StartAt, first: usize) -> Result<Box<dyn Feed>, FeedError> {
        self.source.open_narrow(&self.coverage, start, first).await
    }

    /// The existing covered collections, sorted by name.
    pub async fn collections(&self) -> PortResult<Vec<Namespace>> {
        let mut covered = Vec::new();
        for selector in &self.coverage.selectors {
            covered.extend(self.source.collections(selector).await?);
        }
        covered.sort_unstable();
        covered.dedup();
        Ok(covered)
    }

    /// [`Source::estimate`].
    pub async fn estimate(&self, namespace: &Namespace) -> PortResult<u64> {
        self.source.estimate(namespace).await
    }

    /// [`Source::scan`] without verdicts; with a condition, only of matching documents.
    pub async fn scan(
        &self,
        namespace: &Namespace,
        after: Option<&str>,
        at_least: ClusterTime,
        filter: Option<&SourceFilter>,
    ) -> PortResult<Box<dyn Scan>> {
        self.source.scan(namespace, after, at_least, &Judged::only(filter.cloned())).await
    }

    /// [`Source::existing`]; always false in a collection that is not covered.
    pub async fn existing(
        &self,
        namespace: &Namespace,
        keys: &[String],
        at_least: ClusterTime,
    ) -> PortResult<Vec<bool>> {
        if !self.coverage.covers(namespace) {
            return Ok(vec![false; keys.len()]);
        }
        self.source.existing(namespace, keys, at_least, None).await
    }

    /// [`Source::fetch`] without verdicts; empty for a collection that is not covered.
    pub async fn fetch(
        &self,
        namespace: &Namespace,
        keys: &[String],
        at_least: ClusterTime,
    ) -> PortResult<Vec<SourceRow>> {
        if !self.coverage.covers(namespace) {
            return Ok(Vec::new());
        }
        self.source.fetch(namespace, keys, at_least, &Judged::default()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_is_the_union_of_its_selectors() {
        let selector = |database: &str, names: &[&str]| Selector::of_database(database, names);
        let coverage =
            Coverage { selectors: vec![selector("shop", &["tickets"]), selector("crm", &[])], ..Coverage::default() };
        for (name, covered, reached) in [
            ("shop.tickets", true, true),
            ("shop.notes", false, true),
            ("crm.notes", true, true),
            ("other.tickets", false, false),
        ] {
            let namespace = Namespace::parse(name).unwrap();
            assert_eq!(coverage.covers(&namespace), covered, "{name}");
            assert_eq!(coverage.reaches_database_of(&namespace), reached, "{name}");
        }
        assert!(!Coverage::default().covers(&Namespace::new("shop", "tickets")));
    }
}
