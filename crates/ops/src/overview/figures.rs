//! Merges the figures that processes report.

use tidewheel_core::report::{Figures, ProducerReport};
use tidewheel_core::time::now_seconds;

use super::{Audit, Latency};

/// Adds the values of all processes; `None` if no process reports one.
pub(super) fn sum(figures: &[Figures], value: impl Fn(&Figures) -> Option<u64>) -> Option<u64> {
    figures.iter().filter_map(value).reduce(u64::saturating_add)
}

/// The largest value of all processes; `None` if no process reports one.
pub(super) fn newest(figures: &[Figures], value: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
    figures.iter().filter_map(value).max_by(f64::total_cmp)
}

/// Latency within the last minute, merged from the histograms of all processes.
pub(super) fn latency(figures: &[Figures]) -> Option<Latency> {
    let mut buckets: Vec<(f64, u64)> = Vec::new();
    let mut changes = 0;
    for latency in figures.iter().filter_map(|figures| Some(&figures.upserter.as_ref()?.latency)) {
        changes += latency.changes;
        for bucket in &latency.buckets {
            match buckets.iter_mut().find(|(bound, _)| *bound == bucket.le) {
                Some((_, total)) => *total += bucket.changes,
                None => buckets.push((bucket.le, bucket.changes)),
            }
        }
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    buckets.push((f64::INFINITY, changes));
    (changes > 0).then(|| Latency {
        changes,
        p50_seconds: quantile(&buckets, 0.5),
        p95_seconds: quantile(&buckets, 0.95),
        p99_seconds: quantile(&buckets, 0.99),
    })
}

/// The last audit of the active producer.
pub(super) fn audit(figures: &[Figures]) -> Option<Audit> {
    let producers = || figures.iter().filter_map(|figures| figures.producer.as_ref());
    // A standby producer reports no counts, but may have finished an audit long ago.
    let at = producers().filter_map(|producer: &ProducerReport| producer.audited_at).max_by(f64::total_cmp)?;
    let mut drifts = producers().filter_map(|producer| producer.drift.as_ref()).peekable();
    drifts.peek()?;
    let none = Audit { seconds_ago: (now_seconds() - at).max(0.0), missing: 0, stale: 0, extra: 0, surplus: 0 };
    Some(drifts.fold(none, |audit, drift| Audit {
        missing: audit.missing + drift.missing,
        stale: audit.stale + drift.stale,
        extra: audit.extra + drift.extra,
        surplus: audit.surplus + drift.surplus,
        ..audit
    }))
}

/// Estimates like Prometheus' `histogram_quantile`: linear within a bucket, the last finite bound beyond it.
fn quantile(buckets: &[(f64, u64)], ratio: f64) -> f64 {
    let wanted = ratio * buckets.last().map_or(0.0, |(_, count)| *count as f64);
    let (mut from, mut before) = (0.0, 0.0);
    for (bound, count) in buckets {
        let count = *count as f64;
        if count >= wanted {
            if !bound.is_finite() || count <= before {
                return if bound.is_finite() { *bound } else { from };
            }
            return from + (bound - from) * (wanted - before) / (count - before);
        }
        (from, before) = (*bound, count);
    }
    from
}

#[cfg(test)]
mod tests {
    use tidewheel_core::report::{Bucket, DriftReport, EmbedderReport, LatencyReport, UpserterReport};

    use super::*;

    #[test]
    fn quantiles_merge_all_processes() {
        let upserter = |[one, two, changes]: [u64; 3]| {
            let buckets = vec![Bucket { le: 1.0, changes: one }, Bucket { le: 2.0, changes: two }];
            let latency = LatencyReport { changes, buckets };
            Figures { upserter: Some(UpserterReport { latency, ..UpserterReport::default() }), ..Figures::default() }
        };
        let merged = latency(&[upserter([40, 50, 50]), Figures::default(), upserter([10, 49, 50])]).unwrap();
        assert_eq!(merged.changes, 100);
        assert!((merged.p50_seconds - 1.0).abs() < 1e-9);
        assert!((merged.p95_seconds - (1.0 + 45.0 / 49.0)).abs() < 1e-9);
        assert!((merged.p99_seconds - 2.0).abs() < 1e-9);
        assert!(latency(&[upserter([0, 0, 0])]).is_none());
    }

    #[test]
    fn sum_covers_the_processes_that_report_a_value() {
        let embedder = |tokens| Figures {
            embedder: Some(EmbedderReport { tokens, ..EmbedderReport::default() }),
            ..Figures::default()
        };
        let tokens = |figures: &Figures| figures.embedder.as_ref().map(|embedder| embedder.tokens);
        assert_eq!(sum(&[embedder(1), Figures::default(), embedder(2)], tokens), Some(3));
        assert_eq!(sum(&[Figures::default()], tokens), None);
    }

    #[test]
    fn audit_has_the_counts_of_the_active_producer() {
        let producer = |audited_at, drift| Figures {
            producer: Some(ProducerReport { audited_at, drift, ..ProducerReport::default() }),
            ..Figures::default()
        };
        let found = Some(DriftReport { missing: 1, stale: 2, extra: 3, surplus: 4 });
        let audit = audit(&[producer(Some(1.0), None), producer(Some(2.0), found)]).unwrap();
        assert_eq!((audit.missing, audit.stale, audit.extra, audit.surplus), (1, 2, 3, 4));
        assert!(super::audit(&[producer(Some(1.0), None)]).is_none(), "a standby producer alone");
        assert!(super::audit(&[producer(None, None)]).is_none());
    }
}
