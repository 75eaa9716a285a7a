//! Encodes spans as OTLP.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Wire;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as WireSpan, SpanFlags, Status, span};
use tidewheel_core::trace::{Span, SpanKind, Value};

use super::Batch;

/// The sampled flag of W3C trace context.
const SAMPLED: u32 = 1;

/// The exporting process.
pub(super) struct Process {
    /// Its unique name.
    pub(super) instance: String,
}

/// Returns the export request. Each service is a separate resource, even within one process.
pub(super) fn request(batches: &[Batch], process: &Process) -> ExportTraceServiceRequest {
    let mut services: BTreeMap<&'static str, Vec<WireSpan>> = BTreeMap::new();
    for (service, spans) in batches {
        services.entry(service).or_default().extend(spans.iter().map(wire));
    }
    let resource_spans = services.into_iter().map(|(service, spans)| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![
                text("service.name", &format!("tidewheel-{service}")),
                text("service.version", env!("CARGO_PKG_VERSION")),
                text("service.instance.id", &process.instance),
            ],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope {
                name: "tidewheel".into(),
                version: env!("CARGO_PKG_VERSION").into(),
                ..InstrumentationScope::default()
            }),
            spans,
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

fn wire(span: &Span) -> WireSpan {
    // A consumer span's parent is remote: the producer's span. Its calls have local parents.
    let remote = if span.kind == SpanKind::Consumer { SpanFlags::ContextIsRemoteMask as u32 } else { 0 };
    let kind = match span.kind {
        SpanKind::Producer => span::SpanKind::Producer,
        SpanKind::Consumer => span::SpanKind::Consumer,
        SpanKind::Client => span::SpanKind::Client,
    };
    let status = span.error.as_ref().map(|error| Status { message: error.clone(), code: StatusCode::Error.into() });
    WireSpan {
        trace_id: span.trace.0.to_vec(),
        span_id: span.id.0.to_vec(),
        parent_span_id: span.parent.map(|parent| parent.0.to_vec()).unwrap_or_default(),
        flags: SAMPLED | SpanFlags::ContextHasIsRemoteMask as u32 | remote,
        name: span.name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: nanoseconds(span.began),
        end_time_unix_nano: nanoseconds(span.ended),
        attributes: span.attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
        status,
        ..WireSpan::default()
    }
}

fn attribute(name: &str, value: &Value) -> KeyValue {
    match value {
        Value::Word(word) => text(name, word),
        Value::Text(content) => text(name, content),
        Value::Number(number) => key_value(name, Wire::IntValue(i64::try_from(*number).unwrap_or(i64::MAX))),
    }
}

fn text(name: &str, content: &str) -> KeyValue {
    key_value(name, Wire::StringValue(content.to_owned()))
}

fn key_value(name: &str, value: Wire) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidewheel_core::trace::{SpanId, TraceId};

    use super::*;

    #[test]
    fn each_service_of_a_process_is_a_separate_resource() {
        let span = |kind, parent, error: Option<&str>| Span {
            trace: TraceId([7; 16]),
            id: SpanId([8; 8]),
            parent,
            name: "process",
            kind,
            began: UNIX_EPOCH + Duration::from_nanos(5),
            ended: UNIX_EPOCH + Duration::from_secs(1),
            attributes: vec![("a.word", "w".into()), ("a.text", "t".to_owned().into()), ("a.number", 3.into())],
            error: error.map(str::to_owned),
        };
        let root = span(SpanKind::Producer, None, None);
        let child = span(SpanKind::Consumer, Some(SpanId([9; 8])), Some("rejected"));
        let batches = [("upserter", vec![child.clone()]), ("producer", vec![root]), ("upserter", vec![child])];
        let request = request(&batches, &Process { instance: "here-1".into() });
        let counts: Vec<_> = request.resource_spans.iter().map(|one| one.scope_spans[0].spans.len()).collect();
        assert_eq!(counts, [1, 2]);
        let value = |attributes: &[KeyValue], at: usize| attributes[at].value.clone().unwrap().value.unwrap();
        let resource = request.resource_spans[1].resource.as_ref().unwrap();
        assert_eq!(value(&resource.attributes, 0), Wire::StringValue("tidewheel-upserter".into()));
        let spans = [0, 1].map(|service| &request.resource_spans[service].scope_spans[0].spans[0]);
        assert_eq!(spans.map(|span| span.flags), [0x101, 0x301]);
        assert_eq!((spans[0].parent_span_id.len(), &spans[1].parent_span_id), (0, &vec![9; 8]));
        assert_eq!((spans[0].start_time_unix_nano, spans[0].end_time_unix_nano), (5, 1_000_000_000));
        assert_eq!((&spans[0].status, spans[1].status.as_ref().unwrap().code), (&None, StatusCode::Error as i32));
        assert_eq!(value(&spans[0].attributes, 1), Wire::StringValue("t".into()));
        assert_eq!(value(&spans[0].attributes, 2), Wire::IntValue(3));
    }
}
