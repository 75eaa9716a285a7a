//! Converts spans to the SDK's form, and batches of them to requests.

use std::collections::BTreeMap;

use opentelemetry::trace::{SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::resource::v1::Resource as WireResource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use percent_encoding::percent_decode_str;
use tidewheel_core::trace::{Span, SpanKind, Value};

use super::TracesOptions;

/// Attribute of a scope that names the service of its spans. It does not leave the process.
const SERVICE: &str = "service";

/// Returns the scope of a service's spans.
pub(super) fn scope(service: &'static str) -> InstrumentationScope {
    InstrumentationScope::builder("tidewheel")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_attributes([KeyValue::new(SERVICE, service)])
        .build()
}

/// Converts a span.
pub(super) fn span_data(span: Span, scope: &InstrumentationScope) -> SpanData {
    let (trace, id) = (TraceId::from_bytes(span.trace.0), SpanId::from_bytes(span.id.0));
    SpanData {
        span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::NONE),
        parent_span_id: span.parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.0)),
        // A consumer span's parent is remote: the producer's span. Its calls have local parents.
        parent_span_is_remote: span.kind == SpanKind::Consumer,
        span_kind: match span.kind {
            SpanKind::Producer => opentelemetry::trace::SpanKind::Producer,
            SpanKind::Consumer => opentelemetry::trace::SpanKind::Consumer,
            SpanKind::Client => opentelemetry::trace::SpanKind::Client,
        },
        name: span.name.into(),
        start_time: span.began,
        end_time: span.ended,
        attributes: span.attributes.into_iter().map(|(name, value)| KeyValue::new(name, sdk_value(value))).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope.clone(),
    }
}

fn sdk_value(value: Value) -> opentelemetry::Value {
    match value {
        Value::Word(word) => word.into(),
        Value::Text(text) => text.into(),
        Value::Number(number) => i64::try_from(number).unwrap_or(i64::MAX).into(),
    }
}

/// The resources of this process's services.
pub(super) struct Resources {
    service_name: Option<String>,
    /// Name and value.
    attributes: Vec<(String, String)>,
    process: String,
}

impl Resources {
    pub(super) fn new(options: &TracesOptions, process: &str) -> Self {
        let attributes = pairs(options.resource_attributes.as_deref().unwrap_or_default());
        Self { service_name: options.service_name.clone(), attributes, process: process.to_owned() }
    }

    /// Returns the export request. Each service is a separate resource, even within one process.
    pub(super) fn request(&self, batch: Vec<SpanData>) -> ExportTraceServiceRequest {
        let scopes = group_spans_by_resource_and_scope(batch, &ResourceAttributesWithSchema::default())
            .into_iter()
            .flat_map(|resource| resource.scope_spans);
        let mut services: BTreeMap<String, Vec<ScopeSpans>> = BTreeMap::new();
        for mut spans in scopes {
            let service = spans.scope.as_mut().and_then(take_service).unwrap_or_default();
            services.entry(service).or_default().push(spans);
        }
        let resource_spans = services.into_iter().map(|(service, scope_spans)| ResourceSpans {
            resource: Some(self.of(&service)),
            scope_spans,
            ..ResourceSpans::default()
        });
        ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
    }

    fn of(&self, service: &str) -> WireResource {
        let given = self.attributes.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
        let named = self.service_name.iter().map(|name| KeyValue::new("service.name", name.clone()));
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", format!("tidewheel-{service}")),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", self.process.clone()),
            ])
            .with_attributes(given)
            .with_attributes(named)
            .build();
        let attributes = ResourceAttributesWithSchema::from(&resource).attributes.0;
        WireResource { attributes, ..WireResource::default() }
    }
}

/// Removes the service from a scope and returns it.
fn take_service(scope: &mut opentelemetry_proto::tonic::common::v1::InstrumentationScope) -> Option<String> {
    let at = scope.attributes.iter().position(|attribute| attribute.key == SERVICE)?;
    match scope.attributes.remove(at).value?.value? {
        any_value::Value::StringValue(service) => Some(service),
        _ => None,
    }
}

