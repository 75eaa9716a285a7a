//! A real Prometheus server with this repository's alert rules, sixty times as fast.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tidewheel_testkit::programs;

use crate::clients::http;
use crate::world::{free_port, repository};

/// Returns the shipped rules.
pub fn rules() -> String {
    std::fs::read_to_string(repository("deploy/prometheus/alerts.yml")).unwrap()
}

/// Returns the names of all alerts.
pub fn names(rules: &str) -> Vec<&str> {
    rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

/// Replaces minutes by seconds in the rules, and changes nothing else.
fn fast(rules: &str) -> String {
    let faster = |line: &str| {
        let is_time = |text: &str| text.strip_suffix('m').is_some_and(|digits| digits.parse::<u64>().is_ok());
        if let Some(time) = line.trim().strip_prefix("for: ") {
            assert!(is_time(time), "{line:?} is not in minutes");
            return line.replace(time, &time.replace('m', "s"));
        }
        let mut parts = line.split('[');
        let mut faster = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let changed = part.split_once(']').filter(|(time, _)| is_time(time));
            let changed = changed.map(|(time, rest)| format!("{}]{rest}", time.replace('m', "s")));
            faster = faster + "[" + &changed.unwrap_or_else(|| part.to_owned());
        }
        faster
    };
    rules.lines().map(|line| faster(line) + "\n").collect()
}

/// An alert that is pending or firing.
#[derive(Clone, Debug)]
pub struct Alert {
    /// Name and distinguishing labels: `TidewheelNotReady service=upserter`.
    pub id: String,
    pub firing: bool,
    pub summary: String,
}

pub struct Prometheus {
    server: Child,
    url: String,
    dir: TempDir,
}

impl Prometheus {
    /// Starts a server that scrapes these addresses. `change` further modifies the rules.
    pub async fn start(targets: &[String], change: impl Fn(String) -> String) -> Self {
        let program = programs::prometheus().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("alerts.yml"), change(fast(&rules()))).unwrap();
        let config = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 250ms}}\n\
             rule_files: [alerts.yml]\n\
             scrape_configs: [{{job_name: tidewheel, static_configs: [{{targets: {targets:?}}}]}}]\n"
        );
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let server = Command::new(&program.path)
            .current_dir(dir.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"])
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut prometheus = Self { server, url: format!("http://{address}"), dir };
        let begun = Instant::now();
        while prometheus.get("/-/ready").await.is_none() {
            let ended = prometheus.server.try_wait().unwrap();
            let log = std::fs::read_to_string(prometheus.dir.path().join("log")).unwrap();
            assert!(ended.is_none() && begun.elapsed() < Duration::from_secs(60), "{ended:?}: {log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        prometheus
    }

    async fn get(&self, path: &str) -> Option<String> {
        let answer = http().get(format!("{}{path}", self.url)).send().await.ok()?;
        answer.status().is_success().then_some(answer.text().await.ok()?)
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).await.unwrap_or_else(|| panic!("{path} failed"))).unwrap()
    }

    /// Returns all alerts that are pending or firing.
    pub async fn alerts(&self) -> Vec<Alert> {
        let answer = self.json("/api/v1/alerts").await;
        let of = |alert: &Value| {
            let mut labels: BTreeMap<String, String> = serde_json::from_value(alert["labels"].clone()).unwrap();
            let mut id = labels.remove("alertname").unwrap();
            for (name, value) in labels.iter().filter(|(name, _)| !["severity", "code"].contains(&name.as_str())) {
                id += &format!(" {name}={value}");
            }
            let summary = alert["annotations"]["summary"].as_str().unwrap().to_owned();
            Alert { id, firing: alert["state"] == "firing", summary }
        };
        answer["data"]["alerts"].as_array().unwrap().iter().map(of).collect()
    }

    /// Evaluates an expression: labels and value of each series, for failure messages.
    pub async fn query(&self, expression: &str) -> String {
        let answer = self.json(&format!("/api/v1/query?query={expression}")).await;
        let series = answer["data"]["result"].as_array().unwrap().iter();
        series.map(|series| format!("{} {}\n", series["metric"], series["value"][1])).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Returns the findings of `promtool check metrics`; empty if there are none.
pub async fn lint(metrics: &str) -> String {
    let program = programs::promtool().await.unwrap();
    let mut command = Command::new(&program.path);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() || !text.is_empty(), "promtool: {}", output.status);
    text
}

#[test]
fn fast_replaces_only_minutes() {
    let text = "expr: rate(a{b=\"[5m]\"}[5m]) > 30 and b[10m]\nfor: 2m\n  summary: \"[x] for 5 minutes\"\n";
    let faster = "expr: rate(a{b=\"[5s]\"}[5s]) > 30 and b[10s]\nfor: 2s\n  summary: \"[x] for 5 minutes\"\n";
    assert_eq!(fast(text), faster);
    assert_eq!(names(&fast(&rules())), names(&rules()));
}
