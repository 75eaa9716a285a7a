//! Makes the report of this process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewheel_core::catalog::IndexName;
use tidewheel_core::report::{
    Bucket, EmbedderReport, FORMAT, Figures, LatencyReport, ProcessReport, ProcessorReport, ProducerReport,
    ServiceReport, SettingsReport, UpserterReport,
};

use crate::buckets::Buckets;
use crate::registry::Registry;

/// Window of the latency.
const MINUTE: Duration = Duration::from_secs(60);

/// Makes reports of this process, each with what was measured up to then.
pub struct Reporter {
    registry: Arc<Registry>,
    begun: Instant,
    settings: Option<SettingsReport>,
    /// By index, as in [`Registry::latencies`].
    windows: BTreeMap<String, Window>,
    /// When the last report was made.
    reported: Option<Instant>,
}

/// The latency histogram of an index at earlier reports.
#[derive(Default)]
struct Window(VecDeque<(Instant, Totals)>);

/// Counts up to each bound of a histogram, and of all values.
type Totals = (Vec<u64>, u64);

impl Reporter {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self { registry, begun: Instant::now(), settings: None, windows: BTreeMap::new(), reported: None }
    }

    /// Adds what the settings declare to every report.
    #[must_use]
    pub fn declaring(mut self, settings: SettingsReport) -> Self {
        self.settings = Some(settings);
        self
    }

    /// Makes the report of these services, which can use stored keys up to this layout.
    pub fn report(&mut self, layout: u32, operations: Option<&str>, services: Vec<ServiceReport>) -> ProcessReport {
        let runs = |service: &str| services.iter().any(|report| report.service == service);
        let latencies = self.latencies(Instant::now());
        let latency = merged(latencies.values());
        let registry = &self.registry;
        let figures = Figures {
            producer: runs("producer").then(|| ProducerReport {
                checkpoint_saved_at: registry.checkpoint_saved(),
                snapshot_expected: registry.snapshot_expected(),
                audited_at: registry.audited(),
                drift: registry.drift(),
                audits: registry.audits(),
            }),
            processor: runs("processor").then(|| ProcessorReport {
                progressed_at: registry.processor_progress(),
                tokens_saved: registry.tokens_saved(),
            }),
            upserter: runs("upserter").then(|| UpserterReport {
                progressed_at: registry.upserter_progress(),
                latency,
                latencies: by_index(latencies),
            }),
            embedder: runs("embedder").then(|| EmbedderReport {
                tokens: registry.embedded_tokens(),
                queued_tokens: registry.queued_tokens(),
            }),
            settings: self.settings.clone(),
        };
        ProcessReport {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            layout: Some(layout),
            up_seconds: self.begun.elapsed().as_secs_f64(),
            operations: operations.map(str::to_owned),
            services,
            figures: Some(figures),
        }
    }

    /// Returns the latency of the changes of each index since a report a minute ago, or since the start.
    fn latencies(&mut self, now: Instant) -> BTreeMap<String, LatencyReport> {
        let mut latencies = BTreeMap::new();
        let last = self.reported.replace(now).unwrap_or(now);
        for (index, histogram) in self.registry.latencies() {
            let latency = self.windows.entry(index.clone()).or_default().latency(last, now, &histogram);
            latencies.insert(index, latency);
        }
        latencies
    }
}

impl Window {
    /// Returns the latency since a report a minute ago. A new series was empty at the last report.
    fn latency(&mut self, last: Instant, now: Instant, histogram: &Buckets) -> LatencyReport {
        let past = &mut self.0;
        let (totals, all) = histogram.totals();
        let none = (vec![0; totals.len()], 0);
        if past.is_empty() {
            past.push_back((last, none.clone()));
        }
        while past.len() > 1 && past.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= MINUTE) {
            past.pop_front();
        }
        let (before, all_before) = past.front().map_or(&none, |(_, totals)| totals);
        let changes = all.saturating_sub(*all_before);
        let buckets = histogram.bounds().iter().zip(totals.iter().zip(before));
        let latency = LatencyReport {
            changes,
            buckets: buckets
                .map(|(le, (now, before))| Bucket { le: *le, changes: now.saturating_sub(*before) })
                .filter(|_| changes > 0)
                .collect(),
        };
        past.push_back((now, (totals, all)));
        latency
    }
}

