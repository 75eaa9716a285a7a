//! Makes the report of this process.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewheel_core::report::{
    Bucket, EmbedderReport, FORMAT, Figures, LatencyReport, ProcessReport, ProcessorReport, ProducerReport,
    ServiceReport, UpserterReport,
};

use crate::registry::Registry;

/// Window of the latency.
const MINUTE: Duration = Duration::from_secs(60);

/// Makes reports of this process, each with what was measured up to then.
pub struct Reporter {
    registry: Arc<Registry>,
    begun: Instant,
    /// The latency histogram at earlier reports.
    past: VecDeque<(Instant, Totals)>,
}

/// Counts up to each bound of a histogram, and of all values.
type Totals = (Vec<u64>, u64);

impl Reporter {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self { registry, begun: Instant::now(), past: VecDeque::new() }
    }

    /// Makes the report of these services, which can use stored keys up to this layout.
    pub fn report(&mut self, layout: u32, operations: Option<&str>, services: Vec<ServiceReport>) -> ProcessReport {
        let runs = |service: &str| services.iter().any(|report| report.service == service);
        let latency = self.latency(Instant::now());
        let registry = &self.registry;
        let figures = Figures {
            producer: runs("producer").then(|| ProducerReport {
                checkpoint_saved_at: registry.checkpoint_saved(),
                snapshot_expected: registry.snapshot_expected(),
                audited_at: registry.audited(),
                drift: registry.drift(),
            }),
            processor: runs("processor").then(|| ProcessorReport {
                progressed_at: registry.processor_progress(),
                tokens_saved: registry.tokens_saved(),
            }),
            upserter: runs("upserter").then(|| UpserterReport { progressed_at: registry.upserter_progress(), latency }),
            embedder: runs("embedder").then(|| EmbedderReport {
                tokens: registry.embedded_tokens(),
                queued_tokens: registry.queued_tokens(),
            }),
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

    /// Returns the latency of changes since a report a minute ago, or since the start.
    fn latency(&mut self, now: Instant) -> LatencyReport {
        while self.past.len() > 1 && self.past.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= MINUTE) {
            self.past.pop_front();
        }
        let histogram = self.registry.latency();
        let (totals, all) = histogram.totals();
        let none = (vec![0; totals.len()], 0);
        let (before, all_before) = self.past.front().map_or(&none, |(_, totals)| totals);
        let changes = all.saturating_sub(*all_before);
        let buckets = histogram.bounds().iter().zip(totals.iter().zip(before));
        let latency = LatencyReport {
            changes,
            buckets: buckets
                .map(|(le, (now, before))| Bucket { le: *le, changes: now.saturating_sub(*before) })
                .filter(|_| changes > 0)
                .collect(),
        };
        self.past.push_back((now, (totals, all)));
        latency
    }
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
            reporter.latency(begin + Duration::from_secs(seconds))
        };
        assert_eq!(at(0, &[]), LatencyReport::default());
        let first = at(30, &[0.004, 0.3]);
        assert_eq!(first.changes, 2);
        assert_eq!(first.buckets[0], Bucket { le: 0.005, changes: 1 });
        assert_eq!(at(60, &[2.0]).changes, 3);
        assert_eq!(at(90, &[]).changes, 1);
        assert_eq!(at(120, &[]), LatencyReport::default());
    }
}
