//! Moves work that computes for long off the threads that serve connections.

use crate::retry::GivenUp;

/// Bytes of documents that are worked on where they are: handing over less costs more than it saves.
const ON_THE_SPOT: usize = 4 << 10;

/// Runs `work` on a thread for blocking work; on the spot if it is about few bytes.
pub(crate) async fn offload<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, GivenUp> {
    if bytes <= ON_THE_SPOT {
        return Ok(work());
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        // A panic stays one, as if the work had been done here.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is being shut down.
            Err(_) => Err(GivenUp::Shutdown),
        },
    }
}

/// Runs `work` as [`offload`] does without waiting for it.
pub(crate) fn beside(bytes: usize, work: impl FnOnce() + Send + 'static) {
    if bytes <= ON_THE_SPOT {
        work();
    } else {
        tokio::task::spawn_blocking(work);
    }
}
