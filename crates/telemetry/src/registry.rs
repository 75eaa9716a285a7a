//! Keeps the values that process reports need, beside the Prometheus recorder.
//!
//! The crates report through the `metrics` facade alone. This recorder passes everything on to Prometheus, and also updates
//! its own atomics for the few metrics of a report.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use tidewheel_core::metric;
use tidewheel_core::report::DriftReport;

/// A gauge that was never set.
const UNSET: u64 = f64::NAN.to_bits();

/// The values of a report.
pub(crate) struct Registry {
    processor_progress: Arc<AtomicU64>,
    upserter_progress: Arc<AtomicU64>,
    checkpoint_saved: Arc<AtomicU64>,
    snapshot_expected: Arc<AtomicU64>,
    audited: Arc<AtomicU64>,
    /// Missing, stale, extra, surplus.
    drift: [Arc<AtomicU64>; 4],
    queued_tokens: Arc<AtomicU64>,
    tokens_saved: Arc<AtomicU64>,
    embedded_tokens: Arc<AtomicU64>,
    latency: Arc<Buckets>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        let zero = Arc::<AtomicU64>::default;
        let unset = || Arc::new(AtomicU64::new(UNSET));
        Self {
            processor_progress: zero(),
            upserter_progress: zero(),
            checkpoint_saved: unset(),
            snapshot_expected: unset(),
            audited: unset(),
            drift: [unset(), unset(), unset(), unset()],
            queued_tokens: zero(),
            tokens_saved: zero(),
            embedded_tokens: zero(),
            latency: Arc::new(Buckets::new(metric::buckets(metric::SEARCHABLE))),
        }
    }

    /// The time of the processor's last progress; 0 before the first.
    pub(crate) fn processor_progress(&self) -> f64 {
        number(&self.processor_progress)
    }

    /// The time of the upserter's last progress; 0 before the first.
    pub(crate) fn upserter_progress(&self) -> f64 {
        number(&self.upserter_progress)
    }

    pub(crate) fn checkpoint_saved(&self) -> Option<f64> {
        known(&self.checkpoint_saved)
    }

    pub(crate) fn snapshot_expected(&self) -> Option<u64> {
        known(&self.snapshot_expected).map(|rows| rows as u64)
    }

    pub(crate) fn audited(&self) -> Option<f64> {
        known(&self.audited)
    }

    /// What the last audit found; `None` before it, and on standby.
    pub(crate) fn drift(&self) -> Option<DriftReport> {
        let [missing, stale, extra, surplus] =
            self.drift.each_ref().map(|count| known(count).map(|count| count as u64));
        Some(DriftReport { missing: missing?, stale: stale?, extra: extra?, surplus: surplus? })
    }

    pub(crate) fn queued_tokens(&self) -> u64 {
        number(&self.queued_tokens) as u64
    }

    pub(crate) fn tokens_saved(&self) -> u64 {
        self.tokens_saved.load(Ordering::Relaxed)
    }

    pub(crate) fn embedded_tokens(&self) -> u64 {
        self.embedded_tokens.load(Ordering::Relaxed)
    }

    pub(crate) fn latency(&self) -> &Buckets {
        &self.latency
    }

    /// Returns the counter of a report that this metric counts.
    fn counter(&self, key: &Key) -> Option<&Arc<AtomicU64>> {
        match key.name() {
            metric::PROCESSOR_TOKENS_SAVED => Some(&self.tokens_saved),
            metric::EMBEDDER_TOKENS => Some(&self.embedded_tokens),
            _ => None,
        }
    }

    fn gauge(&self, key: &Key) -> Option<&Arc<AtomicU64>> {
        let label = |name: &str| key.labels().find(|label| label.key() == name).map(metrics::Label::value);
        match key.name() {
            metric::PROGRESS => match label("service")? {
                "processor" => Some(&self.processor_progress),
                "upserter" => Some(&self.upserter_progress),
                _ => None,
            },
            metric::PRODUCER_SAVED => Some(&self.checkpoint_saved),
            metric::SNAPSHOT_EXPECTED => Some(&self.snapshot_expected),
            metric::AUDITED => Some(&self.audited),
            metric::DRIFT => {
                let kind = label("kind")?;
                let kinds = ["missing", "stale", "extra", "surplus"];
                kinds.iter().position(|known| *known == kind).map(|at| &self.drift[at])
            }
            metric::EMBEDDER_QUEUE_TOKENS => Some(&self.queued_tokens),
            _ => None,
        }
    }

    fn histogram(&self, key: &Key) -> Option<&Arc<Buckets>> {
        (key.name() == metric::SEARCHABLE).then_some(&self.latency)
    }
}

fn number(gauge: &AtomicU64) -> f64 {
    f64::from_bits(gauge.load(Ordering::Relaxed))
}

/// Returns the gauge's value, unless it is unset or NaN.
fn known(gauge: &AtomicU64) -> Option<f64> {
    Some(number(gauge)).filter(|number| number.is_finite())
}

/// A histogram with fixed bounds.
pub(crate) struct Buckets {
    bounds: &'static [f64],
    /// By bucket, the last one without a bound.
    counts: Box<[AtomicU64]>,
}

impl Buckets {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(crate) fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    /// Returns the values counted up to each bound, and the number of all.
    pub(crate) fn totals(&self) -> (Vec<u64>, u64) {
        let mut total = 0;
        let mut totals: Vec<u64> = Vec::with_capacity(self.counts.len());
        for count in &self.counts {
            total += count.load(Ordering::Relaxed);
            totals.push(total);
        }
        totals.pop();
        (totals, total)
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
    }
}

