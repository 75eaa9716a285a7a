//! Keeps the values that process reports need, beside the Prometheus recorder.
//!
//! The crates report through the `metrics` facade alone. This recorder passes everything on to Prometheus, and also updates
//! its own atomics for the few metrics of a report.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use tidewheel_core::catalog::IndexName;
use tidewheel_core::metric;
use tidewheel_core::report::{AuditReport, DriftReport};

use crate::buckets::Buckets;

/// A gauge that was never set.
const UNSET: u64 = f64::NAN.to_bits();

/// The values of a report.
pub(crate) struct Registry {
    processor_progress: Arc<AtomicU64>,
    upserter_progress: Arc<AtomicU64>,
    checkpoint_saved: Arc<AtomicU64>,
    snapshot_expected: Arc<AtomicU64>,
    audits: ByIndex<Audit>,
    queued_tokens: Arc<AtomicU64>,
    tokens_saved: Arc<AtomicU64>,
    embedded_tokens: Arc<AtomicU64>,
    latencies: ByIndex<Buckets>,
}

/// The values of one index.
struct Audit {
    audited: Arc<AtomicU64>,
    /// Missing, stale, extra, surplus.
    drift: [Arc<AtomicU64>; 4],
}

impl Audit {
    fn new() -> Self {
        let unset = || Arc::new(AtomicU64::new(UNSET));
        Self { audited: unset(), drift: [unset(), unset(), unset(), unset()] }
    }

    /// What the audit found; `None` before it, and on standby.
    fn drift(&self) -> Option<DriftReport> {
        let [missing, stale, extra, surplus] =
            self.drift.each_ref().map(|count| known(count).map(|count| count as u64));
        Some(DriftReport { missing: missing?, stale: stale?, extra: extra?, surplus: surplus? })
    }
}

/// Values by the label `index`; by the empty name, those of series without it.
struct ByIndex<V>(Mutex<BTreeMap<String, Arc<V>>>);

impl<V> ByIndex<V> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    /// The value of this series, which `new` creates.
    fn of(&self, key: &Key, new: impl FnOnce() -> V) -> Arc<V> {
        let index = label(key, "index").unwrap_or_default();
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = values.get(index) {
            return value.clone();
        }
        values.entry(index.to_owned()).or_insert_with(|| Arc::new(new())).clone()
    }

    fn all(&self) -> Vec<(String, Arc<V>)> {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.iter().map(|(index, value)| (index.clone(), value.clone())).collect()
    }
}

fn label<'a>(key: &'a Key, name: &str) -> Option<&'a str> {
    key.labels().find(|label| label.key() == name).map(metrics::Label::value)
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
            audits: ByIndex::new(),
            queued_tokens: zero(),
            tokens_saved: zero(),
            embedded_tokens: zero(),
            latencies: ByIndex::new(),
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

    /// The end of the last audit of any index.
    pub(crate) fn audited(&self) -> Option<f64> {
        self.audits.all().iter().filter_map(|(_, audit)| known(&audit.audited)).max_by(f64::total_cmp)
    }

    /// What the last audits of all indexes found; `None` before the first, and on standby.
    pub(crate) fn drift(&self) -> Option<DriftReport> {
        let drifts = self.audits.all();
        drifts.iter().filter_map(|(_, audit)| audit.drift()).reduce(|sum, one| DriftReport {
            missing: sum.missing + one.missing,
            stale: sum.stale + one.stale,
            extra: sum.extra + one.extra,
            surplus: sum.surplus + one.surplus,
        })
    }

    /// The last audit of each index.
    pub(crate) fn audits(&self) -> BTreeMap<IndexName, AuditReport> {
        let all = self.audits.all().into_iter().filter(|(index, _)| !index.is_empty());
        all.filter_map(|(index, audit)| {
            let report = AuditReport { audited_at: known(&audit.audited), drift: audit.drift() };
            (report != AuditReport::default()).then(|| (IndexName::of_collection(&index), report))
        })
        .collect()
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

    /// The latency of each index, by name; by the empty name, that of series without an index.
    pub(crate) fn latencies(&self) -> Vec<(String, Arc<Buckets>)> {
        self.latencies.all()
    }

    /// Returns the counter of a report that this metric counts.
    fn counter(&self, key: &Key) -> Option<&Arc<AtomicU64>> {
        match key.name() {
            metric::PROCESSOR_TOKENS_SAVED => Some(&self.tokens_saved),
            metric::EMBEDDER_TOKENS => Some(&self.embedded_tokens),
            _ => None,
        }
    }

    /// Returns the gauge of a report that this metric sets.
    fn gauge(&self, key: &Key) -> Option<Arc<AtomicU64>> {
        let gauge = match key.name() {
            metric::PROGRESS => match label(key, "service")? {
                "processor" => &self.processor_progress,
                "upserter" => &self.upserter_progress,
                _ => return None,
            },
            metric::PRODUCER_SAVED => &self.checkpoint_saved,
            // One snapshot runs at a time, so that the last value belongs to it, whatever its index.
            metric::SNAPSHOT_EXPECTED => &self.snapshot_expected,
            metric::AUDITED => return Some(self.audits.of(key, Audit::new).audited.clone()),
            metric::DRIFT => {
                let kind = label(key, "kind")?;
                let at = ["missing", "stale", "extra", "surplus"].iter().position(|known| *known == kind)?;
                return Some(self.audits.of(key, Audit::new).drift[at].clone());
            }
            metric::EMBEDDER_QUEUE_TOKENS => &self.queued_tokens,
            _ => return None,
        };
        Some(gauge.clone())
    }

    /// Returns the histogram of a report that this metric records to.
    fn histogram(&self, key: &Key) -> Option<Arc<Buckets>> {
        let new = || Buckets::new(metric::buckets(metric::SEARCHABLE));
        (key.name() == metric::SEARCHABLE).then(|| self.latencies.of(key, new))
    }
}

