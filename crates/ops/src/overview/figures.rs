//! Merges the figures that processes report.

use tidewheel_core::catalog::IndexName;
use tidewheel_core::report::{DriftReport, Figures, LatencyReport};
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

/// Latency of all indexes within the last minute.
pub(super) fn latency(figures: &[Figures]) -> Option<Latency> {
    merged(figures.iter().filter_map(|figures| Some(&figures.upserter.as_ref()?.latency)))
}

/// Latency of one index within the last minute.
pub(super) fn latency_of(figures: &[Figures], index: &IndexName) -> Option<Latency> {
    merged(figures.iter().filter_map(|figures| figures.upserter.as_ref()?.latencies.get(index)))
}

/// Merges the histograms of all processes.
fn merged<'a>(latencies: impl Iterator<Item = &'a LatencyReport>) -> Option<Latency> {
    let mut buckets: Vec<(f64, u64)> = Vec::new();
    let mut changes = 0;
    for latency in latencies {
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

/// The last audits of all indexes by the active producer.
pub(super) fn audit(figures: &[Figures]) -> Option<Audit> {
    let producers = figures.iter().filter_map(|figures| figures.producer.as_ref());
    found(producers.map(|producer| (producer.audited_at, producer.drift.as_ref())))
}

/// The last audit of one index by the active producer.
pub(super) fn audit_of(figures: &[Figures], index: &IndexName) -> Option<Audit> {
    let audits = figures.iter().filter_map(|figures| figures.producer.as_ref()?.audits.get(index));
    found(audits.map(|audit| (audit.audited_at, audit.drift.as_ref())))
}

/// Merges when producers have finished an audit, and what they report to have found. A standby producer reports no
/// counts, but may have finished an audit long ago.
fn found<'a>(audits: impl Iterator<Item = (Option<f64>, Option<&'a DriftReport>)>) -> Option<Audit> {
    let (times, drifts): (Vec<_>, Vec<_>) = audits.unzip();
    let at = times.into_iter().flatten().max_by(f64::total_cmp)?;
    let mut drifts = drifts.into_iter().flatten().peekable();
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
    use tidewheel_core::report::{AuditReport, Bucket, EmbedderReport, ProducerReport, UpserterReport};

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

    #[test]
    fn values_of_an_index_leave_out_those_of_others() {
        let name = IndexName::of_collection;
        let latency = |changes| LatencyReport { changes, buckets: vec![Bucket { le: 1.0, changes }] };
        let upserter = UpserterReport {
            latency: latency(5),
            latencies: [(name("tickets"), latency(2)), (name("notes"), latency(3))].into(),
            ..UpserterReport::default()
        };
        let drift = |missing| Some(DriftReport { missing, ..DriftReport::default() });
        let audit = |missing| AuditReport { audited_at: Some(1.0), drift: drift(missing) };
        let producer = ProducerReport {
            audited_at: Some(1.0),
            drift: drift(7),
            audits: [(name("tickets"), audit(7)), (name("notes"), audit(0))].into(),
            ..ProducerReport::default()
        };
        let figures = [Figures { producer: Some(producer), upserter: Some(upserter), ..Figures::default() }];
        assert_eq!(latency_of(&figures, &name("notes")).unwrap().changes, 3);
        assert!(latency_of(&figures, &name("users")).is_none());
        assert_eq!(audit_of(&figures, &name("tickets")).unwrap().missing, 7);
        assert_eq!(audit_of(&figures, &name("notes")).unwrap().drift(), 0);
        assert!(audit_of(&figures, &name("users")).is_none());
        assert_eq!(super::latency(&figures).unwrap().changes, 5);
    }
}
