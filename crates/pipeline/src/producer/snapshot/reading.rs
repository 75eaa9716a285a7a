//! The first half: the rows of the source.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::payload::{STAMP, Stamped};
use tidewheel_core::ports::{Covered, IndexReader, PortResult, Scan, SourceRow};
use tidewheel_core::version::Version;
use tracing::{info, warn};
use uuid::Uuid;

use super::super::ProducerPorts;
use super::super::plan::{self, PageRead};
use super::Page;

/// How often a running snapshot reports its progress.
const REPORT_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Reading {
    version: Version,
    /// The remaining collections; the last is the current one.
    collections: Vec<(Namespace, Option<String>)>,
    scan: Option<Box<dyn Scan>>,
    /// Whether the index has points to compare with.
    compares: bool,
    estimate: u64,
    begun: (Instant, u64),
    read: u64,
    differing: u64,
    reported: Instant,
}

impl Reading {
    pub(super) async fn begin(
        version: Version,
        after: Option<&(Namespace, String)>,
        rows: u64,
        ports: &ProducerPorts,
    ) -> PortResult<Self> {
        let ProducerPorts { source, index, registry, .. } = ports;
        let all = source.collections().await?;
        let mut estimate = 0;
        for namespace in &all {
            estimate += source.estimate(namespace).await?;
        }
        super::super::metric::expects(estimate);
        let compares = match index.count().await {
            Ok(Some(points)) => {
                // Recorded before it is relied on, because it could be deleted from here on.
                registry.collection(index.name(), true).await?;
                points > 0
            }
            Ok(None) => false,
            Err(error) => {
                warn!("failed to compare with the index, embedding every document: {error}");
                false
            }
        };
        info!(collections = all.len(), documents = estimate, read = rows, compares, "reading snapshot");
        let mut collections = plan::remaining(all, after);
        collections.reverse();
        let now = Instant::now();
        Ok(Self {
            version,
            collections,
            scan: None,
            compares,
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

    pub(super) fn compares(&self) -> bool {
        self.compares
    }

    pub(super) async fn next(&mut self, source: &Covered) -> PortResult<Page> {
        let Some((namespace, after)) = self.collections.last() else {
            return Ok(Page::AllRead);
        };
        let scan = match &mut self.scan {
            Some(scan) => scan,
            None => self.scan.insert(source.scan(namespace, after.as_deref(), self.version.time, None).await?),
        };
        let rows = scan.next().await?;
        if rows.is_empty() {
            return Ok(Page::CollectionRead);
        }
        let (last, count) = (plan::last_short(&rows), rows.len() as u64);
        Ok(Page::Rows(PageRead { namespace: namespace.clone(), last, count, differing: rows }))
    }

    pub(super) async fn compare(&mut self, index: &dyn IndexReader, mut page: PageRead) -> PageRead {
        if self.compares {
            match differing(index, &page.namespace, &page.differing, self.version).await {
                Ok(differing) => {
                    let mut differing = differing.into_iter();
                    page.differing.retain(|_| differing.next().unwrap_or(true));
                }
                Err(error) => warn!("failed to compare a page with the index, embedding all of it: {error}"),
            }
        }
        self.read += page.count;
        self.differing += page.differing.len() as u64;
        page
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
}

/// Returns which of these rows have to be appended. The first chunk provides version and digest; of equal documents,
/// the last chunk has to exist, and none after it.
async fn differing(
    index: &dyn IndexReader,
    namespace: &Namespace,
    rows: &[SourceRow],
    version: Version,
) -> PortResult<Vec<bool>> {
    let documents: Vec<DocumentId> = rows.iter().map(|row| DocumentId::new(namespace, &row.key)).collect();
    let first: Vec<Uuid> = documents.iter().map(|document| document.point(0)).collect();
    let stored: HashMap<Uuid, Stamped> = index
        .points(&first, STAMP)
        .await?
        .into_iter()
        .filter_map(|point| Some((point.id, Stamped::read(&point.payload)?)))
        .collect();
    let chunks = |document: &DocumentId| stored.get(&document.point(0)).map(|stamp| stamp.chunks);
    let ends: Vec<Uuid> = documents
        .iter()
        .filter_map(|document| {
            chunks(document).map(|chunks| [document.point(chunks.max(1) - 1), document.point(chunks)])
        })
        .flatten()
        .collect();
    let there: HashSet<Uuid> =
        index.points(&ends, &["_tidewheel.chunk"]).await?.into_iter().map(|point| point.id).collect();
    let is_whole = |document: &DocumentId| {
        chunks(document).is_some_and(|chunks| {
            there.contains(&document.point(chunks.max(1) - 1)) && !there.contains(&document.point(chunks))
        })
    };
    let pairs = documents.iter().zip(rows);
    Ok(pairs
        .map(|(document, row)| plan::differs(stored.get(&document.point(0)), row, version) || !is_whole(document))
        .collect())
}
