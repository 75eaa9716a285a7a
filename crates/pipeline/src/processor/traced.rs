//! Trace spans of the processor.

use std::time::SystemTime;

use tidewheel_core::error::PortError;
use tidewheel_core::ports::EmbedderInfo;
use tidewheel_core::trace::{Value, beginning};

use super::plan::{Job, Passed};
use crate::spans::{Attributes, BatchSpans, Call};

/// The embedder call of a batch.
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
    pub(super) fn record(&self, spans: &mut BatchSpans, job: &Job, from_index: usize, error: Option<&PortError>) {
        let of_document: Attributes =
            vec![("tidewheel.chunks", job.chunks.len().into()), ("tidewheel.vectors.from_index", from_index.into())];
        if from_index < job.chunks.len() {
            let mut attributes = self.attributes.clone();
            attributes.extend_from_slice(&of_document);
            if let Some(error) = error {
                attributes.push(("error.type", error.class.to_string().into()));
            }
            let error = error.map(|error| beginning(&error.message));
            let call = Call { name: "embed", began: self.began, ended: self.ended, attributes, error };
            spans.call(&job.entries, job.change.version, &call);
        }
        if error.is_none() {
            spans.note(&job.entries, job.change.version, "embedded", &of_document);
        }
    }
}

/// Records the changes that need no vector.
pub(super) fn passed(spans: &mut BatchSpans, passed: &[Passed]) {
    for Passed { change, entries } in passed {
        spans.note(entries, change.version, "passed_on", &Attributes::new());
    }
}
