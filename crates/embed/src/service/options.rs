//! How the service is set up.

use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::secret::Secret;

/// Gives the text of `/metrics`: what the process has recorded, in the form that Prometheus reads.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Limits and settings of the service.
#[derive(Clone)]
pub struct ServiceOptions {
    /// Threads that compute; 0 means one for each core. Each works on a tile of its own.
    pub workers: usize,
    /// What a caller has to show as `Authorization: Bearer …`; `None` lets everybody in.
    pub token: Option<Secret>,
    /// Names under which browsers may reach it, beside `localhost` and addresses.
    pub hosts: Vec<String>,
    /// Longest body of a request in bytes. A larger one is answered with 413.
    pub max_body_bytes: usize,
    /// Bodies that may be in memory at once, in bytes. Beyond it a request is answered with 429.
    pub max_pending_bytes: usize,
    /// Most texts in one request. More are answered with 413.
    pub max_texts: usize,
    /// Tokens that may wait. Beyond it a request is answered with 429; a single request may be larger if nothing waits.
    ///
    /// The queue has to be deep enough that no core waits for the next request, and no deeper: what it holds beyond that
    /// only waits longer. A core takes 256 tokens at a time, so 64 cores that are to have four tiles each in stock need
    /// 65,536; the largest request of a model with 256 tokens has 262,144. Faster machines therefore need no larger
    /// queue, and it costs a megabyte.
    pub queue_tokens: usize,
    /// Requests that may wait. Beyond it a request is answered with 429.
    pub queue_requests: usize,
    /// How long a caller may take to send its request.
    pub read_timeout: Duration,
    /// How long queued work may go on after the shutdown began. What is left then is answered with 503.
    pub drain: Duration,
    /// What `/metrics` answers with; `None` if this process records nothing. The recorder has to be installed before
    /// the service is started.
    pub metrics: Option<Render>,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            workers: 0,
            token: None,
            hosts: Vec::new(),
            // A thousand texts of 8 KB: more would be cut by every model there is.
            max_body_bytes: 8 << 20,
            max_pending_bytes: 64 << 20,
            max_texts: 1024,
            // The largest request of a model with 256 tokens: some 15 seconds of work on two cores, half a second on 64.
            queue_tokens: 256 << 10,
            queue_requests: 1024,
            read_timeout: Duration::from_secs(30),
            // Two seconds less than a service has to be gone.
            drain: Duration::from_secs(8),
            metrics: None,
        }
    }
}
