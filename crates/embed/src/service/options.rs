//! Options of the service.

use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::secret::Secret;

/// Renders the process's metrics in the Prometheus text format.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Options and limits of the service.
#[derive(Clone)]
pub struct ServiceOptions {
    /// Compute threads; 0 means one per core. Each computes its own tile.
    pub workers: usize,
    /// Bearer token that clients must send; `None` disables authentication.
    pub token: Option<Secret>,
    /// Host names accepted from browsers, in addition to `localhost` and IP addresses.
    pub hosts: Vec<String>,
    /// Maximum request body in bytes. A larger one is rejected with 413.
    pub max_body_bytes: usize,
    /// Maximum bytes of all bodies in memory. Beyond it a request is rejected with 429.
    pub max_pending_bytes: usize,
    /// Maximum texts per request. More are rejected with 413.
    pub max_texts: usize,
    /// Maximum queued tokens. Beyond it a request is rejected with 429; a single request may be larger if the queue is
    /// empty.
    ///
    /// The queue must be deep enough that no core idles until the next request; more depth only adds latency. A core
    /// takes 256 tokens at a time, so 64 cores with four queued tiles each need 65,536; the largest request of a model
    /// with 256 tokens has 262,144. Faster machines therefore need no larger queue, and it costs a megabyte.
    pub queue_tokens: usize,
    /// Maximum queued requests. Beyond it a request is rejected with 429.
    pub queue_requests: usize,
    /// Timeout for receiving a request body.
    pub read_timeout: Duration,
    /// Time to finish queued work after shutdown begins. The rest is answered with 503.
    pub drain: Duration,
    /// Renders `/metrics`; `None` if metrics are disabled. The recorder must be installed before the service starts.
    pub metrics: Option<Render>,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            workers: 0,
            token: None,
            hosts: Vec::new(),
            // A thousand texts of 8 KB; every current model truncates longer ones.
            max_body_bytes: 8 << 20,
            max_pending_bytes: 64 << 20,
            max_texts: 1024,
            // The largest request of a model with 256 tokens: some 15 seconds of work on two cores, half a second on 64.
            queue_tokens: 256 << 10,
            queue_requests: 1024,
            read_timeout: Duration::from_secs(30),
            // Two seconds less than a service has to terminate.
            drain: Duration::from_secs(8),
            metrics: None,
        }
    }
}
