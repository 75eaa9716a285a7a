use serde_json::json;

use super::*;

#[test]
fn report_survives_serialisation() {
    let figures = Figures {
        producer: Some(ProducerReport {
            checkpoint_saved_at: Some(1.5),
            snapshot_expected: Some(7),
            audited_at: Some(2.5),
            drift: Some(DriftReport { missing: 1, stale: 2, extra: 3, surplus: 4 }),
            audits: BTreeMap::from([(
                IndexName::of_collection("tickets"),
                AuditReport { audited_at: Some(2.5), drift: Some(DriftReport { stale: 2, ..DriftReport::default() }) },
            )]),
        }),
        processor: Some(ProcessorReport { progressed_at: 3.5, tokens_saved: 8 }),
        upserter: Some(UpserterReport {
            progressed_at: 4.5,
            latency: LatencyReport { changes: 2, buckets: vec![Bucket { le: 0.5, changes: 1 }] },
            latencies: BTreeMap::from([(
                IndexName::of_collection("tickets"),
                LatencyReport { changes: 1, buckets: vec![Bucket { le: 0.5, changes: 0 }] },
            )]),
        }),
        embedder: Some(EmbedderReport { tokens: 9, queued_tokens: 1 }),
        settings: Some(SettingsReport {
            indexes: BTreeMap::from([(IndexName::of_collection("tickets"), "0123456789abcdef".into())]),
            embeddings: BTreeSet::from(["default".into()]),
        }),
    };
    let report = ProcessReport {
        format: FORMAT,
        version: "1".into(),
        layout: Some(2),
        up_seconds: 2.0,
        operations: Some("127.0.0.1:9090".into()),
        services: vec![ServiceReport { service: "producer".into(), ready: false, reasons: vec!["why".into()] }],
        figures: Some(figures.clone()),
    };
    let text = serde_json::to_string(&report).unwrap();
    let read: ProcessReport = serde_json::from_str(&text).unwrap();
    assert_eq!(read.figures, Some(figures));
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
}

#[test]
fn values_by_index_are_empty_in_a_report_of_an_earlier_release() {
    let figures = json!({
        "producer": {"audited_at": 2.5, "drift": {"missing": 1}},
        "upserter": {"progressed_at": 1.0, "latency": {"changes": 1, "buckets": []}},
    });
    let figures: Figures = serde_json::from_value(figures).unwrap();
    assert_eq!((&figures.settings, figures.producer.unwrap().audits.len()), (&None, 0));
    assert!(figures.upserter.unwrap().latencies.is_empty());
    let none = serde_json::to_value(Figures { upserter: Some(UpserterReport::default()), ..Figures::default() });
    let none = none.unwrap();
    assert!(none.get("settings").is_none() && none["upserter"].get("latencies").is_none(), "{none}");
}

#[test]
fn replay_report_survives_serialisation_and_keeps_its_field_names() {
    let report = ReplayReport {
        format: REPLAY_FORMAT,
        from: "stage 1".into(),
        into: "stage 1".into(),
        process: "host-1-replay".into(),
        state: ReplayState::Running,
        progress: ReplayProgress { read: 4, of: Some(9), replayed: 3, skipped: 1 },
        began_ms: 1_700_000_000_000,
        seconds: 2.0,
        per_second: 2.0,
        problem: None,
    };
    let json = json!({
        "format": 1, "from": "stage 1", "into": "stage 1", "process": "host-1-replay", "state": "running",
        "progress": {"read": 4, "of": 9, "replayed": 3, "skipped": 1},
        "began_ms": 1_700_000_000_000_u64, "seconds": 2.0, "per_second": 2.0, "problem": null,
    });
    assert_eq!(serde_json::to_value(&report).unwrap(), json);
    assert_eq!(ReplayReport::parse(&json.to_string()), Some(report));
}

#[test]
fn replay_report_without_format_is_one_of_the_previous_release() {
    let text = r#"{"from": "stage 2", "into": "Qdrant", "process": "a", "state": "failed", "progress": {"read": 1,
        "of": null, "replayed": 0, "skipped": 1}, "began_ms": 7, "seconds": 1.5, "per_second": 0.7, "problem": "why"}"#;
    let report = ReplayReport::parse(text).unwrap();
    assert_eq!((report.format, report.state), (1, ReplayState::Failed));
    assert_eq!(report.problem.as_deref(), Some("why"));
    assert_eq!(ReplayReport::parse("{}"), None);
}

#[test]
fn replay_report_of_a_newer_format_is_unknown_and_names_both_formats() {
    let text = json!({"format": REPLAY_FORMAT + 1, "process": "a", "began_ms": 7, "state": ["paused"]}).to_string();
    let report = ReplayReport::parse(&text).unwrap();
    assert_eq!((report.process.as_str(), report.began_ms, report.state), ("a", 7, ReplayState::Unknown));
    let problem = "unsupported format 2 of the report: this release reads formats up to 1";
    assert_eq!(report.problem.as_deref(), Some(problem));
}

#[test]
fn report_of_the_previous_release_has_services_and_no_figures() {
    let text = json!({
        "version": "0.0.9",
        "up_seconds": 3.0,
        "operations": null,
        "services": [{"service": "upserter", "ready": true, "reasons": []}],
        "measured": {"tidewheel_embedder_tokens_total": 5.0},
        "minute": {"tidewheel_commit_to_searchable_seconds_bucket{le=\"+Inf\"}": 5.0},
    });
    let report: ProcessReport = serde_json::from_value(text).unwrap();
    assert_eq!((report.version.as_str(), report.layout, report.up_seconds), ("0.0.9", None, 3.0));
    assert_eq!(report.services[0].service, "upserter");
    assert!(report.figures.is_none());
}

#[test]
fn report_of_a_later_release_is_read_as_far_as_its_format_allows() {
    let of = |format: u32, figures: serde_json::Value| {
        let text = json!({"format": format, "version": "9", "figures": figures, "color": "red"});
        serde_json::from_value::<ProcessReport>(text).unwrap()
    };
    let figures = json!({"embedder": {"tokens": 5, "watts": 7}, "reranker": {}});
    let same = of(FORMAT, figures.clone()).figures.unwrap();
    assert_eq!(same.embedder, Some(EmbedderReport { tokens: 5, queued_tokens: 0 }));
    assert!(of(FORMAT + 1, figures).figures.is_none());
}
