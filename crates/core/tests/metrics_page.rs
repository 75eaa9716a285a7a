//! Checks the metrics reference page, and that dashboard and alerts use existing metrics only.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tidewheel_core::metric::{ALL, Kind, Question, buckets};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn page() -> String {
    let mut page = "\
# Metrics

<!-- Generated from crates/core/src/metric.rs: UPDATE=1 cargo test -p tidewheel-core --test metrics_page -->

Every process serves the Prometheus text format at `/metrics` on its operations port (`http.listen`, 9090 under `run`), the embedder
on its own port as well. Each process exports its own measurements; metrics of streams, Redis, the oplog, problems and
`tidewheel_index_*` are the same on every process, so aggregate them with `max`. Labels have few values. The label `index` is the
name of an index; in the short form, that of its collection (`qdrant.collection`). An unknown value is `NaN`, not 0.

Alerts: `deploy/prometheus/alerts.yml`. Dashboard: `deploy/grafana/tidewheel.json`.
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
    for (what, name) in [("Times, in seconds", "x_seconds"), ("Entries", "x_entries"), ("Ratios", "x_ratio")] {
        let bounds: Vec<String> = buckets(name).iter().map(f64::to_string).collect();
        let _ = writeln!(page, "- {what}: {}", bounds.join(", "));
    }
    page
}

#[test]
fn metrics_page_matches_the_code() {
    let path = root().join("docs/metrics.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    assert!(
        read("docs/metrics.md") == page(),
        "docs/metrics.md is stale: regenerate it by running this test with UPDATE=1"
    );
}

/// Metric names in a text, without the suffixes of histogram series.
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
    assert!(dashboard.len() > 40, "expected most metrics on the dashboard");
}

#[test]
fn dashboard_panels_have_unique_ids_and_queries() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/grafana/tidewheel.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "duplicate panel id");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && targets.iter().all(|target| target["expr"].is_string()), "{panel}");
    }
}

#[test]
fn each_alert_has_a_test_an_action_and_a_severity() {
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
