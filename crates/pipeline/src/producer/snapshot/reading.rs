//! The first half: the rows of the source.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use tidewheel_core::catalog::{Needs, Routed, Routes, Rows, Selector, TargetId};
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Coverage, Covered, Judged, PortResult, Scan, SourceFilter, SourceRow};
use tidewheel_core::version::Version;
use tracing::{info, warn};

use super::super::metric;
use super::super::plan::{self, PageRead, Read};
use super::Page;
use super::comparing::Comparing;
use crate::targets::Target;

/// How often a running snapshot reports its progress.
const REPORT_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Reading {
    version: Version,
    /// The targets that are filled.
    targets: Vec<Filled>,
    /// The remaining collections; the last is the current one.
    collections: Vec<(Namespace, Option<String>)>,
    scan: Option<Box<dyn Scan>>,
    estimate: u64,
    begun: (Instant, u64),
    read: u64,
    differing: u64,
    reported: Instant,
}

/// A target that is filled.
struct Filled {
    target: Arc<Target>,
    needs: Needs,
    /// Compares rows with its points; `None` if every row is appended.
    comparing: Option<Comparing>,
}

impl Reading {
    pub(super) async fn begin(
        version: Version,
        after: Option<&(Namespace, String)>,
        rows: u64,
        filled: Vec<(Arc<Target>, Needs)>,
        source: &Covered,
    ) -> PortResult<Self> {
        let selectors: BTreeSet<&Selector> = filled.iter().map(|(target, _)| &target.declaration().source).collect();
        let selectors = selectors.into_iter().cloned().collect();
        let covered = Covered::new(source.source.clone(), Coverage { selectors, filters: Vec::new() });
        let all = covered.collections().await?;
        let mut estimate = 0;
        for namespace in &all {
            estimate += covered.estimate(namespace).await?;
        }
        // At once: the feed waits meanwhile, and an unavailable index answers none of them.
        let targets = try_join_all(filled.into_iter().map(|(target, needs)| async move {
            metric::expects(&target, estimate);
            let has_points = has_points(&target).await?;
            let comparing = (has_points && needs.rows != Rows::All)
                .then(|| Comparing::new(target.ports.index.clone(), version, target.made, needs.rows));
            PortResult::Ok(Filled { target, needs, comparing })
        }))
        .await?;
        let compares = targets.iter().any(|filled| filled.comparing.is_some());
        info!(collections = all.len(), documents = estimate, read = rows, compares, "reading snapshot");
        let mut collections = plan::remaining(all, after);
        collections.reverse();
        let now = Instant::now();
        Ok(Self {
            version,
            targets,
            collections,
            scan: None,
            estimate,
            begun: (now, rows),
            read: rows,
            differing: 0,
            reported: now,
        })
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// Whether rows are compared with a target that has points.
    pub(super) fn compares(&self) -> bool {
        self.targets.iter().any(|filled| filled.comparing.is_some())
    }

    pub(super) async fn next(&mut self, source: &Covered) -> PortResult<Page> {
        let Some((namespace, after)) = self.collections.last() else {
            return Ok(Page::AllRead);
        };
        let scan = match &mut self.scan {
            Some(scan) => scan,
            None => {
                let judged = judged(&self.targets, namespace, source);
                let open = source.source.scan(namespace, after.as_deref(), self.version.time, &judged);
                self.scan.insert(open.await?)
            }
        };
        let rows = scan.next().await?;
        if rows.is_empty() {
            return Ok(Page::CollectionRead);
        }
        Ok(Page::Rows(Read { namespace: namespace.clone(), rows }))
    }

    /// Compares a page once with each target that may receive its rows, with all of them at once: the feed waits
    /// meanwhile. Rows that no target lacks are left out.
    pub(super) async fn compare(&mut self, routes: &Routes, page: Read) -> PageRead {
        let Read { namespace, rows } = page;
        let (last, count) = (plan::last_short(rows.iter()), rows.len() as u64);
        let routed: Vec<Option<Routed>> = rows.iter().map(|row| routes.row(&namespace, row, &[], |_| true)).collect();
        let (namespace_of, rows_of, routed) = (&namespace, &rows, &routed);
        let compared = self.targets.iter().map(|Filled { target, comparing, .. }| async move {
            let receives = |routed: &Routed| routed.stamp.targets.contains(&target.id);
            let mut receives: Vec<bool> = routed.iter().map(|routed| routed.as_ref().is_some_and(receives)).collect();
            if let Some(comparing) = comparing {
                comparing.retain_differing(namespace_of, rows_of, &mut receives).await;
            }
            (&target.id, receives)
        });
        let differing: HashMap<&TargetId, Vec<bool>> = join_all(compared).await.into_iter().collect();
        let differing: Vec<(SourceRow, Routed)> = rows
            .into_iter()
            .enumerate()
            .filter_map(|(at, row)| {
                let receives = |id: &TargetId| differing.get(id).is_some_and(|receives| receives[at]);
                let routed = routes.row(&namespace, &row, &[], receives)?;
                Some((row, routed))
            })
            .collect();
        self.read += count;
        self.differing += differing.len() as u64;
        PageRead { namespace, last, count, differing }
    }

    pub(super) fn next_collection(&mut self) {
        self.scan = None;
        self.collections.pop();
    }

    pub(super) fn report(&mut self, rows: u64) {
        if self.reported.elapsed() < REPORT_EVERY {
            return;
        }
        self.reported = Instant::now();
        let (begun, before) = self.begun;
        let rate = (rows - before) as f64 / begun.elapsed().as_secs_f64();
        let left = self.estimate.saturating_sub(rows) as f64 / rate.max(1e-9);
        info!(
            rows,
            of = self.estimate,
            differing = self.differing,
            rows_per_second = rate as u64,
            eta_seconds = left as u64,
            "snapshot in progress"
        );
    }

    pub(super) fn finish(&self) {
        let seconds = self.begun.0.elapsed().as_secs();
        info!(rows = self.read, differing = self.differing, seconds, "snapshot read all documents");
    }

    /// The targets that the second half sweeps.
    pub(super) fn into_swept(self) -> Vec<Arc<Target>> {
        self.targets.into_iter().filter(|filled| filled.needs.sweep).map(|filled| filled.target).collect()
    }
}

/// Whether the collection of a target has points to compare with.
async fn has_points(target: &Target) -> PortResult<bool> {
    let index = &target.ports.index;
    match index.count().await {
        Ok(Some(points)) => {
            if let Some(registry) = &target.ports.registry {
                // Recorded before it is relied on, because it could be deleted from here on.
                registry.collection(index.name(), true).await?;
            }
            Ok(points > 0)
        }
        Ok(None) => Ok(false),
        Err(error) => {
            warn!("failed to compare with the index, embedding every document: {error}");
            Ok(false)
        }
    }
}

/// What a scan of this collection judges: the filters of all routes, by their numbers. If every target that covers the
/// collection has a filter, the scan reads what one of them selects.
fn judged(targets: &[Filled], namespace: &Namespace, source: &Covered) -> Judged {
    let declarations = targets.iter().map(|filled| filled.target.declaration());
    let covering = declarations.filter(|declaration| declaration.source.covers(namespace));
    let filters: Option<BTreeSet<&SourceFilter>> = covering.map(|declaration| declaration.filter.as_ref()).collect();
    Judged { filters: source.coverage.filters.clone(), pushed: filters.and_then(|filters| any_of(&filters)) }
}

/// The condition that one of these holds.
fn any_of(filters: &BTreeSet<&SourceFilter>) -> Option<SourceFilter> {
    let texts: Vec<&str> = filters.iter().map(|filter| filter.0.as_str()).collect();
    match texts.as_slice() {
        [] => None,
        [only] => Some(SourceFilter((*only).to_owned())),
        several => Some(SourceFilter(format!(r#"{{"$or": [{}]}}"#, several.join(", ")))),
    }
}
