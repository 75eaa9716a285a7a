//! A histogram for process reports.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::HistogramFn;

/// A histogram with fixed bounds.
pub(crate) struct Buckets {
    bounds: &'static [f64],
    /// By bucket, the last one without a bound.
    counts: Box<[AtomicU64]>,
}

impl Buckets {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
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
