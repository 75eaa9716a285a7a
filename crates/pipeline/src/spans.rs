//! Trace spans of changes.
//!
//! Every entry of a batch has its own span under the root derived from its change: from its delivery until it is
//! settled. Entries that are not settled, because the service stops or the batch panics, emit no span: the next
//! consumer of the entry emits it. Without a tracer, and for changes that are not sampled, nothing is computed.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidewheel_core::change::Change;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{DeadLetter, Delivery, EntryId, ParkedChange};
use tidewheel_core::stage::Stage;
use tidewheel_core::trace::{Span, SpanId, SpanKind, Tracer, Value, beginning};
use tidewheel_core::version::Version;

use crate::carries::Carries;

/// Attributes of a span.
pub(crate) type Attributes = Vec<(&'static str, Value)>;

/// The outcome of a change: one word.
pub(crate) const OUTCOME: &str = "tidewheel.outcome";

/// The batch contained a newer change of the same document.
const SUPERSEDED: &str = "superseded";

/// The change was moved to the dead-letter queue.
const PARKED: &str = "parked";

/// Emits the root spans of appended and parked changes: from the source's commit to stage 1, ending now.
pub(crate) fn appended(tracer: Option<&Tracer>, changes: &[Change], parked: &[ParkedChange]) {
    let Some(tracer) = tracer else { return };
    let ended = SystemTime::now();
    let root = |change: &Change| {
        let trace = tracer.trace(change)?;
        let mut attributes: Attributes = vec![
            ("db.system.name", "mongodb".into()),
            ("db.namespace", Value::text(change.namespace.database())),
            ("db.collection.name", Value::text(change.namespace.collection())),
            ("messaging.system", "redis".into()),
            ("messaging.operation.type", "send".into()),
            ("messaging.destination.name", Stage::Raw.name().into()),
        ];
        attributes.extend(of_change(change));
        Some(Span {
            trace: trace.id,
            id: trace.root,
            parent: None,
            name: "change",
            kind: SpanKind::Producer,
            // The source's clock may be ahead of the local one.
            began: (UNIX_EPOCH + Duration::from_millis(change.committed_at)).min(ended),
            ended,
            attributes,
            error: None,
        })
    };
    // The removal of a parked change has the same root as the change itself.
    let is_removal = |change: &&Change| {
        let same = |parked: &Change| parked.version == change.version && parked.document_id() == change.document_id();
        parked.iter().any(|parked| same(&parked.change))
    };
    let appended = changes.iter().filter(|change| !is_removal(change)).filter_map(root);
    let parked = parked.iter().filter_map(|ParkedChange { change, reason }| {
        let mut span = root(change)?;
        mark_parked(&mut span, reason);
        Some(span)
    });
    tracer.record(appended.chain(parked).collect());
}

/// Records that the change of this span is parked.
fn mark_parked(span: &mut Span, reason: &str) {
    span.attributes.push((OUTCOME, PARKED.into()));
    // Only permanent failures are parked.
    span.attributes.push(("error.type", ErrorClass::Poison.to_string().into()));
    span.error = Some(beginning(reason));
}

fn of_change(change: &Change) -> Attributes {
    vec![
        ("tidewheel.namespace", change.namespace.to_string().into()),
        ("tidewheel.key", Value::text(&change.key)),
        ("tidewheel.operation", change.operation.as_str().into()),
        ("tidewheel.version", change.version.to_string().into()),
    ]
}

/// The spans of a batch.
pub(crate) struct BatchSpans {
    tracer: Tracer,
    open: HashMap<EntryId, Open>,
    ended: Vec<Span>,
}

/// The span of an entry that is not settled yet.
struct Open {
    version: Version,
    span: Span,
    /// The calls made for it: children of its span, emitted only together with it.
    calls: Vec<Span>,
}

impl BatchSpans {
    /// Begins a span called `name` for each entry whose change is sampled; `None` if there are none.
    pub(crate) fn begin<T: Carries>(
        tracer: Option<&Tracer>,
        name: &'static str,
        stage: Stage,
        deliveries: &[Delivery<T>],
    ) -> Option<Self> {
        let tracer = tracer?;
        let now = SystemTime::now();
        let begin = |delivery: &Delivery<T>| {
            let change = delivery.record.as_ref().ok()?.change();
            let trace = tracer.trace(change)?;
            let mut attributes: Attributes = vec![
                ("messaging.system", "redis".into()),
                ("messaging.operation.type", "process".into()),
                ("messaging.destination.name", stage.name().into()),
                ("messaging.consumer.group.name", group_of(stage).into()),
                ("messaging.message.id", Value::text(&delivery.id.0)),
                ("messaging.batch.message_count", deliveries.len().into()),
            ];
            attributes.extend(of_change(change));
            let span = Span {
                trace: trace.id,
                id: SpanId::random(),
                parent: Some(trace.root),
                name,
                kind: SpanKind::Consumer,
                began: now,
                ended: now,
                attributes,
                error: None,
            };
            Some((delivery.id.clone(), Open { version: change.version, span, calls: Vec::new() }))
        };
        let open: HashMap<_, _> = deliveries.iter().filter_map(begin).collect();
        (!open.is_empty()).then(|| Self { tracer: tracer.clone(), open, ended: Vec::new() })
    }

    /// Records the outcome of a document whose newest change in this batch has this version. Its other entries are
    /// superseded.
    pub(crate) fn note(&mut self, entries: &[EntryId], newest: Version, outcome: &'static str, more: &Attributes) {
        for entry in entries {
            let Some(Open { version, span, .. }) = self.open.get_mut(entry) else { continue };
            if *version == newest {
                span.attributes.push((OUTCOME, outcome.into()));
                span.attributes.extend_from_slice(more);
            } else {
                span.attributes.push((OUTCOME, SUPERSEDED.into()));
            }
        }
    }

    /// Records a call to a server made for the newest change of a document.
    pub(crate) fn call(&mut self, entries: &[EntryId], newest: Version, call: &Call) {
        for entry in entries {
            let Some(open) = self.open.get_mut(entry).filter(|open| open.version == newest) else { continue };
            open.calls.push(Span {
                trace: open.span.trace,
                id: SpanId::random(),
                parent: Some(open.span.id),
                name: call.name,
                kind: SpanKind::Client,
                began: call.began,
                ended: call.ended,
                attributes: call.attributes.clone(),
                error: call.error.clone(),
            });
        }
    }

    /// Ends the spans of these entries: they are settled.
    pub(crate) fn end(&mut self, entries: &[EntryId]) {
        let now = SystemTime::now();
        for entry in entries {
            let Some(open) = self.open.remove(entry) else { continue };
            self.ended.extend(open.calls);
            self.ended.push(Span { ended: now, ..open.span });
        }
    }

    /// Ends the spans of these entries: they are settled with this outcome, whichever change is the newest.
    pub(crate) fn end_as(&mut self, entries: &[EntryId], outcome: &'static str) {
        for entry in entries {
            if let Some(Open { span, .. }) = self.open.get_mut(entry) {
                span.attributes.push((OUTCOME, outcome.into()));
            }
        }
        self.end(entries);
    }

    /// Ends the spans of these entries: they are parked.
    pub(crate) fn park(&mut self, letters: &[DeadLetter]) {
        for letter in letters {
            if let Some(Open { span, .. }) = self.open.get_mut(&letter.id) {
                mark_parked(span, &letter.reason);
            }
            self.end(std::slice::from_ref(&letter.id));
        }
    }
}

impl Drop for BatchSpans {
    /// However the batch ends, spans of settled entries are emitted.
    fn drop(&mut self) {
        self.tracer.record(std::mem::take(&mut self.ended));
    }
}

/// A call to a server.
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) began: SystemTime,
    pub(crate) ended: SystemTime,
    pub(crate) attributes: Attributes,
    pub(crate) error: Option<String>,
}

/// The name of a stage's consumer group, an attribute of spans.
fn group_of(stage: Stage) -> &'static str {
    match stage {
        Stage::Raw => "embedding_processors",
        Stage::Embedded => "qdrant_upserters",
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_stores::redis::keys::StreamKeys;

    use super::*;

    #[test]
    fn spans_name_the_groups_and_streams_of_redis() {
        for stage in Stage::ALL {
            let StreamKeys { stream, group, .. } = StreamKeys::from(stage);
            assert_eq!((stage.name(), group_of(stage)), (stream, group));
        }
    }
}