/// Parses `name=value,name=value` with percent-encoded values, and skips invalid pairs, as the SDKs do.
fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((name.trim().to_owned(), value.into_owned())).filter(|(name, _)| !name.is_empty())
    };
    text.split(',').filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use opentelemetry_proto::tonic::common::v1::KeyValue as WireKeyValue;
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Wire;
    use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

    use super::*;

    fn span(kind: SpanKind, parent: Option<[u8; 8]>, error: Option<&str>) -> Span {
        Span {
            trace: tidewheel_core::trace::TraceId([7; 16]),
            id: tidewheel_core::trace::SpanId([8; 8]),
            parent: parent.map(tidewheel_core::trace::SpanId),
            name: "process",
            kind,
            began: UNIX_EPOCH + Duration::from_nanos(5),
            ended: UNIX_EPOCH + Duration::from_secs(1),
            attributes: vec![("a.word", "w".into()), ("a.text", "t".to_owned().into()), ("a.number", 3.into())],
            error: error.map(str::to_owned),
        }
    }

    fn value<'a>(attributes: &'a [WireKeyValue], name: &str) -> Option<&'a Wire> {
        attributes.iter().find(|attribute| attribute.key == name)?.value.as_ref()?.value.as_ref()
    }

    fn resources(service_name: Option<&str>, attributes: &str) -> Resources {
        let (service_name, attributes) = (service_name.map(str::to_owned), pairs(attributes));
        Resources { service_name, attributes, process: "here-1".into() }
    }

    #[test]
    fn each_service_of_a_process_is_a_separate_resource() {
        let root = span_data(span(SpanKind::Producer, None, None), &scope("producer"));
        let child = span_data(span(SpanKind::Consumer, Some([9; 8]), Some("rejected")), &scope("upserter"));
        let request = resources(None, "").request(vec![child.clone(), root, child]);
        let counts: Vec<_> = request.resource_spans.iter().map(|one| one.scope_spans[0].spans.len()).collect();
        assert_eq!(counts, [1, 2]);
        let resource = request.resource_spans[1].resource.as_ref().unwrap();
        for (name, expected) in [
            ("service.name", "tidewheel-upserter"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("service.instance.id", "here-1"),
        ] {
            assert_eq!(value(&resource.attributes, name), Some(&Wire::StringValue(expected.into())), "{name}");
        }
        let scope = request.resource_spans[1].scope_spans[0].scope.as_ref().unwrap();
        assert_eq!((scope.name.as_str(), scope.attributes.len()), ("tidewheel", 0));
        let spans = [0, 1].map(|service| &request.resource_spans[service].scope_spans[0].spans[0]);
        assert_eq!(spans.map(|span| span.flags), [0x101, 0x301]);
        assert_eq!((spans[0].parent_span_id.len(), &spans[1].parent_span_id), (0, &vec![9; 8]));
        assert_eq!((&spans[0].trace_id, &spans[0].span_id), (&vec![7; 16], &vec![8; 8]));
        assert_eq!((spans[0].start_time_unix_nano, spans[0].end_time_unix_nano), (5, 1_000_000_000));
        let codes = spans.map(|span| span.status.as_ref().unwrap().code());
        assert_eq!(codes, [StatusCode::Unset, StatusCode::Error]);
        assert_eq!(spans[1].status.as_ref().unwrap().message, "rejected");
        assert_eq!(value(&spans[0].attributes, "a.text"), Some(&Wire::StringValue("t".into())));
        assert_eq!(value(&spans[0].attributes, "a.number"), Some(&Wire::IntValue(3)));
    }

    #[test]
    fn resource_has_the_given_attributes_and_the_service_name_wins() {
        let given = "deployment.environment=a%2Cb, service.name=ignored,service.version=9,broken,=x";
        let resource = resources(Some("search"), given).of("producer");
        for (name, expected) in [
            ("deployment.environment", "a,b"),
            ("service.name", "search"),
            ("service.version", "9"),
            ("service.instance.id", "here-1"),
        ] {
            assert_eq!(value(&resource.attributes, name), Some(&Wire::StringValue(expected.into())), "{name}");
        }
        assert_eq!(resource.attributes.len(), 4);
        let named = resources(None, "service.name=search").of("producer");
        assert_eq!(value(&named.attributes, "service.name"), Some(&Wire::StringValue("search".into())));
    }
}
