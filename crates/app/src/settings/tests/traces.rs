use std::time::Duration;

use tidewheel_core::trace::SamplingRatio;

use super::{loaded, origin, problems};

#[test]
fn standard_variables_of_opentelemetry_are_below_all_settings() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://far:4318/spans"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hunter%202"),
        ("OTEL_SERVICE_NAME", "search"),
        ("OTEL_BSP_SCHEDULE_DELAY", "2500"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "never"),
    ];
    let alone = loaded("", &variables, &[]);
    let traces = alone.settings.traces.as_ref().unwrap();
    assert_eq!((traces.endpoint.reveal(), traces.endpoint_is_whole), ("http://far:4318/spans", true));
    assert!(traces.headers.is_some() && traces.headers_are_encoded && traces.is_ambient);
    assert_eq!((traces.service_name.as_deref(), traces.interval), (Some("search"), Duration::from_millis(2_500)));
    assert_eq!(origin(&alone, "traces.interval"), "$OTEL_BSP_SCHEDULE_DELAY");
    assert_eq!(
        alone.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["$OTEL_BSP_EXPORT_TIMEOUT has no effect: expected a positive number of milliseconds"]
    );

    let file = "[traces]\nendpoint = \"http://near:4318\"\nheaders = \"a=b%20c\"\nservice_name = \"own\"\n";
    let both = loaded(file, &[&variables[..], &[("TIDEWHEEL__TRACES__INTERVAL", "3s")]].concat(), &[]);
    let traces = both.settings.traces.as_ref().unwrap();
    assert_eq!((traces.endpoint.reveal(), traces.endpoint_is_whole), ("http://near:4318", false));
    assert!(!traces.headers_are_encoded);
    assert_eq!((traces.service_name.as_deref(), traces.interval), (Some("own"), Duration::from_secs(3)));

    let off = loaded("[traces]\nendpoint = \"\"\n", &variables, &[]);
    assert!(off.settings.traces.is_none(), "an empty setting overrides the variable");
    let unrelated = loaded("", &[("OTEL_SERVICE_NAME", "search")], &[]);
    assert!(unrelated.settings.traces.is_none() && unrelated.warnings.is_empty());
}

#[test]
fn file_with_headers_overrides_the_variable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("headers");
    std::fs::write(&path, "a=own\n").unwrap();
    let file = format!("[traces]\nendpoint = \"http://near:4318\"\nheaders_file = {path:?}\n");
    let loaded = loaded(&file, &[("OTEL_EXPORTER_OTLP_HEADERS", "a=other")], &[]);
    let traces = loaded.settings.traces.unwrap();
    assert_eq!(traces.headers.unwrap().reveal(), "a=own");
    assert!(!traces.headers_are_encoded);
}

#[test]
fn traces_are_disabled_without_an_endpoint() {
    assert!(loaded("[traces]\nshare = 0.5\n", &[], &[]).settings.traces.is_none());
    let file = "[traces]\nendpoint = \"http://ann:hunter2@far:4318\"\nshare = 0.25\nheaders = \"api-key=hunter2\"\n";
    let loaded = loaded(file, &[], &[]);
    let traces = loaded.settings.traces.as_ref().unwrap();
    assert_eq!(traces.ratio, SamplingRatio::new(0.25));
    assert!(!format!("{traces:?}").contains("hunter2"));
    let whole = super::loaded(file, &[("TIDEWHEEL__TRACES__SHARE", "1")], &[]);
    assert_eq!(whole.settings.traces.unwrap().ratio, SamplingRatio::ALL);
    assert!(
        traces.service_name.is_none() && !traces.is_ambient && !traces.endpoint_is_whole && !traces.headers_are_encoded
    );
    let wrong = problems("[traces]\nshare = 50\n", &[], &[]);
    assert_eq!(wrong[0].0, "invalid traces.share 50 (tidewheel.toml:2): expected a number from 0 to 1 such as 0.05");
}
