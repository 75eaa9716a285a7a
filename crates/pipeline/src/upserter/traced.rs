//! Trace spans of the upserter.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidewheel_core::embedded::Embedded;
use tidewheel_core::identity::DocumentId;
use tidewheel_core::ports::{Delivery, FenceTarget};
use tidewheel_core::stage::Stage;
use tidewheel_core::trace::{Tracer, Value};

use super::plan::{Removal, Write};
use crate::spans::{Attributes, BatchSpans};

/// The outcome of a document's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Qdrant has confirmed the conditional write of its points. Also if a newer version of a one-chunk document was
    /// kept: the write does not report that.
    Written,
    /// Only its payload had to be written.
    Refreshed,
    /// A newer change had already been applied, and is kept.
    Fenced,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Refreshed => "refreshed",
            Self::Fenced => "fenced",
        }
    }
}

/// The outcomes of a batch's writes; the last one per document counts.
#[derive(Default)]
pub(super) struct Outcomes(Mutex<HashMap<DocumentId, Outcome>>);

impl Outcomes {
    pub(super) fn note(&self, documents: impl Iterator<Item = DocumentId>, outcome: Outcome) {
        let mut outcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.extend(documents.map(|document| (document, outcome)));
    }

    fn of(&self, document: DocumentId) -> Outcome {
        let outcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.get(&document).copied().unwrap_or(Outcome::Written)
    }
}

/// The spans of a batch.
pub(super) struct Traced {
    pub(super) spans: BatchSpans,
    outcomes: Arc<Outcomes>,
    collection: String,
}

impl Traced {
    /// `None` if no change of the batch is sampled.
    pub(super) fn begin(tracer: Option<&Tracer>, deliveries: &[Delivery<Embedded>], collection: &str) -> Option<Self> {
        let spans = BatchSpans::begin(tracer, "upsert", Stage::Embedded, deliveries)?;
        Some(Self { spans, outcomes: Arc::default(), collection: collection.to_owned() })
    }

    pub(super) fn outcomes(&self) -> Arc<Outcomes> {
        Arc::clone(&self.outcomes)
    }

    /// Records the outcomes of these documents.
    pub(super) fn note(&mut self, written: &[&Write], removals: &[&Removal]) {
        for write in written {
            let mut more = self.of_call("upsert");
            more.push(("tidewheel.points", write.points.points.len().into()));
            let outcome = self.outcomes.of(write.points.document);
            self.spans.note(&write.entries, write.points.version, outcome.name(), &more);
        }
        for removal in removals {
            let outcome = match removal.fence.target {
                FenceTarget::Document(_) => "deleted",
                FenceTarget::Namespace(_) => "dropped",
            };
            let more = self.of_call("delete");
            self.spans.note(&removal.entries, removal.fence.version, outcome, &more);
        }
    }

    fn of_call(&self, operation: &'static str) -> Attributes {
        vec![
            ("db.system.name", "qdrant".into()),
            ("db.collection.name", Value::text(&self.collection)),
            ("db.operation.name", operation.into()),
        ]
    }
}
