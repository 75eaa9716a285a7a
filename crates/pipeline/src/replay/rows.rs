//! Replays of the source's current rows.

use std::sync::Arc;

use tidewheel_core::change::{Change, Operation};
use tidewheel_core::identity::Namespace;
use tidewheel_core::key;
use tidewheel_core::ports::{Judged, PortResult, Scan, Source, SourceFilter, SourceRow};
use tidewheel_core::time::now_ms;
use tidewheel_core::version::Version;

use super::Destinations;
use super::destinations::Routing;
use super::pages::Read;

/// The rows of collections, or those that match a filter, for the selected targets.
pub(super) struct Rows {
    source: Arc<dyn Source>,
    destinations: Destinations,
    version: Version,
    /// The remaining collections, each with its last row, the next one last.
    left: Vec<(Namespace, Option<String>)>,
    /// The open scan, and the routing that it judges for.
    scan: Option<(Arc<Routing>, Box<dyn Scan>)>,
    filter: Option<SourceFilter>,
}

impl Rows {
    pub(super) fn new(
        source: Arc<dyn Source>,
        destinations: Destinations,
        version: Version,
        collections: Vec<Namespace>,
        filter: Option<SourceFilter>,
    ) -> Self {
        let left = collections.into_iter().rev().map(|namespace| (namespace, None)).collect();
        Self { source, destinations, version, left, scan: None, filter }
    }

    /// The next page. A failed call may be retried.
    pub(super) async fn next(&mut self) -> PortResult<Read<Change>> {
        loop {
            let routing = self.destinations.now().await?;
            let Some((namespace, after)) = self.left.last_mut() else { return Ok(None) };
            if !routing.coverage().covers(namespace) {
                self.scan = None;
                self.left.pop();
                continue;
            }
            let mut scan = match self.scan.take().filter(|(judges, _)| Arc::ptr_eq(judges, &routing)) {
                Some((_, scan)) => scan,
                None => {
                    let judged = judged(&routing, namespace, self.filter.as_ref());
                    self.source.scan(namespace, after.as_deref(), self.version.time, &judged).await?
                }
            };
            let rows = scan.next().await?;
            let Some(last) = rows.last().map(|row| row.key.clone()) else {
                self.left.pop();
                continue;
            };
            let read = rows.len() as u64;
            let rows = match &self.filter {
                Some(_) => judge(&*self.source, &routing, namespace, rows, self.version).await?,
                None => rows,
            };
            if !Arc::ptr_eq(&routing, &self.destinations.now().await?) {
                // Judged by the filters of an earlier catalog.
                continue;
            }
            self.scan = Some((routing.clone(), scan));
            *after = Some(last);
            let (mut changes, mut skipped) = (Vec::with_capacity(rows.len()), 0);
            for row in rows {
                let Some(route) = routing.row(namespace, &row) else { continue };
                match row.document.ok().filter(|_| row.key.len() <= key::MAX_BYTES) {
                    None => skipped += 1,
                    Some(document) => changes.push(Change {
                        operation: Operation::Read,
                        namespace: namespace.clone(),
                        document: Some(document),
                        key: row.key,
                        id: row.id,
                        version: self.version,
                        committed_at: now_ms(),
                        route,
                    }),
                }
            }
            return Ok(Some((read, changes, skipped)));
        }
    }
}

/// How a scan judges: by the filters of the targets. A filter of the replay is evaluated by the source alone, whose
/// comparison counts, so that its rows have to be judged separately.
fn judged(routing: &Routing, namespace: &Namespace, filter: Option<&SourceFilter>) -> Judged {
    match filter {
        Some(filter) => Judged::only(Some(filter.clone())),
        None => Judged { filters: routing.coverage().filters.clone(), pushed: routing.condition(namespace) },
    }
}

/// Judges rows by the filters of the targets. Rows that were deleted meanwhile are left out.
async fn judge(
    source: &dyn Source,
    routing: &Routing,
    namespace: &Namespace,
    rows: Vec<SourceRow>,
    version: Version,
) -> PortResult<Vec<SourceRow>> {
    let filters = routing.coverage().filters.clone();
    if filters.is_empty() {
        return Ok(rows);
    }
    let keys: Vec<String> = rows.into_iter().map(|row| row.key).collect();
    source.fetch(namespace, &keys, version.time, &Judged { filters, pushed: None }).await
}
