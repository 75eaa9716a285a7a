//! The reference page of the metrics, and that dashboard and alerts ask for nothing that does not exist.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tidewheel_core::meters::{ALL, Kind, Question, buckets};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn page() -> String {
    let mut page = "\
# Metrics

<!-- Made from the list in crates/core/src/meters.rs: UPDATE=1 cargo test -p tidewheel-core --test metrics_page -->

Every process serves Prometheus' text form at `/metrics` of its operations port (`http.listen`, 9090 under `run`), the embedder
at its own port as well. Each process shows what it has measured itself; numbers of streams, Redis and the oplog are the same
whoever is asked, so take the largest. Labels have few values. A number that is not known is `NaN`, not 0.

Alerts are in `deploy/prometheus/alerts.yml`, a dashboard is in `deploy/grafana/tidewheel.json`.
"
    .to_owned();
    for question in Question::ALL {
        let _ = write!(page, "\n## {}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n", question.text());
        for meter in ALL.iter().filter(|meter| meter.question == question) {
            let kind = match meter.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let labels: Vec<String> = meter.labels.iter().map(|label| format!("`{label}`")).collect();
            let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
            let _ = writeln!(page, "| `{}` | {kind} | {labels} | {} |", meter.name, meter.help);
        }
    }
    page.push_str("\n## Buckets\n\n");
    for (what, name) in [("Times, in seconds", "x_seconds"), ("Entries", "x_entries"), ("Shares", "x_ratio")] {
        let bounds: Vec<String> = buckets(name).iter().map(f64::to_string).collect();
        let _ = writeln!(page, "- {what}: {}", bounds.join(", "));
    }
    page
}

#[test]
fn the_page_says_what_the_code_says() {
    let path = root().join("docs/metrics.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    assert!(read("docs/metrics.md") == page(), "docs/metrics.md is stale; make it anew with UPDATE=1 and this test");
}

/// Names of metrics in a text, without what a histogram's series add.
fn used(text: &str) -> BTreeSet<String> {
    text.split(|sign: char| !sign.is_ascii_lowercase() && !sign.is_ascii_digit() && sign != '_')
        .filter(|word| word.starts_with("tidewheel_"))
        .map(|word| {
            let histogram = |suffix| {
                let base = word.strip_suffix(suffix)?;
                ALL.iter().any(|meter| meter.name == base && meter.kind == Kind::Histogram).then_some(base)
            };
            ["_bucket", "_sum", "_count"].into_iter().find_map(histogram).unwrap_or(word).to_owned()
        })
        .collect()
}

#[test]
fn dashboard_and_alerts_use_metrics_that_exist() {
    let known: BTreeSet<String> = ALL.iter().map(|meter| meter.name.to_owned()).collect();
    let dashboard = used(&read("deploy/grafana/tidewheel.json"));
    for (file, names) in [
        ("deploy/grafana/tidewheel.json", &dashboard),
        ("deploy/prometheus/alerts.yml", &used(&read("deploy/prometheus/alerts.yml"))),
        ("deploy/prometheus/alerts_test.yml", &used(&read("deploy/prometheus/alerts_test.yml"))),
    ] {
        let unknown: Vec<_> = names.difference(&known).collect();
        assert!(!names.is_empty() && unknown.is_empty(), "{file} uses {unknown:?}");
    }
    assert!(dashboard.len() > 40, "the dashboard shows most of them");
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/grafana/tidewheel.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "an id occurs twice");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && targets.iter().all(|target| target["expr"].is_string()), "{panel}");
    }
}

#[test]
fn each_alert_is_tested_and_has_a_code_and_an_action() {
    let (rules, tests) = (read("deploy/prometheus/alerts.yml"), read("deploy/prometheus/alerts_test.yml"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 10);
    for alert in alerts {
        assert!(tests.contains(&format!("- name: {alert}\n")), "{alert} has no test");
    }
    let count = |what: &str| rules.lines().filter(|line| line.trim().starts_with(what)).count();
    assert_eq!(count("- alert: "), count("action: "));
    assert_eq!(count("- alert: "), count("labels: {severity: "));
}
