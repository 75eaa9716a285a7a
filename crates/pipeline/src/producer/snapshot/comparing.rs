//! Compares rows of the source with the points of a target.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tidewheel_core::catalog::{Made, Rows};
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::payload::{STAMP, Stamped};
use tidewheel_core::ports::{Index, PortResult, SourceRow};
use tidewheel_core::version::Version;
use tracing::warn;
use uuid::Uuid;

use super::super::plan;

/// A target with points, and how rows are compared with them.
pub(super) struct Comparing {
    index: Arc<dyn Index>,
    version: Version,
    /// What its points are made by; `None` before a catalog is applied.
    made: Option<Made>,
    /// The rows that have to be appended.
    wanted: Rows,
}

impl Comparing {
    pub(super) fn new(index: Arc<dyn Index>, version: Version, made: Option<Made>, wanted: Rows) -> Self {
        Self { index, version, made, wanted }
    }

    /// Keeps those of the marked rows marked that have to be appended; all of them if the index is unreachable.
    pub(super) async fn retain_differing(&self, namespace: &Namespace, rows: &[SourceRow], marked: &mut [bool]) {
        let compared: Vec<&SourceRow> =
            rows.iter().zip(&*marked).filter(|(_, marked)| **marked).map(|(row, _)| row).collect();
        if compared.is_empty() {
            return;
        }
        match self.differing(namespace, &compared).await {
            Ok(differing) => {
                for (marked, differs) in marked.iter_mut().filter(|marked| **marked).zip(differing) {
                    *marked = differs;
                }
            }
            Err(error) => warn!("failed to compare a page with the index, embedding all of it: {error}"),
        }
    }

    /// Returns which of these rows have to be appended. The first chunk provides version, digest and what the document
    /// was made by; of equal documents, the last chunk has to exist, and none after it.
    async fn differing(&self, namespace: &Namespace, rows: &[&SourceRow]) -> PortResult<Vec<bool>> {
        let documents: Vec<DocumentId> = rows.iter().map(|row| DocumentId::new(namespace, &row.key)).collect();
        let first: Vec<Uuid> = documents.iter().map(|document| document.point(0)).collect();
        let stored: HashMap<Uuid, Stamped> = self
            .index
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
            self.index.points(&ends, &["_tidewheel.chunk"]).await?.into_iter().map(|point| point.id).collect();
        let is_whole = |document: &DocumentId| {
            chunks(document).is_some_and(|chunks| {
                there.contains(&document.point(chunks.max(1) - 1)) && !there.contains(&document.point(chunks))
            })
        };
        let differs = |document: &DocumentId, row: &SourceRow| {
            let stored = stored.get(&document.point(0));
            plan::differs(stored, row, self.version, self.made.as_ref(), self.wanted) || !is_whole(document)
        };
        Ok(documents.iter().zip(rows).map(|(document, row)| differs(document, row)).collect())
    }
}
