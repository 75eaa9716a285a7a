//! The list of all metrics of the services: name, kind, labels and meaning.
//!
//! Labels have few values: a service, a stream, a server, a class, or an index by its name; before a catalog is applied,
//! that of its collection. Times are in seconds, sizes in bytes, counters end in `_total`. `docs/metrics.md` is generated
//! from this list.

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only increases.
    Counter,
    /// Increases and decreases.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

/// An operator's question, which groups the metrics that answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// Is it keeping up with the source?
    Source,
    /// Is it embedding fast enough?
    Embedding,
    /// Is it keeping up with the index?
    Index,
    /// Is anything lost or parked?
    Losses,
    /// Is everything running?
    Health,
}

impl Question {
    /// All questions, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Source, Self::Embedding, Self::Index, Self::Losses, Self::Health];

    /// Its text.
    pub fn text(self) -> &'static str {
        match self {
            Self::Source => "Is it keeping up with MongoDB?",
            Self::Embedding => "Is it embedding fast enough?",
            Self::Index => "Is it keeping up with Qdrant?",
            Self::Losses => "Is anything lost or parked?",
            Self::Health => "Is everything running?",
        }
    }
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The question that it helps to answer.
    pub question: Question,
    /// Its meaning.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($question:ident { $($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)* })*) => {
        $($(#[doc = $help] pub const $constant: &str = $name;)*)*
        /// Every metric.
        pub const ALL: &[Metric] = &[$($(Metric {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            question: Question::$question,
            help: $help,
        },)*)*];
    };
}

