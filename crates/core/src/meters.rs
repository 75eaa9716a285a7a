//! Every metric of the services: its name, kind, labels and meaning. The one place where they are written down.
//!
//! Labels have few values, all of them known beforehand: a service, a stream, a server, a class. Times are in seconds, sizes
//! in bytes, counters end in `_total`. `docs/metrics.md` is made from this list.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// What an operator asks, and which metrics answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// Is it keeping up with MongoDB?
    Source,
    /// Is it embedding fast enough?
    Embedding,
    /// Is it keeping up with Qdrant?
    Index,
    /// Is anything lost or parked?
    Losses,
    /// Is everything running?
    Health,
}

impl Question {
    /// Every question, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Source, Self::Embedding, Self::Index, Self::Losses, Self::Health];

    /// In words.
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
pub struct Meter {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Which question it helps to answer.
    pub question: Question,
    /// What it counts.
    pub help: &'static str,
}

macro_rules! meters {
    ($($question:ident { $($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)* })*) => {
        $($(#[doc = $help] pub const $constant: &str = $name;)*)*
        /// Every metric.
        pub const ALL: &[Meter] = &[$($(Meter {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            question: Question::$question,
            help: $help,
        },)*)*];
    };
}

meters! {
    Source {
        PRODUCER_CHANGES = Counter "tidewheel_producer_changes_total" ["operation"] "Changes appended to stage 1, by operation. `read` is a document that was there before";
        PRODUCER_APPEND_ENTRIES = Histogram "tidewheel_producer_append_entries" [] "Changes in one append";
        PRODUCER_LEADING = Gauge "tidewheel_producer_leading" [] "1 while this producer is at work, 0 while it stands by";
        PRODUCER_PAUSED = Gauge "tidewheel_producer_paused" [] "1 while the producer waits because stage 1 is at its high-water mark";
        PRODUCER_LAG = Gauge "tidewheel_producer_lag_seconds" [] "Seconds between the commit of the newest change that was appended and the append";
        PRODUCER_SAVED = Gauge "tidewheel_producer_checkpoint_saved_timestamp_seconds" [] "When the producer last saved its place, in seconds since the Unix epoch";
        OPLOG_WINDOW = Gauge "tidewheel_oplog_window_seconds" [] "Seconds of history in MongoDB's oplog";
        OPLOG_TIME_TO_LOSS = Gauge "tidewheel_oplog_time_to_loss_seconds" [] "Seconds until the oplog no longer reaches back to what the producer has saved, if it saved nothing more";
        SNAPSHOT_RUNNING = Gauge "tidewheel_snapshot_running" [] "1 while what was there before is read or compared";
        SNAPSHOT_ROWS = Gauge "tidewheel_snapshot_rows" [] "Documents that the snapshot has read";
        SNAPSHOT_EXPECTED = Gauge "tidewheel_snapshot_expected_rows" [] "About how many documents the snapshot has to read";
        STREAM_ENTRIES = Gauge "tidewheel_stream_entries" ["stream"] "Entries in the stream, confirmed ones that are kept for replay included";
        STREAM_APPENDED = Counter "tidewheel_stream_appended_entries_total" ["stream"] "Entries that were ever appended to the stream";
        STREAM_LAG = Gauge "tidewheel_stream_lag_entries" ["stream"] "Entries that the group has not been given yet; NaN when Redis cannot tell";
        STREAM_PENDING = Gauge "tidewheel_stream_pending_entries" ["stream"] "Entries given to a consumer and not yet confirmed";
        STREAM_BACKLOG = Gauge "tidewheel_stream_backlog_entries" ["stream"] "Entries that are not confirmed: lag and pending together";
        STREAM_OLDEST = Gauge "tidewheel_stream_oldest_unconfirmed_seconds" ["stream"] "Age of the oldest entry that is not confirmed; 0 if there is none";
        STREAM_CONSUMERS = Gauge "tidewheel_stream_consumers" ["stream"] "Consumers of the group that asked for work within the last minute";
    }
    Embedding {
        PROCESSOR_TEXTS = Counter "tidewheel_processor_texts_total" ["origin"] "Texts by where their vector came from: `embedder`, `index` (it had the vector already) or `batch` (another chunk of the batch had the same text)";
        PROCESSOR_TOKENS_SAVED = Counter "tidewheel_processor_tokens_saved_total" ["origin"] "Tokens of texts that were not embedded, by where their vector came from";
        PROCESSOR_SUPERSEDED = Counter "tidewheel_processor_superseded_changes_total" [] "Changes that were not embedded because a newer one of the same document was in the same batch";
        EMBEDDER_REQUESTS = Counter "tidewheel_embedder_requests_total" ["class"] "Requests answered, by class of status";
        EMBEDDER_TEXTS = Counter "tidewheel_embedder_texts_total" [] "Texts embedded";
        EMBEDDER_TOKENS = Counter "tidewheel_embedder_tokens_total" [] "Tokens embedded, special tokens included";
        EMBEDDER_ABANDONED = Counter "tidewheel_embedder_abandoned_requests_total" [] "Requests whose caller hung up before they were computed";
        EMBEDDER_REFUSED = Counter "tidewheel_embedder_refused_requests_total" [] "Requests answered with 429 because a limit was reached";
        EMBEDDER_QUEUE_TOKENS = Gauge "tidewheel_embedder_queue_tokens" [] "Tokens that wait to be computed";
        EMBEDDER_QUEUE_REQUESTS = Gauge "tidewheel_embedder_queue_requests" [] "Requests that wait to be computed";
        EMBEDDER_TOKENIZE = Histogram "tidewheel_embedder_tokenize_seconds" [] "Time to split a request into tokens";
        EMBEDDER_QUEUE = Histogram "tidewheel_embedder_queue_seconds" [] "Time from entering the queue to the start of the first tile";
        EMBEDDER_COMPUTE = Histogram "tidewheel_embedder_compute_seconds" [] "Time to compute one tile";
        EMBEDDER_TILE_FILL = Histogram "tidewheel_embedder_tile_fill_ratio" [] "Share of a tile's room that held tokens";
    }
    Index {
        SEARCHABLE = Histogram "tidewheel_commit_to_searchable_seconds" [] "Time from a change's commit in MongoDB until the upserter had it confirmed by Qdrant. What a snapshot read does not count";
        BATCH_ENTRIES = Histogram "tidewheel_batch_entries" ["service"] "Entries in a batch of a processor or upserter";
        BATCH_SECONDS = Histogram "tidewheel_batch_seconds" ["service"] "Time that a batch took, with everything it waited for";
        ENTRIES_TAKEN = Counter "tidewheel_entries_taken_total" ["service"] "Entries that a processor or upserter took for the first time";
        ENTRIES_FINISHED = Counter "tidewheel_entries_finished_total" ["service"] "Entries that a processor or upserter is done with: confirmed or parked";
        BATCHES_IN_FLIGHT = Gauge "tidewheel_batches_in_flight" ["service"] "Batches that a processor or upserter works on";
    }
    Losses {
        ERRORS = Counter "tidewheel_errors_total" ["service", "server", "cause"] "Calls that failed, by the server that was called (`mongodb`, `redis`, `embedder`, `qdrant`, `other`) and the cause (`unreachable`, `timeout`, `busy`, `refused`, `denied`, `not_finite`, `zero`, `other`)";
        RETRIES = Counter "tidewheel_retries_total" ["service"] "Calls that were tried again after a failure that will pass";
        REJECTED_VECTORS = Counter "tidewheel_rejected_vectors_total" ["reason"] "Vectors that were not taken: `not_finite`, `zero`, `dimension` (of another size than the collection's or the model's) or `refused` by Qdrant";
        ENTRIES_PARKED = Counter "tidewheel_entries_parked_total" ["service"] "Entries moved to the dead letters";
        ENTRIES_CLAIMED = Counter "tidewheel_entries_claimed_total" ["service"] "Entries taken over from a consumer that gave no sign of life";
        ENTRIES_LOST = Counter "tidewheel_entries_lost_total" ["service"] "Entries that somebody removed from the stream before they were confirmed; the producer repairs that";
        DEAD_LETTERS = Gauge "tidewheel_dead_letters_entries" ["stream"] "Entries given up, with their reason";
        DRIFT = Gauge "tidewheel_drift_documents" ["kind"] "Documents by which the index differed from MongoDB in the last audit: `missing`, `stale`, `extra`, `surplus`";
        AUDITED = Gauge "tidewheel_audit_timestamp_seconds" [] "When the index was last compared with MongoDB as a whole, in seconds since the Unix epoch";
        PRODUCER_RESTARTS = Counter "tidewheel_producer_restarts_total" ["why"] "How often the producer began again: `conflict` (somebody else saved), `failed` (a server failed) or `repair` (something was lost)";
    }
    Health {
        READY = Gauge "tidewheel_ready" ["service"] "Whether the service can do its work and makes progress: 1 or 0";
        PROGRESS = Gauge "tidewheel_last_progress_timestamp_seconds" ["service"] "When the service last got something done, in seconds since the Unix epoch";
        PROBLEM = Gauge "tidewheel_problem" ["code"] "1 while `tidewheel status` reports this problem, else 0";
        REDIS_MEMORY = Gauge "tidewheel_redis_memory_bytes" [] "Memory that Redis uses";
        REDIS_MEMORY_LIMIT = Gauge "tidewheel_redis_memory_limit_bytes" [] "Redis' memory limit; 0 if there is none";
    }
}

/// Bounds of the buckets of times, in seconds: from what a single change takes at rest to what an outage takes.
pub const SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0];

/// Bounds of the buckets of entries: from one change to the largest batch.
pub const ENTRIES: &[f64] = &[1.0, 4.0, 16.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

/// Bounds of the buckets of shares.
pub const SHARES: &[f64] = &[0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0];

/// The bounds of a histogram's buckets.
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
    fn names_say_what_they_are() {
        let names: BTreeSet<_> = ALL.iter().map(|meter| meter.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name occurs twice");
        for meter in ALL {
            assert!(meter.name.starts_with("tidewheel_"), "{}", meter.name);
            assert_eq!(meter.name.ends_with("_total"), meter.kind == Kind::Counter, "{}", meter.name);
            assert!(!meter.help.is_empty() && !meter.help.ends_with('.'), "{}", meter.name);
        }
    }
}
