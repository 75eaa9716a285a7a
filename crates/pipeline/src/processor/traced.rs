//! Trace spans of the processor.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tidewheel_core::change::Change;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Delivery, EmbedderInfo, EntryId};
use tidewheel_core::stage::Stage;
use tidewheel_core::trace::{Tracer, Value, beginning};
use tidewheel_core::version::Version;

use super::unit::{Part, Unit};
use crate::spans::{Attributes, BatchSpans, Call};

/// The spans of a batch, for work that runs concurrently. Without a tracer nothing is done.
pub(super) struct SharedSpans(Option<Mutex<BatchSpans>>);

impl SharedSpans {
    /// Begins the spans of these entries.
    pub(super) fn begin(tracer: Option<&Tracer>, deliveries: &[Delivery<Change>]) -> Self {
        Self(BatchSpans::begin(tracer, "process", Stage::Raw, deliveries).map(Mutex::new))
    }

    /// Whether there are any.
    pub(super) fn are_on(&self) -> bool {
        self.0.is_some()
    }

    /// Calls `work` with the spans, if there are any.
    pub(super) fn with(&self, work: impl FnOnce(&mut BatchSpans)) {
        if let Some(spans) = &self.0 {
            work(&mut spans.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// An embedder call of a batch.
pub(super) struct EmbedCall {
    began: SystemTime,
    ended: SystemTime,
    attributes: Attributes,
}

impl EmbedCall {
    /// Begins now, with this many texts for all documents of the batch.
    pub(super) fn begin(info: &EmbedderInfo, texts: usize) -> Self {
        let now = SystemTime::now();
        let attributes = vec![
            ("gen_ai.operation.name", "embeddings".into()),
            ("gen_ai.request.model", Value::text(&info.model)),
            ("gen_ai.embeddings.dimension.count", info.dimension.into()),
            ("tidewheel.batch.texts", texts.into()),
        ];
        Self { began: now, ended: now, attributes }
    }

    /// Ends now.
    pub(super) fn end(self) -> Self {
        Self { ended: SystemTime::now(), ..self }
    }

    /// Records the call for one document, with the number of its vectors from the index. If those are all, the embedder
    /// was not called for this document.
    pub(super) fn record(
        &self,
        spans: &mut BatchSpans,
        (entries, version): (&[EntryId], Version),
        (chunks, from_index): (usize, usize),
        error: Option<&PortError>,
    ) {
        if from_index >= chunks {
            return;
        }
        let mut attributes = self.attributes.clone();
        attributes.extend(of_document(chunks, from_index));
        if let Some(error) = error {
            attributes.push(("error.type", error.class.to_string().into()));
        }
        let error = error.map(|error| beginning(&error.message));
        let call = Call { name: "embed", began: self.began, ended: self.ended, attributes, error };
        spans.call(entries, version, &call);
    }
}

fn of_document(chunks: usize, from_index: usize) -> Attributes {
    vec![("tidewheel.chunks", chunks.into()), ("tidewheel.vectors.from_index", from_index.into())]
}

/// Records the outcome of a unit that is about to be handed over. A parked one gets its outcome when it is parked.
pub(super) fn decided(spans: &mut BatchSpans, unit: &Unit) {
    let Unit { change, entries, parts, .. } = unit;
    let (mut chunks, mut reused) = (0, 0);
    for part in parts {
        if let Part::Embedded { texts, .. } = part {
            chunks += texts.chunks.len();
            reused += texts.reused;
        }
    }
    if parts.iter().any(|part| matches!(part, Part::Failed { .. })) {
        return;
    }
    let has_skipped = parts.iter().any(|part| matches!(part, Part::Skipped { .. }));
    match chunks {
        0 if has_skipped => spans.note(entries, change.version, "skipped", &Attributes::new()),
        0 => spans.note(entries, change.version, "passed_on", &Attributes::new()),
        _ => spans.note(entries, change.version, "embedded", &of_document(chunks, reused)),
    }
}

/// Records the outcome of changes whose targets are no longer routed.
pub(super) fn retired(spans: &mut BatchSpans, changes: &[(Change, EntryId)]) {
    for (change, entry) in changes {
        spans.note(std::slice::from_ref(entry), change.version, "retired", &Attributes::new());
    }
}
