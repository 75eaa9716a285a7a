//! The documents of the source that belong to one target: those of its collections that match its filter.

use std::sync::Arc;

use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Coverage, Covered, Judged, PortResult, Scan, Source, SourceFilter, SourceRow};
use tidewheel_core::version::ClusterTime;

use crate::targets::Target;

/// A source restricted to the documents of one target. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Members {
    source: Covered,
    filter: Option<SourceFilter>,
}

impl Members {
    pub(crate) fn new(source: Covered, filter: Option<SourceFilter>) -> Self {
        Self { source, filter }
    }

    pub(crate) fn of(target: &Target, source: &Arc<dyn Source>) -> Self {
        let declaration = target.declaration();
        let coverage = Coverage::of(declaration.source.clone());
        Self::new(Covered::new(source.clone(), coverage), declaration.filter.clone())
    }

    /// The collections, regardless of the filter.
    pub(crate) fn covered(&self) -> &Covered {
        &self.source
    }

    /// The source's current cluster time.
    pub(crate) async fn now(&self) -> PortResult<ClusterTime> {
        self.source.now().await
    }

    /// Scans a collection in the order of `_id`, as [`Source::scan`] does. A condition reduces the scan to a part of the
    /// documents, as the source itself compares.
    pub(crate) async fn scan(
        &self,
        namespace: &Namespace,
        after: Option<&str>,
        at_least: ClusterTime,
        part: Option<&SourceFilter>,
    ) -> PortResult<MemberScan> {
        // What is judged may be read in excess; a part is exact, so that its documents are judged separately.
        let (judged, separate) = match (&self.filter, part) {
            (Some(filter), None) => (Judged { filters: vec![filter.clone()], pushed: Some(filter.clone()) }, None),
            (filter, part) => (Judged::only(part.cloned()), filter.clone()),
        };
        let source = self.source.source.clone();
        let scan = source.scan(namespace, after, at_least, &judged).await?;
        Ok(MemberScan { source, namespace: namespace.clone(), at_least, scan, separate })
    }

    /// For each of these documents, given by their keys, whether it belongs to the target, including everything committed
    /// at or before `at_least`.
    pub(crate) async fn existing(
        &self,
        namespace: &Namespace,
        keys: &[String],
        at_least: ClusterTime,
    ) -> PortResult<Vec<bool>> {
        if !self.source.coverage.covers(namespace) {
            return Ok(vec![false; keys.len()]);
        }
        self.source.source.existing(namespace, keys, at_least, self.filter.as_ref()).await
    }

    /// Those of these documents, given by their keys, that belong to the target, including everything committed at or
    /// before `at_least`, in any order.
    pub(crate) async fn fetch(
        &self,
        namespace: &Namespace,
        keys: &[String],
        at_least: ClusterTime,
    ) -> PortResult<Vec<SourceRow>> {
        if !self.source.coverage.covers(namespace) {
            return Ok(Vec::new());
        }
        let judged = Judged { filters: self.filter.iter().cloned().collect(), pushed: None };
        let mut rows = self.source.source.fetch(namespace, keys, at_least, &judged).await?;
        rows.retain(is_member);
        Ok(rows)
    }
}

/// Whether a row, judged by the filter if there is one, belongs to the target. An unreadable document does: it is parked.
fn is_member(row: &SourceRow) -> bool {
    row.verdicts.get(0) != Some(false)
}

/// Reads the documents of a target in one collection, page by page.
pub(crate) struct MemberScan {
    source: Arc<dyn Source>,
    namespace: Namespace,
    at_least: ClusterTime,
    scan: Box<dyn Scan>,
    /// A filter that the scan does not judge.
    separate: Option<SourceFilter>,
}

impl MemberScan {
    /// The next documents; empty at the end.
    pub(crate) async fn next(&mut self) -> PortResult<Vec<SourceRow>> {
        loop {
            let mut rows = self.scan.next().await?;
            if rows.is_empty() {
                return Ok(rows);
            }
            match &self.separate {
                None => rows.retain(is_member),
                Some(filter) => {
                    let keys: Vec<String> = rows.iter().map(|row| row.key.clone()).collect();
                    let matching = self.source.existing(&self.namespace, &keys, self.at_least, Some(filter)).await?;
                    let mut matching = matching.into_iter();
                    rows.retain(|_| matching.next().unwrap_or(false));
                }
            }
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidewheel_core::catalog::Selector;
    use tidewheel_testkit::fakes::source::FakeSource;

    use super::*;

    fn filter(text: &str) -> Option<SourceFilter> {
        Some(SourceFilter(text.to_owned()))
    }

    async fn scanned(members: &Members, part: Option<&SourceFilter>) -> Vec<String> {
        let tickets = Namespace::new("shop", "tickets");
        let now = members.now().await.unwrap();
        let mut scan = members.scan(&tickets, None, now, part).await.unwrap();
        let mut ids = Vec::new();
        loop {
            let rows = scan.next().await.unwrap();
            if rows.is_empty() {
                return ids;
            }
            ids.extend(rows.into_iter().map(|row| row.id));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_matching_documents_of_the_collections_belong_to_the_target() {
        let source = FakeSource::with("shop", std::time::Duration::from_millis(20), 2);
        for number in 0..7 {
            let state = if number % 3 == 0 { "open" } else { "draft" };
            source.insert("tickets", json!({"_id": number, "state": state}));
        }
        source.insert("notes", json!({"_id": 0, "state": "open"}));
        let selector = Selector::of_database("shop", &["tickets"]);
        let covered = Covered::by(Arc::new(source), selector);
        let open = Members::new(covered.clone(), filter(r#"{"state": "open"}"#));
        let all = Members::new(covered, None);
        let part = filter(r#"{"$and": [{"_id": {"$gte": 1}}]}"#);
        assert_eq!(scanned(&open, None).await, ["0", "3", "6"]);
        assert_eq!(scanned(&open, part.as_ref()).await, ["3", "6"]);
        assert_eq!(scanned(&all, part.as_ref()).await, ["1", "2", "3", "4", "5", "6"]);

        let keys: Vec<String> = [0, 1, 3, 9].map(|number| format!(r#"{{"$numberInt":"{number}"}}"#)).to_vec();
        let now = open.now().await.unwrap();
        let (tickets, notes) = (Namespace::new("shop", "tickets"), Namespace::new("shop", "notes"));
        assert_eq!(open.existing(&tickets, &keys, now).await.unwrap(), [true, false, true, false]);
        assert_eq!(all.existing(&tickets, &keys, now).await.unwrap(), [true, true, true, false]);
        assert_eq!(open.existing(&notes, &keys, now).await.unwrap(), [false; 4], "not covered");
        let fetched = async |members: &Members, namespace: &Namespace| {
            let rows = members.fetch(namespace, &keys, now).await.unwrap();
            let mut ids: Vec<String> = rows.into_iter().map(|row| row.id).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(fetched(&open, &tickets).await, ["0", "3"]);
        assert_eq!(fetched(&all, &tickets).await, ["0", "1", "3"]);
        assert!(fetched(&all, &notes).await.is_empty());
    }
}
