//! Moves CPU-bound work off the async threads.

use crate::retry::RetryError;

/// Bytes of documents that are processed inline: offloading less costs more than it saves.
const INLINE_BYTES: usize = 4 << 10;

/// Runs `work` on the blocking thread pool; inline if it is small.
pub(crate) async fn offload<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RetryError> {
    if bytes <= INLINE_BYTES {
        return Ok(work());
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        // Propagates a panic, as if the work had run inline.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(_) => Err(RetryError::Shutdown),
        },
    }
}

/// Runs `work` like [`offload`], without waiting for it.
pub(crate) fn beside(bytes: usize, work: impl FnOnce() + Send + 'static) {
    if bytes <= INLINE_BYTES {
        work();
    } else {
        tokio::task::spawn_blocking(work);
    }
}