fn number(gauge: &AtomicU64) -> f64 {
    f64::from_bits(gauge.load(Ordering::Relaxed))
}

/// Returns the gauge's value, unless it is unset or NaN.
fn known(gauge: &AtomicU64) -> Option<f64> {
    Some(number(gauge)).filter(|number| number.is_finite())
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
            Some(own) => Gauge::from_arc(Arc::new(Both(inner, own))),
            None => inner,
        }
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let inner = self.inner.register_histogram(key, metadata);
        match self.registry.histogram(key) {
            Some(own) => Histogram::from_arc(Arc::new(Both(inner, own))),
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
    fn audits_are_kept_by_index_and_in_total() {
        let registry = Arc::new(Registry::new());
        let recording = Recording { inner: PrometheusBuilder::new().build_recorder(), registry: registry.clone() };
        let audited = |index: &'static str, at: f64, counts: [f64; 4]| {
            with_local_recorder(&recording, || {
                gauge!(metric::AUDITED, "index" => index).set(at);
                for (kind, count) in ["missing", "stale", "extra", "surplus"].into_iter().zip(counts) {
                    gauge!(metric::DRIFT, "index" => index, "kind" => kind).set(count);
                }
            });
        };
        audited("tickets", 7.0, [1.0, 0.0, 0.0, 2.0]);
        audited("articles", 9.0, [1.0, 3.0, 0.0, 0.0]);
        assert_eq!(registry.audited(), Some(9.0));
        assert_eq!(registry.drift(), Some(DriftReport { missing: 2, stale: 3, extra: 0, surplus: 2 }));
        audited("articles", f64::NAN, [f64::NAN; 4]);
        let found = DriftReport { missing: 1, stale: 0, extra: 0, surplus: 2 };
        let audits = registry.audits();
        assert_eq!(audits.len(), 1, "an index without values is left out");
        assert_eq!(
            audits.get(&IndexName::of_collection("tickets")),
            Some(&AuditReport { audited_at: Some(7.0), drift: Some(found.clone()) })
        );
        assert_eq!(registry.drift(), Some(found));
    }

    #[test]
    fn histogram_counts_by_inclusive_upper_bound() {
        let registry = Arc::new(Registry::new());
        let recording = Recording { inner: PrometheusBuilder::new().build_recorder(), registry: registry.clone() };
        with_local_recorder(&recording, || {
            let latency = histogram!(metric::SEARCHABLE);
            [0.001, 0.005, 0.006, 1e6].iter().for_each(|seconds| latency.record(*seconds));
        });
        let (_, latency) = registry.latencies().remove(0);
        let (totals, all) = latency.totals();
        assert_eq!(latency.bounds()[..2], [0.005, 0.01]);
        assert_eq!((&totals[..2], totals.last(), all), (&[2, 3][..], Some(&3), 4));
    }
}