metrics! {
    Source {
        PRODUCER_CHANGES = Counter "tidewheel_producer_changes_total" ["operation"] "Changes appended to stage 1, by operation. `read` is a document read by a snapshot or a repair";
        PRODUCER_APPEND_ENTRIES = Histogram "tidewheel_producer_append_entries" [] "Changes in one append";
        PRODUCER_LEADING = Gauge "tidewheel_producer_leading" [] "1 while this producer holds the lease, 0 while it is on standby";
        PRODUCER_PAUSED = Gauge "tidewheel_producer_paused" [] "1 while the producer is paused because stage 1 is at its high-water mark";
        PRODUCER_LAG = Gauge "tidewheel_producer_lag_seconds" [] "Seconds from the commit of the newest appended change to its append";
        PRODUCER_SAVED = Gauge "tidewheel_producer_checkpoint_saved_timestamp_seconds" [] "Time of the producer's last saved checkpoint, in seconds since the Unix epoch";
        OPLOG_WINDOW = Gauge "tidewheel_oplog_window_seconds" [] "Seconds of history in MongoDB's oplog";
        OPLOG_TIME_TO_LOSS = Gauge "tidewheel_oplog_time_to_loss_seconds" [] "Seconds until the oplog no longer covers the saved checkpoint, if the producer saves no newer one";
        SNAPSHOT_RUNNING = Gauge "tidewheel_snapshot_running" ["index"] "1 while a snapshot of the index is read or compared";
        SNAPSHOT_ROWS = Gauge "tidewheel_snapshot_rows" ["index"] "Documents read by the snapshot";
        SNAPSHOT_EXPECTED = Gauge "tidewheel_snapshot_expected_rows" ["index"] "Estimated number of documents to be read by the snapshot";
        STREAM_ENTRIES = Gauge "tidewheel_stream_entries" ["stream"] "Entries in the stream, including acknowledged entries retained for replay";
        STREAM_APPENDED = Counter "tidewheel_stream_appended_entries_total" ["stream"] "Entries appended to the stream since its creation";
        STREAM_LAG = Gauge "tidewheel_stream_lag_entries" ["stream"] "Entries not yet delivered to the group; NaN if Redis cannot report it";
        STREAM_PENDING = Gauge "tidewheel_stream_pending_entries" ["stream"] "Entries delivered to a consumer and not yet acknowledged";
        STREAM_BACKLOG = Gauge "tidewheel_stream_backlog_entries" ["stream"] "Unacknowledged entries: lag plus pending";
        STREAM_OLDEST = Gauge "tidewheel_stream_oldest_unconfirmed_seconds" ["stream"] "Age of the oldest unacknowledged entry; 0 if there is none";
        STREAM_CONSUMERS = Gauge "tidewheel_stream_consumers" ["stream"] "Consumers of the group that requested entries within the last minute";
    }
    Embedding {
        PROCESSOR_TEXTS = Counter "tidewheel_processor_texts_total" ["index", "origin"] "Texts by origin of their vector: `embedder`, `index` (reused from a collection) or `batch` (another chunk of the batch had the same text). A text of several indexes counts for one";
        PROCESSOR_TOKENS_SAVED = Counter "tidewheel_processor_tokens_saved_total" ["index", "origin"] "Tokens of texts that were not embedded, by origin of their vector";
        PROCESSOR_SUPERSEDED = Counter "tidewheel_processor_superseded_changes_total" [] "Changes not embedded because the batch contained a newer change of the same document";
        EMBEDDER_REQUESTS = Counter "tidewheel_embedder_requests_total" ["class"] "Requests answered, by status class";
        EMBEDDER_TEXTS = Counter "tidewheel_embedder_texts_total" ["model"] "Texts embedded, by model; the default model has no label";
        EMBEDDER_TOKENS = Counter "tidewheel_embedder_tokens_total" ["model"] "Tokens embedded, special tokens included, by model; the default model has no label";
        EMBEDDER_ABANDONED = Counter "tidewheel_embedder_abandoned_requests_total" [] "Requests whose client disconnected before they were computed";
        EMBEDDER_REFUSED = Counter "tidewheel_embedder_refused_requests_total" [] "Requests rejected with 429 because a limit was reached";
        EMBEDDER_QUEUE_TOKENS = Gauge "tidewheel_embedder_queue_tokens" [] "Tokens waiting to be computed";
        EMBEDDER_QUEUE_REQUESTS = Gauge "tidewheel_embedder_queue_requests" [] "Requests waiting to be computed";
        EMBEDDER_TOKENIZE = Histogram "tidewheel_embedder_tokenize_seconds" [] "Time to tokenise a request";
        EMBEDDER_QUEUE = Histogram "tidewheel_embedder_queue_seconds" [] "Time from entering the queue to the start of the first tile";
        EMBEDDER_COMPUTE = Histogram "tidewheel_embedder_compute_seconds" [] "Time to compute one tile";
        EMBEDDER_TILE_FILL = Histogram "tidewheel_embedder_tile_fill_ratio" [] "Share of a tile's capacity filled with tokens";
    }
    Index {
        SEARCHABLE = Histogram "tidewheel_commit_to_searchable_seconds" ["index"] "Time from a change's commit in MongoDB until Qdrant confirmed it to the upserter. Excludes documents read by a snapshot";
        BATCH_ENTRIES = Histogram "tidewheel_batch_entries" ["service"] "Entries in a batch of a processor or upserter";
        BATCH_SECONDS = Histogram "tidewheel_batch_seconds" ["service"] "Duration of a batch, including all waits";
        INDEX_INFO = Gauge "tidewheel_index_info" ["index", "generation", "state", "collection"] "1 for the state and the collection of each generation of an index; 0 for an earlier state";
        INDEX_POINTS = Gauge "tidewheel_index_points" ["index"] "Points in the collection that searches of the index read; an estimate";
        GENERATION_ROWS = Gauge "tidewheel_generation_rows" ["index"] "Documents read by the snapshot that fills a new generation of the index; NaN if none is being filled";
        GENERATION_EXPECTED = Gauge "tidewheel_generation_expected_rows" ["index"] "Estimated number of documents to be read by that snapshot";
        ENTRIES_TAKEN = Counter "tidewheel_entries_taken_total" ["service"] "Entries delivered to a processor or upserter for the first time";
        ENTRIES_FINISHED = Counter "tidewheel_entries_finished_total" ["service"] "Entries finished by a processor or upserter: acknowledged or parked";
        BATCHES_IN_FLIGHT = Gauge "tidewheel_batches_in_flight" ["service"] "Batches in progress in a processor or upserter";
    }
    Losses {
        ERRORS = Counter "tidewheel_errors_total" ["service", "server", "cause"] "Failed calls, by server (`mongodb`, `redis`, `embedder`, `qdrant`, `other`) and the cause (`unreachable`, `timeout`, `busy`, `full`, `refused`, `too_long`, `denied`, `not_finite`, `zero`, `newer`, `other`)";
        RETRIES = Counter "tidewheel_retries_total" ["service"] "Calls retried after a transient failure";
        REJECTED_VECTORS = Counter "tidewheel_rejected_vectors_total" ["reason"] "Rejected vectors: `not_finite`, `zero`, `dimension` (does not match the collection or the model) or `refused` by Qdrant";
        ENTRIES_PARKED = Counter "tidewheel_entries_parked_total" ["service", "index"] "Entries moved to the dead-letter queue; without an index, those that are unreadable or belong to several indexes";
        ENTRIES_CLAIMED = Counter "tidewheel_entries_claimed_total" ["service"] "Entries claimed from an unresponsive consumer";
        ENTRIES_LOST = Counter "tidewheel_entries_lost_total" ["service"] "Unacknowledged entries removed from the stream by another client; the producer repairs the loss";
        ENTRIES_RETIRED = Counter "tidewheel_entries_retired_total" ["index"] "Entries of an index, or of one of its generations, that is no longer kept up: acknowledged without effect";
        TARGETS_SKIPPED = Counter "tidewheel_targets_skipped_total" ["index"] "Entries left out for a generation that is not whole yet, because its model or collection is unavailable; it is filled again";
        DEAD_LETTERS = Gauge "tidewheel_dead_letters_entries" ["stream"] "Entries in the dead-letter queue";
        DRIFT = Gauge "tidewheel_drift_documents" ["index", "kind"] "Documents that differed between MongoDB and the index in the last audit: `missing`, `stale`, `extra`, `surplus`";
        AUDITED = Gauge "tidewheel_audit_timestamp_seconds" ["index"] "Time of the last complete audit of the index against MongoDB, in seconds since the Unix epoch";
        PRODUCER_RESTARTS = Counter "tidewheel_producer_restarts_total" ["why"] "Restarts of the producer loop: `adopted` (the change stream was opened again for an applied catalog), `conflict` (another client saved a checkpoint), `failed` (a server failed) or `repair` (data was lost)";
    }
    Health {
        READY = Gauge "tidewheel_ready" ["service"] "1 if the service is ready and makes progress, else 0";
        PROGRESS = Gauge "tidewheel_last_progress_timestamp_seconds" ["service"] "Time of the service's last progress, in seconds since the Unix epoch";
        PROBLEM = Gauge "tidewheel_problem" ["code", "index"] "1 while `tidewheel status` reports this problem, else 0; without an index for problems of the whole installation";
        REDIS_MEMORY = Gauge "tidewheel_redis_memory_bytes" [] "Memory used by Redis";
        REDIS_MEMORY_LIMIT = Gauge "tidewheel_redis_memory_limit_bytes" [] "Memory limit of Redis; 0 if unlimited";
        SPANS_DROPPED = Counter "tidewheel_spans_dropped_total" [] "Trace spans dropped because the queue was full or the collector did not accept them; only with tracing enabled";
    }
}

/// Bucket bounds of times, in seconds: from a single change on an idle system to an outage.
pub const SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0];

/// Bucket bounds of entries: from one change to the largest batch.
pub const ENTRIES: &[f64] = &[1.0, 4.0, 16.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

/// Bucket bounds of ratios.
pub const SHARES: &[f64] = &[0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0];

/// The bucket bounds of a histogram.
pub fn buckets(name: &str) -> &'static [f64] {
    match name {
        name if name.ends_with("_seconds") => SECONDS,
        name if name.ends_with("_ratio") => SHARES,
        _ => ENTRIES,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn metric_names_follow_the_conventions() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name occurs twice");
        for metric in ALL {
            assert!(metric.name.starts_with("tidewheel_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
