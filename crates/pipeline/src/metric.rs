//! Metrics of the services. Handles are created once; names are in [`tidewheel_core::metric`].

use std::collections::HashMap;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tidewheel_core::change::Operation;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::error::PortError;
use tidewheel_core::metric;
use tidewheel_core::ports::{Delivery, EntryId};
use tidewheel_core::time::now_seconds;

/// Metrics of processors and upserters.
#[derive(Clone)]
pub(crate) struct ConsumerMetrics {
    pub(crate) taken: Counter,
    pub(crate) claimed: Counter,
    pub(crate) lost: Counter,
    finished: Counter,
    in_flight: Gauge,
    batch_entries: Histogram,
    batch_seconds: Histogram,
    progress: Gauge,
}

impl ConsumerMetrics {
    pub(crate) fn new(service: &'static str) -> Self {
        Self {
            taken: counter!(metric::ENTRIES_TAKEN, "service" => service),
            claimed: counter!(metric::ENTRIES_CLAIMED, "service" => service),
            lost: counter!(metric::ENTRIES_LOST, "service" => service),
            finished: counter!(metric::ENTRIES_FINISHED, "service" => service),
            in_flight: gauge!(metric::BATCHES_IN_FLIGHT, "service" => service),
            batch_entries: histogram!(metric::BATCH_ENTRIES, "service" => service),
            batch_seconds: histogram!(metric::BATCH_SECONDS, "service" => service),
            progress: gauge!(metric::PROGRESS, "service" => service),
        }
    }

    /// Records the start of a batch.
    pub(crate) fn begins(&self, entries: usize) {
        self.in_flight.increment(1.0);
        self.batch_entries.record(entries as f64);
    }

    /// Records the end of a batch; `done` if all of it succeeded.
    pub(crate) fn ends(&self, entries: usize, took: Duration, done: bool) {
        self.in_flight.decrement(1.0);
        self.batch_seconds.record(took.as_secs_f64());
        if done {
            self.finished.increment(entries as u64);
            self.progress.set(now_seconds());
        }
    }
}

/// Commit times of a batch's changes, to measure the time until each is searchable.
pub(crate) struct Commits(HashMap<EntryId, u64>);

impl Commits {
    /// Collects the commit times, except of documents read by a snapshot, whose commit time is unknown.
    pub(crate) fn of(deliveries: &[Delivery<Embedded>]) -> Self {
        let commits = deliveries.iter().filter_map(|delivery| {
            let change = &delivery.record.as_ref().ok()?.change;
            (change.operation != Operation::Read).then(|| (delivery.id.clone(), change.committed_at))
        });
        Self(commits.collect())
    }

    /// Records that these entries are now searchable.
    pub(crate) fn searchable(&self, entries: &[EntryId], latency: &Histogram) {
        let now = (now_seconds() * 1e3) as u64;
        for committed_at in entries.iter().filter_map(|entry| self.0.get(entry)) {
            latency.record(now.saturating_sub(*committed_at) as f64 / 1e3);
        }
    }
}

/// The metric for [`Commits::searchable`], of one index.
pub(crate) fn latency(index: &str) -> Histogram {
    histogram!(metric::SEARCHABLE, "index" => index.to_owned())
}

/// Counts a failed call. Rare, so no handle is kept.
pub(crate) fn failed(service: &'static str, error: &PortError, retried: bool) {
    let (server, cause) = (error.server.name(), error.cause.name());
    counter!(metric::ERRORS, "service" => service, "server" => server, "cause" => cause).increment(1);
    if retried {
        counter!(metric::RETRIES, "service" => service).increment(1);
    }
}

/// Initialises counters to zero: Prometheus sees no increase in a counter that first appears with its first event, so
/// an alert on it would stay silent.
pub(crate) fn init_counters(service: &'static str, rejections: &[&'static str]) {
    counter!(metric::RETRIES, "service" => service).increment(0);
    parked(service, None, 0);
    for reason in rejections {
        rejected(reason, 0);
    }
}

/// Counts rejected vectors.
pub(crate) fn rejected(reason: &'static str, vectors: u64) {
    counter!(metric::REJECTED_VECTORS, "reason" => reason).increment(vectors);
}

/// Counts entries moved to the dead-letter queue; without an index, those that are unreadable or belong to several. With
/// none of them, initialises the counter of an index.
pub(crate) fn parked(service: &'static str, index: Option<&str>, entries: u64) {
    let counter = match index {
        Some(index) => counter!(metric::ENTRIES_PARKED, "service" => service, "index" => index.to_owned()),
        None => counter!(metric::ENTRIES_PARKED, "service" => service),
    };
    counter.increment(entries);
}

/// Counts entries of a target that the catalog no longer routes.
pub(crate) fn retired(index: &str, entries: usize) {
    counter!(metric::ENTRIES_RETIRED, "index" => index.to_owned()).increment(entries as u64);
}

/// Counts entries left out for a target that must not delay the others.
pub(crate) fn skipped(index: &str, entries: usize) {
    counter!(metric::TARGETS_SKIPPED, "index" => index.to_owned()).increment(entries as u64);
}