/// The latency of all indexes. Their histograms have the same bounds.
fn merged<'a>(latencies: impl Iterator<Item = &'a LatencyReport>) -> LatencyReport {
    let mut merged = LatencyReport::default();
    for latency in latencies.filter(|latency| latency.changes > 0) {
        merged.changes += latency.changes;
        if merged.buckets.is_empty() {
            merged.buckets.clone_from(&latency.buckets);
            continue;
        }
        for (sum, bucket) in merged.buckets.iter_mut().zip(&latency.buckets) {
            sum.changes += bucket.changes;
        }
    }
    merged
}

/// The latency of each index with changes.
fn by_index(latencies: BTreeMap<String, LatencyReport>) -> BTreeMap<IndexName, LatencyReport> {
    let known = latencies.into_iter().filter(|(index, latency)| !index.is_empty() && latency.changes > 0);
    known.map(|(index, latency)| (IndexName::of_collection(&index), latency)).collect()
}

#[cfg(test)]
mod tests {
    use metrics::{counter, histogram, with_local_recorder};
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tidewheel_core::metric;

    use super::*;
    use crate::registry::Recording;

    fn recording() -> (Recording<impl metrics::Recorder>, Reporter) {
        let registry = Arc::new(Registry::new());
        let inner = PrometheusBuilder::new().build_recorder();
        (Recording { inner, registry: registry.clone() }, Reporter::new(registry))
    }

    #[test]
    fn report_has_figures_of_own_services_only() {
        let (recording, mut reporter) = recording();
        with_local_recorder(&recording, || counter!(metric::EMBEDDER_TOKENS).increment(5));
        let ready = |service: &str| ServiceReport { service: service.into(), ready: true, reasons: Vec::new() };
        let report = reporter.report(2, Some("127.0.0.1:9090"), vec![ready("embedder"), ready("upserter")]);
        assert_eq!((report.format, report.layout), (FORMAT, Some(2)));
        assert_eq!(report.operations.as_deref(), Some("127.0.0.1:9090"));
        let figures = report.figures.unwrap();
        assert_eq!(figures.embedder, Some(EmbedderReport { tokens: 5, queued_tokens: 0 }));
        assert_eq!(figures.upserter, Some(UpserterReport::default()));
        assert_eq!((figures.producer, figures.processor), (None, None));
    }

    #[test]
    fn latency_covers_the_last_minute() {
        let (recording, mut reporter) = recording();
        let begin = Instant::now();
        let mut at = |seconds: u64, latencies: &[f64]| {
            with_local_recorder(&recording, || {
                latencies.iter().for_each(|latency| histogram!(metric::SEARCHABLE).record(*latency));
            });
            merged(reporter.latencies(begin + Duration::from_secs(seconds)).values())
        };
        assert_eq!(at(0, &[]), LatencyReport::default());
        let first = at(30, &[0.004, 0.3]);
        assert_eq!(first.changes, 2);
        assert_eq!(first.buckets[0], Bucket { le: 0.005, changes: 1 });
        assert_eq!(at(60, &[2.0]).changes, 3);
        assert_eq!(at(90, &[]).changes, 1);
        assert_eq!(at(120, &[]), LatencyReport::default());
    }

    #[test]
    fn latency_is_reported_by_index_and_in_total() {
        let (recording, reporter) = recording();
        let settings = SettingsReport { embeddings: ["default".into()].into(), ..SettingsReport::default() };
        let mut reporter = reporter.declaring(settings.clone());
        with_local_recorder(&recording, || {
            for (index, seconds) in [("tickets", 0.004), ("tickets", 2.0), ("articles", 0.3)] {
                histogram!(metric::SEARCHABLE, "index" => index).record(seconds);
            }
            // Registered, without a change.
            let _ = histogram!(metric::SEARCHABLE, "index" => "users");
        });
        let upserter = ServiceReport { service: "upserter".into(), ready: true, reasons: Vec::new() };
        let figures = reporter.report(2, None, vec![upserter]).figures.unwrap();
        assert_eq!(figures.settings, Some(settings));
        let UpserterReport { latency, latencies, .. } = figures.upserter.unwrap();
        let changes: Vec<_> = latencies.iter().map(|(index, latency)| (index.as_str(), latency.changes)).collect();
        assert_eq!(changes, [("articles", 1), ("tickets", 2)]);
        assert_eq!(latency.changes, 3);
        assert_eq!(latency.buckets[0], Bucket { le: 0.005, changes: 1 });
        assert_eq!(latency.buckets.last(), Some(&Bucket { le: 3600.0, changes: 3 }));
    }
}
