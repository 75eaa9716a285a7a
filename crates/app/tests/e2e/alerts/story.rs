//! Services that a Prometheus watches, and what it and `tidewheel monitor` say of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Covers;
use super::prometheus::{Prometheus, complaints};
use crate::clients::http;
use crate::world::{SERVICES, World, free_port, repository};

/// Long enough for anything on a machine that runs other tests beside this one.
const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// A pipeline under watch.
pub struct Story {
    pub world: World,
    pub prometheus: Prometheus,
    settings: String,
    /// The operations port of each service, and one for another instance of any of them.
    ports: Vec<u16>,
    running: Vec<u16>,
    /// The names of the alerts that have fired, and the codes that were told.
    caused: (BTreeSet<String>, BTreeSet<String>),
}

impl Story {
    /// One of each service, all of them scraped, and nothing wrong.
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

    /// Starts a service with an operations port of its own.
    pub async fn start(&mut self, service: &'static str) {
        self.start_at(service, SERVICES.iter().position(|name| *name == service).unwrap()).await;
    }

    /// Starts one more instance of a service.
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
        self.world.until("it has read its settings", || async { http().get(&health).send().await.is_ok() }).await;
    }

    /// What `tidewheel monitor` says is wrong now.
    fn told(&self) -> BTreeSet<String> {
        let output = self.world.command(&["monitor", "--once", "--output", "json"]).output().unwrap();
        let line: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let problems = line["problems"].as_array().unwrap();
        assert_eq!(output.status.code() == Some(0), problems.is_empty(), "{line}");
        problems.iter().map(|problem| problem["code"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until these alerts have fired and these codes were told.
    pub async fn begins(&mut self, alerts: &[&str], codes: &[&str]) {
        let begun = Instant::now();
        let (mut silent, mut untold): (Vec<&str>, Vec<&str>) = (alerts.into(), codes.into());
        loop {
            for alert in self.prometheus.alerts().await.iter().filter(|alert| alert.firing) {
                assert!(!alert.summary.contains("error"), "{alert:?}");
                silent.retain(|id| *id != alert.id);
            }
            if !untold.is_empty() {
                let told = self.told();
                untold.retain(|code| !told.contains(*code));
            }
            if silent.is_empty() && untold.is_empty() {
                break;
            }
            if begun.elapsed() > PATIENCE {
                self.fail(&format!("{silent:?} did not fire, {untold:?} was not told")).await;
            }
            tokio::time::sleep(LOOK).await;
        }
        let name = |id: &&str| id.split(' ').next().unwrap_or_default().to_owned();
        self.caused.0.extend(alerts.iter().map(name));
        self.caused.1.extend(codes.iter().map(ToString::to_string));
    }

    /// Waits until no alert is pending or firing and nothing is told any more.
    pub async fn quiet(&mut self) {
        let begun = Instant::now();
        while !self.prometheus.alerts().await.is_empty() || !self.told().is_empty() {
            if begun.elapsed() > PATIENCE {
                self.fail("it does not become quiet").await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn fail(&self, message: &str) -> ! {
        let alerts = self.prometheus.alerts().await;
        let told = self.told();
        let mut more = String::new();
        for expression in ["up", "scrape_duration_seconds", "tidewheel_problem>0", "tidewheel_ready"] {
            more += &format!("{expression}:\n{}", self.prometheus.query(expression).await);
        }
        self.world.fail(&format!("{message}\nthere are {alerts:#?}\nand {told:?}\n{more}"))
    }

    /// What all services show.
    pub async fn metrics(&self) -> Vec<String> {
        let mut all = Vec::new();
        let own = self.running.iter().map(|port| format!("127.0.0.1:{port}"));
        for address in own.chain([self.world.embedder.clone()]) {
            let answer = http().get(format!("http://{address}/metrics")).send().await.unwrap();
            all.push(answer.error_for_status().unwrap().text().await.unwrap());
        }
        all
    }

    /// The end: everything is quiet, what the services show is clean and documented, and the story has caused
    /// what it is said to cover.
    pub async fn ends(mut self, covers: &Covers) {
        self.quiet().await;
        let page = std::fs::read_to_string(repository("docs/metrics.md")).unwrap();
        for metrics in self.metrics().await {
            assert_eq!(complaints(&metrics).await, "", "{metrics}");
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
