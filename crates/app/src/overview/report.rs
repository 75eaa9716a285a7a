//! The status report that each process publishes in Redis.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidewheel_core::metric;
use tidewheel_ops::overview::{Audit, Latency};

use crate::times;

/// A process's status, published every few seconds as a few kilobytes of JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    /// Its version.
    pub(crate) version: String,
    /// Uptime in seconds.
    pub(crate) up_seconds: f64,
    /// Address of its operations server, if enabled.
    pub(crate) operations: Option<String>,
    /// Its services.
    pub(crate) services: Vec<ServiceState>,
    /// Metrics: name and labels as in `/metrics` → value.
    pub(crate) measured: BTreeMap<String, f64>,
    /// Growth of counters within the last minute.
    pub(crate) minute: BTreeMap<String, f64>,
}

/// Readiness of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServiceState {
    /// Its name.
    pub(crate) service: String,
    /// Whether it is ready.
    pub(crate) ready: bool,
    /// Why it is not ready.
    pub(crate) reasons: Vec<String>,
}

/// Sums a metric over all processes and labels; `None` if no process reports it.
pub(super) fn sum<'a>(numbers: impl Iterator<Item = &'a BTreeMap<String, f64>>, name: &str) -> Option<f64> {
    let mut total = None;
    for numbers in numbers {
        let own = numbers.range(name.to_owned()..).take_while(|(key, _)| key.starts_with(name));
        for (_, value) in own.filter(|(key, _)| matches!(key.as_bytes().get(name.len()), None | Some(b'{'))) {
            *total.get_or_insert(0.0) += value;
        }
    }
    total
}

/// Latency within the last minute, merged from the histograms of all processes.
pub(super) fn latency(reports: &[Report], name: &str) -> Option<Latency> {
    let start = format!("{name}_bucket{{le=\"");
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for report in reports {
        for (key, count) in report.minute.range(start.clone()..).take_while(|(key, _)| key.starts_with(&start)) {
            let Some(bound) = key[start.len()..].strip_suffix("\"}") else { continue };
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, total)) => *total += count,
                None => buckets.push((bound, *count)),
            }
        }
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let changes = buckets.last()?.1;
    (changes >= 1.0).then(|| Latency {
        changes: changes as u64,
        p50_seconds: quantile(&buckets, 0.5),
        p95_seconds: quantile(&buckets, 0.95),
        p99_seconds: quantile(&buckets, 0.99),
    })
}

/// The last audit of the active producer.
pub(super) fn audit(reports: &[Report]) -> Option<Audit> {
    let measured = || reports.iter().map(|report| &report.measured);
    let of = |kind: &str| sum(measured(), &format!("{}{{kind=\"{kind}\"}}", metric::DRIFT)).map(|count| count as u64);
    // A standby producer reports no counts, but may have finished an audit long ago.
    let last = |report: &Report| report.measured.get(metric::AUDITED).copied();
    let at = reports.iter().filter_map(last).max_by(f64::total_cmp)?;
    Some(Audit {
        seconds_ago: (times::now_seconds() - at).max(0.0),
        missing: of("missing")?,
        stale: of("stale")?,
        extra: of("extra")?,
        surplus: of("surplus")?,
    })
}

/// Estimates like Prometheus' `histogram_quantile`: linear within a bucket, the last finite bound beyond it.
fn quantile(buckets: &[(f64, f64)], share: f64) -> f64 {
    let wanted = share * buckets.last().map_or(0.0, |(_, count)| *count);
    let (mut from, mut before) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= wanted {
            if !bound.is_finite() || *count <= before {
                return if bound.is_finite() { *bound } else { from };
            }
            return from + (bound - from) * (wanted - before) / (count - before);
        }
        (from, before) = (*bound, *count);
    }
    from
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_merge_all_processes() {
        let report = |counts: [f64; 3]| Report {
            minute: ["1", "2", "+Inf"]
                .iter()
                .zip(counts)
                .map(|(bound, count)| (format!("a_seconds_bucket{{le=\"{bound}\"}}"), count))
                .collect(),
            ..Report::default()
        };
        let latency = latency(&[report([40.0, 50.0, 50.0]), report([10.0, 49.0, 50.0])], "a_seconds").unwrap();
        assert_eq!(latency.changes, 100);
        assert!((latency.p50_seconds - 1.0).abs() < 1e-9);
        assert!((latency.p95_seconds - (1.0 + 45.0 / 49.0)).abs() < 1e-9);
        assert!((latency.p99_seconds - 2.0).abs() < 1e-9);
        assert!(super::latency(&[report([0.0, 0.0, 0.0])], "a_seconds").is_none());
    }

    #[test]
    fn sum_covers_labels_and_processes_only() {
        let numbers: BTreeMap<String, f64> =
            [("a_total{x=\"1\"}", 1.0), ("a_total{x=\"2\"}", 2.0), ("a_totals", 4.0), ("a", 8.0)]
                .map(|(name, value)| (name.to_owned(), value))
                .into();
        assert_eq!(sum([&numbers, &numbers].into_iter(), "a_total"), Some(6.0));
        assert_eq!(sum([&numbers].into_iter(), "b"), None);
    }
}
