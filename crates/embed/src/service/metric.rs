//! Metrics of the service. All metric names are defined here.
//!
//! There is no padding metric: tiles contain no padding. Queue and limits are shared by all models, and so are their
//! metrics. Texts and tokens are counted by model; the default model's counters have no label, so that its series stay
//! the same when another model is added.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use tidewheel_core::ports::EmbedderLoad;

use super::queue::Tile;

/// Requests answered, by status class (`2xx`, `4xx`, `5xx`).
pub const REQUESTS: &str = "tidewheel_embedder_requests_total";
/// Texts embedded.
pub const TEXTS: &str = "tidewheel_embedder_texts_total";
/// Tokens embedded, including special tokens.
pub const TOKENS: &str = "tidewheel_embedder_tokens_total";
/// Requests whose client disconnected before computation.
pub const ABANDONED: &str = "tidewheel_embedder_abandoned_requests_total";
/// Requests answered with 429.
pub const REFUSED: &str = "tidewheel_embedder_refused_requests_total";
/// Tokens in the queue.
pub const QUEUE_TOKENS: &str = "tidewheel_embedder_queue_tokens";
/// Requests in the queue.
pub const QUEUE_REQUESTS: &str = "tidewheel_embedder_queue_requests";
/// Time to tokenize one request.
pub const TOKENIZE_SECONDS: &str = "tidewheel_embedder_tokenize_seconds";
/// Queue time of one request: from enqueue to the start of its first tile.
pub const QUEUE_SECONDS: &str = "tidewheel_embedder_queue_seconds";
/// Time to compute one tile.
pub const COMPUTE_SECONDS: &str = "tidewheel_embedder_compute_seconds";
/// Share of a tile's capacity filled with tokens.
pub const TILE_FILL: &str = "tidewheel_embedder_tile_fill_ratio";

/// The counters of one model, bound as those of [`ServiceMetrics`].
pub(super) struct ModelCounters {
    texts: Counter,
    tokens: Counter,
}

impl ModelCounters {
    /// The counters of the default model.
    pub(super) fn of_default() -> Self {
        Self { texts: counter!(TEXTS), tokens: counter!(TOKENS) }
    }

    /// The counters of another model, by its name.
    pub(super) fn of(model: &str) -> Self {
        Self {
            texts: counter!(TEXTS, "model" => model.to_owned()),
            tokens: counter!(TOKENS, "model" => model.to_owned()),
        }
    }
}

/// Metric handles, bound to the recorder that is installed when they are created.
pub(super) struct ServiceMetrics {
    answered: [Counter; 3],
    abandoned: Counter,
    refused: Counter,
    queue_tokens: Gauge,
    queue_requests: Gauge,
    tokenize_seconds: Histogram,
    queue_seconds: Histogram,
    compute_seconds: Histogram,
    tile_fill: Histogram,
    /// The values of [`EmbedderLoad`], which no recorder is needed for.
    embedded: AtomicU64,
    queued: AtomicU64,
}

impl ServiceMetrics {
    pub(super) fn new() -> Self {
        describe_counter!(REQUESTS, "Requests answered, by status class");
        describe_counter!(TEXTS, "Texts embedded");
        describe_counter!(TOKENS, "Tokens embedded, special tokens included");
        describe_counter!(ABANDONED, "Requests whose client disconnected before they were computed");
        describe_counter!(REFUSED, "Requests rejected with 429 because a limit was reached");
        describe_gauge!(QUEUE_TOKENS, "Tokens waiting to be computed");
        describe_gauge!(QUEUE_REQUESTS, "Requests waiting to be computed");
        describe_histogram!(TOKENIZE_SECONDS, "Time to tokenise a request");
        describe_histogram!(QUEUE_SECONDS, "Time from entering the queue to the start of the first tile");
        describe_histogram!(COMPUTE_SECONDS, "Time to compute one tile");
        describe_histogram!(TILE_FILL, "Share of a tile's capacity filled with tokens");
        Self {
            answered: ["2xx", "4xx", "5xx"].map(|class| counter!(REQUESTS, "class" => class)),
            abandoned: counter!(ABANDONED),
            refused: counter!(REFUSED),
            queue_tokens: gauge!(QUEUE_TOKENS),
            queue_requests: gauge!(QUEUE_REQUESTS),
            tokenize_seconds: histogram!(TOKENIZE_SECONDS),
            queue_seconds: histogram!(QUEUE_SECONDS),
            compute_seconds: histogram!(COMPUTE_SECONDS),
            tile_fill: histogram!(TILE_FILL),
            embedded: AtomicU64::new(0),
            queued: AtomicU64::new(0),
        }
    }

    pub(super) fn answered(&self, status: u16) {
        self.answered[match status {
            ..400 => 0,
            400..500 => 1,
            500.. => 2,
        }]
        .increment(1);
    }

    pub(super) fn refused(&self) {
        self.refused.increment(1);
    }

    pub(super) fn abandoned(&self, requests: usize) {
        self.abandoned.increment(requests as u64);
    }

    pub(super) fn tokenized(&self, took: Duration) {
        self.tokenize_seconds.record(took);
    }

    pub(super) fn waited(&self, took: Duration) {
        self.queue_seconds.record(took);
    }

    pub(super) fn computed<T>(&self, model: &ModelCounters, tile: &Tile<T>, took: Duration) {
        model.texts.increment(tile.pieces.len() as u64);
        model.tokens.increment(tile.tokens as u64);
        self.embedded.fetch_add(tile.tokens as u64, Ordering::Relaxed);
        self.compute_seconds.record(took);
        #[expect(clippy::cast_precision_loss, reason = "a tile has hundreds of tokens")]
        self.tile_fill.record(tile.tokens as f64 / tile.room.max(1) as f64);
    }

    pub(super) fn load(&self) -> EmbedderLoad {
        EmbedderLoad {
            tokens: self.embedded.load(Ordering::Relaxed),
            queued_tokens: self.queued.load(Ordering::Relaxed),
        }
    }

    pub(super) fn queue(&self, tokens: usize, requests: usize) {
        self.queued.store(tokens as u64, Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "the queue is bounded far below 2^52")]
        {
            self.queue_tokens.set(tokens as f64);
            self.queue_requests.set(requests as f64);
        }
    }
}