/// Passes everything on to the inner recorder, and updates a [`Registry`].
pub(crate) struct Recording<R> {
    pub(crate) inner: R,
    pub(crate) registry: Arc<Registry>,
}

impl<R: Recorder> Recorder for Recording<R> {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        let inner = self.inner.register_counter(key, metadata);
        match self.registry.counter(key) {
            Some(own) => Counter::from_arc(Arc::new(Both(inner, own.clone()))),
            None => inner,
        }
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        let inner = self.inner.register_gauge(key, metadata);
        match self.registry.gauge(key) {
            Some(own) => Gauge::from_arc(Arc::new(Both(inner, own.clone()))),
            None => inner,
        }
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let inner = self.inner.register_histogram(key, metadata);
        match self.registry.histogram(key) {
            Some(own) => Histogram::from_arc(Arc::new(Both(inner, own.clone()))),
            None => inner,
        }
    }
}

/// The inner recorder's handle of a metric, and the registry's value.
struct Both<H, V>(H, Arc<V>);

impl CounterFn for Both<Counter, AtomicU64> {
    fn increment(&self, value: u64) {
        self.0.increment(value);
        CounterFn::increment(&*self.1, value);
    }

    fn absolute(&self, value: u64) {
        self.0.absolute(value);
        CounterFn::absolute(&*self.1, value);
    }
}

impl GaugeFn for Both<Gauge, AtomicU64> {
    fn increment(&self, value: f64) {
        self.0.increment(value);
        GaugeFn::increment(&*self.1, value);
    }

    fn decrement(&self, value: f64) {
        self.0.decrement(value);
        GaugeFn::decrement(&*self.1, value);
    }

    fn set(&self, value: f64) {
        self.0.set(value);
        GaugeFn::set(&*self.1, value);
    }
}

impl HistogramFn for Both<Histogram, Buckets> {
    fn record(&self, value: f64) {
        self.0.record(value);
        self.1.record(value);
    }
}

#[cfg(test)]
mod tests {
    use metrics::{counter, gauge, histogram, with_local_recorder};
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn metrics_of_reports_reach_prometheus_and_the_registry() {
        let inner = PrometheusBuilder::new().build_recorder();
        let prometheus = inner.handle();
        let registry = Arc::new(Registry::new());
        let recording = Recording { inner, registry: registry.clone() };
        assert_eq!((registry.checkpoint_saved(), registry.audited(), registry.drift()), (None, None, None));
        assert_eq!(registry.processor_progress(), 0.0);
        with_local_recorder(&recording, || {
            gauge!(metric::PROGRESS, "service" => "processor").set(5.0);
            gauge!(metric::PROGRESS, "service" => "upserter").set(6.0);
            gauge!(metric::PRODUCER_SAVED).set(7.0);
            gauge!(metric::SNAPSHOT_EXPECTED).set(8.0);
            gauge!(metric::AUDITED).set(9.0);
            for (count, kind) in [(1.0, "missing"), (2.0, "stale"), (3.0, "extra")] {
                gauge!(metric::DRIFT, "kind" => kind).set(count);
            }
            gauge!(metric::EMBEDDER_QUEUE_TOKENS).set(10.0);
            counter!(metric::EMBEDDER_TOKENS).increment(11);
            counter!(metric::PROCESSOR_TOKENS_SAVED, "origin" => "index").increment(12);
            counter!(metric::PROCESSOR_TOKENS_SAVED, "origin" => "batch").increment(1);
            // Metrics that no report needs reach Prometheus alone.
            counter!(metric::EMBEDDER_TEXTS).increment(14);
            assert_eq!(registry.drift(), None, "one count is missing");
            gauge!(metric::DRIFT, "kind" => "surplus").set(4.0);
        });
        assert_eq!((registry.processor_progress(), registry.upserter_progress()), (5.0, 6.0));
        assert_eq!((registry.checkpoint_saved(), registry.audited()), (Some(7.0), Some(9.0)));
        assert_eq!((registry.snapshot_expected(), registry.queued_tokens()), (Some(8), 10));
        assert_eq!((registry.embedded_tokens(), registry.tokens_saved()), (11, 13));
        assert_eq!(registry.drift(), Some(DriftReport { missing: 1, stale: 2, extra: 3, surplus: 4 }));
        with_local_recorder(&recording, || gauge!(metric::DRIFT, "kind" => "stale").set(f64::NAN));
        assert_eq!(registry.drift(), None, "a standby producer withdraws its counts");
        let rendered = prometheus.render();
        for line in ["tidewheel_embedder_tokens_total 11", "tidewheel_embedder_texts_total 14"] {
            assert!(rendered.lines().any(|found| found == line), "{line} is missing in {rendered}");
        }
    }

    #[test]
    fn histogram_counts_by_inclusive_upper_bound() {
        let registry = Arc::new(Registry::new());
        let recording = Recording { inner: PrometheusBuilder::new().build_recorder(), registry: registry.clone() };
        with_local_recorder(&recording, || {
            let latency = histogram!(metric::SEARCHABLE);
            [0.001, 0.005, 0.006, 1e6].iter().for_each(|seconds| latency.record(*seconds));
        });
        let (totals, all) = registry.latency().totals();
        assert_eq!(registry.latency().bounds()[..2], [0.005, 0.01]);
        assert_eq!((&totals[..2], totals.last(), all), (&[2, 3][..], Some(&3), 4));
    }
}
