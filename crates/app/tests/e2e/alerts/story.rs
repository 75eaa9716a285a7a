//! A pipeline scraped by Prometheus, with its alerts and the output of `tidewheel monitor`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Covers;
use super::prometheus::{Prometheus, lint};
use crate::clients::http;
use crate::world::{SERVICES, World, free_port, repository};

/// Timeout on a machine that runs other tests in parallel.
const TIMEOUT: Duration = Duration::from_secs(90);

/// Polling interval.
const INTERVAL: Duration = Duration::from_millis(200);

/// A monitored pipeline.
pub struct Story {
    pub world: World,
    pub prometheus: Prometheus,
    settings: String,
    /// The operations port of each service, and one for a second instance of any service.
    ports: Vec<u16>,
    running: Vec<u16>,
    /// The alerts that fired, and the reported codes.
    caused: (BTreeSet<String>, BTreeSet<String>),
}

impl Story {
    /// Starts one of each service, all scraped, and waits until there are no problems.
    pub async fn begin(world: World, settings: &str, change: impl Fn(String) -> String) -> Self {
        let ports: Vec<u16> = (0..=SERVICES.len()).map(|_| free_port()).collect();
        let mut targets: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        targets.push(world.embedder.clone());
        let prometheus = Prometheus::start(&targets, change).await;
        let (settings, running) = (settings.to_owned(), Vec::new());
        let mut story = Self { world, prometheus, settings, ports, running, caused: Default::default() };
        for service in SERVICES {
            story.start(service).await;
        }
        story.quiet().await;
        story
    }

    /// Starts a service with its own operations port.
    pub async fn start(&mut self, service: &'static str) {
        self.start_at(service, SERVICES.iter().position(|name| *name == service).unwrap()).await;
    }

    /// Starts a second instance of a service.
    pub async fn start_another(&mut self, service: &'static str) {
        self.start_at(service, SERVICES.len()).await;
    }

    async fn start_at(&mut self, service: &'static str, place: usize) {
        let port = self.ports[place];
        if !self.running.contains(&port) {
            self.running.push(port);
        }
        self.world.write_settings(&format!("http.listen = \"127.0.0.1:{port}\"\n{}", self.settings));
        self.world.start(service);
        let health = format!("http://127.0.0.1:{port}/health");
        self.world.until("the service responds", || async { http().get(&health).send().await.is_ok() }).await;
    }

    /// Returns the problem codes that `tidewheel monitor` reports.
    fn problems(&self) -> BTreeSet<String> {
        let output = self.world.command(&["monitor", "--once", "--output", "json"]).output().unwrap();
        let line: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let problems = line["problems"].as_array().unwrap();
        assert_eq!(output.status.code() == Some(0), problems.is_empty(), "{line}");
        problems.iter().map(|problem| problem["code"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until these alerts have fired and these codes were reported.
    pub async fn begins(&mut self, alerts: &[&str], codes: &[&str]) {
        let begun = Instant::now();
        let (mut silent, mut missing): (Vec<&str>, Vec<&str>) = (alerts.into(), codes.into());
        loop {
            for alert in self.prometheus.alerts().await.iter().filter(|alert| alert.firing) {
                assert!(!alert.summary.contains("error"), "{alert:?}");
                silent.retain(|id| *id != alert.id);
            }
            if !missing.is_empty() {
                let problems = self.problems();
                missing.retain(|code| !problems.contains(*code));
            }
            if silent.is_empty() && missing.is_empty() {
                break;
            }
            if begun.elapsed() > TIMEOUT {
                self.fail(&format!("{silent:?} did not fire, {missing:?} were not reported")).await;
            }
            tokio::time::sleep(INTERVAL).await;
        }
        let name = |id: &&str| id.split(' ').next().unwrap_or_default().to_owned();
        self.caused.0.extend(alerts.iter().map(name));
        self.caused.1.extend(codes.iter().map(ToString::to_string));
    }

    /// Waits until no alert is pending or firing and no problem is reported.
    pub async fn quiet(&mut self) {
        let begun = Instant::now();
        while !self.prometheus.alerts().await.is_empty() || !self.problems().is_empty() {
            if begun.elapsed() > TIMEOUT {
                self.fail("alerts or problems did not clear").await;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn fail(&self, message: &str) -> ! {
        let alerts = self.prometheus.alerts().await;
        let problems = self.problems();
        let mut more = String::new();
        for expression in ["up", "scrape_duration_seconds", "tidewheel_problem>0", "tidewheel_ready"] {
            more += &format!("{expression}:\n{}", self.prometheus.query(expression).await);
        }
        self.world.fail(&format!("{message}\nalerts: {alerts:#?}\nproblems: {problems:?}\n{more}"))
    }

    /// Returns the metrics of all services.
    pub async fn metrics(&self) -> Vec<String> {
        let mut all = Vec::new();
        let own = self.running.iter().map(|port| format!("127.0.0.1:{port}"));
        for address in own.chain([self.world.embedder.clone()]) {
            let answer = http().get(format!("http://{address}/metrics")).send().await.unwrap();
            all.push(answer.error_for_status().unwrap().text().await.unwrap());
        }
        all
    }

    /// Checks the end of a story: no alerts or problems, metrics without lint findings and documented, and the story
    /// has caused everything that it covers.
    pub async fn ends(mut self, covers: &Covers) {
        self.quiet().await;
        let page = std::fs::read_to_string(repository("docs/metrics.md")).unwrap();
        for metrics in self.metrics().await {
            assert_eq!(lint(&metrics).await, "", "{metrics}");
            for name in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
                assert!(
                    name.starts_with("tidewheel_") && page.contains(&format!("`{name}`")),
                    "{name} is not documented"
                );
            }
        }
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        assert_eq!(self.caused, (set(covers.alerts), set(covers.codes)));
    }
}
